//! What a participant of Accede's three-phase commit does about what it knows, as a table: the
//! model goes by it, and docs/three-phase.md shows it.

use std::fmt::Write as _;

/// How far a participant is. Durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    Working,
    Prepared,
    PreCommitted,
    Committed,
    Aborted,
}

/// What a participant knows of the transaction. All but silence is what the log has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Knows {
    Silence,
    Undecided,
    PreCommitted,
    Committing,
    RollingBack,
}

/// What a participant may do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    /// Vote yes or no, when it is asked, or abort by itself.
    Choose,
    Abort,
    /// Ask a coordinator node, repeat its yes, and wait as long as it takes.
    Ask,
    PreCommit,
    Commit,
    /// There is nothing left to do.
    Rest,
    /// This cannot be; it changes nothing and raises an alarm.
    Never,
}

impl Phase {
    pub(crate) const ALL: [Self; 5] = [
        Self::Working,
        Self::Prepared,
        Self::PreCommitted,
        Self::Committed,
        Self::Aborted,
    ];

    fn text(self) -> &'static str {
        match self {
            Self::Working => "not voted yet",
            Self::Prepared => "voted yes",
            Self::PreCommitted => "pre-committed",
            Self::Committed => "committed",
            Self::Aborted => "aborted",
        }
    }
}

impl Knows {
    pub(crate) const ALL: [Self; 5] = [
        Self::Silence,
        Self::Undecided,
        Self::PreCommitted,
        Self::Committing,
        Self::RollingBack,
    ];

    fn text(self) -> &'static str {
        match self {
            Self::Silence => "nothing: no news in time",
            Self::Undecided => "undecided",
            Self::PreCommitted => "PreCommitted",
            Self::Committing => "Committing",
            Self::RollingBack => "RollingBack",
        }
    }
}

impl May {
    fn text(self) -> &'static str {
        match self {
            Self::Choose => "vote when asked; abort alone",
            Self::Abort => "abort",
            Self::Ask => "wait and ask; never decide",
            Self::PreCommit => "pre-commit",
            Self::Commit => "commit",
            Self::Rest => "–",
            Self::Never => "cannot be: alarm",
        }
    }
}

/// What a participant in this phase may do that knows this.
pub(crate) fn may(phase: Phase, knows: Knows) -> May {
    match (phase, knows) {
        (Phase::Working, Knows::Silence | Knows::Undecided) => May::Choose,
        (Phase::Working, Knows::RollingBack) => May::Abort,
        // A pre-commit needs its yes.
        (Phase::Working, Knows::PreCommitted | Knows::Committing) => May::Never,

        // It gave its word. Silence says nothing of what others were told.
        (Phase::Prepared, Knows::Silence | Knows::Undecided) => May::Ask,
        (Phase::Prepared, Knows::PreCommitted) => May::PreCommit,
        (Phase::Prepared, Knows::Committing) => May::Commit,
        (Phase::Prepared, Knows::RollingBack) => May::Abort,

        // What it saw is decided and irrevocable. "Undecided" is an answer that came late.
        (Phase::PreCommitted, Knows::Silence | Knows::Undecided) => May::Commit,
        (Phase::PreCommitted, Knows::PreCommitted | Knows::Committing) => May::Commit,
        (Phase::PreCommitted, Knows::RollingBack) => May::Never,

        (Phase::Committed, Knows::Silence | Knows::Undecided) => May::Rest,
        (Phase::Committed, Knows::PreCommitted | Knows::Committing) => May::Rest,
        (Phase::Committed, Knows::RollingBack) => May::Never,

        (Phase::Aborted, Knows::Silence | Knows::Undecided | Knows::RollingBack) => May::Rest,
        (Phase::Aborted, Knows::PreCommitted | Knows::Committing) => May::Never,
    }
}

/// The table as it stands in docs/three-phase.md.
#[must_use]
pub fn alone_table() -> String {
    let mut table = String::from("| the participant has |");
    for knows in Knows::ALL {
        let _ = write!(table, " {} |", knows.text());
    }
    table += "\n|---|---|---|---|---|---|\n";
    for phase in Phase::ALL {
        let _ = write!(table, "| **{}** |", phase.text());
        for knows in Knows::ALL {
            let _ = write!(table, " {} |", may(phase, knows).text());
        }
        table.push('\n');
    }
    table
}
