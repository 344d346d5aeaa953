//! Bugs planted on purpose, to prove that the simulator finds them. Compiled with the feature
//! `planted-bugs` only, which no daemon has; even then nothing is wrong until one is chosen.

use crate::mode::Mode;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// A bug that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Row locks of a branch are not restored from a snapshot.
    LockLostInSnapshot = 1,
    /// The deadline of a transaction is not restored from a snapshot.
    DeadlineLostInSnapshot,
    /// The outcome of an old attempt, ordered by a former leader, counts.
    LateOutcomeCounts,
    /// A request gets free rows although others have waited for them.
    WaiterSkipped,
    /// Rows that become free are given to nobody.
    WaiterForgotten,
    /// A further attempt has the number of the one before.
    AttemptReused,
    /// A transaction that timed out is decided again when its commit is asked for.
    DecidedTwice,
    /// Request ids are not looked up.
    RequestIdsForgotten,
    /// The row locks of a rollback are released when it is decided.
    LocksReleasedTooEarly,
    /// A commit is decided although a branch is not done.
    CommitWithoutDone,
    /// A new leader does not repeat the orders that are owed.
    OrdersLostInRestart,
    /// The first branch of a resource is undone first.
    UndoneInWrongOrder,
    /// Circles of waiting transactions are not looked for.
    CyclesAllowed,
    /// Whoever overtakes a queue is taken to wait for all before it.
    OvertakersMisjudged,
    /// Writers do not mind those who hold a row shared.
    ReadersIgnored,
    /// Escrow is granted as if everyone would commit.
    EscrowUnbounded,
    /// A lease starts where the wall clock stands, not above what was leased before.
    LeaseFollowsTheClock,
    /// Nobody lets go for a transaction that stands still in a database.
    BlockedIgnored,
    /// Branches of 3PC are ordered to commit at once.
    PreCommitSkipped,
    /// The first that has heard of a commit lets all of 3PC commit.
    PreCommitNotAwaited,
    /// One that is away holds up the others of 3PC for ever.
    PreCommitWaitsForEver,
    /// A branch of 3PC that says yes is told of a commit that nobody has decided.
    PreCommitBeforeDecision,
    /// The first step of a saga is compensated first.
    CompensatedInStartOrder,
    /// A step is started although one that it waits for is not done.
    StepTooEarly,
    /// A step that is under way when the rollback is decided counts as never started.
    StepInFlightForgotten,
    /// A step's late success is taken for the success of its compensation.
    LateStepEndsCompensation,
    /// A try that has not reported when the rollback is decided counts as never begun.
    TryInFlightForgotten,
    /// The same of a transaction that a database prepares.
    PrepareInFlightForgotten,
    /// In a rollback what was tried is confirmed.
    TryConfirmedInRollback,
    /// The deadline rolls back a transaction that its only branch decides.
    DelegatedTimesOut,
    /// A branch that is kept open counts as prepared as soon as it is ordered to prepare.
    VoteNotAwaited,
    /// An agent commits in one phase and writes no fence, so that nobody can see it. The bug is the
    /// simulated agent's.
    CommittedWithoutFence,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 32] = [
        Self::LockLostInSnapshot,
        Self::DeadlineLostInSnapshot,
        Self::LateOutcomeCounts,
        Self::WaiterSkipped,
        Self::WaiterForgotten,
        Self::AttemptReused,
        Self::DecidedTwice,
        Self::RequestIdsForgotten,
        Self::LocksReleasedTooEarly,
        Self::CommitWithoutDone,
        Self::OrdersLostInRestart,
        Self::UndoneInWrongOrder,
        Self::CyclesAllowed,
        Self::OvertakersMisjudged,
        Self::ReadersIgnored,
        Self::EscrowUnbounded,
        Self::LeaseFollowsTheClock,
        Self::BlockedIgnored,
        Self::PreCommitSkipped,
        Self::PreCommitNotAwaited,
        Self::PreCommitWaitsForEver,
        Self::PreCommitBeforeDecision,
        Self::CompensatedInStartOrder,
        Self::StepTooEarly,
        Self::StepInFlightForgotten,
        Self::LateStepEndsCompensation,
        Self::TryInFlightForgotten,
        Self::PrepareInFlightForgotten,
        Self::TryConfirmedInRollback,
        Self::DelegatedTimesOut,
        Self::VoteNotAwaited,
        Self::CommittedWithoutFence,
    ];

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LockLostInSnapshot => "lock-lost-in-snapshot",
            Self::DeadlineLostInSnapshot => "deadline-lost-in-snapshot",
            Self::LateOutcomeCounts => "late-outcome-counts",
            Self::WaiterSkipped => "waiter-skipped",
            Self::WaiterForgotten => "waiter-forgotten",
            Self::AttemptReused => "attempt-reused",
            Self::DecidedTwice => "decided-twice",
            Self::RequestIdsForgotten => "request-ids-forgotten",
            Self::LocksReleasedTooEarly => "locks-released-too-early",
            Self::CommitWithoutDone => "commit-without-done",
            Self::OrdersLostInRestart => "orders-lost-in-restart",
            Self::UndoneInWrongOrder => "undone-in-wrong-order",
            Self::CyclesAllowed => "cycles-allowed",
            Self::OvertakersMisjudged => "overtakers-misjudged",
            Self::ReadersIgnored => "readers-ignored",
            Self::EscrowUnbounded => "escrow-unbounded",
            Self::LeaseFollowsTheClock => "lease-follows-the-clock",
            Self::BlockedIgnored => "blocked-ignored",
            Self::PreCommitSkipped => "pre-commit-skipped",
            Self::PreCommitNotAwaited => "pre-commit-not-awaited",
            Self::PreCommitWaitsForEver => "pre-commit-waits-for-ever",
            Self::PreCommitBeforeDecision => "pre-commit-before-decision",
            Self::CompensatedInStartOrder => "compensated-in-start-order",
            Self::StepTooEarly => "step-too-early",
            Self::StepInFlightForgotten => "step-in-flight-forgotten",
            Self::LateStepEndsCompensation => "late-step-ends-compensation",
            Self::TryInFlightForgotten => "try-in-flight-forgotten",
            Self::PrepareInFlightForgotten => "prepare-in-flight-forgotten",
            Self::TryConfirmedInRollback => "try-confirmed-in-rollback",
            Self::DelegatedTimesOut => "delegated-times-out",
            Self::VoteNotAwaited => "vote-not-awaited",
            Self::CommittedWithoutFence => "committed-without-fence",
        }
    }
}

static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Switches one bug on, in the whole process, and the one before off.
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), Relaxed);
}

/// Whether this bug is on.
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.load(Relaxed) == bug as u8
}

/// Whether branches of this mode that have not reported are forgotten in a rollback.
pub(crate) fn forgets(mode: Mode) -> bool {
    is(match mode {
        Mode::Saga => Bug::StepInFlightForgotten,
        Mode::Tcc => Bug::TryInFlightForgotten,
        Mode::Xa => Bug::PrepareInFlightForgotten,
        Mode::At | Mode::ThreePhase => return false,
    })
}
