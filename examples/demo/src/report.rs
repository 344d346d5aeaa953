//! What is shown at the end, and while it runs.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shop_api::{database::DatabaseKind, mode::ShopMode};

/// How wide the table is in a file, in characters.
const WIDTH: u16 = 120;

/// What became of one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Detail {
    pub(crate) name: String,
    pub(crate) passed: bool,
    pub(crate) seconds: f64,
    /// Why it failed; nothing when it passed.
    pub(crate) reason: Option<String>,
    /// What happened, for people.
    #[serde(skip)]
    pub(crate) note: String,
}

/// The result of a run, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    database: &'static str,
    mode: &'static str,
    pub(crate) scenarios: usize,
    pub(crate) passed: usize,
    pub(crate) invariants_hold: bool,
    details: Vec<Detail>,
}

impl Report {
    pub(crate) fn new(kind: DatabaseKind, mode: ShopMode, scenarios: usize) -> Self {
        Self {
            database: kind.name(),
            mode: mode.name(),
            scenarios,
            passed: 0,
            // Until they were found to hold.
            invariants_hold: false,
            details: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, detail: Detail) {
        self.passed += usize::from(detail.passed);
        self.details.push(detail);
    }

    /// What failed outside of any scenario.
    pub(crate) fn add_failure(&mut self, name: &str, took: Duration, reason: String) {
        self.add(Detail {
            name: name.to_owned(),
            passed: false,
            seconds: rounded(took),
            reason: Some(reason),
            note: String::new(),
        });
    }

    pub(crate) fn all_passed(&self) -> bool {
        self.invariants_hold
            && self.passed == self.scenarios
            && self.details.iter().all(|detail| detail.passed)
    }

    /// As a table on stdout, or on stderr with one line of JSON on stdout.
    pub(crate) fn print(&self, json: bool) -> io::Result<()> {
        let mut table = self.table();
        if json {
            table.use_stderr();
        }
        if !table.is_tty() {
            table.set_width(WIDTH);
        }
        if json {
            writeln!(io::stderr(), "{table}")?;
            writeln!(io::stdout(), "{}", serde_json::to_string(self)?)?;
        } else {
            writeln!(io::stdout(), "{table}")?;
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table
            .load_style(UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(["scenario", "result", "seconds", "what happened"]);
        for detail in &self.details {
            let what = detail.reason.as_deref().unwrap_or(&detail.note);
            table.add_row([
                Cell::new(&detail.name),
                result(detail.passed),
                Cell::new(format!("{:.1}", detail.seconds)),
                Cell::new(what),
            ]);
        }
        let books = if self.invariants_hold {
            "goods and money add up over all three databases"
        } else {
            "goods and money were not found to add up"
        };
        table.add_row([
            Cell::new(format!("{} of {}", self.passed, self.scenarios)),
            result(self.all_passed()),
            Cell::new(""),
            Cell::new(books),
        ]);
        table
    }
}

fn result(passed: bool) -> Cell {
    if passed {
        Cell::new("passed").fg(Color::Green)
    } else {
        Cell::new("FAILED").fg(Color::Red)
    }
}

/// Seconds with two decimals.
pub(crate) fn rounded(took: Duration) -> f64 {
    (took.as_secs_f64() * 100.0).round() / 100.0
}

/// Tells on stderr what is being done: a running line on a terminal, else a line each.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner:.green} {msg} {elapsed:.dim}");
            let bar = ProgressBar::new_spinner();
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar }
    }

    /// What is being done now.
    pub(crate) fn doing(&self, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(text.to_owned());
                bar.reset_elapsed();
            }
            None => self.say(&format!("{text} …")),
        }
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: &str) {
        let print = || {
            // Without a terminal there is nobody else to tell.
            let _ = writeln!(io::stderr(), "{text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_promised_fields() {
        let mut report = Report::new(DatabaseKind::Postgres, ShopMode::At, 2);
        report.invariants_hold = true;
        report.add(Detail {
            name: "one".into(),
            passed: true,
            seconds: rounded(Duration::from_millis(1_236)),
            reason: None,
            note: "all well".into(),
        });
        assert!(!report.all_passed(), "one is missing");
        report.add_failure("two", Duration::ZERO, "bad luck".into());
        assert!(!report.all_passed());
        assert_eq!(
            serde_json::to_string(&report).expect("plain data"),
            r#"{"database":"postgres","mode":"at","scenarios":2,"passed":1,"invariants_hold":true,"details":[{"name":"one","passed":true,"seconds":1.24,"reason":null},{"name":"two","passed":false,"seconds":0.0,"reason":"bad luck"}]}"#
        );
        let table = report.table().to_string();
        assert!(
            table.contains("bad luck") && table.contains("1 of 2"),
            "{table}"
        );
    }
}
