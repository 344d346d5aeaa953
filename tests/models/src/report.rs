//! Reports as text.

use std::fmt::Write as _;

use comfy_table::{Table, presets::NOTHING};

use crate::{checks::Report, rules::Finding};

/// A table of all, then the traces of what was found.
#[must_use]
pub fn text(reports: &[Report]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["model", "nodes", "states", "depth", "expected", "found", ""]);
    for report in reports {
        table.add_row([
            report.model.to_owned(),
            report.nodes.clone(),
            report.states.to_string(),
            report.depth.to_string(),
            Finding::name(report.expected).to_owned(),
            Finding::name(report.found).to_owned(),
            verdict(report).to_owned(),
        ]);
    }
    let mut text = format!("{table}\n");
    for report in reports {
        let _ = write!(
            text,
            "\n{}\n  may go wrong: {}\n",
            report.model, report.faults
        );
        if report.found.is_some() {
            let _ = writeln!(text, "  {}, the shortest way:", Finding::name(report.found));
        }
        for (at, step) in report.trace.iter().enumerate() {
            let _ = writeln!(text, "  {:>3}. {step}", at + 1);
        }
        if let Some(end) = &report.end {
            let _ = writeln!(text, "    => {end}");
        }
    }
    text
}

fn verdict(report: &Report) -> &'static str {
    match (report.as_expected, report.whole) {
        (true, _) => "ok",
        (false, true) => "WRONG",
        (false, false) => "TOO LARGE",
    }
}

/// The table as it stands in docs/three-phase.md.
#[must_use]
pub fn docs_table(reports: &[Report]) -> String {
    let mut table = String::from(
        "| model | nodes | what may go wrong | states | found |\n|---|---|---|---|---|\n",
    );
    for report in reports {
        let Report {
            model,
            nodes,
            faults,
            states,
            found,
            ..
        } = report;
        let found = match found {
            None => "nothing".to_owned(),
            Some(_) => format!(
                "**{}**, {} steps",
                Finding::name(*found),
                report.trace.len()
            ),
        };
        let _ = writeln!(
            table,
            "| {model} | {nodes} | {faults} | {states} | {found} |"
        );
    }
    table
}
