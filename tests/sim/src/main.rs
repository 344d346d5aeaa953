//! The simulator's command line; `./dev sim` builds and starts it.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use accede_sim::{Arguments, Found, SEEDS, Summary, USAGE, find_all, run_many, run_traced};

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            let _ = writeln!(io::stderr(), "error: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // A run that panics has broken a rule; it is reported as such.
    std::panic::set_hook(Box::new(|_| {}));
    let result = match arguments {
        Arguments::Seeds { from, count, json } => seeds(from, count, json),
        Arguments::Seed(seed) => one(seed),
        Arguments::Planted { json } => planted(json),
        Arguments::Help => writeln!(io::stdout(), "{USAGE}").map(|()| ExitCode::SUCCESS),
    };
    // Whoever closed stdout does not want to know the rest.
    result.unwrap_or(ExitCode::FAILURE)
}

fn one(seed: u64) -> io::Result<ExitCode> {
    let (run, story) = run_traced(seed);
    io::stdout().lock().write_all(story.as_bytes())?;
    Ok(exit_code(run.violation.is_none()))
}

fn seeds(from: u64, count: u64, json: bool) -> io::Result<ExitCode> {
    let shown = AtomicU64::new(0);
    let summary = run_many(from, count, false, &|done, broken| {
        progress(&shown, done, count, broken)
    });
    report(&summary);
    let Summary {
        seeds,
        transactions,
        faults,
        broken,
        ..
    } = &summary;
    let violations = broken.len();
    if json {
        writeln!(
            io::stdout(),
            "{{\"seeds\":{seeds},\"transactions\":{transactions},\"faults\":{faults},\
             \"violations\":{violations}}}"
        )?;
    } else {
        writeln!(
            io::stdout(),
            "{seeds} seeds, {transactions} transactions, {faults} faults, {violations} violations"
        )?;
    }
    Ok(exit_code(violations == 0))
}

/// Looks for each planted bug.
fn planted(json: bool) -> io::Result<ExitCode> {
    if accede_sim::names().is_empty() {
        let _ = writeln!(
            io::stderr(),
            "error: no bugs are planted: build with --features planted-bugs, as ./dev sim --planted does"
        );
        return Ok(ExitCode::from(2));
    }
    let found = find_all(&mut |bug| {
        let what = match &bug.by {
            Some((seed, violation)) => {
                format!("seed {seed}: {}: {}", violation.invariant, violation.what)
            }
            None => format!("NOT FOUND in {SEEDS} seeds"),
        };
        let _ = writeln!(io::stderr(), "{:<28} {what}", bug.name);
    });
    let hits = found.iter().filter(|bug| bug.by.is_some()).count();
    if json {
        let details: Vec<String> = found.iter().map(detail).collect();
        writeln!(
            io::stdout(),
            "{{\"planted\":{},\"found\":{hits},\"details\":[{}]}}",
            found.len(),
            details.join(",")
        )?;
    } else {
        writeln!(
            io::stdout(),
            "{hits} of {} planted bugs were found",
            found.len()
        )?;
    }
    Ok(exit_code(hits == found.len()))
}

/// Names of bugs and invariants hold no character that JSON would escape.
fn detail(bug: &Found) -> String {
    let (seed, invariant) = match &bug.by {
        Some((seed, violation)) => (seed.to_string(), format!("\"{}\"", violation.invariant)),
        None => ("null".to_owned(), "null".to_owned()),
    };
    format!(
        "{{\"name\":\"{}\",\"found\":{},\"seed\":{seed},\"invariant\":{invariant}}}",
        bug.name,
        bug.by.is_some()
    )
}

/// How many broken runs are told in full.
const TOLD: usize = 20;

fn report(summary: &Summary) {
    let mut stderr = io::stderr().lock();
    for (seed, run) in summary.broken.iter().take(TOLD) {
        let _ = writeln!(stderr, "{}", accede_sim::verdict(*seed, run));
    }
    let more = summary.broken.len().saturating_sub(TOLD);
    if more > 0 {
        let _ = writeln!(stderr, "and {more} more");
    }
}

/// On a terminal a line that changes, else a line now and then.
fn progress(shown: &AtomicU64, done: u64, count: u64, broken: u64) {
    let step = if io::stderr().is_terminal() {
        count.div_ceil(200)
    } else {
        count.div_ceil(10)
    };
    let due = done / step.max(1);
    if shown.fetch_max(due, Relaxed) >= due && done < count {
        return;
    }
    let mut stderr = io::stderr().lock();
    let _ = if io::stderr().is_terminal() {
        write!(stderr, "\r\x1b[K{done} of {count} seeds, {broken} broken").and_then(|()| {
            if done == count {
                writeln!(stderr)
            } else {
                stderr.flush()
            }
        })
    } else {
        writeln!(stderr, "{done} of {count} seeds, {broken} broken")
    };
}

fn exit_code(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
