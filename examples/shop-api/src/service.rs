//! What every service of the shop does in the same way.

use std::{io::IsTerminal as _, time::Duration};

use accede_rm_agent::{Error as AgentError, RmAgent};
use tokio::signal::unix::{SignalKind, signal};
use tonic::{Code, Status};
use tonic_health::server::HealthReporter;
use tracing_subscriber::EnvFilter;

/// How often a service looks whether it can still take part in transactions.
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);

/// Logs to stderr; `RUST_LOG` says how much, `info` unless it is set.
pub fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Resolves when the process is asked to stop, by Ctrl-C or SIGTERM.
pub async fn asked_to_stop() {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            tracing::error!(%error, "SIGTERM cannot be heard, stopping");
            return;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tracing::info!("stopping");
}

/// Keeps the health service telling whether transactions can be served.
pub async fn report_health(reporter: HealthReporter, agent: RmAgent) {
    let mut interval = tokio::time::interval(HEALTH_INTERVAL);
    loop {
        interval.tick().await;
        let status = if agent.status().is_ready() {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        reporter.set_service_status("", status).await;
    }
}

/// Why nothing was frozen or promised.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken<O> {
    /// It cannot be, which is an answer.
    #[error("it cannot be taken")]
    No(O),
    /// The library was in the way.
    #[error(transparent)]
    Accede(#[from] AgentError),
    /// The database was.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl<O> NotTaken<O> {
    /// What became of it, if that is an answer.
    ///
    /// # Errors
    /// It is none: what was in the way.
    pub fn outcome(self) -> sqlx::Result<O> {
        match self {
            Self::No(outcome) => Ok(outcome),
            Self::Accede(error) => Err(error.into()),
            Self::Database(error) => Err(error),
        }
    }
}

/// What a caller hears when the database or the coordinator was in the way:
/// `ABORTED` when the whole transaction may succeed if it is run again.
#[must_use]
pub fn database_status(error: &sqlx::Error) -> Status {
    let own = AgentError::from_sqlx(error);
    let code = match own {
        Some(
            AgentError::Refused(_)
            | AgentError::LocalLockTimedOut { .. }
            | AgentError::GaveUp { .. }
            | AgentError::RolledBackMeanwhile { .. }
            | AgentError::CommitUnknown { .. },
        ) => Code::Aborted,
        Some(_) => Code::Internal,
        None if accede_rm_agent::is_retryable(error) => Code::Aborted,
        None if error.as_database_error().is_some() => Code::Internal,
        None => Code::Unavailable,
    };
    let text = own.map_or_else(|| error.to_string(), ToString::to_string);
    tracing::warn!(error = text, "the local transaction failed");
    Status::new(code, text)
}
