//! The announcement of a transaction.

use alloc::{sync::Arc, vec::Vec};

use super::size;
use crate::{
    command::{Begin, Command},
    deadline::Timer,
    effect::Effect,
    handle::Context,
    id::Xid,
    limits::{MAX_OPEN_TRANSACTIONS, MAX_TIMEOUT_MS},
    reply::{Rejection, Reply, Waiter, Whereabouts},
    state::status_slot,
    status::Status,
    transaction::Transaction,
};

impl Context<'_> {
    pub(crate) fn begin(&mut self, command: &Begin) -> Reply {
        match self.try_begin(command) {
            Ok(()) => Reply::Ok,
            Err(rejection) => Reply::Refused(rejection),
        }
    }

    fn try_begin(&mut self, command: &Begin) -> Result<(), Rejection> {
        let xid = command.xid;
        size::name("a transaction's name", &command.name)?;
        size::check(
            "the time-out in milliseconds",
            command.timeout_ms as usize,
            MAX_TIMEOUT_MS as usize,
        )?;
        if command.timeout_ms == 0 {
            return Err(Rejection::Malformed(
                "a time-out must be at least one millisecond",
            ));
        }
        if self.state.leased.get(&command.process) != Some(&xid.worker()) {
            return Err(Rejection::LeaseEnded);
        }
        match self.state.whereabouts(xid) {
            // Sent again after a reconnect.
            Whereabouts::Known => return Ok(()),
            Whereabouts::Forgotten => return Err(Rejection::Forgotten),
            Whereabouts::NotBegun => {}
        }
        let worker = self
            .state
            .workers
            .get_mut(&xid.worker())
            .expect("it is leased");
        if !(worker.floor_ms..worker.ceiling_ms).contains(&xid.time_ms()) {
            return Err(Rejection::OutsideLease);
        }
        // Also when it is refused below: from here on nobody shall wait for it to begin.
        worker.begun_through = Some(xid);
        if self.open_transactions() >= MAX_OPEN_TRANSACTIONS as u64 {
            self.unpark(xid);
            return Err(Rejection::TooManyOpen {
                limit: MAX_OPEN_TRANSACTIONS as u64,
            });
        }
        self.open(command);
        self.unpark(xid);
        Ok(())
    }

    fn open_transactions(&self) -> u64 {
        let counts = self.state.counts();
        counts.active
            + counts.delegated
            + counts.pre_committed
            + counts.committing
            + counts.rolling_back
            + counts.stuck
    }

    fn open(&mut self, command: &Begin) {
        let state = &mut *self.state;
        let deadline = state.now.plus(u64::from(command.timeout_ms));
        let transaction = Transaction {
            xid: command.xid,
            name: Arc::clone(&command.name),
            parent: command.parent,
            began_at: state.now,
            began_wall: self.wall,
            deadline,
            status: Status::Active,
            reason: None,
            commit_until: None,
            pre_commit_until: None,
            lease_ended: false,
            ended_at: None,
            branches: Vec::new(),
            requests: Vec::new(),
            repairs: Vec::new(),
            saga: None,
        };
        state.by_status[status_slot(Status::Active)] += 1;
        state.transactions.insert(transaction);
        state.deadlines.arm(deadline, Timer::Deadline(command.xid));
        if let Some(worker) = state.workers.get_mut(&command.xid.worker()) {
            worker.undecided.insert(command.xid);
        }
        if let Some(parent) = command.parent {
            state.nested.entry(parent).or_default().insert(command.xid);
        }
    }

    /// Requests that came before the begin take their turn.
    fn unpark(&mut self, xid: Xid) {
        let Some(parked) = self.state.parked.remove(&xid) else {
            return;
        };
        self.state.parked_requests -= parked.commands.len();
        self.state.payload_bytes -= parked.payload_bytes();
        self.state
            .deadlines
            .disarm(parked.until, Timer::Parked(xid));
        for command in parked.commands {
            let (request, reply) = match command {
                Command::RegisterBranch(c) => (c.request, self.register_branch(c)),
                Command::CheckLocks(c) => (c.request, self.check_locks(c)),
                Command::StartSaga(c) => (c.request, self.start_saga(c)),
                // Its caller was answered when it was parked; the same id is another request's.
                Command::WithdrawBranch(c) => {
                    self.withdraw_branch(&c);
                    continue;
                }
                _ => unreachable!("nothing else is parked"),
            };
            if !matches!(reply, Reply::Waiting(_)) {
                let waiter = Waiter::Request(xid, request);
                self.effects.push(Effect::Answer { waiter, reply });
            }
        }
    }
}
