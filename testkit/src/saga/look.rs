//! What was seen after a call.

use crate::report::{Call, Rule};

/// What the call was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A step came to an end of its own.
    Effect,
    /// It took back a step.
    Compensated,
    /// It should take back a step that did nothing.
    NeverDone,
    /// The same came before.
    Repeated,
    /// A step came after its compensation.
    TooLate,
    /// All is over.
    End,
}

/// What was seen when nothing was under way.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) kind: Kind,
    pub(super) call: String,
    /// The steps that are done and not compensated, by the numbers of their sagas and their places
    /// in the plans.
    pub(super) done: Vec<(u64, usize)>,
    pub(super) seen: String,
}

impl Kind {
    /// It must change nothing.
    pub(super) const fn is_idle(self) -> bool {
        matches!(self, Self::NeverDone | Self::Repeated | Self::TooLate)
    }

    /// What is broken if it is found otherwise.
    pub(super) fn rule(self, call: String, expected: String, found: String) -> Rule {
        let of_call = |call, expected, found| Call {
            call,
            expected,
            found,
        };
        match self {
            Self::Effect | Self::End => Rule::SameAsUndisturbed { expected, found },
            Self::Compensated => Rule::Compensated(of_call(call, expected, found)),
            Self::NeverDone => Rule::NeverDone(of_call(call, expected, found)),
            Self::Repeated => Rule::Repeated(of_call(call, expected, found)),
            Self::TooLate => Rule::TooLate(of_call(call, expected, found)),
        }
    }
}
