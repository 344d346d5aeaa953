//! What people and programs read: progress on stderr, a table or JSON on stdout.

use std::io::Write as _;

use anyhow::Context as _;
use comfy_table::Table;
use serde::Serialize;

/// Says on stderr what is going on.
pub(crate) fn progress(text: impl AsRef<str>) {
    // Nobody reads it any more: not a reason to stop measuring.
    let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
}

/// What a benchmark prints: one row per load.
pub(crate) trait Row: Serialize {
    /// The table's head.
    fn head() -> Vec<&'static str>;
    /// The row's cells in the order of the head.
    fn cells(&self) -> Vec<String>;
}

#[derive(Serialize)]
struct Report<'a, R> {
    rows: &'a [R],
}

/// Prints all rows to stdout: as a table, or as one line of JSON that comes last.
///
/// # Errors
/// When stdout is closed.
pub(crate) fn print<R: Row>(rows: &[R], json: bool) -> anyhow::Result<()> {
    let text = if json {
        serde_json::to_string(&Report { rows }).context("figures that JSON cannot hold")?
    } else {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header(R::head());
        for row in rows {
            table.add_row(row.cells());
        }
        table.to_string()
    };
    writeln!(std::io::stdout(), "{text}").context("stdout is closed")
}

/// Three significant digits after the point are more than a benchmark knows.
pub(crate) fn rounded(value: f64) -> f64 {
    let scale = if value.abs() >= 100.0 { 1.0 } else { 1000.0 };
    (value * scale).round() / scale
}

/// One round's figure and whether the disk was noisy before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// What was measured.
    pub(crate) value: f64,
    /// The disk was not quiet within the time that it was given.
    pub(crate) noisy: bool,
}

/// The median of the quiet rounds, of all rounds if none was quiet; 0 without rounds.
pub(crate) fn median(samples: impl IntoIterator<Item = Sample>) -> f64 {
    let (noisy, quiet): (Vec<_>, Vec<_>) = samples.into_iter().partition(|sample| sample.noisy);
    let mut values: Vec<f64> = if quiet.is_empty() { noisy } else { quiet }
        .iter()
        .map(|sample| sample.value)
        .collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        length if length.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[(f64, bool)]) -> Vec<Sample> {
        let sample = |&(value, noisy)| Sample { value, noisy };
        values.iter().map(sample).collect()
    }

    #[test]
    fn the_median_prefers_quiet_rounds() {
        let all = [(5.0, false), (1.0, false), (3.0, false)];
        assert_eq!(median(samples(&all)), 3.0);
        assert_eq!(median(samples(&all[..2])), 3.0);
        assert_eq!(median(samples(&[(5.0, false), (1.0, true)])), 5.0);
        assert_eq!(median(samples(&[(5.0, true), (1.0, true)])), 3.0);
        assert_eq!(median(samples(&[])), 0.0);
    }

    #[test]
    fn figures_are_rounded() {
        assert_eq!(rounded(0.123_456), 0.123);
        assert_eq!(rounded(61_234.567), 61_235.0);
    }
}
