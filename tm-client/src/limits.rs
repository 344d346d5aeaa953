//! Every default, bound and time of this crate in one place.

use std::time::Duration;

/// How long a transaction may stay undecided when [`Options`](crate::Options)
/// does not say: long enough for a few slow calls, short enough that rows of a
/// forgotten transaction are free again before people notice.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest time-out that may be asked for: row locks are held that long, and
/// it travels as milliseconds in 32 bits.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest time-out that may be asked for: the unit in which it travels.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(1);

/// The longest name of a transaction or client, in bytes: enough to recognise
/// it, small enough to be kept for each transaction.
pub const MAX_NAME_BYTES: usize = 128;

/// The longest reason of a rollback that is sent, in bytes; the rest is cut off.
pub const MAX_REASON_BYTES: usize = 512;

/// How long a commit is asked for again before its outcome is reported as
/// unknown: covers a restart of the coordinator and the change of a leader.
pub const DECISION_PATIENCE: Duration = Duration::from_secs(30);

/// How long a rollback is asked for. Shorter, because nothing is lost when it
/// ends: the transaction's time-out rolls back all the same.
pub const ROLL_BACK_PATIENCE: Duration = Duration::from_secs(5);

/// How long `outcome` waits for an answer.
pub const OUTCOME_PATIENCE: Duration = Duration::from_secs(10);

/// How long `begin` waits when there is no live lease or no room for a begin,
/// and `connect` for the first lease.
pub const BEGIN_PATIENCE: Duration = Duration::from_secs(5);

/// How long `shutdown` waits for open requests.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// Begins that were announced and of which the coordinator has not said that
/// they are logged. They are kept to be sent again after a reconnect; at the
/// bound `begin` waits. About a tenth of a second of the highest load.
pub const MAX_UNLOGGED_BEGINS: usize = 16_384;

/// Steps of one saga.
pub const MAX_STEPS: usize = 64;

/// The largest input of a saga's step, in bytes of JSON: what the coordinator keeps of it.
pub const MAX_STEP_INPUT_BYTES: usize = 64 * 1024;

/// How long an attempt to do a step of a saga may take unless the plan says otherwise.
pub const DEFAULT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Failed attempts after which a step of a saga is given up unless the plan says otherwise.
pub const DEFAULT_ATTEMPTS: u32 = 3;

/// Hooks of one transaction.
pub const MAX_HOOKS: usize = 64;

/// Rollbacks of dropped guards that may be under way at once. Those beyond are
/// left to the transaction's time-out.
pub const MAX_ROLL_BACKS_OF_DROPPED: usize = 1024;

/// A lease is renewed when this part of its time-to-live has passed, so that two
/// attempts may fail: a third.
pub(crate) const RENEW_AFTER_PART: u32 = 3;

/// Shortest pause between two attempts to renew a lease.
pub(crate) const RENEW_PAUSE: Duration = Duration::from_millis(100);

/// First pause before a request is sent again that the coordinator could not
/// decide; doubles up to [`RETRY_PAUSE_LONGEST`].
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Longest pause before such a request is sent again, whatever the coordinator's hint.
pub(crate) const RETRY_PAUSE_LONGEST: Duration = Duration::from_secs(1);

const _: () = assert!(
    MAX_TIMEOUT.as_millis() <= u32::MAX as u128,
    "a time-out travels as 32 bits"
);
const _: () = assert!(DEFAULT_TIMEOUT.as_millis() <= MAX_TIMEOUT.as_millis());
