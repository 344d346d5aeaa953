//! Plays a transaction as its script says.

use std::{future::Future, sync::Arc, time::Duration};

use accede_core::{Action, Decision, Order};
use accede_proto::Xid;
use accede_rm_agent::{
    Error,
    testkit::{Callable, Done, End, Participant, Trouble, polled},
};
use futures_util::future::join;

use crate::{
    coordinator::Coordinator,
    script::{Delivery, Fate, Script},
};

/// How often an order is tried in a row. What a dead agent's session still holds in the database
/// goes soon.
const ATTEMPTS: u32 = 200;
/// Between them.
const PAUSE: Duration = Duration::from_millis(25);

/// Why a script could not be played to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A handler will not do what was decided.
    Stuck { decision: Decision, reason: String },
    /// The coordinator still has something to do: a bug of this library's.
    NotEnded,
}

/// One transaction that is played.
pub(crate) struct Played<'a, A, E, O> {
    pub(crate) coordinator: &'a Coordinator,
    pub(crate) action: &'a Callable<A, E, O>,
    pub(crate) participant: &'a Participant,
    pub(crate) script: &'a Script,
    xid: Xid,
}

impl<'a, A, E, O> Played<'a, A, E, O>
where
    A: 'static,
    E: From<Error> + std::fmt::Display + 'static,
    O: 'static,
{
    pub(crate) fn new(
        coordinator: &'a Arc<Coordinator>,
        action: &'a Callable<A, E, O>,
        participant: &'a Participant,
        script: &'a Script,
    ) -> Self {
        Self {
            coordinator,
            action,
            participant,
            script,
            xid: coordinator.begin(),
        }
    }

    /// Tries. Says why no commit can be asked for.
    pub(crate) async fn try_it(&self, arguments: A) -> Result<Result<(), String>, Failure> {
        let mut call = Box::pin(self.action.call_in(self.xid, arguments));
        let ended = match self.script.fate {
            Fate::Undisturbed => Some(call.as_mut().await),
            Fate::Dies(polls) | Fate::Late(polls) => polled(polls, call.as_mut()).await,
        };
        match (ended, self.script.fate) {
            (Some(Ok(_)), _) => Ok(Ok(())),
            (Some(Err(error)), _) => Ok(Err(error.to_string())),
            (None, Fate::Late(_)) => {
                self.coordinator.decide(self.xid, Decision::RollBack);
                // The cancel and the rest of the try, side by side.
                let (ended, _) = join(self.finish_all(), call).await;
                ended.map(|()| Err("it was cancelled".to_owned()))
            }
            (None, Fate::Undisturbed | Fate::Dies(_)) => {
                self.coordinator.bury(call);
                Ok(Err("its agent died".to_owned()))
            }
        }
    }

    /// Has it decided and carried out. How it was decided.
    pub(crate) async fn end(&self, can_commit: bool) -> Result<Decision, Failure> {
        let wanted = match can_commit {
            true => self.script.wanted,
            false => Decision::RollBack,
        };
        let decision = self.coordinator.decide(self.xid, wanted);
        self.finish_all().await?;
        match self.coordinator.has_ended(self.xid) {
            true => Ok(decision),
            false => Err(Failure::NotEnded),
        }
    }

    async fn finish_all(&self) -> Result<(), Failure> {
        // What hears of a commit is ordered to commit next.
        loop {
            let orders = self.coordinator.orders(self.xid);
            if orders.is_empty() {
                return Ok(());
            }
            self.carry_out(orders).await?;
        }
    }

    async fn carry_out(&self, orders: Vec<Order>) -> Result<(), Failure> {
        for order in orders {
            for delivery in &self.script.deliveries {
                match delivery {
                    Delivery::Dies(polls) => {
                        let mut work = Box::pin(self.finish(&order));
                        polled(*polls, work.as_mut()).await;
                        self.coordinator.bury(work);
                    }
                    // What comes of it is asked for below.
                    Delivery::Once => drop(self.finish(&order).await),
                    Delivery::Twice => {
                        drop(join(self.finish(&order), self.finish(&order)).await);
                    }
                }
            }
            let done = self.persist(&order, || self.finish(&order)).await?;
            if self.script.silence && done == Done::PreCommitted {
                self.persist(&order, || self.hear_nothing(&order)).await?;
            }
            self.coordinator.finished(&order, done);
            if self.script.echo {
                self.persist(&order, || self.finish(&order)).await?;
            }
        }
        Ok(())
    }

    fn finish(&self, order: &Order) -> impl Future<Output = Result<Done, Trouble>> {
        let end = match order.action {
            Action::Commit => End::Commit,
            Action::PreCommit => End::PreCommit,
            _ => End::RollBack {
                was_done: order.was_done,
            },
        };
        let payload = order.payload.clone();
        let (xid, branch) = (self.xid, order.branch.0);
        async move { self.participant.finish(xid, branch, end, &payload).await }
    }

    /// The coordinator is away.
    fn hear_nothing(&self, order: &Order) -> impl Future<Output = Result<(), Trouble>> {
        let payload = order.payload.clone();
        let (xid, branch) = (self.xid, order.branch.0);
        async move {
            let participant = self.participant;
            participant.hear_nothing(xid, branch, &payload).await
        }
    }

    async fn persist<T, F: Future<Output = Result<T, Trouble>>>(
        &self,
        order: &Order,
        work: impl Fn() -> F,
    ) -> Result<T, Failure> {
        let decision = match order.action {
            Action::Commit | Action::PreCommit => Decision::Commit,
            _ => Decision::RollBack,
        };
        let done = persist(work).await;
        done.map_err(|reason| Failure::Stuck { decision, reason })
    }
}

/// Until it is done; else why not.
pub(crate) async fn persist<T, F: Future<Output = Result<T, Trouble>>>(
    work: impl Fn() -> F,
) -> Result<T, String> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match work().await {
            Ok(done) => return Ok(done),
            Err(Trouble::Stuck(reason)) => return Err(reason),
            Err(Trouble::Passing(reason)) => last = reason,
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("after {ATTEMPTS} attempts: {last}"))
}
