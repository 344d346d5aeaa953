//! Which status may follow which, for transactions and branches. Nothing else changes a status.

use crate::reply::Decision;

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Open: branches may register.
    Active,
    /// Decided commit; branches of 3PC hear that, the others are being finished. Only a transaction
    /// with done branches of 3PC is ever there.
    PreCommitted,
    /// Decided commit; branches are being finished.
    Committing,
    /// Every branch is finished.
    Committed,
    /// Decided rollback; branches are being undone.
    RollingBack,
    /// Every branch is undone.
    RolledBack,
    /// Decided this way, and at least one branch needs a person.
    Stuck(Decision),
    /// Its commit was asked for, and its only branch decides: the database of that branch was told
    /// to commit in one phase, and its answer is the decision. Nothing else decides meanwhile.
    Delegated,
}

/// What can happen to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Decide(Decision),
    /// Decided commit, and branches of 3PC must hear of it first.
    DecidePreCommit,
    /// Its only branch shall decide.
    Delegate,
    /// Branches of 3PC have heard of the decision, or had the time.
    PreCommitIsOver,
    /// A branch needs a person.
    GetStuck,
    /// No branch needs a person any more.
    Repaired,
    /// The last branch is finished.
    End,
}

impl Status {
    /// The status after `event`; `None` if it cannot happen now, which is a bug of the caller.
    pub(crate) const fn next(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Active, Event::Decide(Decision::Commit)) => Some(Self::Committing),
            (Self::Active, Event::Decide(Decision::RollBack)) => Some(Self::RollingBack),
            (Self::Active, Event::DecidePreCommit) => Some(Self::PreCommitted),
            (Self::Active, Event::Delegate) => Some(Self::Delegated),
            (Self::Delegated, Event::Decide(Decision::Commit)) => Some(Self::Committing),
            (Self::Delegated, Event::Decide(Decision::RollBack)) => Some(Self::RollingBack),
            (Self::PreCommitted, Event::PreCommitIsOver) => Some(Self::Committing),
            (Self::Committing, Event::GetStuck) => Some(Self::Stuck(Decision::Commit)),
            (Self::RollingBack, Event::GetStuck) => Some(Self::Stuck(Decision::RollBack)),
            (Self::Stuck(decision), Event::GetStuck) => Some(Self::Stuck(decision)),
            (Self::Stuck(Decision::Commit), Event::Repaired) => Some(Self::Committing),
            (Self::Stuck(Decision::RollBack), Event::Repaired) => Some(Self::RollingBack),
            (Self::Committing, Event::End) => Some(Self::Committed),
            (Self::RollingBack, Event::End) => Some(Self::RolledBack),
            (
                Self::Active,
                Event::PreCommitIsOver | Event::GetStuck | Event::Repaired | Event::End,
            )
            // What goes wrong is tried again: there is nothing that a person could decide.
            | (
                Self::Delegated,
                Event::DecidePreCommit
                | Event::Delegate
                | Event::PreCommitIsOver
                | Event::GetStuck
                | Event::Repaired
                | Event::End,
            )
            // What gets stuck ends it first.
            | (
                Self::PreCommitted,
                Event::Decide(_)
                | Event::DecidePreCommit
                | Event::Delegate
                | Event::GetStuck
                | Event::Repaired
                | Event::End,
            )
            | (
                Self::Committing | Self::RollingBack,
                Event::Decide(_)
                | Event::DecidePreCommit
                | Event::Delegate
                | Event::PreCommitIsOver
                | Event::Repaired,
            )
            | (
                Self::Stuck(_),
                Event::Decide(_)
                | Event::DecidePreCommit
                | Event::Delegate
                | Event::PreCommitIsOver
                | Event::End,
            )
            | (
                Self::Committed | Self::RolledBack,
                Event::Decide(_)
                | Event::DecidePreCommit
                | Event::Delegate
                | Event::PreCommitIsOver
                | Event::GetStuck
                | Event::Repaired
                | Event::End,
            ) => None,
        }
    }

    /// What was decided, if it was.
    #[must_use]
    pub const fn decision(self) -> Option<Decision> {
        match self {
            Self::Active | Self::Delegated => None,
            Self::PreCommitted | Self::Committing | Self::Committed => Some(Decision::Commit),
            Self::RollingBack | Self::RolledBack => Some(Decision::RollBack),
            Self::Stuck(decision) => Some(decision),
        }
    }

    /// Every branch is finished.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Committed | Self::RolledBack)
    }
}

/// Where a branch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchStatus {
    /// Joined; its local commit is not reported yet.
    Registered,
    /// Its local commit is durable.
    Done,
    /// Its local transaction rolled back before the decision; it no longer counts.
    Withdrawn,
    /// Ordered to finish, or waiting for the next attempt.
    Finishing,
    /// Finished as decided.
    Finished,
    /// Needs a person.
    Stuck,
    /// An operator kept the rows as they were and dropped the undo record.
    Accepted,
    /// An operator finished the transaction without it.
    Skipped,
    /// Of 3PC: it has heard that the commit is decided, and waits for its order.
    PreCommitted,
    /// Of XA: its statements are done, and its local transaction is kept open until it is known
    /// whether it must be prepared or can commit in one phase.
    KeptOpen,
}

/// What can happen to a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BranchEvent {
    Done,
    Withdraw,
    /// An order goes out, the first or after a repair.
    Order,
    Finish,
    GetStuck,
    Accept,
    Skip,
    /// It has heard of the commit.
    PreCommit,
    /// Its local transaction stays open.
    KeepOpen,
}

impl BranchStatus {
    /// The status after `event`; `None` if it cannot happen now.
    pub(crate) const fn next(self, event: BranchEvent) -> Option<Self> {
        match (self, event) {
            (Self::Registered | Self::KeptOpen, BranchEvent::Done) => Some(Self::Done),
            (Self::Registered | Self::KeptOpen, BranchEvent::Withdraw) => Some(Self::Withdrawn),
            (Self::Registered, BranchEvent::KeepOpen) => Some(Self::KeptOpen),
            (
                Self::Registered | Self::KeptOpen | Self::Done | Self::Stuck | Self::PreCommitted,
                BranchEvent::Order,
            ) => Some(Self::Finishing),
            (Self::Finishing, BranchEvent::PreCommit) => Some(Self::PreCommitted),
            // A success of any attempt is final, also one that comes after the branch got stuck.
            (Self::Finishing | Self::Stuck | Self::PreCommitted, BranchEvent::Finish) => {
                Some(Self::Finished)
            }
            // A step of a saga: a commit leaves nothing to do.
            (Self::Done, BranchEvent::Finish) => Some(Self::Finished),
            (Self::Finishing, BranchEvent::GetStuck) => Some(Self::Stuck),
            (Self::Finishing, BranchEvent::Accept) => Some(Self::Accepted),
            (Self::Stuck, BranchEvent::Skip) => Some(Self::Skipped),
            (
                Self::Registered | Self::KeptOpen,
                BranchEvent::Finish
                | BranchEvent::GetStuck
                | BranchEvent::Accept
                | BranchEvent::Skip
                | BranchEvent::PreCommit,
            )
            | (Self::KeptOpen, BranchEvent::KeepOpen)
            | (
                Self::Done,
                BranchEvent::KeepOpen
                | BranchEvent::Done
                | BranchEvent::Withdraw
                | BranchEvent::GetStuck
                | BranchEvent::Accept
                | BranchEvent::Skip
                | BranchEvent::PreCommit,
            )
            | (
                Self::Finishing,
                BranchEvent::KeepOpen
                | BranchEvent::Done
                | BranchEvent::Withdraw
                | BranchEvent::Order
                | BranchEvent::Skip,
            )
            | (
                Self::Stuck,
                BranchEvent::KeepOpen
                | BranchEvent::Done
                | BranchEvent::Withdraw
                | BranchEvent::GetStuck
                | BranchEvent::Accept
                | BranchEvent::PreCommit,
            )
            | (
                Self::PreCommitted,
                BranchEvent::KeepOpen
                | BranchEvent::Done
                | BranchEvent::Withdraw
                | BranchEvent::GetStuck
                | BranchEvent::Accept
                | BranchEvent::Skip
                | BranchEvent::PreCommit,
            )
            | (
                Self::Withdrawn | Self::Finished | Self::Accepted | Self::Skipped,
                BranchEvent::KeepOpen
                | BranchEvent::Done
                | BranchEvent::Withdraw
                | BranchEvent::Order
                | BranchEvent::Finish
                | BranchEvent::GetStuck
                | BranchEvent::Accept
                | BranchEvent::Skip
                | BranchEvent::PreCommit,
            ) => None,
        }
    }

    /// Nothing is owed to it any more.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(
            self,
            Self::Withdrawn | Self::Finished | Self::Accepted | Self::Skipped
        )
    }

    /// The word for tables and the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Done => "done",
            Self::Withdrawn => "withdrawn",
            Self::Finishing => "finishing",
            Self::Finished => "finished",
            Self::Stuck => "stuck",
            Self::Accepted => "accepted",
            Self::Skipped => "skipped",
            Self::PreCommitted => "pre-committed",
            Self::KeptOpen => "kept open",
        }
    }
}
