//! Every bound and time of a session in one place.

use std::time::Duration;

/// Bounds and times of a [`Session`](super::Session). The defaults suit a
/// coordinator in the same data centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Calls that may be open at once; further ones wait for room.
    pub open_calls: usize,
    /// Deliveries that may be unanswered at once; further slots wait for room.
    pub open_deliveries: usize,
    /// Frames without an answer that may wait to be written; further ones wait for room.
    pub queued_frames: usize,
    /// Largest encoded request in bytes; a larger one would end the stream at the coordinator.
    pub frame_bytes: usize,
    /// How long one attempt to connect may take.
    pub connect: Duration,
    /// How long the coordinator may take to answer the opening frame.
    pub opening: Duration,
    /// A silent connection is probed this often.
    pub keep_alive_interval: Duration,
    /// A probe without an answer ends the connection after this time.
    pub keep_alive_timeout: Duration,
    /// Pause after the first failed round over all addresses.
    pub backoff_first: Duration,
    /// Longest pause between two rounds.
    pub backoff_longest: Duration,
    /// A connection that lived shorter than this counts as a failed attempt, so
    /// that one that is closed at once does not make a busy loop.
    pub stable_after: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            open_calls: 8192,
            open_deliveries: 16_384,
            queued_frames: 16_384,
            // tonic's receivers refuse messages above 4 MiB; the rest is for the envelope.
            frame_bytes: 4 * 1024 * 1024 - 1024,
            connect: Duration::from_secs(3),
            opening: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(3),
            keep_alive_timeout: Duration::from_secs(6),
            backoff_first: Duration::from_millis(50),
            backoff_longest: Duration::from_secs(2),
            stable_after: Duration::from_secs(2),
        }
    }
}

/// HTTP/2 flow-control window of the stream, in bytes: large enough that a full
/// pipe never waits for a window update.
pub(super) const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// HTTP/2 flow-control window of the connection, in bytes.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Frames that the writer takes from the queue at once: about one HTTP/2 frame
/// of typical requests.
pub(super) const WRITE_CHUNK: usize = 256;
/// Events that the reader handles before it looks at anything else.
pub(super) const READ_CHUNK: usize = 256;
/// Pause before a delivery that the coordinator could not take now is sent again,
/// when it gave no hint.
const DELIVERY_RETRY: Duration = Duration::from_millis(100);
/// Longest pause before such a delivery is sent again, whatever the hint says.
const DELIVERY_RETRY_LONGEST: Duration = Duration::from_secs(5);

/// The pause before a delivery is sent again after the coordinator's hint of
/// `retry_after_ms`, 0 when it gave none.
pub(super) fn delivery_pause(retry_after_ms: u32) -> Duration {
    match retry_after_ms {
        0 => DELIVERY_RETRY,
        hint => Duration::from_millis(hint.into()).min(DELIVERY_RETRY_LONGEST),
    }
}

/// The pause after `failed_rounds` (1, 2, …) failed rounds: doubles, is capped,
/// and is spread by `spread` in [0, 1) over its upper half so that many clients
/// do not come back at once.
pub(super) fn backoff(limits: &SessionLimits, failed_rounds: u32, spread: f64) -> Duration {
    let doublings = failed_rounds.saturating_sub(1).min(16);
    let full = limits
        .backoff_first
        .saturating_mul(1 << doublings)
        .min(limits.backoff_longest);
    full.mul_f64(0.5 + spread.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_followed_up_to_a_bound() {
        assert_eq!(delivery_pause(0), DELIVERY_RETRY);
        assert_eq!(delivery_pause(7), Duration::from_millis(7));
        assert_eq!(delivery_pause(u32::MAX), DELIVERY_RETRY_LONGEST);
    }

    #[test]
    fn backoff_doubles_up_to_its_cap() {
        let limits = SessionLimits::default();
        assert_eq!(backoff(&limits, 1, 1.0), Duration::from_millis(50));
        assert_eq!(backoff(&limits, 2, 1.0), Duration::from_millis(100));
        assert_eq!(backoff(&limits, 1, 0.0), Duration::from_millis(25));
        assert_eq!(backoff(&limits, u32::MAX, 1.0), limits.backoff_longest);
        assert_eq!(
            backoff(&limits, u32::MAX, 0.0),
            limits.backoff_longest.mul_f64(0.5)
        );
    }
}
