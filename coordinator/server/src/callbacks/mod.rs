//! Steps of sagas that the coordinator has done by calling URLs, for services that have no agent.
//!
//! Each call is the carrying out of an order: what it comes to goes into the log as an agent's
//! answer does. Nothing here is lost by a crash, as the next leader's state says what is owed.

mod allowed;
mod grpc;
mod http;
mod trust;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use accede_core::{
    Action, Attempt, BranchId, Command, Epoch, FinishBranch, Order, Outcome, Problem, StepOrder,
    Xid,
};
use accede_proto::callback::{self, Direction};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, task::AbortHandle, time::sleep};
use url::Url;

pub(crate) use self::{allowed::Allowed, trust::Trust};
use crate::{
    convert,
    hub::Hub,
    limits::{CALLBACKS_AT_ONCE, CALLBACKS_PER_HOST, TELL_AGAIN},
    trouble::Trouble,
};

type Key = (Xid, BranchId);

/// The calls that are under way.
pub(crate) struct Callbacks {
    allowed: Allowed,
    trust: Trust,
    http: http::Client,
    room: Semaphore,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// At most the steps that are under way or being compensated, as the state bounds them.
    open: Mutex<HashMap<Key, Open>>,
}

struct Open {
    attempt: Attempt,
    epoch: Epoch,
    host: String,
    task: OnceLock<AbortHandle>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// One call.
struct Call<'a> {
    order: &'a Order,
    step: &'a StepOrder,
    url: Url,
    limit: Duration,
}

impl Call<'_> {
    fn runs(&self) -> bool {
        self.order.action == Action::Run
    }

    fn direction(&self) -> Direction {
        match self.runs() {
            true => Direction::Run,
            false => Direction::Compensate,
        }
    }

    /// The same for all attempts in one direction.
    fn idempotency_key(&self) -> String {
        callback::idempotency_key(self.order.xid, self.order.branch.0, self.direction())
    }

    /// It cannot be done.
    fn definitely_not(&self, why: String) -> Outcome {
        match self.runs() {
            true => Outcome::Refused(problem(why)),
            false => Outcome::Stuck(problem(why)),
        }
    }

    /// There is no connection to the service.
    fn unreachable(&self, why: &str) -> Outcome {
        self.silent(format!("{} cannot be reached: {why}", self.url))
    }

    /// Nobody answered. A step counts it; a compensation waits for as long as it takes.
    fn silent(&self, why: String) -> Outcome {
        match self.runs() {
            true => Outcome::Failed(problem(why)),
            false => Outcome::Unavailable(problem(why)),
        }
    }
}

/// Scheme, host and port.
fn place(url: &Url) -> String {
    let (scheme, host) = (url.scheme(), url.host_str().unwrap_or_default());
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{scheme}://{host}:{port}")
}

fn problem(reason: String) -> Problem {
    convert::saga::problem(reason)
}

impl Callbacks {
    pub(crate) fn new(allowed: Allowed, trust: Trust) -> Self {
        Self {
            allowed,
            http: http::client(trust.http()),
            trust,
            room: Semaphore::new(CALLBACKS_AT_ONCE),
            hosts: Mutex::default(),
            open: Mutex::default(),
        }
    }

    /// Whether a plan may name a URL; if not, why.
    pub(crate) fn check(&self, url: &str) -> Result<(), String> {
        self.allowed.check(url).map(drop)
    }

    /// Carries an order out; takes the place of an earlier one for the same branch.
    pub(crate) fn open(&self, hub: &Arc<Hub>, order: Order) {
        let key = (order.xid, order.branch);
        let url = self.allowed.check(&order.resource);
        let host = match &url {
            Ok(url) => place(url),
            Err(_) => String::new(),
        };
        let open = Open {
            attempt: order.attempt,
            epoch: order.epoch,
            host: host.clone(),
            task: OnceLock::new(),
        };
        let room = Arc::clone(
            self.hosts
                .lock()
                .entry(host)
                .or_insert_with(|| Arc::new(Semaphore::new(CALLBACKS_PER_HOST))),
        );
        let mut table = self.open.lock();
        let hub = Arc::clone(hub);
        let task = tokio::spawn(async move {
            let outcome = hub.callbacks.call(&order, url, &room).await;
            tell(&hub, &order, outcome).await;
            hub.callbacks.ended(&order);
        });
        let _ = open.task.set(task.abort_handle());
        table.insert(key, open);
    }

    async fn call(&self, order: &Order, url: Result<Url, String>, room: &Semaphore) -> Outcome {
        let Some(step) = order.step.as_deref() else {
            return Outcome::Stuck(problem("the order is for no step of a saga".to_owned()));
        };
        if matches!(order.action, Action::Accept | Action::Commit) {
            // Nobody is to be told.
            return Outcome::Finished;
        }
        let limit = Duration::from_millis(step.attempt_timeout_ms.into());
        let url = match url {
            Ok(url) => url,
            // The setting was changed since. An operator changes it back, or repairs the branch.
            Err(why) => {
                return Outcome::Unavailable(problem(format!("step {:?} {why}", step.name)));
            }
        };
        let call = Call {
            order,
            step,
            url,
            limit,
        };
        // First the host's: one that is slow must not fill the room for all. Never closed.
        let (Ok(_host), Ok(_all)) = (room.acquire().await, self.room.acquire().await) else {
            return call.silent("the coordinator shuts down".to_owned());
        };
        match call.url.scheme() {
            "grpc" | "grpcs" => grpc::call(self.trust.grpc(), &call).await,
            _ => http::call(&self.http, &call).await,
        }
    }

    /// The state machine no longer wants this carried out.
    pub(crate) fn drop_order(&self, xid: Xid, branch: BranchId) {
        self.open.lock().remove(&(xid, branch));
    }

    /// Forgets all calls: the state machine will say anew what is owed.
    pub(crate) fn clear(&self) {
        self.open.lock().clear();
    }

    fn ended(&self, order: &Order) {
        let mut table = self.open.lock();
        let key = (order.xid, order.branch);
        let same = |open: &Open| (open.attempt, open.epoch) == (order.attempt, order.epoch);
        if table.get(&key).is_some_and(same) {
            table.remove(&key);
        }
    }

    /// Where a branch is being called, for operators.
    pub(crate) fn whereabouts(&self, xid: Xid, branch: BranchId) -> Option<String> {
        Some(self.open.lock().get(&(xid, branch))?.host.clone())
    }
}

/// Has the outcome logged, unless this coordinator leads no more: then its successor calls again.
async fn tell(hub: &Hub, order: &Order, outcome: Outcome) {
    let finish = FinishBranch {
        xid: order.xid,
        branch: order.branch,
        attempt: order.attempt,
        epoch: order.epoch,
        outcome,
    };
    while hub.office() == Some(order.epoch) {
        match hub.ask(Command::FinishBranch(finish.clone())).await {
            Err(Trouble::Unknown(_) | Trouble::Overloaded) => sleep(TELL_AGAIN).await,
            Ok(_) | Err(_) => return,
        }
    }
}
