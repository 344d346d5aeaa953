//! What a participant of 3PC does about what it knows, as a table: agents, the simulator and the
//! model all go by it, and docs/three-phase.md shows it.

use alloc::string::String;
use core::fmt::Write as _;

use crate::{
    id::Xid,
    reply::{Decision, Whereabouts},
    state::State,
    status::Status,
};

/// How far a participant is. Durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It has not voted.
    Working,
    /// It voted yes, and keeps its promise.
    Prepared,
    /// It has heard that the commit is decided.
    PreCommitted,
    /// It has committed.
    Committed,
    /// It has given back what it reserved.
    Aborted,
}

/// What a participant knows of the transaction. All but silence is what the log has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Knows {
    /// Nothing: nobody answered in time.
    Silence,
    /// It is not decided.
    Undecided,
    /// The commit is decided, and participants are hearing of it.
    PreCommitted,
    /// The commit is decided, and ordered.
    Committing,
    /// The rollback is decided.
    RollingBack,
}

/// What a participant may do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Vote yes or no, when it is asked, or abort by itself.
    Choose,
    /// Give back what was reserved.
    Abort,
    /// Ask a coordinator node, repeat its yes, and wait as long as it takes.
    Ask,
    /// Note durably that the commit is decided.
    PreCommit,
    /// Turn the promise into what it was for.
    Commit,
    /// There is nothing left to do.
    Rest,
    /// This cannot be; it changes nothing and raises an alarm.
    Never,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Working,
        Self::Prepared,
        Self::PreCommitted,
        Self::Committed,
        Self::Aborted,
    ];

    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
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
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Silence,
        Self::Undecided,
        Self::PreCommitted,
        Self::Committing,
        Self::RollingBack,
    ];

    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Silence => "nothing: no news in time",
            Self::Undecided => "undecided",
            Self::PreCommitted => "PreCommitted",
            Self::Committing => "Committing",
            Self::RollingBack => "RollingBack",
        }
    }
}

impl From<Status> for Knows {
    fn from(status: Status) -> Self {
        match status {
            Status::Active | Status::Delegated => Self::Undecided,
            Status::PreCommitted => Self::PreCommitted,
            Status::Committing | Status::Committed | Status::Stuck(Decision::Commit) => {
                Self::Committing
            }
            Status::RollingBack | Status::RolledBack | Status::Stuck(Decision::RollBack) => {
                Self::RollingBack
            }
        }
    }
}

/// What the coordinator can tell a participant that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It knows the transaction.
    Known(Knows),
    /// It never heard of it.
    NeverBegun,
    /// It ended too long ago to know how.
    Forgotten,
}

impl State {
    /// What a participant is told that asks about this transaction. To be answered by a leader
    /// behind a read barrier alone.
    #[must_use]
    pub fn standing(&self, xid: Xid) -> Standing {
        match (self.transaction(xid), self.whereabouts(xid)) {
            (Some(transaction), _) => Standing::Known(transaction.status().into()),
            (None, Whereabouts::NotBegun) => Standing::NeverBegun,
            (None, Whereabouts::Forgotten | Whereabouts::Known) => Standing::Forgotten,
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
#[must_use]
pub const fn may(phase: Phase, knows: Knows) -> May {
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
