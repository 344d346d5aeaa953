//! The models' command line; `./dev models` builds and starts it.

use std::{
    io::{self, Write},
    process::ExitCode,
};

const USAGE: &str = "\
usage: accede-models [--json]    look at everything that can happen in each model of a protocol
With --json one object for each model, a line each; else a table, and the traces of what was found.
Exit: 0 all is as expected, 1 something is not, 2 wrong use.";

fn main() -> ExitCode {
    let mut json = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            "--help" | "-h" => return written(writeln!(io::stdout(), "{USAGE}"), true),
            _ => {
                let _ = writeln!(
                    io::stderr(),
                    "error: unknown argument {argument:?}\n{USAGE}"
                );
                return ExitCode::from(2);
            }
        }
    }
    let reports = accede_models::explore_all();
    let as_expected = reports.iter().all(|report| report.as_expected);
    let mut stdout = io::stdout().lock();
    let result = if json {
        reports.iter().try_for_each(|report| {
            serde_json::to_writer(&mut stdout, report)?;
            writeln!(stdout)
        })
    } else {
        stdout.write_all(accede_models::text(&reports).as_bytes())
    };
    written(result, as_expected)
}

fn written(result: io::Result<()>, good: bool) -> ExitCode {
    match result {
        Ok(()) if good => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "error: the result could not be written: {error}"
            );
            ExitCode::FAILURE
        }
    }
}
