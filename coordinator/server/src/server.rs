//! The daemon: its parts started and ended in order.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use accede_core::{Counts, State};
use accede_log::{Log, OpenError};
use parking_lot::RwLock;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

use crate::{
    Error, ServerConfig,
    driver::Driver,
    http,
    hub::Hub,
    intake::Gate,
    limits::{DRAIN, TAKE_OFFICE},
    listen::{self, Ending},
    machine::Machine,
};

/// A running coordinator.
///
/// Call [`Server::shutdown`] before the process ends; one that is only dropped was killed, which
/// is safe: what was acknowledged is in the log.
pub struct Server {
    hub: Arc<Hub>,
    addr: SocketAddr,
    broken: Arc<OnceLock<String>>,
    health: HealthReporter,
    ending: Ending,
    stop_driver: CancellationToken,
    driver_ended: CancellationToken,
    idle: watch::Receiver<bool>,
    driver: JoinHandle<()>,
    acceptor: JoinHandle<()>,
}

/// What a shutdown leaves for the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// Undecided transactions: they go on or time out after the next start.
    pub undecided: u64,
    /// Decided transactions with unfinished branches: they are finished after the next start.
    pub unfinished: u64,
    /// Transactions with a branch that needs a person.
    pub stuck: u64,
}

impl Left {
    fn of(counts: &Counts) -> Self {
        Self {
            undecided: counts.active + counts.delegated,
            unfinished: counts.pre_committed + counts.committing + counts.rolling_back,
            stuck: counts.stuck,
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Binds the address, opens the log and serves. Returns when requests are answered.
    ///
    /// # Errors
    /// Every [`Error`] says what to do; nothing runs afterwards.
    pub async fn start(config: ServerConfig) -> Result<Self, Error> {
        config.check()?;
        let bind = |source| Error::Bind {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
        let addr = listener.local_addr().map_err(bind)?;
        let state = Arc::new(RwLock::new(State::new()));
        let broken = Arc::new(OnceLock::new());
        let machine = Machine::new(Arc::clone(&state), Arc::clone(&broken));
        let log = Log::open(config.log(), machine)
            .await
            .map_err(|error| named(error, &broken))?;
        let hub = Arc::new(Hub::new(config, log, state)?);
        let driver = Driver::new(Arc::clone(&hub));
        let idle = driver.idle();
        let (routes, health) = http::routes(&hub).await?;
        let ending = Ending::default();
        let stop_driver = CancellationToken::new();
        let driver_ended = CancellationToken::new();
        let told = driver_ended.clone().drop_guard();
        let stop = stop_driver.clone();
        let server = Self {
            driver: tokio::spawn(async move {
                let _told = told;
                driver.run(stop).await;
            }),
            acceptor: tokio::spawn(listen::accept(listener, routes, ending.clone())),
            hub,
            addr,
            broken,
            health,
            ending,
            stop_driver,
            driver_ended,
            idle,
        };
        server.take_office().await
    }

    async fn take_office(self) -> Result<Self, Error> {
        let mut office = self.hub.office_changes();
        let problem = tokio::select! {
            failed = self.failed() => Some(failed),
            in_office = timeout(TAKE_OFFICE, office.wait_for(Option::is_some)) => match in_office {
                Ok(Ok(_)) => None,
                _ => Some(Error::NoOffice { seconds: TAKE_OFFICE.as_secs() }),
            },
        };
        if let Some(problem) = problem {
            // What it left does not matter: it has done nothing.
            let _ = self.shutdown().await;
            return Err(problem);
        }
        http::set_serving(&self.health, true).await;
        tracing::info!(addr = %self.addr, "serving");
        Ok(self)
    }

    /// Where it listens; the port that was taken if it was to choose one.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The id of its cluster, as clients and databases show it.
    #[must_use]
    pub fn cluster_id(&self) -> accede_log::ClusterId {
        self.hub.log.cluster_id()
    }

    /// Waits until the daemon can no longer go on, for ever if that never happens. The caller
    /// prints the reason and ends the process; nothing is acknowledged any more.
    pub async fn failed(&self) -> Error {
        let failure = tokio::select! {
            failure = self.hub.log.failed() => Some(failure),
            () = self.driver_ended.cancelled() => None,
        };
        if let Some(what) = self.broken.get() {
            return Error::Entry(what.clone());
        }
        match failure {
            Some(failure) => Error::Log(failure),
            None => Error::Ended { part: "driver" },
        }
    }

    /// Ends in order: begins nothing new, answers what is under way, ends the sessions, closes
    /// the log. Takes a few seconds at most.
    ///
    /// # Errors
    /// The failure that had ended the daemon before.
    pub async fn shutdown(mut self) -> Result<Left, Error> {
        tracing::info!("shutting down");
        http::set_serving(&self.health, false).await;
        self.hub.intake.narrow(Gate::Finishing);
        let drained = timeout(DRAIN, self.idle.wait_for(|idle| *idle));
        // An error says that the driver has ended: then nothing is under way either.
        if drained.await.is_err() {
            tracing::warn!("still busy after {DRAIN:?}; callers will ask again");
        }
        self.hub.intake.narrow(Gate::Shut);
        // Whoever waits for a row or a decision is told to ask the next daemon.
        self.stop_driver.cancel();
        self.hub.end_sessions.cancel();
        self.ending.graceful.cancel();
        if timeout(DRAIN, self.ending.connections.wait())
            .await
            .is_err()
        {
            tracing::debug!("cuts connections that did not end by themselves");
            self.ending.abrupt.cancel();
            self.ending.connections.wait().await;
        }
        let part = |part| move |_| Error::Ended { part };
        let driver = timeout(DRAIN, &mut self.driver).await;
        self.acceptor.await.map_err(part("acceptor"))?;
        let closed = self.hub.log.shutdown().await;
        if let Some(archive) = &self.hub.archive {
            archive.close(DRAIN).await;
        }
        if let Some(what) = self.broken.get() {
            return Err(Error::Entry(what.clone()));
        }
        closed?;
        match driver {
            Ok(ended) => ended.map_err(part("driver"))?,
            Err(_) => self.driver.abort(),
        }
        let left = Left::of(&self.hub.state.read().counts());
        tracing::info!(
            undecided = left.undecided,
            unfinished = left.unfinished,
            stuck = left.stuck,
            "ended; the next start goes on with what is left"
        );
        Ok(left)
    }
}

/// An entry that cannot be read is named, whatever the log makes of it.
fn named(error: OpenError, broken: &OnceLock<String>) -> Error {
    match broken.get() {
        Some(what) => Error::Entry(what.clone()),
        None => Error::Open(error),
    }
}
