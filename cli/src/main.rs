//! `accede`: the coordinator daemon and what operators need, in one binary.

mod args;
mod check_config;
mod client;
mod failure;
mod lock;
mod output;
mod schema;
mod serve;
mod text;
mod tx;
mod view;
mod why;

use std::{io, process::ExitCode};

use clap::Parser as _;
use mimalloc::MiMalloc;
use serde::Serialize;

use crate::{
    args::{Cli, Verb},
    client::Coordinator,
    failure::Failure,
    output::Output,
};

/// Millions of small records come and go: the system's allocator takes several times as long.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What `--json` prints when a command failed.
#[derive(Serialize)]
struct Failed {
    error: String,
    exit_code: u8,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; if nobody reads them there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let output = Output::new(cli.json);
    match run(cli, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure, output);
            ExitCode::from(&failure)
        }
    }
}

fn run(cli: Cli, output: Output) -> Result<(), Failure> {
    let start = |threads| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start: {error}")))
    };
    if let Verb::Serve(given) = &cli.command {
        let settings = check_config::load(given)?;
        return start(settings.worker_threads)?.block_on(serve::run(settings, output));
    }
    start(1)?.block_on(async {
        match cli.command {
            Verb::Serve(_) => unreachable!("returned above"),
            Verb::CheckConfig(settings) => check_config::run(&settings, output),
            Verb::Status => tx::status(Coordinator::connect(&cli.coordinator).await?, output).await,
            Verb::Tx(what) => {
                tx::run(what, Coordinator::connect(&cli.coordinator).await?, output).await
            }
            Verb::Lock(what) => {
                lock::run(what, Coordinator::connect(&cli.coordinator).await?, output).await
            }
            Verb::Schema(what) => schema::run(&what, output).await,
        }
    })
}

/// The sentence goes to stderr; with `--json` stdout ends with it as well. If neither can be
/// written, the exit code still tells.
fn report(failure: &Failure, output: Output) {
    let _ = output::write_line(&mut io::stderr().lock(), &format!("accede: {failure}"));
    if output.json {
        let failed = Failed {
            error: failure.to_string(),
            exit_code: failure.code(),
        };
        let _ = output.write(&failed, "");
    }
}
