//! A coordinator in this process: grants, refuses by plan, remembers.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use accede_proto::Xid;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{LockKey, RefusalCode, Refused, Registered, Registrar, Registration};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Registered(Xid, u32, usize),
    Checked(Xid, usize),
    Done(Xid, u32),
    Withdrawn(Xid, u32),
    Doomed(Xid, u32),
    Dropped(Xid),
    Blocked(Xid),
}

/// What to answer to the next requests; grant when empty.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Refuse(RefusalCode),
    GiveUp(Duration),
    Never,
}

#[derive(Default)]
pub(super) struct TestRegistrar {
    events: Mutex<Vec<Event>>,
    answers: Mutex<VecDeque<Answer>>,
    branches: Mutex<HashMap<Xid, u32>>,
    locks: Mutex<HashMap<LockKey, Xid>>,
    pub(super) waiting: Notify,
}

impl TestRegistrar {
    pub(super) fn answer(&self, answer: Answer) {
        self.answers.lock().push_back(answer);
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    pub(super) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock())
    }

    pub(super) fn release(&self) {
        self.locks.lock().clear();
    }

    fn push(&self, event: Event) {
        self.events.lock().push(event);
    }

    async fn refusal(&self, xid: Xid) -> Result<Duration, Refused> {
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

struct OnDrop<'a>(&'a TestRegistrar, Xid);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.push(Event::Dropped(self.1));
    }
}

impl Registrar for TestRegistrar {
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<Registered, Refused>> {
        Box::pin(async move {
            let xid = registration.xid;
            let give_up = self.refusal(xid).await?;
            {
                let mut locks = self.locks.lock();
                let held = registration
                    .row_locks
                    .iter()
                    .find_map(|key| locks.get(key).filter(|&&holder| holder != xid).copied());
                if let Some(holder) = held {
                    let mut refused = Refused::new(RefusalCode::LockWaitTimedOut, "held");
                    refused.holder = Some(holder);
                    return Err(refused);
                }
                for key in &registration.row_locks {
                    locks.insert(key.clone(), xid);
                }
            }
            let branch = {
                let mut branches = self.branches.lock();
                let last = branches.entry(xid).or_default();
                *last += 1;
                *last
            };
            self.push(Event::Registered(xid, branch, registration.row_locks.len()));
            Ok(Registered { branch, give_up })
        })
    }

    fn check_locks(&self, check: Registration) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(async move {
            self.refusal(check.xid).await?;
            self.push(Event::Checked(check.xid, check.row_locks.len()));
            let locks = self.locks.lock();
            let held = check
                .row_locks
                .iter()
                .any(|key| locks.get(key).is_some_and(|&holder| holder != check.xid));
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
        self.push(Event::Withdrawn(xid, branch));
    }

    fn blocked(&self, xid: Xid) {
        self.push(Event::Blocked(xid));
        self.waiting.notify_one();
    }

    fn doomed(&self, xid: Xid, branch: u32, _: String) {
        self.push(Event::Doomed(xid, branch));
    }
}
