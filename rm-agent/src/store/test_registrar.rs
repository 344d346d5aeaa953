//! A coordinator in this process: grants, refuses by plan, remembers.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use accede_proto::Xid;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{LockKey, RefusalCode, Refused, Registered, Registrar, Registration, RowCheck};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Registered(Xid, u32, usize),
    Checked(Xid, usize),
    /// A check of a local transaction outside of any.
    CheckedOutside(usize),
    /// A check that would not have waited.
    CheckedAtOnce(Xid, usize),
    Done(Xid, u32),
    Withdrawn(Xid, u32),
    Doomed(Xid, u32),
    /// An order's answer tells how it ended.
    Over(Xid, u32),
    Dropped(Xid),
    /// The check of a local transaction outside of any was given up.
    DroppedOutside,
    Blocked(Xid),
}

/// What to answer to the next requests; grant when empty.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Refuse(RefusalCode),
    GiveUp(Duration),
    Never,
}

#[derive(Default)]
pub(crate) struct TestRegistrar {
    events: Mutex<Vec<Event>>,
    answers: Mutex<VecDeque<Answer>>,
    branches: Mutex<HashMap<Xid, u32>>,
    /// Who holds each lock, and for which of its branches.
    locks: Mutex<HashMap<LockKey, (Xid, BTreeSet<u32>)>>,
    decided: Mutex<BTreeSet<Xid>>,
    /// The newest registration. Locks in escrow exclude nobody here.
    last: Mutex<Option<Registration>>,
    last_check: Mutex<Option<RowCheck>>,
    payloads: Mutex<HashMap<(Xid, u32), Bytes>>,
    /// Whether the first branch of a transaction is told to stay open.
    pub(crate) keeps_open: Mutex<bool>,
    pub(crate) waiting: Notify,
}

impl TestRegistrar {
    pub(crate) fn answer(&self, answer: Answer) {
        self.answers.lock().push_back(answer);
    }

    /// What happened so far, without `Blocked`: on a busy machine any statement may take so long
    /// that it counts as one that stands still.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events = self.events.lock().clone();
        events.retain(|event| !matches!(event, Event::Blocked(_)));
        events
    }

    /// The same, once.
    pub(crate) fn take_events(&self) -> Vec<Event> {
        let mut events = self.take_all_events();
        events.retain(|event| !matches!(event, Event::Blocked(_)));
        events
    }

    /// With `Blocked`.
    pub(crate) fn take_all_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock())
    }

    pub(crate) fn last(&self) -> Option<Registration> {
        self.last.lock().clone()
    }

    pub(crate) fn last_check(&self) -> Option<RowCheck> {
        self.last_check.lock().clone()
    }

    pub(crate) fn release(&self) {
        self.locks.lock().clear();
    }

    /// The branches that reported their local commit.
    pub(crate) fn done_branches(&self, xid: Xid) -> Vec<u32> {
        let events = self.events.lock();
        let done = events.iter().filter_map(|event| match event {
            Event::Done(of, branch) if *of == xid => Some(*branch),
            _ => None,
        });
        done.collect()
    }

    /// The transaction has ended: what its done branches held is free. A branch
    /// that never said how it ended keeps its locks.
    pub(crate) fn finish(&self, xid: Xid) {
        for branch in self.done_branches(xid) {
            self.free(xid, branch);
        }
        let of = |event: &Event| match event {
            Event::CheckedOutside(_) | Event::DroppedOutside => None,
            Event::Registered(of, ..)
            | Event::Checked(of, _)
            | Event::CheckedAtOnce(of, _)
            | Event::Done(of, _)
            | Event::Withdrawn(of, _)
            | Event::Doomed(of, _)
            | Event::Over(of, _)
            | Event::Dropped(of)
            | Event::Blocked(of) => Some(*of),
        };
        self.events.lock().retain(|event| of(event) != Some(xid));
        self.branches.lock().remove(&xid);
    }

    /// From now on no branch may join the transaction.
    pub(crate) fn decide(&self, xid: Xid) {
        // A registration is either before this or after it.
        let _locks = self.locks.lock();
        self.decided.lock().insert(xid);
    }

    /// The transaction has ended, and the coordinator knows how each branch did.
    pub(crate) fn end(&self, xid: Xid) {
        self.locks.lock().retain(|_, (holder, _)| *holder != xid);
        self.finish(xid);
    }

    pub(crate) fn held_locks(&self) -> usize {
        self.locks.lock().len()
    }

    fn free(&self, xid: Xid, branch: u32) {
        self.locks.lock().retain(|_, (holder, branches)| {
            if *holder == xid {
                branches.remove(&branch);
            }
            !branches.is_empty()
        });
    }

    fn push(&self, event: Event) {
        self.events.lock().push(event);
    }

    /// What comes back with the branch's orders; empty, if it was not registered.
    pub(crate) fn payload(&self, xid: Xid, branch: u32) -> Bytes {
        let payloads = self.payloads.lock();
        payloads.get(&(xid, branch)).cloned().unwrap_or_default()
    }

    async fn refusal(&self, xid: Option<Xid>) -> Result<Duration, Refused> {
        let answer = self.answers.lock().pop_front();
        match answer {
            None => Ok(Duration::from_secs(60)),
            Some(Answer::GiveUp(after)) => Ok(after),
            Some(Answer::Refuse(code)) => Err(Refused::new(code, "as planned")),
            Some(Answer::Never) => {
                let _dropped = OnDrop(self, xid);
                self.waiting.notify_one();
                std::future::pending().await
            }
        }
    }
}

struct OnDrop<'a>(&'a TestRegistrar, Option<Xid>);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0
            .push(self.1.map_or(Event::DroppedOutside, Event::Dropped));
    }
}

impl Registrar for TestRegistrar {
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<Registered, Refused>> {
        Box::pin(async move {
            let xid = registration.xid;
            *self.last.lock() = Some(registration.clone());
            crate::registrar::may_join(xid, &registration.resource)?;
            let give_up = self.refusal(Some(xid)).await?;
            let mut locks = self.locks.lock();
            if self.decided.lock().contains(&xid) {
                return Err(Refused::new(RefusalCode::AlreadyDecided, "decided"));
            }
            let held = registration
                .row_locks
                .iter()
                .find_map(|key| Some(locks.get(key)?.0).filter(|&holder| holder != xid));
            if let Some(holder) = held {
                let mut refused = Refused::new(RefusalCode::LockWaitTimedOut, "held");
                refused.holder = Some(holder);
                return Err(refused);
            }
            let branch = {
                let mut branches = self.branches.lock();
                let last = branches.entry(xid).or_default();
                *last += 1;
                *last
            };
            for key in &registration.row_locks {
                let (_, branches) = locks
                    .entry(key.clone())
                    .or_insert_with(|| (xid, BTreeSet::new()));
                branches.insert(branch);
            }
            self.push(Event::Registered(xid, branch, registration.row_locks.len()));
            drop(locks);
            let payload = registration.payload.clone();
            self.payloads.lock().insert((xid, branch), payload);
            let keep_open = registration.can_keep_open && branch == 1 && *self.keeps_open.lock();
            Ok(Registered {
                branch,
                give_up,
                keep_open,
            })
        })
    }

    fn check_locks(&self, check: RowCheck) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(async move {
            let rows = check.row_locks.len();
            *self.last_check.lock() = Some(check.clone());
            self.refusal(check.xid).await?;
            self.push(match check.xid {
                Some(xid) if check.wait_limit.is_zero() => Event::CheckedAtOnce(xid, rows),
                Some(xid) => Event::Checked(xid, rows),
                None => Event::CheckedOutside(rows),
            });
            let locks = self.locks.lock();
            let held = check
                .row_locks
                .iter()
                .any(|key| locks.get(key).is_some_and(|held| Some(held.0) != check.xid));
            if held {
                return Err(Refused::new(RefusalCode::LockWaitTimedOut, "held"));
            }
            Ok(())
        })
    }

    fn done(&self, xid: Xid, branch: u32) {
        self.push(Event::Done(xid, branch));
    }

    fn withdrawn(&self, xid: Xid, branch: u32) {
        self.free(xid, branch);
        self.push(Event::Withdrawn(xid, branch));
    }

    fn blocked(&self, xid: Xid) {
        self.push(Event::Blocked(xid));
        self.waiting.notify_one();
    }

    fn over(&self, xid: Xid, branch: u32) {
        self.push(Event::Over(xid, branch));
    }

    fn doomed(&self, xid: Xid, branch: u32, _: String) {
        self.push(Event::Doomed(xid, branch));
    }
}
