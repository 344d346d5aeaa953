//! The one door through which the state changes.

use crate::{
    command::{Command, Entry},
    effect::Effects,
    handle::Context,
    reply::Reply,
    state::State,
};

impl State {
    /// Applies a decided entry: changes the state, adds what must happen outside to `effects`
    /// and returns the answer. Entries must come in log order.
    ///
    /// # Panics
    /// If time runs backwards in the log, or a rule of the state machine itself is broken: both
    /// are bugs, and going on could tear a transaction.
    pub fn apply(&mut self, entry: Entry, effects: &mut Effects) -> Reply {
        assert!(
            entry.at >= self.now,
            "entry {} goes back in time",
            entry.index
        );
        self.now = entry.at;
        let mut cx = Context {
            state: self,
            effects,
            wall: entry.wall,
        };
        match entry.command {
            Command::TakeOffice(c) => cx.take_office(&c, entry.index),
            Command::LeaseWorker(c) => cx.lease_worker(&c),
            Command::EndLease(c) => cx.end_lease(&c),
            Command::Begin(c) => cx.begin(&c),
            Command::BindResource(c) => cx.bind_resource(&c),
            Command::NameAction(c) => cx.name_action(&c),
            Command::RegisterBranch(c) => cx.register_branch(c),
            Command::CheckLocks(c) => cx.check_locks(c),
            Command::BranchDone(c) => cx.branch_done(&c),
            Command::WithdrawBranch(c) => cx.withdraw_branch(&c),
            Command::DoomBranch(c) => cx.doom_branch(&c),
            Command::Blocked(c) => cx.blocked(c),
            Command::Commit(c) => cx.commit(&c),
            Command::RollBack(c) => cx.roll_back(&c),
            Command::FinishBranch(c) => cx.finish_branch(&c),
            Command::Expire => cx.expire(),
            Command::Repair(c) => cx.repair(&c),
            Command::StartSaga(c) => cx.start_saga(c),
        }
    }
}
