//! What registering a branch and checking locks share: repeats, queues, refusals.

use alloc::{collections::BTreeSet, vec::Vec};
use core::hash::Hasher as _;

#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    command::Command,
    deadline::Timer,
    effect::{Action, Effect},
    handle::Context,
    hash::Folded,
    id::{Attempt, BranchId, LockKey, RequestId, Timestamp, Xid},
    limits::{
        MAX_BRANCHES, MAX_LOCK_WAIT_MS, MAX_PARKED_REQUESTS, MAX_REQUESTS, MAX_WAITING_REQUESTS,
        PARK_MS,
    },
    reply::{Rejection, Reply, Waiter, Whereabouts},
    row_lock::{Ticket, TicketId, Wanted},
    state::Parked,
    status::{BranchStatus, Status},
    transaction::{Answer, Branch, Request},
};

impl Context<'_> {
    /// The reply to a register or check.
    pub(super) fn want(&mut self, wanted: Wanted) -> Reply {
        let (xid, request) = (wanted.xid(), wanted.request());
        let content = digest(&wanted);
        if let Some(repeat) = self.repeated(xid, request, content) {
            return repeat;
        }
        if self.state.whereabouts(xid) == Whereabouts::NotBegun {
            let command = match wanted {
                Wanted::Register(c) => Command::RegisterBranch(c),
                Wanted::Check(c) => Command::CheckLocks(c),
            };
            return self.park(xid, request, command);
        }
        let answer = match self
            .admit(&wanted)
            .and_then(|()| self.take_or_queue(wanted))
        {
            Ok(answer) => answer,
            Err(Shed::Unrecorded(rejection)) => return Reply::Refused(rejection),
            Err(Shed::Recorded(rejection)) => Answer::Refused(rejection),
        };
        let reply = self.reply_for(xid, request, &answer);
        let requests = &mut self.indexed(xid).requests;
        make_room(requests);
        requests.push(Request {
            id: request,
            content,
            answer,
        });
        reply
    }

    fn repeated(&self, xid: Xid, request: RequestId, content: u64) -> Option<Reply> {
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::RequestIdsForgotten) {
            return None;
        }
        let known = self.state.transactions.get(xid)?.request(request)?;
        if known.answer == Answer::Withdrawn {
            return Some(Reply::Refused(Rejection::Withdrawn));
        }
        if known.content != content {
            return Some(Reply::Refused(Rejection::DifferentContent));
        }
        Some(self.reply_for(xid, request, &known.answer))
    }

    fn reply_for(&self, xid: Xid, request: RequestId, answer: &Answer) -> Reply {
        match answer {
            Answer::Waiting(_) => Reply::Waiting(Waiter::Request(xid, request)),
            Answer::Registered { branch, give_up_ms } => Reply::Registered {
                branch: *branch,
                give_up_ms: *give_up_ms,
            },
            Answer::LocksFree => Reply::LocksFree,
            Answer::Refused(rejection) => Reply::Refused(rejection.clone()),
            Answer::Withdrawn => Reply::Refused(Rejection::Withdrawn),
        }
    }

    /// Keeps a request until its transaction's begin arrives.
    pub(super) fn park(&mut self, xid: Xid, request: RequestId, command: Command) -> Reply {
        let waiting = Reply::Waiting(Waiter::Request(xid, request));
        let now = self.state.now;
        if let Some(parked) = self.state.parked.get(&xid)
            && parked.commands.contains(&command)
        {
            return waiting;
        }
        if self.state.parked_requests >= MAX_PARKED_REQUESTS {
            let limit = MAX_PARKED_REQUESTS as u64;
            return Reply::Refused(Rejection::TooManyWaiting { limit });
        }
        self.state.parked_requests += 1;
        let state = &mut *self.state;
        let parked = state.parked.entry(xid).or_insert_with(|| {
            let until = now.plus(PARK_MS);
            state.deadlines.arm(until, Timer::Parked(xid));
            Parked {
                until,
                commands: Vec::new(),
            }
        });
        parked.commands.push(command);
        waiting
    }

    /// The refusals that do not depend on row locks, in order of precedence.
    fn admit(&mut self, wanted: &Wanted) -> Result<(), Shed> {
        let resource_known = self.state.databases.contains_key(wanted.resource());
        let transaction = self.known(wanted.xid()).map_err(Shed::Unrecorded)?;
        if transaction.requests.len() >= MAX_REQUESTS || transaction.branches.len() >= MAX_BRANCHES
        {
            let limit = MAX_BRANCHES as u64;
            return Err(Shed::Unrecorded(Rejection::TooManyBranches { limit }));
        }
        if let Some(decision) = transaction.decision() {
            return Err(Shed::Unrecorded(Rejection::AlreadyDecided(decision)));
        }
        if transaction.commit_asked() {
            return Err(Shed::Recorded(Rejection::CommitAsked));
        }
        if !resource_known {
            return Err(Shed::Recorded(Rejection::ResourceUnknown));
        }
        Ok(())
    }

    fn take_or_queue(&mut self, wanted: Wanted) -> Result<Answer, Shed> {
        if self.state.locks.is_free(&wanted, None) {
            return Ok(self.grant(wanted));
        }
        if let Some(rejection) = self.holder_in_the_way(&wanted) {
            return Err(Shed::Recorded(rejection));
        }
        let wait_ms = wanted.wait_limit_ms().min(MAX_LOCK_WAIT_MS);
        if wait_ms == 0 {
            return Err(Shed::Recorded(self.timed_out(&wanted, None)));
        }
        if let Some(cycle) = self.cycle(&wanted, None) {
            return Err(Shed::Recorded(Rejection::Deadlock { cycle }));
        }
        if self.state.locks.waiting() >= MAX_WAITING_REQUESTS {
            let limit = MAX_WAITING_REQUESTS as u64;
            return Err(Shed::Unrecorded(Rejection::TooManyWaiting { limit }));
        }
        let since = self.state.now;
        let until = since.plus(u64::from(wait_ms));
        let id = self.state.locks.enqueue(Ticket {
            wanted,
            since,
            until,
        });
        self.state.deadlines.arm(until, Timer::LockWait(id));
        Ok(Answer::Waiting(id))
    }

    /// A holder that is rolling back needs the local locks that the request holds.
    fn holder_in_the_way(&self, wanted: &Wanted) -> Option<Rejection> {
        if !wanted.holds_local_locks() {
            return None;
        }
        let undoing = |xid: &Xid| {
            let transaction = self.state.transactions.get(*xid);
            transaction.is_some_and(|t| t.status != Status::Active)
        };
        let holder = self.state.locks.holders(wanted).find(undoing)?;
        Some(Rejection::HolderRollingBack { holder })
    }

    fn cycle(&self, wanted: &Wanted, ticket: Option<TicketId>) -> Option<Vec<Xid>> {
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::CyclesAllowed) {
            return None;
        }
        let xid = wanted.xid();
        let transaction = self.state.transactions.get(xid)?;
        // Nobody can wait for a transaction that holds and queues for nothing and is not nested.
        let waited_for = transaction.parent.is_some()
            || transaction.branches.iter().any(|b| !b.locks.is_empty())
            || self.state.locks.tickets_of(xid).next().is_some();
        if !waited_for {
            return None;
        }
        let nested = |of: Xid| {
            self.state
                .nested
                .get(&of)
                .map(|n| n.iter().copied().collect())
                .unwrap_or_default()
        };
        self.state.locks.cycle(wanted, ticket, nested)
    }

    fn timed_out(&self, wanted: &Wanted, ticket: Option<TicketId>) -> Rejection {
        let blockers = self.state.locks.blockers(wanted, ticket);
        let holder = self.state.locks.holders(wanted).next();
        let holder = holder.or_else(|| blockers.into_iter().next());
        Rejection::LockWaitTimedOut {
            // Two requests of one transaction on one row cannot block each other for long; name it.
            holder: holder.unwrap_or(wanted.xid()),
        }
    }

    /// Gives a request what it wanted; nothing is in its way.
    fn grant(&mut self, wanted: Wanted) -> Answer {
        let Wanted::Register(register) = wanted else {
            return Answer::LocksFree;
        };
        self.state
            .locks
            .hold(register.xid, &register.resource, &register.locks);
        // One copy of each resource's name serves all branches.
        let known = self.state.databases.get_key_value(&register.resource);
        let resource = known.map_or(&register.resource, |(name, _)| name).clone();
        let now = self.now();
        let transaction = self.indexed(register.xid);
        let left = transaction.deadline.since(now);
        let give_up_ms = u32::try_from(left).unwrap_or(u32::MAX);
        let id = BranchId(transaction.branches.len() as u32 + 1);
        make_room(&mut transaction.branches);
        transaction.branches.push(Branch {
            id,
            resource,
            mode: register.mode,
            agent: register.agent,
            status: BranchStatus::Registered,
            was_done: false,
            locks: register.locks,
            action: Action::Commit,
            attempt: Attempt(0),
            failures: 0,
            outages: 0,
            next_attempt_at: None,
            problem: None,
        });
        Answer::Registered {
            branch: id,
            give_up_ms,
        }
    }

    /// Serves the queues: `candidates` may have come to the head of one.
    pub(super) fn serve(&mut self, mut candidates: BTreeSet<TicketId>) {
        while let Some(id) = candidates.pop_first() {
            let Some(ticket) = self.state.locks.ticket(id) else {
                continue;
            };
            if !self.state.locks.is_free(&ticket.wanted, Some(id)) {
                continue;
            }
            let Some((wanted, heads)) = self.leave_queues(id) else {
                continue;
            };
            let (xid, request) = (wanted.xid(), wanted.request());
            let answer = self.grant(wanted);
            candidates.extend(heads);
            // As a holder the transaction overtakes those who queue for the same rows.
            candidates.extend(self.state.locks.tickets_of(xid));
            self.answer(xid, request, answer);
        }
    }

    fn leave_queues(&mut self, id: TicketId) -> Option<(Wanted, BTreeSet<TicketId>)> {
        let (ticket, heads) = self.state.locks.dequeue(id)?;
        self.state
            .deadlines
            .disarm(ticket.until, Timer::LockWait(id));
        Some((ticket.wanted, heads))
    }

    fn answer(&mut self, xid: Xid, request: RequestId, answer: Answer) {
        let reply = self.reply_for(xid, request, &answer);
        if let Some(record) = self.indexed(xid).request_mut(request) {
            record.answer = answer;
        }
        let waiter = Waiter::Request(xid, request);
        self.effects.push(Effect::Answer { waiter, reply });
    }

    /// Refuses a waiting request and serves those behind it.
    pub(super) fn refuse_ticket(&mut self, id: TicketId, rejection: Rejection) {
        let Some((wanted, heads)) = self.leave_queues(id) else {
            return;
        };
        self.answer(wanted.xid(), wanted.request(), Answer::Refused(rejection));
        self.serve(heads);
        self.refuse_cycles_of(wanted.xid());
    }

    /// A transaction gave up a hold or a place in a queue. As long as it had that, its later
    /// requests for the same rows would have overtaken those in between; now they wait for them,
    /// which may close a cycle.
    pub(super) fn refuse_cycles_of(&mut self, xid: Xid) {
        let transaction = self.state.transactions.get(xid);
        if transaction.is_none_or(|t| t.status != Status::Active) {
            return;
        }
        let waiting: Vec<TicketId> = self.state.locks.tickets_of(xid).collect();
        for id in waiting {
            let ticket = self.state.locks.ticket(id);
            if let Some(cycle) = ticket.and_then(|ticket| self.cycle(&ticket.wanted, Some(id))) {
                self.refuse_ticket(id, Rejection::Deadlock { cycle });
            }
        }
    }

    /// A waiting request was taken back by its agent.
    pub(super) fn withdraw_ticket(&mut self, id: TicketId) {
        let Some((wanted, heads)) = self.leave_queues(id) else {
            return;
        };
        self.answer(wanted.xid(), wanted.request(), Answer::Withdrawn);
        self.serve(heads);
        self.refuse_cycles_of(wanted.xid());
    }

    /// The wait limit of a request has passed; its timer is not armed any more.
    pub(super) fn lock_wait_is_over(&mut self, id: TicketId) {
        let Some(ticket) = self.state.locks.ticket(id) else {
            return;
        };
        let rejection = self.timed_out(&ticket.wanted, Some(id));
        let Some((ticket, heads)) = self.state.locks.dequeue(id) else {
            return;
        };
        let (xid, request) = (ticket.wanted.xid(), ticket.wanted.request());
        self.answer(xid, request, Answer::Refused(rejection));
        self.serve(heads);
        self.refuse_cycles_of(xid);
    }

    /// Requests whose begin never came; their timer is not armed any more.
    pub(super) fn parking_is_over(&mut self, xid: Xid) {
        let Some(parked) = self.state.parked.remove(&xid) else {
            return;
        };
        self.state.parked_requests -= parked.commands.len();
        for command in parked.commands {
            let request = match command {
                Command::RegisterBranch(c) => c.request,
                Command::CheckLocks(c) => c.request,
                Command::WithdrawBranch(c) => c.request,
                _ => unreachable!("nothing else is parked"),
            };
            self.effects.push(Effect::Answer {
                waiter: Waiter::Request(xid, request),
                reply: Reply::Refused(Rejection::NotBegun),
            });
        }
    }

    /// Refuses, among the requests queued for these rows, those whose local locks the undo needs.
    pub(super) fn refuse_waiters_with_local_locks(
        &mut self,
        holder: Xid,
        resource: &crate::id::Resource,
        keys: &[LockKey],
    ) {
        for id in self.state.locks.queued_behind(resource, keys) {
            let ticket = self.state.locks.ticket(id);
            if ticket.is_some_and(|t| t.wanted.holds_local_locks() && t.wanted.xid() != holder) {
                self.refuse_ticket(id, Rejection::HolderRollingBack { holder });
            }
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.state.now
    }
}

/// Room for one more in a list that mostly stays short: ended transactions keep theirs for long.
fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len().max(2));
    }
}

/// A refusal of a register or check.
enum Shed {
    /// A repeat may get another answer.
    Unrecorded(Rejection),
    /// A repeat gets the same.
    Recorded(Rejection),
}

/// A digest of all that makes a request what it is; its wait limit may differ in a repeat.
fn digest(wanted: &Wanted) -> u64 {
    let mut hash = Folded::default();
    hash.write_u64(match wanted {
        Wanted::Register(_) => 1,
        Wanted::Check(_) => 2,
    });
    hash.write(wanted.resource().as_bytes());
    for key in wanted.locks() {
        hash.write(key);
    }
    hash.finish()
}
