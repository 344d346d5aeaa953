//! Why a command failed, and the exit code that says so.

use std::{fmt, process::ExitCode};

/// A failure as one sentence for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The command was used wrongly: exit code 2.
    Usage(String),
    /// The command was right and did not succeed: exit code 1.
    Failed(String),
}

impl Failure {
    /// The command was right and did not succeed.
    pub(crate) fn failed(reason: impl fmt::Display) -> Self {
        Self::Failed(reason.to_string())
    }

    /// The command was used wrongly.
    pub(crate) fn usage(reason: impl fmt::Display) -> Self {
        Self::Usage(reason.to_string())
    }

    /// 1 or 2.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(reason) | Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.code())
    }
}
