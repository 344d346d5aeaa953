//! `accede serve`: the daemon in the foreground.

use std::io::{self, IsTerminal as _};

use accede_server::{
    Error, Left, Server,
    config::{LogFormat, Settings},
};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{
    failure::Failure,
    output::{self, Output},
    text,
};

/// openraft tells of every election and vote; only its warnings concern an operator. A filter
/// that names openraft itself wins.
const QUIET: &str = "openraft=warn";

/// What `accede serve --json` prints at its end.
#[derive(Serialize)]
struct Ended {
    undecided: u64,
    unfinished: u64,
    stuck: u64,
}

/// Serves until a signal or a failure ends it.
///
/// # Errors
/// A log filter that cannot be read is wrong use; a start that is refused and a log that fails are
/// failures.
pub(crate) async fn run(settings: Settings, output: Output) -> Result<(), Failure> {
    log_to_stderr(&settings)?;
    let mut signals = Signals::new()?;
    let data_dir = settings.server.data_dir.display().to_string();
    tracing::info!(data_dir, version = env!("CARGO_PKG_VERSION"), "starting");
    let server = tokio::select! {
        started = Server::start(settings.server) => started.map_err(failure)?,
        name = signals.next() => {
            return Err(Failure::failed(format!("{name} came before the coordinator served")));
        }
    };
    let failed = tokio::select! {
        name = signals.next() => {
            tracing::info!("{name}: ending in order");
            None
        }
        error = server.failed() => {
            tracing::error!("{error}");
            Some(failure(error))
        }
    };
    let ended = tokio::select! {
        ended = server.shutdown() => ended,
        name = signals.next() => {
            return Err(failed.unwrap_or_else(|| Failure::failed(format!(
                "{name} came while the coordinator was ending; nothing that was acknowledged is lost"
            ))));
        }
    };
    match (failed, ended) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(failure(error)),
        (None, Ok(left)) => tell(left, output),
    }
}

fn tell(left: Left, output: Output) -> Result<(), Failure> {
    let text = format!(
        "Ended in order. Left for the next start: {} undecided, {} unfinished, {} stuck.",
        text::count(left.undecided, "transaction"),
        left.unfinished,
        left.stuck
    );
    let ended = Ended {
        undecided: left.undecided,
        unfinished: left.unfinished,
        stuck: left.stuck,
    };
    output.write(&ended, &text)
}

/// Settings are checked before the start; the server's own checks of them are wrong use, too.
fn failure(error: Error) -> Failure {
    match error {
        Error::OffLoopback { .. } | Error::Setting { .. } => Failure::usage(error),
        other => Failure::failed(other),
    }
}

fn log_to_stderr(settings: &Settings) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", settings.log_filter))
        .map_err(|error| Failure::usage(format!("log_filter: {error}")))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let set = match settings.log_format {
        LogFormat::Json => log.json().try_init(),
        LogFormat::Text => {
            let colour = io::stderr().is_terminal() && !output::no_colour();
            log.with_ansi(colour).try_init()
        }
    };
    set.map_err(Failure::failed)
}

/// The signals that end the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("cannot await signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
