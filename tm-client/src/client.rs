//! The client: one per process and coordinator.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use accede_link::session::{
    ClusterId, ConnectProblem, Session, SessionError, SessionLimits, SessionOptions, SessionStatus,
    TransactionFrames,
};
use accede_proto::{
    Xid,
    v1::{self, transaction_request},
};
use tokio::{runtime::Handle, sync::Semaphore, task::AbortHandle, time::timeout_at};

use crate::{
    Error, GlobalTransaction, Options, Outcome, clock,
    hooks::Hooks,
    limits,
    options::check_name,
    renewal,
    worker::{Missing, Worker},
};

/// Starts, commits and rolls back transactions at one coordinator.
///
/// It keeps one stream to the coordinator and makes transaction ids by itself
/// under a lease, so beginning one costs no round trip. Clones share everything.
/// When the last clone is gone without [`shutdown`](Self::shutdown), the lease
/// ends with its time-to-live and the coordinator then rolls back what is undecided.
#[derive(Clone)]
pub struct TransactionClient {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) worker: Arc<Worker>,
    pub(crate) session: Session<TransactionFrames>,
    pub(crate) patience: Patience,
    /// Where rollbacks of dropped guards run, wherever they are dropped.
    pub(crate) runtime: Handle,
    /// Bounds them.
    pub(crate) dropped: Arc<Semaphore>,
    pub(crate) hooks: Hooks,
    last_request: AtomicU64,
    renewal: AbortHandle,
}

impl Inner {
    /// The id of a request, the same for its repeats and no others.
    pub(crate) fn next_request(&self) -> v1::RequestId {
        v1::RequestId {
            client: self.worker.client(),
            sequence: self.last_request.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl fmt::Debug for TransactionClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionClient")
            .field("session", &self.inner.session)
            .finish_non_exhaustive()
    }
}

/// How long calls wait before they give up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) begin: Duration,
    pub(crate) decision: Duration,
    pub(crate) roll_back: Duration,
    pub(crate) outcome: Duration,
}

/// Sets a [`TransactionClient`] up.
#[derive(Clone, Debug)]
#[must_use]
pub struct TransactionClientBuilder {
    name: String,
    session: SessionOptions,
    patience: Patience,
}

impl TransactionClientBuilder {
    /// Who this process is, for operators; the host's name is added. Without it
    /// the program's file name is used.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// A further member of the same cluster; the client follows its leader.
    pub fn member(mut self, address: impl Into<String>) -> Self {
        self.session.addresses.push(address.into());
        self
    }

    /// The cluster that this process belongs to; any other is refused. Without it
    /// the first one that answers counts.
    pub fn cluster(mut self, cluster: ClusterId) -> Self {
        self.session.cluster = Some(cluster);
        self
    }

    /// Bounds and times of the connection.
    pub fn session_limits(mut self, limits: SessionLimits) -> Self {
        self.session.limits = limits;
        self
    }

    /// How long `begin` waits without a lease; [`limits::BEGIN_PATIENCE`].
    pub fn begin_patience(mut self, patience: Duration) -> Self {
        self.patience.begin = patience;
        self
    }

    /// How long a commit is asked for before it counts as unknown;
    /// [`limits::DECISION_PATIENCE`].
    pub fn decision_patience(mut self, patience: Duration) -> Self {
        self.patience.decision = patience;
        self
    }

    /// How long a rollback is asked for; [`limits::ROLL_BACK_PATIENCE`].
    pub fn roll_back_patience(mut self, patience: Duration) -> Self {
        self.patience.roll_back = patience;
        self
    }

    /// How long `outcome` waits for an answer; [`limits::OUTCOME_PATIENCE`].
    pub fn outcome_patience(mut self, patience: Duration) -> Self {
        self.patience.outcome = patience;
        self
    }

    /// Makes the client and starts to connect in the background: the coordinator
    /// need not run yet.
    ///
    /// # Errors
    /// [`Error::Configuration`] and [`Error::InvalidOption`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn build(self) -> Result<TransactionClient, Error> {
        check_name("the client's name", &self.name)?;
        let name = format!("{}@{}", self.name, host_name());
        // Zero would read as "none" in logs and tools.
        let client = rand::random::<u64>().max(1);
        let worker = Arc::new(Worker::new(name, client));
        let role = Arc::clone(&worker);
        let session = Session::start(&self.session, role).map_err(Error::Configuration)?;
        let renewal = tokio::spawn(renewal::keep_lease(Arc::clone(&worker), session.clone()));
        Ok(TransactionClient {
            inner: Arc::new(Inner {
                worker,
                session,
                patience: self.patience,
                runtime: Handle::current(),
                dropped: Arc::new(Semaphore::new(limits::MAX_ROLL_BACKS_OF_DROPPED)),
                hooks: Hooks::default(),
                last_request: AtomicU64::new(0),
                renewal: renewal.abort_handle(),
            }),
        })
    }
}

impl TransactionClient {
    /// Sets up a client of the coordinator at `address`, for example
    /// `http://127.0.0.1:7700`.
    pub fn builder(address: impl Into<String>) -> TransactionClientBuilder {
        TransactionClientBuilder {
            name: program_name(),
            session: SessionOptions {
                addresses: vec![address.into()],
                ..SessionOptions::default()
            },
            patience: Patience {
                begin: limits::BEGIN_PATIENCE,
                decision: limits::DECISION_PATIENCE,
                roll_back: limits::ROLL_BACK_PATIENCE,
                outcome: limits::OUTCOME_PATIENCE,
            },
        }
    }

    /// Makes a client with all defaults and waits until it can begin transactions.
    ///
    /// # Errors
    /// As [`TransactionClientBuilder::build`] and [`ready`](Self::ready).
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn connect(address: impl Into<String>) -> Result<Self, Error> {
        let client = Self::builder(address).build()?;
        client.ready().await?;
        Ok(client)
    }

    /// Waits until transactions can be begun, at most as long as `begin` would.
    ///
    /// # Errors
    /// [`Error::CannotBegin`], [`Error::ShutDown`].
    pub async fn ready(&self) -> Result<(), Error> {
        let worker = &self.inner.worker;
        self.until_done(|| Ok(worker.can_make().map_err(Missing::Xid)))
            .await
    }

    /// Whether there is a connection, now and from now on; for health checks.
    #[must_use]
    pub fn status(&self) -> tokio::sync::watch::Receiver<SessionStatus> {
        self.inner.session.status()
    }

    /// Begins a transaction. Costs no round trip: the id is made here and the
    /// begin is announced, not awaited. Waits only when there is no live lease.
    ///
    /// It is not the caller's current transaction yet: run the work in
    /// [`GlobalTransaction::scope`]. If the caller works for a transaction
    /// already, the two have nothing to do with each other; see
    /// [`begin_within`](Self::begin_within).
    ///
    /// # Errors
    /// [`Error::CannotBegin`], [`Error::TooManyBegins`], [`Error::ShutDown`],
    /// [`Error::InvalidOption`]; nothing was begun.
    pub async fn begin(&self, options: Options) -> Result<GlobalTransaction, Error> {
        self.begin_frame(options, None).await
    }

    /// Begins a transaction while `parent` is suspended until this one ends. They
    /// end on their own, but if this one waits for a row of its parent, both would
    /// wait for ever: the coordinator sees that and refuses the wait.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn begin_within(
        &self,
        options: Options,
        parent: Xid,
    ) -> Result<GlobalTransaction, Error> {
        self.begin_frame(options, Some(parent)).await
    }

    async fn begin_frame(
        &self,
        options: Options,
        parent: Option<Xid>,
    ) -> Result<GlobalTransaction, Error> {
        let frame = v1::Begin {
            xid: 0,
            name: options.name().to_owned(),
            timeout_ms: options.checked_timeout_ms()?,
            parent: parent.map_or(0, Xid::as_u64),
        };
        let session = &self.inner.session;
        let (xid, refused) = self
            .until_done(|| match session.try_send_slot() {
                Ok(slot) => self.inner.worker.begin(&frame, slot),
                Err(SessionError::Busy { .. }) => Ok(Err(Missing::QueueRoom)),
                Err(_) => Err(Error::ShutDown),
            })
            .await?;
        tracing::debug!(%xid, name = options.name(), "begun");
        let deadline = clock::now() + options.timeout_duration();
        Ok(GlobalTransaction::new(self.clone(), xid, deadline, refused))
    }

    /// Tries until it works, at most as long as `begin` may wait.
    async fn until_done<T>(
        &self,
        attempt: impl Fn() -> Result<Result<T, Missing>, Error>,
    ) -> Result<T, Error> {
        let waited = self.inner.patience.begin;
        let until = clock::now() + waited;
        loop {
            // Listens before it looks, so that no news in between is lost.
            let changed = self.inner.worker.changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let missing = match attempt()? {
                Ok(done) => return Ok(done),
                Err(missing) => missing,
            };
            let came = match missing {
                // The room itself is given back: the next attempt takes it again.
                Missing::QueueRoom => timeout_at(until, self.inner.session.send_slot())
                    .await
                    .map(drop),
                Missing::Xid(_) | Missing::BeginRoom => timeout_at(until, changed).await,
            };
            if came.is_err() {
                return Err(match missing {
                    Missing::Xid(reason) => Error::CannotBegin {
                        reason,
                        waited,
                        problem: self.problem(),
                    },
                    Missing::QueueRoom | Missing::BeginRoom => Error::TooManyBegins {
                        unlogged: limits::MAX_UNLOGGED_BEGINS,
                    },
                });
            }
        }
    }

    fn problem(&self) -> Option<ConnectProblem> {
        match &*self.inner.session.status().borrow() {
            SessionStatus::Connecting { problem, .. } => problem.clone(),
            _ => None,
        }
    }

    /// Where a transaction stands, also one of another process: what to ask after
    /// an unknown outcome.
    ///
    /// # Errors
    /// [`Error::OutcomeUnavailable`]: ask again.
    pub async fn outcome(&self, xid: Xid) -> Result<Outcome, Error> {
        self.inner.ask_outcome(xid).await
    }

    /// Ends the lease and the connection politely. Finish open transactions
    /// before: the coordinator rolls back those that are undecided.
    pub async fn shutdown(&self) {
        self.inner.worker.shut_down();
        self.inner.renewal.abort();
        let close = transaction_request::Body::Close(v1::CloseTransactionSession {});
        let said = timeout_at(
            clock::now() + limits::SHUTDOWN_PATIENCE,
            self.inner.session.send(close),
        );
        if !matches!(said.await, Ok(Ok(()))) {
            tracing::debug!("the lease ends by itself");
        }
        self.inner.session.close(limits::SHUTDOWN_PATIENCE).await;
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        return format!("pid-{}", std::process::id());
    }
    name.chars().take(limits::MAX_NAME_BYTES / 4).collect()
}

fn program_name() -> String {
    std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .map_or_else(
            || "unnamed".into(),
            |name| name.chars().take(limits::MAX_NAME_BYTES / 4).collect(),
        )
}
