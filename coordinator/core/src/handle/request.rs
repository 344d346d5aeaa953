//! What registering a branch and checking locks share: repeats, queues, refusals.

use alloc::{collections::BTreeSet, vec::Vec};
use core::hash::Hasher as _;

#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    command::{CheckLocks, Command, RegisterBranch},
    deadline::Timer,
    effect::{Action, Effect},
    handle::Context,
    hash::Folded,
    id::{Attempt, BranchId, RequestId, Timestamp, Xid},
    limits::{
        MAX_BRANCHES, MAX_LOCK_WAIT_MS, MAX_PARKED_REQUESTS, MAX_REQUESTS, MAX_WAITING_REQUESTS,
        PARK_MS,
    },
    lock_mode::{LockMode, RowLock},
    mode::Mode,
    reply::{Rejection, Reply, Waiter, Whereabouts},
    row_lock::{Dequeued, Ticket, TicketId, Wanted},
    saga::Saga,
    state::Parked,
    status::{BranchStatus, Status},
    transaction::{Answer, Branch, Request, Transaction},
};

impl Context<'_> {
    /// The reply to a register or check.
    pub(super) fn want(&mut self, wanted: Wanted) -> Reply {
        let (xid, request) = (wanted.xid(), wanted.request());
        let content = digest(&wanted);
        if xid.is_outside() {
            return self.want_outside(wanted, content);
        }
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

    /// The reply to a check outside of any transaction. Nothing is remembered of it: a repeat joins
    /// the first as long as that waits, and else looks anew.
    fn want_outside(&mut self, wanted: Wanted, content: u64) -> Reply {
        let (xid, request) = (wanted.xid(), wanted.request());
        if let Some(ticket) = self.ticket_outside(xid, request) {
            let same = self.state.locks.ticket(ticket).map(|t| digest(&t.wanted)) == Some(content);
            return match same {
                true => Reply::Waiting(Waiter::Request(xid, request)),
                false => Reply::Refused(Rejection::DifferentContent),
            };
        }
        if let Err(rejection) = self.state.fits(&wanted) {
            return Reply::Refused(rejection);
        }
        match self.take_or_queue(wanted) {
            Ok(answer) => self.reply_for(xid, request, &answer),
            Err(Shed::Unrecorded(rejection) | Shed::Recorded(rejection)) => {
                Reply::Refused(rejection)
            }
        }
    }

    fn ticket_outside(&self, xid: Xid, request: RequestId) -> Option<TicketId> {
        let locks = &self.state.locks;
        let is_it = |id: &TicketId| {
            let ticket = locks.ticket(*id);
            ticket.is_some_and(|ticket| ticket.wanted.request() == request)
        };
        locks.tickets_of(xid).find(is_it)
    }

    /// A check outside of any transaction is given up.
    pub(super) fn withdraw_outside(&mut self, xid: Xid, request: RequestId) -> Reply {
        if let Some(ticket) = self.ticket_outside(xid, request) {
            self.withdraw_ticket(ticket);
        }
        Reply::Ok
    }

    fn repeated(&self, xid: Xid, request: RequestId, content: u64) -> Option<Reply> {
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::RequestIdsForgotten) {
            return None;
        }
        let transaction = self.state.transactions.get(xid)?;
        if transaction.saga().is_some_and(|s| s.request == request) {
            return Some(Reply::Refused(Rejection::DifferentContent));
        }
        let known = transaction.request(request)?;
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
            Answer::Registered {
                branch,
                give_up_ms,
                keep_open,
            } => Reply::Registered {
                branch: *branch,
                give_up_ms: *give_up_ms,
                keep_open: *keep_open,
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
            && parked.commands.iter().any(|known| repeats(known, &command))
        {
            return waiting;
        }
        if self.state.parked_requests >= MAX_PARKED_REQUESTS {
            let limit = MAX_PARKED_REQUESTS as u64;
            return Reply::Refused(Rejection::TooManyWaiting { limit });
        }
        let state = &mut *self.state;
        let payload = command.payload_bytes();
        if let Err(rejection) = state.has_room_for(payload) {
            return Reply::Refused(rejection);
        }
        state.parked_requests += 1;
        state.payload_bytes += payload;
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
        let fits = self.state.fits(wanted);
        let has_room = self.state.has_room_for(wanted.payload_bytes());
        let transaction = self.known(wanted.xid()).map_err(Shed::Unrecorded)?;
        // Steps of a plan that are still to be started have their places.
        let unstarted = transaction.saga().map_or(0, Saga::unstarted);
        let branches = transaction.branches.len() + unstarted;
        if transaction.requests.len() >= MAX_REQUESTS || branches >= MAX_BRANCHES {
            let limit = MAX_BRANCHES as u64;
            return Err(Shed::Unrecorded(Rejection::TooManyBranches { limit }));
        }
        if let Some(decision) = transaction.decision() {
            return Err(Shed::Unrecorded(Rejection::AlreadyDecided(decision)));
        }
        if transaction.commit_asked() {
            return Err(Shed::Recorded(Rejection::CommitAsked));
        }
        fits.map_err(Shed::Recorded)?;
        has_room.map_err(Shed::Unrecorded)
    }

    fn take_or_queue(&mut self, wanted: Wanted) -> Result<Answer, Shed> {
        if self.state.locks.is_free(&wanted, None) {
            let (answer, new_waits) = self.grant(wanted);
            self.settle(BTreeSet::new(), new_waits);
            return Ok(answer);
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
            // One that is delegated has all the local locks that it needs.
            transaction.is_some_and(|t| !matches!(t.status, Status::Active | Status::Delegated))
        };
        let holder = self.state.locks.writers(wanted).find(undoing)?;
        Some(Rejection::HolderRollingBack { holder })
    }

    fn cycle(&self, wanted: &Wanted, ticket: Option<TicketId>) -> Option<Vec<Xid>> {
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::CyclesAllowed) {
            return None;
        }
        let xid = wanted.xid();
        let transaction = self.state.transactions.get(xid);
        let holds =
            |t: &Transaction| t.parent.is_some() || t.branches.iter().any(|b| !b.locks.is_empty());
        // Nobody can wait for a transaction that holds and queues for nothing and is not nested.
        let waited_for =
            transaction.is_some_and(holds) || self.state.locks.tickets_of(xid).next().is_some();
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
        Rejection::LockWaitTimedOut {
            // Two requests of one transaction on one row cannot block each other for long; name it.
            holder: self
                .state
                .locks
                .first_blocker(wanted, ticket)
                .unwrap_or(wanted.xid()),
        }
    }

    /// Gives a request what it wanted; nothing is in its way. Also says who may wait for it from
    /// now on.
    fn grant(&mut self, wanted: Wanted) -> (Answer, BTreeSet<Xid>) {
        let Wanted::Register(register) = wanted else {
            return (Answer::LocksFree, BTreeSet::new());
        };
        let RegisterBranch {
            xid,
            resource,
            locks,
            payload,
            ..
        } = register;
        // One copy of each resource's name serves all branches.
        let resource = self.state.name_of(resource);
        self.state.payload_bytes += payload.len() as u64;
        let now = self.now();
        let transaction = self.indexed(xid);
        let left = transaction.deadline.since(now);
        let give_up_ms = u32::try_from(left).unwrap_or(u32::MAX);
        let id = BranchId(transaction.branches.len() as u32 + 1);
        let keep_open = register.can_keep_open && transaction.can_begin_open();
        let new_waits = if self.state.locks.hold(xid, id, &resource, &locks) {
            self.state.locks.new_waits(xid, &resource, &locks)
        } else {
            BTreeSet::new()
        };
        let branches = &mut self.indexed(xid).branches;
        make_room(branches);
        branches.push(Branch {
            id,
            resource,
            mode: register.mode,
            agent: register.agent,
            status: BranchStatus::Registered,
            was_done: false,
            locks,
            payload,
            action: Action::Commit,
            attempt: Attempt(0),
            failures: 0,
            outages: 0,
            next_attempt_at: None,
            problem: None,
        });
        if keep_open {
            self.keep_open(xid, id);
        } else {
            self.prepare_what_is_open(xid);
        }
        let answer = Answer::Registered {
            branch: id,
            give_up_ms,
            keep_open,
        };
        (answer, new_waits)
    }

    /// Serves the queues: it may be the turn of `candidates`.
    pub(super) fn serve(&mut self, candidates: BTreeSet<TicketId>) {
        self.settle(candidates, BTreeSet::new());
    }

    /// Grants all that can be granted of `candidates`, and refuses what now waits in a circle:
    /// `suspects` wait for others than before.
    fn settle(&mut self, mut candidates: BTreeSet<TicketId>, mut suspects: BTreeSet<Xid>) {
        loop {
            if let Some(id) = candidates.pop_first() {
                self.grant_if_free(id, &mut candidates, &mut suspects);
            } else if let Some(xid) = suspects.pop_first() {
                let Some((id, cycle)) = self.waits_in_circle(xid) else {
                    continue;
                };
                let Some(left) = self.leave_queues(id) else {
                    continue;
                };
                let refused = Answer::Refused(Rejection::Deadlock { cycle });
                self.answer(xid, left.ticket.wanted.request(), refused);
                candidates.extend(left.next);
                suspects.extend(left.suspects);
                suspects.insert(xid);
            } else {
                return;
            }
        }
    }

    fn grant_if_free(
        &mut self,
        id: TicketId,
        candidates: &mut BTreeSet<TicketId>,
        suspects: &mut BTreeSet<Xid>,
    ) {
        let ticket = self.state.locks.ticket(id);
        if !ticket.is_some_and(|ticket| self.state.locks.is_free(&ticket.wanted, Some(id))) {
            return;
        }
        let Some(left) = self.leave_queues(id) else {
            return;
        };
        let wanted = left.ticket.wanted;
        let (xid, request) = (wanted.xid(), wanted.request());
        let (answer, new_waits) = self.grant(wanted);
        candidates.extend(left.next);
        suspects.extend(left.suspects);
        // As a holder the transaction overtakes those who queue for the same rows.
        candidates.extend(self.state.locks.tickets_of(xid));
        suspects.extend(new_waits);
        self.answer(xid, request, answer);
    }

    /// A waiting request of an undecided transaction that is part of a circle.
    fn waits_in_circle(&self, xid: Xid) -> Option<(TicketId, Vec<Xid>)> {
        let transaction = self.state.transactions.get(xid);
        if !xid.is_outside() && transaction?.status != Status::Active {
            return None;
        }
        self.state.locks.tickets_of(xid).find_map(|id| {
            let ticket = self.state.locks.ticket(id)?;
            Some((id, self.cycle(&ticket.wanted, Some(id))?))
        })
    }

    fn leave_queues(&mut self, id: TicketId) -> Option<Dequeued> {
        let left = self.state.locks.dequeue(id)?;
        let timer = Timer::LockWait(id);
        self.state.deadlines.disarm(left.ticket.until, timer);
        Some(left)
    }

    fn answer(&mut self, xid: Xid, request: RequestId, answer: Answer) {
        let reply = self.reply_for(xid, request, &answer);
        if !xid.is_outside()
            && let Some(record) = self.indexed(xid).request_mut(request)
        {
            record.answer = answer;
        }
        let waiter = Waiter::Request(xid, request);
        self.effects.push(Effect::Answer { waiter, reply });
    }

    /// Ends a request's wait with `answer`.
    fn end_wait(&mut self, id: TicketId, answer: Answer) {
        if let Some(left) = self.leave_queues(id) {
            self.wait_ended(left, answer);
        }
    }

    /// Answers a request that has left the queues, and serves those behind it.
    fn wait_ended(&mut self, left: Dequeued, answer: Answer) {
        let Dequeued {
            ticket,
            next,
            mut suspects,
        } = left;
        let xid = ticket.wanted.xid();
        suspects.insert(xid);
        self.answer(xid, ticket.wanted.request(), answer);
        self.settle(next, suspects);
    }

    /// Refuses a waiting request.
    pub(super) fn refuse_ticket(&mut self, id: TicketId, rejection: Rejection) {
        self.end_wait(id, Answer::Refused(rejection));
    }

    /// A waiting request was taken back by its agent.
    pub(super) fn withdraw_ticket(&mut self, id: TicketId) {
        self.end_wait(id, Answer::Withdrawn);
    }

    /// A transaction gave up a hold or a place in a queue. As long as it had that, its later
    /// requests for the same rows would have overtaken those in between; now they wait for them,
    /// which may close a cycle.
    pub(super) fn refuse_cycles_of(&mut self, xid: Xid) {
        self.settle(BTreeSet::new(), BTreeSet::from([xid]));
    }

    /// The wait limit of a request has passed; its timer is not armed any more.
    pub(super) fn lock_wait_is_over(&mut self, id: TicketId) {
        let Some(ticket) = self.state.locks.ticket(id) else {
            return;
        };
        let rejection = self.timed_out(&ticket.wanted, Some(id));
        if let Some(left) = self.state.locks.dequeue(id) {
            self.wait_ended(left, Answer::Refused(rejection));
        }
    }

    /// Requests whose begin never came; their timer is not armed any more.
    pub(super) fn parking_is_over(&mut self, xid: Xid) {
        let Some(parked) = self.state.parked.remove(&xid) else {
            return;
        };
        self.state.parked_requests -= parked.commands.len();
        self.state.payload_bytes -= parked.payload_bytes();
        for command in parked.commands {
            let request = match command {
                Command::RegisterBranch(c) => c.request,
                Command::CheckLocks(c) => c.request,
                Command::WithdrawBranch(c) => c.request,
                Command::StartSaga(c) => c.request,
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
        locks: &[RowLock],
    ) {
        for id in self.state.locks.queued_behind(resource, locks) {
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
pub(super) fn make_room<T>(list: &mut Vec<T>) {
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

/// The same request once more; its wait limit may differ in a repeat, and the first one counts.
fn repeats(known: &Command, command: &Command) -> bool {
    match (known, command) {
        (Command::RegisterBranch(known), Command::RegisterBranch(c)) => {
            let wait_limit_ms = c.wait_limit_ms;
            let known = known.clone();
            *c == RegisterBranch {
                wait_limit_ms,
                ..known
            }
        }
        (Command::CheckLocks(known), Command::CheckLocks(c)) => {
            let wait_limit_ms = c.wait_limit_ms;
            let known = known.clone();
            *c == CheckLocks {
                wait_limit_ms,
                ..known
            }
        }
        (known, command) => known == command,
    }
}

/// A digest of all that makes a request what it is; its wait limit may differ in a repeat.
fn digest(wanted: &Wanted) -> u64 {
    let mut hash = Folded::default();
    hash.write_u64(match wanted {
        Wanted::Register(_) => 1,
        Wanted::Check(_) => 2,
    });
    hash.write(wanted.resource().as_bytes());
    for (key, mode) in wanted.locks() {
        hash.write(key);
        digest_mode(&mut hash, mode);
    }
    if let Wanted::Register(register) = wanted {
        digest_end(&mut hash, register);
    }
    hash.finish()
}

/// A branch of AT adds nothing: what came before there were other modes keeps its digest.
fn digest_end(hash: &mut Folded, register: &RegisterBranch) {
    hash.write_u64(match register.mode {
        Mode::At => return,
        Mode::Xa => 1,
        Mode::Tcc => 2,
        Mode::Saga => 3,
        Mode::ThreePhase => 4,
    });
    hash.write(&register.payload);
    if register.can_keep_open {
        hash.write_u64(1);
    }
}

/// An exclusive lock adds nothing: it is what keys are locked by unless told otherwise.
fn digest_mode(hash: &mut Folded, mode: &LockMode) {
    match mode {
        LockMode::Exclusive => {}
        LockMode::Shared => hash.write_u64(1),
        LockMode::Escrow(deltas) => {
            hash.write_u64(2);
            for change in deltas.iter() {
                hash.write(change.column.as_bytes());
                for number in [change.delta, change.value, change.lower, change.upper] {
                    hash.write_u64(number as u64);
                }
            }
        }
    }
}
