//! Phase one: local locks and changes, then the registration, then the local commit, then the word
//! to the coordinator how it ended.

use accede_core::{
    Blocked, BranchDone, BranchId, CheckLocks, Command, DoomBranch, Mode, Payload, RegisterBranch,
    Rejection, Reply, RequestId, WithdrawBranch, Xid, alone,
};

use super::{
    Agent, AgentEvent,
    job::{Job, Phase},
    number,
};
use crate::{
    database::{LocalId, NotCommitted},
    message::{Ask, Message, Peer},
    oracle::News,
    outside::Outside,
    work::{Work, WorkError},
};

/// Milliseconds for the coordinator's answer beyond the wait limit.
const ANSWER_MARGIN_MS: u64 = 1_500;
/// Milliseconds after which an unanswered request is sent again.
const ASK_AGAIN_MS: u64 = 900;
/// Milliseconds of waiting for a local lock after which the coordinator is told.
const BLOCKED_MS: u64 = 100;
/// Attempts of a local transaction that was refused for a passing reason.
const LOCAL_ATTEMPTS: u32 = 3;

impl Agent {
    /// A client wants something done.
    pub(super) fn begin(&mut self, out: &mut Outside, client: (Peer, u64), xid: Xid, work: Work) {
        let number = self.next_number();
        let phase = Phase::Pausing;
        let job = Job {
            client,
            xid,
            work,
            attempts: 0,
            local: 0,
            done: 0,
            granted: None,
            phase,
        };
        self.jobs.insert(number, job);
        self.open(out, number);
    }

    /// An attempt begins: with its local locks, as it should, or with the row locks.
    pub(super) fn open(&mut self, out: &mut Outside, number: u64) {
        let Some(job) = self
            .jobs
            .get_mut(&number)
            .filter(|job| job.phase == Phase::Pausing)
        else {
            return;
        };
        job.attempts += 1;
        if job.work.registers_first || job.work.promises.is_some() {
            return self.ask(out, number);
        }
        self.open_local(out, number);
    }

    /// Opens a local transaction for a job.
    fn open_local(&mut self, out: &mut Outside, number: u64) {
        let owner = (self.number, self.life, number);
        let me = self.me();
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        let now = out.now;
        let database = &mut out.databases[job.work.database];
        if !database.up {
            return self.end(out, number, Err(WorkError::DatabaseDown));
        }
        job.local = database.begin(owner, now);
        job.done = 0;
        job.phase = Phase::Locking;
        let resource = database.resource.clone();
        let (xid, rows) = (job.xid, &job.work.rows);
        out.note(me.address, Some(xid), || {
            let what = if job.work.only_reads {
                "reads under lock"
            } else {
                "changes"
            };
            format!("{what} rows {rows:?} of {resource}")
        });
        let ms = out.random.between(800, 3_000);
        out.agent_later(ms, me, AgentEvent::LocalLockTimeout(number));
        let local = job.local;
        out.agent_later(BLOCKED_MS, me, AgentEvent::Blocked(number, local));
        self.go_on(out, number);
    }

    /// Takes the next local locks, then asks the coordinator.
    pub(super) fn go_on(&mut self, out: &mut Outside, number: u64) {
        let Some(job) = self
            .jobs
            .get_mut(&number)
            .filter(|job| job.phase == Phase::Locking)
        else {
            return;
        };
        let database = &mut out.databases[job.work.database];
        while let Some((row, change)) = job.work.rows.get(job.done).copied() {
            if !database.lock(job.local, row) {
                return;
            }
            if !job.work.only_reads && !database.change(job.local, row, change) {
                return self.end(out, number, Err(WorkError::WrongRow));
            }
            job.done += 1;
        }
        if !job.work.only_reads && database.row_locks(job.local).is_empty() {
            // Nothing was changed or read: there is nothing to register, or to keep.
            return self.end(out, number, Ok(()));
        }
        match job.granted.take() {
            Some((request, branch, give_up_at)) => {
                self.send_commit(out, number, (request, branch, give_up_at));
            }
            None => self.ask(out, number),
        }
    }

    /// Asks the coordinator for the row locks.
    fn ask(&mut self, out: &mut Outside, number: u64) {
        let sequence = self.next_number();
        let request = RequestId {
            process: self.process,
            sequence,
        };
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        job.phase = Phase::Asking {
            request,
            since: out.now,
        };
        let patience = u64::from(job.work.wait_limit_ms) + ANSWER_MARGIN_MS;
        out.agent_later(patience, self.me(), AgentEvent::Patience(number, request));
        self.request(out, number, request);
    }

    /// Sends the request, again and again until it is answered or patience is over.
    pub(super) fn request(&mut self, out: &mut Outside, number: u64, request: RequestId) {
        let me = self.me();
        let job = self
            .jobs
            .get(&number)
            .filter(|job| job.asking() == Some(request));
        let Some(Job {
            xid, work, local, ..
        }) = job
        else {
            return;
        };
        if self.connected {
            let database = &out.databases[work.database];
            let resource = database.resource.clone();
            let wait_limit_ms = work.wait_limit_ms;
            let command = if let Some(mode) = work.promises {
                let (resource, payload) = match mode {
                    // It is known by its name, in the database.
                    Mode::Xa => (resource, Payload::default()),
                    _ => (database.action.clone(), Payload::from(&b"5"[..])),
                };
                Command::RegisterBranch(RegisterBranch {
                    xid: *xid,
                    request,
                    agent: self.process,
                    resource,
                    mode,
                    locks: Vec::new(),
                    payload,
                    wait_limit_ms,
                    holds_local_locks: false,
                    // Now and then it has no room.
                    can_keep_open: mode == Mode::Xa && !request.sequence.is_multiple_of(5),
                })
            } else if work.only_reads {
                Command::CheckLocks(CheckLocks {
                    xid: *xid,
                    request,
                    resource,
                    locks: work.keys(),
                    shared: false,
                    wait_limit_ms,
                    holds_local_locks: true,
                })
            } else {
                let locks = match work.registers_first {
                    true => work.row_locks(),
                    false => database.row_locks(*local),
                };
                Command::RegisterBranch(RegisterBranch {
                    xid: *xid,
                    request,
                    agent: self.process,
                    resource,
                    mode: Mode::At,
                    locks,
                    payload: Payload::default(),
                    wait_limit_ms,
                    holds_local_locks: !work.registers_first,
                    can_keep_open: false,
                })
            };
            out.ask(me, request.sequence, Ask::Command(command));
        }
        out.agent_later(ASK_AGAIN_MS, me, AgentEvent::Request(number, request));
    }

    fn job_that_asked(&self, tag: u64) -> Option<u64> {
        let asked = |job: &Job| job.asking().is_some_and(|request| request.sequence == tag);
        self.jobs
            .iter()
            .find(|(_, job)| asked(job))
            .map(|(number, _)| *number)
    }

    pub(super) fn overloaded(&mut self, out: &mut Outside, tag: u64) {
        if let Some(number) = self.job_that_asked(tag) {
            self.refused(out, number, true);
        }
    }

    pub(super) fn request_answered(&mut self, out: &mut Outside, tag: u64, reply: Reply) {
        let Some(number) = self.job_that_asked(tag) else {
            return;
        };
        match reply {
            Reply::Registered {
                branch,
                give_up_ms,
                keep_open,
            } => self.registered(out, number, (branch, give_up_ms, keep_open)),
            Reply::LocksFree => self.locks_free(out, number),
            Reply::Refused(rejection) => {
                let passing = matches!(
                    rejection,
                    Rejection::HolderRollingBack { .. }
                        | Rejection::HolderBlocked { .. }
                        | Rejection::Deadlock { .. }
                        | Rejection::TooManyWaiting { .. }
                );
                self.refused(out, number, passing);
            }
            _ => {}
        }
    }

    fn registered(
        &mut self,
        out: &mut Outside,
        number: u64,
        (branch, give_up_ms, keep_open): (BranchId, u32, bool),
    ) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        let Phase::Asking { request, since } = job.phase else {
            return;
        };
        let give_up_at = since + u64::from(give_up_ms);
        if job.work.registers_first {
            job.granted = Some((request, branch, give_up_at));
            return self.open_local(out, number);
        }
        if keep_open {
            return self.keep_open(out, number, (request, branch, give_up_at));
        }
        if job.work.promises.is_some() {
            return self.send_commit(out, number, (request, branch, give_up_at));
        }
        // With the local locks and the row locks, this is the moment of the read.
        let (xid, local) = (job.xid, job.local);
        let database = &out.databases[job.work.database];
        let (rows, database) = (database.read(local), database.resource.clone());
        out.tell(&News::Read {
            database: &database,
            xid,
            rows: &rows,
        });
        self.send_commit(out, number, (request, branch, give_up_at));
    }

    /// The message with COMMIT goes to the database.
    fn send_commit(
        &mut self,
        out: &mut Outside,
        number: u64,
        (request, branch, give_up_at): (RequestId, BranchId, u64),
    ) {
        let me = self.me();
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        job.phase = Phase::Committing {
            request,
            branch,
            give_up_at,
        };
        let mut ms = job.work.pause_ms + out.random.between(1, 3);
        if out.goes_wrong(out.rates.slow_agent) {
            ms += out.random.between(100, 25_000);
        }
        out.agent_later(ms, me, AgentEvent::CommitArrives(number));
    }

    /// The rows stay as they are while the local locks are held, so this is the moment of the read.
    fn locks_free(&mut self, out: &mut Outside, number: u64) {
        let Some(job) = self.jobs.get(&number) else {
            return;
        };
        let xid = job.xid;
        let rows: Vec<usize> = job.work.rows.iter().map(|(row, _)| *row).collect();
        let database = out.databases[job.work.database].resource.clone();
        out.tell(&News::Read {
            database: &database,
            xid,
            rows: &rows,
        });
        self.end(out, number, Ok(()));
    }

    /// The coordinator said no: nothing of this request counts.
    fn refused(&mut self, out: &mut Outside, number: u64, passing: bool) {
        let me = self.me();
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        if !passing || job.attempts >= LOCAL_ATTEMPTS {
            return self.end(out, number, Err(WorkError::Refused));
        }
        let granted = out.databases[job.work.database].end(job.local);
        job.phase = Phase::Pausing;
        out.wake(granted);
        let ms = out.random.between(10, 300);
        out.agent_later(ms, me, AgentEvent::Again(number));
    }

    /// No answer in time: the local transaction is rolled back, the request taken back.
    pub(super) fn patience_over(&mut self, out: &mut Outside, number: u64, request: RequestId) {
        let job = self
            .jobs
            .get(&number)
            .filter(|job| job.asking() == Some(request));
        let Some(xid) = job.map(|job| job.xid) else {
            return;
        };
        self.end(out, number, Err(WorkError::NoAnswer));
        self.deliver(
            out,
            Command::WithdrawBranch(WithdrawBranch { xid, request }),
        );
    }

    pub(super) fn local_lock_timeout(&mut self, out: &mut Outside, number: u64) {
        let waits = self
            .jobs
            .get(&number)
            .is_some_and(|job| job.phase == Phase::Locking);
        if waits {
            self.end(out, number, Err(WorkError::LocalLockTimeout));
        }
    }

    /// A job that has waited for a local lock for so long tells the coordinator, again and again:
    /// the holder may be waiting there for this transaction.
    pub(super) fn blocked(&mut self, out: &mut Outside, number: u64, local: LocalId) {
        let waits = |job: &&Job| job.phase == Phase::Locking && job.local == local;
        let Some(xid) = self.jobs.get(&number).filter(waits).map(|job| job.xid) else {
            return;
        };
        let me = self.me();
        if self.connected {
            let tag = self.next_number();
            let blocked = Command::Blocked(Blocked { xid });
            out.ask(me, tag, Ask::Command(blocked));
        }
        out.agent_later(BLOCKED_MS, me, AgentEvent::Blocked(number, local));
    }

    /// Undo record, rows and COMMIT in one message.
    pub(super) fn commit_arrives(&mut self, out: &mut Outside, job_number: u64) {
        let me = self.me();
        let Some(job) = self.jobs.get(&job_number) else {
            return;
        };
        let Phase::Committing {
            branch, give_up_at, ..
        } = job.phase
        else {
            return;
        };
        let (xid, local) = (job.xid, job.local);
        let now = out.now;
        let database = &mut out.databases[job.work.database];
        if !database.up {
            if job.work.promises.is_some() {
                // No connection was open that could have broken.
                let answer = Some(Err(NotCommitted::GaveUp));
                out.agent_later(1, me, AgentEvent::CommitAnswered(job_number, answer));
            }
            return;
        }
        let resource = database.resource.clone();
        let read = database.read(local);
        let promises = job.work.promises;
        let (result, granted) = match promises {
            Some(mode) => {
                let promised = database.promise((xid, branch), mode, give_up_at, now);
                (promised.map(|()| Vec::new()), Vec::new())
            }
            None => database.commit(local, (xid, branch), give_up_at, now),
        };
        out.wake(granted);
        if promises.is_some() && result.is_ok() {
            self.turned(
                out,
                (xid, branch),
                (alone::Phase::Working, alone::Phase::Prepared),
                false,
            );
        } else if let Ok(images) = &result {
            out.note(me.address, Some(xid), || {
                format!("commits branch {} in {resource} locally", number(branch))
            });
            out.tell(&News::LocalCommit {
                database: &resource,
                xid,
                branch,
                images,
                read: &read,
            });
        }
        let answer = result.map(drop);
        let lost = out.goes_wrong(out.rates.lost_commit_answer);
        let answer = (!lost).then_some(answer);
        let ms = out.random.between(1, 2);
        out.agent_later(ms, me, AgentEvent::CommitAnswered(job_number, answer));
    }

    pub(super) fn commit_answered(
        &mut self,
        out: &mut Outside,
        job_number: u64,
        answer: Option<Result<(), NotCommitted>>,
    ) {
        let Some(job) = self.jobs.get(&job_number) else {
            return;
        };
        let Phase::Committing {
            request, branch, ..
        } = job.phase
        else {
            return;
        };
        let xid = job.xid;
        match answer {
            Some(Ok(())) => {
                self.deliver(out, Command::BranchDone(BranchDone { xid, branch }));
                self.end(out, job_number, Ok(()));
            }
            Some(Err(_)) => {
                self.deliver(
                    out,
                    Command::WithdrawBranch(WithdrawBranch { xid, request }),
                );
                self.end(out, job_number, Err(WorkError::TooLate));
            }
            None => self.doom(out, job_number, xid, branch),
        }
    }

    fn doom(&mut self, out: &mut Outside, job: u64, xid: Xid, branch: BranchId) {
        out.note(self.me().address, Some(xid), || {
            format!(
                "does not know whether branch {} committed locally",
                number(branch)
            )
        });
        let detail = "the answer to COMMIT got lost".to_owned();
        self.deliver(
            out,
            Command::DoomBranch(DoomBranch {
                xid,
                branch,
                detail,
            }),
        );
        self.end(out, job, Err(WorkError::Unknown));
    }

    /// The connection to the database broke under a job.
    pub(super) fn local_lost(&mut self, out: &mut Outside, number: u64) {
        let Some(job) = self.jobs.get(&number) else {
            return;
        };
        match job.phase {
            Phase::Pausing => {}
            Phase::Locking => self.end(out, number, Err(WorkError::DatabaseDown)),
            // What was asked may be granted: it is taken back.
            Phase::Asking { request, .. } => self.patience_over(out, number, request),
            Phase::Committing { branch, .. } => {
                let xid = job.xid;
                self.doom(out, number, xid, branch);
            }
        }
    }

    /// The job is over: its local transaction ends, its client hears.
    pub(super) fn end(&mut self, out: &mut Outside, number: u64, result: Result<(), WorkError>) {
        let me = self.me();
        let Some(job) = self.jobs.remove(&number) else {
            return;
        };
        let granted = out.databases[job.work.database].end(job.local);
        out.wake(granted);
        if let Some((request, ..)) = job.granted {
            // Registered, and nothing was committed.
            let xid = job.xid;
            self.deliver(
                out,
                Command::WithdrawBranch(WithdrawBranch { xid, request }),
            );
        }
        if let Err(error) = result {
            out.note(me.address, Some(job.xid), || {
                format!("gives up a branch: {error:?}")
            });
        }
        let (client, tag) = job.client;
        let message = Message::Worked { tag, result };
        out.send(me.address, client.address, Some(client.life), message);
    }
}
