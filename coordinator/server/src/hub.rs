//! What the doors share.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use accede_core::{Blocked, Command, Epoch, Reply, State};
use accede_log::Log;
use accede_proto::v1::{Refusal, StartSagaRequest};
use bytes::Bytes;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, ServerConfig,
    archive::Archive,
    callbacks::Callbacks,
    clock::{self, Clock},
    convert::{self, Checked},
    intake::{Intake, Job},
    machine::{Machine, SharedState},
    metrics::{Metrics, Reading},
    orders::Orders,
    refusal,
    reply_to::ReplyTo,
    trouble::{Answer, Trouble},
};

/// The daemon's parts, as the doors, the driver and the HTTP pages see them.
pub(crate) struct Hub {
    pub(crate) config: ServerConfig,
    pub(crate) cluster: Bytes,
    pub(crate) log: Log<Machine>,
    pub(crate) state: SharedState,
    pub(crate) clock: Clock,
    pub(crate) intake: Intake,
    pub(crate) orders: Arc<Orders>,
    pub(crate) callbacks: Callbacks,
    pub(crate) archive: Option<Archive>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) started: Instant,
    /// Ends all sessions.
    pub(crate) end_sessions: CancellationToken,
    /// The epoch of this daemon's office, while it has one.
    office: watch::Sender<Option<Epoch>>,
    session_numbers: AtomicU64,
}

impl Hub {
    pub(crate) fn new(
        config: ServerConfig,
        log: Log<Machine>,
        state: SharedState,
    ) -> Result<Self, Error> {
        let metrics = Arc::new(Metrics::new());
        let callbacks = Callbacks::new(config.callbacks()?, config.trust()?);
        let archive = config
            .archive()
            .map(|archive| Archive::start(&archive, Arc::clone(&state), Arc::clone(&metrics)))
            .transpose()?;
        Ok(Self {
            config,
            cluster: Bytes::copy_from_slice(&log.cluster_id().0.to_be_bytes()),
            log,
            state,
            clock: Clock::new(),
            intake: Intake::new(),
            orders: Orders::new(),
            callbacks,
            metrics,
            archive,
            started: clock::now(),
            end_sessions: CancellationToken::new(),
            office: watch::Sender::new(None),
            session_numbers: AtomicU64::new(0),
        })
    }

    pub(crate) fn set_office(&self, epoch: Option<Epoch>) {
        self.office.send_replace(epoch);
    }

    /// The epoch of this daemon's office, if it leads.
    pub(crate) fn office(&self) -> Option<Epoch> {
        *self.office.borrow()
    }

    pub(crate) fn office_changes(&self) -> watch::Receiver<Option<Epoch>> {
        self.office.subscribe()
    }

    pub(crate) fn next_session(&self) -> u64 {
        self.session_numbers.fetch_add(1, Relaxed) + 1
    }

    /// Logs a command and waits for its answer.
    pub(crate) async fn ask(&self, command: Command) -> Answer {
        let (once, answer) = oneshot::channel();
        self.intake.room().await;
        self.intake
            .submit([Job::Command(command, ReplyTo::Once(once))]);
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// As [`Self::ask`], for calls whose good answer is picked by `take`.
    pub(crate) async fn ask_for<T>(
        &self,
        command: Command,
        about: (Option<accede_core::Xid>, Option<&str>),
        take: impl FnOnce(Reply) -> Result<T, Reply>,
    ) -> Result<T, Box<Refusal>> {
        let refused = |answer| {
            let refusal = refusal::of_answer(answer, about.0, about.1);
            self.metrics.refused(refusal.code());
            Box::new(refusal)
        };
        match self.ask(command).await {
            Ok(reply) => take(reply).map_err(|reply| refused(Ok(reply))),
            Err(trouble) => Err(refused(Err(trouble))),
        }
    }

    /// Whether news that a transaction stands still in a database must be logged. If nobody waits
    /// for it here the entry would change nothing. This state may lag behind by what is under way:
    /// a request that begins to wait after this look is met by the next news, which the agent
    /// sends every 100 ms as long as the wait lasts.
    pub(crate) fn concerns_anyone(&self, blocked: Blocked) -> bool {
        self.state.read().holds_up(blocked.xid)
    }

    /// A command of a session. Where nobody waits for what it changes it is announced only. This
    /// state may lag behind by what is under way: who begins to wait after this look makes the
    /// driver hurry.
    pub(crate) fn job(&self, command: Command, to: ReplyTo) -> Job {
        let announced = match &command {
            Command::Begin(_) => true,
            Command::BranchDone(done) => !self.state.read().is_awaited(done.xid),
            Command::FinishBranch(finish) => self.state.read().only_cleans_up(finish.xid),
            _ => false,
        };
        match announced {
            true => Job::Announced(command, to),
            false => Job::Command(command, to),
        }
    }

    /// Reads a plan, whose callbacks must be allowed.
    pub(crate) fn saga(&self, wire: StartSagaRequest) -> Checked<accede_core::StartSaga> {
        convert::saga::start(wire, |url| self.callbacks.check(url))
    }

    /// Looks at the state as it is after everything that was asked before.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let (once, answer) = oneshot::channel();
        let read = move |state: Result<&State, Trouble>| drop(once.send(state.map(look)));
        self.intake.room().await;
        self.intake.submit([Job::Read(Box::new(read))]);
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    pub(crate) fn render_metrics(&self) -> String {
        let counts = self.state.read().counts();
        self.metrics.render(&Reading {
            counts,
            orders: self.orders.counts(),
            log: self.log.stats(),
            queued: self.intake.len(),
            leader: self.office().is_some(),
            uptime_seconds: (clock::now() - self.started).as_secs_f64(),
        })
    }
}

/// The driver dropped a caller: it has ended.
fn gone() -> Trouble {
    Trouble::Unknown("the daemon ended".to_owned())
}
