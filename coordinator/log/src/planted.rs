//! Bugs planted on purpose, to prove that the simulator finds them. Compiled with the feature
//! `planted-bugs` only, which no daemon has; even then nothing is wrong until one is chosen.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// A bug that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Entries are acknowledged when they are written, before they are forced to disk.
    AcknowledgedBeforeForced = 1,
    /// The name of a new segment is not forced to disk.
    SegmentNameNotForced,
    /// Records that an earlier use of a segment left behind count.
    OldRecordsCount,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 3] = [
        Self::AcknowledgedBeforeForced,
        Self::SegmentNameNotForced,
        Self::OldRecordsCount,
    ];

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AcknowledgedBeforeForced => "acknowledged-before-forced",
            Self::SegmentNameNotForced => "segment-name-not-forced",
            Self::OldRecordsCount => "old-records-count",
        }
    }
}

static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Switches one bug on, in the whole process, and the one before off.
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), Relaxed);
}

/// Whether this bug is on.
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.load(Relaxed) == bug as u8
}
