//! The demo: runs the example shop and shows that its orders are all or nothing.

mod args;
mod books;
mod clock;
mod databases;
mod keep;
mod observer;
mod operator;
mod pool;
mod process;
mod report;
mod scenarios;
mod server;
mod shop;
mod wait;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use args::{Args, Chosen};
use report::{Detail, Progress, Report, rounded};
use scenarios::Scenario;
use shop::{Choices, Shop};

// One thread: child processes die with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let chosen = match args.chosen() {
        Ok(chosen) => chosen,
        Err(error) => error.exit(),
    };
    let passed = match &args.stop {
        Some(folder) => keep::stop(folder).await.map(|()| true),
        None => run(&args, chosen).await,
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Without stderr there is nobody else to tell.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, on: Chosen) -> Result<bool> {
    let interrupted = interrupted()?;
    tokio::pin!(interrupted);
    let chosen: Vec<&Scenario> = scenarios::ALL
        .iter()
        .filter(|one| args.scenario.is_empty() || args.scenario.iter().any(|name| name == one.name))
        .collect();
    let mut report = Report::new(on.kind, on.mode, chosen.len());
    let progress = Progress::new();
    let began = clock::now();
    let choices = Choices {
        keep: args.keep,
        reset: args.reset,
    };
    let started = tokio::select! {
        started = Shop::start(on, choices, &progress) => started,
        name = &mut interrupted => Err(anyhow::anyhow!("{name}: everything is stopped")),
    };
    let mut shop = match started {
        Ok(shop) => shop,
        Err(error) => {
            drop(progress);
            report.add_failure("start", began.elapsed(), format!("{error:#}"));
            report.print(args.json)?;
            return Ok(false);
        }
    };
    progress.say(&format!(
        "the shop is open ({:.1} s)",
        began.elapsed().as_secs_f64()
    ));

    let ended = tokio::select! {
        () = play(&mut shop, &chosen, &mut report, &progress) => None,
        name = &mut interrupted => Some(name),
    };
    if let Some(name) = ended {
        progress.doing("stopping everything");
        shop.abandon().await;
        drop(progress);
        report.add_failure(name, Duration::ZERO, "everything is stopped".to_owned());
        report.print(args.json)?;
        return Ok(false);
    }
    if args.keep {
        drop(progress);
        tell_how_to_stop(shop)?;
    } else {
        let began = clock::now();
        progress.doing("closing the shop");
        if let Err(error) = shop.stop().await {
            report.add_failure("stop", began.elapsed(), format!("{error:#}"));
        }
        drop(progress);
    }
    report.print(args.json)?;
    Ok(report.all_passed())
}

/// Runs the scenarios; one that fails does not keep the others from running.
async fn play(shop: &mut Shop, chosen: &[&Scenario], report: &mut Report, progress: &Progress) {
    let mut books_hold = true;
    for scenario in chosen {
        let began = clock::now();
        progress.doing(&format!("{}: {}", scenario.name, scenario.about));
        let ran = (scenario.run)(shop).await;
        let took = began.elapsed();
        let mark = if ran.is_ok() { "passed" } else { "FAILED" };
        progress.say(&format!(
            "{mark}  {:<20} {:>5.1} s  {}",
            scenario.name,
            took.as_secs_f64(),
            scenario.about
        ));
        if let Err(error) = &ran {
            progress.say(&format!("{error:#}"));
            shop.show_logs(progress);
        }
        let (reason, note) = match ran {
            Ok(note) => (None, note),
            Err(error) => (Some(format!("{error:#}")), String::new()),
        };
        let failed = reason.is_some();
        report.add(Detail {
            name: scenario.name.to_owned(),
            passed: !failed,
            seconds: rounded(took),
            reason,
            note,
        });
        if failed {
            progress.doing("making the shop whole again");
            let mended = shop.mend().await;
            books_hold &= mended.is_ok() && scenarios::settled(shop).await.is_ok();
        }
    }
    report.invariants_hold = books_hold && !chosen.is_empty();
}

/// Prints the addresses and how to stop what is left running.
fn tell_how_to_stop(shop: Shop) -> Result<()> {
    let mut text = String::from("The shop is left running:\n");
    for (name, address) in shop.addresses() {
        text += &format!("  {name:<17} {address}\n");
    }
    let folder = keep::leave(shop)?;
    text += &format!("  {:<17} {}\n", "logs and data", folder.display());
    text += &format!("Stop it with: ./dev demo --stop {}", folder.display());
    writeln!(io::stderr(), "{text}").context("stderr")
}

/// Resolves when somebody wants the demo to end.
fn interrupted() -> Result<impl Future<Output = &'static str>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "terminated",
            _ = hang_up.recv() => "hung up",
        }
    })
}
