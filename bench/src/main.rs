//! How fast Accede is, and against what.

mod at;
mod child;
mod clock;
mod coordinator;
mod core;
mod modes;
mod quiet;
mod report;
mod tc;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// As the daemon has it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures Accede on this machine. Everything listens on 127.0.0.1 only, stops by itself and
/// leaves nothing behind.
#[derive(Debug, Parser)]
#[command(name = "accede-bench", version)]
struct Arguments {
    /// Print one line of JSON last instead of a table. Progress goes to stderr either way.
    #[arg(long, global = true)]
    json: bool,
    /// The `accede` program that is measured; beside this one unless given.
    #[arg(long, global = true, value_name = "PROGRAM")]
    accede: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The state machine alone.
    Core(core::Options),
    /// The coordinator: durable two-branch transactions through the wire.
    Tc(tc::Options),
    /// AT branches beside plain and hand-made transactions on a throw-away database.
    At(at::Options),
    /// All modes on an order over two databases, beside plain transactions and two-phase commit by
    /// hand.
    Modes(modes::Options),
    /// The server that only answers; started by `tc`.
    #[command(hide = true)]
    Echo {
        /// Where to listen.
        address: SocketAddr,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut runtime = match arguments.what {
        // The load and the echo server have one thread, as the daemon has: they shall not take
        // more of the machine than they need.
        What::Core(_) | What::Tc(_) | What::Echo { .. } => {
            tokio::runtime::Builder::new_current_thread()
        }
        // Services have as many as there are cores.
        What::At(_) | What::Modes(_) => tokio::runtime::Builder::new_multi_thread(),
    };
    let result = runtime.enable_all().build().map_err(anyhow::Error::from);
    let result = result.and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                result = run(&arguments) => result,
                _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::progress(format!("accede-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::Core(options) => core::run(options, arguments.json),
        What::Tc(options) => tc::run(options, &accede(arguments)?, arguments.json).await,
        What::At(options) => at::run(options, &accede(arguments)?, arguments.json).await,
        What::Modes(options) => modes::run(options, &accede(arguments)?, arguments.json).await,
        What::Echo { address } => tc::echo(*address).await,
    }
}

/// The program that is measured.
fn accede(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    if let Some(program) = &arguments.accede {
        return Ok(program.clone());
    }
    let own = std::env::current_exe().context("this program has no path")?;
    Ok(own.with_file_name("accede"))
}
