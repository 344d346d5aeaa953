//! The rows of the result.

use serde::Serialize;

use super::{
    counted::Counts,
    way::{Measured, Mode},
};
use crate::report::{Row, Sample, median, rounded};

/// What the rows are kept in.
const DATABASE: &str = "postgres";

/// What a round found of one mode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) mode: Mode,
    pub(super) measured: Measured,
    pub(super) noisy: bool,
}

/// One mode at one concurrency.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    mode: &'static str,
    database: &'static str,
    concurrency: u32,
    transactions_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    round_trips: f64,
    forced_writes: f64,
    statements: f64,
    ratio_to_plain: f64,
    ratio_to_hand_written: f64,
}

/// A row for each mode that was counted.
pub(super) fn rows(concurrency: u32, rounds: &[Round], counts: &[(Mode, Counts)]) -> Vec<Figures> {
    let of = |mode: Mode, figure: fn(&Measured) -> f64| {
        let its = rounds.iter().filter(|round| round.mode == mode);
        median(its.map(|round| Sample {
            value: figure(&round.measured),
            noisy: round.noisy,
        }))
    };
    let per_s = |mode| of(mode, |measured| measured.per_s);
    let row = |&(mode, counts): &(Mode, Counts)| Figures {
        mode: mode.name(),
        database: DATABASE,
        concurrency,
        transactions_per_s: rounded(per_s(mode)),
        p50_us: rounded(of(mode, |measured| measured.p50_us)),
        p99_us: rounded(of(mode, |measured| measured.p99_us)),
        round_trips: rounded(counts.round_trips),
        forced_writes: rounded(counts.forced_writes),
        statements: rounded(counts.statements),
        ratio_to_plain: rounded(per_s(mode) / per_s(Mode::Plain)),
        ratio_to_hand_written: rounded(per_s(mode) / per_s(Mode::HandWritten)),
    };
    counts.iter().map(row).collect()
}

impl Row for Figures {
    fn head() -> Vec<&'static str> {
        vec![
            "mode",
            "database",
            "at once",
            "orders/s",
            "p50 µs",
            "p99 µs",
            "trips",
            "forced writes",
            "statements",
            "to plain",
            "to hand-written",
        ]
    }

    fn cells(&self) -> Vec<String> {
        let whole = |figure: f64| format!("{figure:.0}");
        let fine = |figure: f64| format!("{figure:.2}");
        vec![
            self.mode.to_owned(),
            self.database.to_owned(),
            self.concurrency.to_string(),
            whole(self.transactions_per_s),
            whole(self.p50_us),
            whole(self.p99_us),
            fine(self.round_trips),
            fine(self.forced_writes),
            fine(self.statements),
            fine(self.ratio_to_plain),
            fine(self.ratio_to_hand_written),
        ]
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn round(mode: Mode, per_s: f64, noisy: bool) -> Round {
        let measured = Measured {
            per_s,
            p50_us: 1e6 / per_s,
            p99_us: 2e6 / per_s,
        };
        Round {
            mode,
            measured,
            noisy,
        }
    }

    #[test]
    fn ratios_are_of_medians_and_json_has_the_agreed_names() {
        let rounds = [
            round(Mode::Plain, 1000.0, false),
            round(Mode::HandWritten, 500.0, false),
            round(Mode::Xa, 400.0, false),
            round(Mode::Xa, 10.0, true),
        ];
        let counts = Counts {
            round_trips: 8.004,
            forced_writes: 5.0,
            statements: 10.0,
        };
        let all = [Mode::Plain, Mode::HandWritten, Mode::Xa].map(|mode| (mode, counts));
        let rows = rows(8, &rounds, &all);
        let last = rows.last().map(serde_json::to_value);
        assert_eq!(
            last.unwrap().unwrap(),
            serde_json::json!({
                "mode": "xa", "database": "postgres", "concurrency": 8, "transactions_per_s": 400.0, "p50_us": 2500.0,
                "p99_us": 5000.0, "round_trips": 8.004, "forced_writes": 5.0, "statements": 10.0,
                "ratio_to_plain": 0.4, "ratio_to_hand_written": 0.8,
            })
        );
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0].cells().len(), Figures::head().len());
        assert_eq!(
            (rows[1].mode, rows[1].ratio_to_hand_written),
            ("hand_written", 1.0)
        );
    }

    #[test]
    fn every_mode_has_a_row() {
        let counts = Counts {
            round_trips: 1.0,
            forced_writes: 1.0,
            statements: 1.0,
        };
        let rounds = Mode::ALL.map(|mode| round(mode, 100.0, false));
        let rows = rows(32, &rounds, &Mode::ALL.map(|mode| (mode, counts)));
        let names: Vec<&str> = rows.iter().map(|row| row.mode).collect();
        assert_eq!(
            names,
            [
                "plain",
                "hand_written",
                "at",
                "xa",
                "tcc",
                "saga",
                "3pc",
                "mixed"
            ]
        );
        let read = |name: &str| Mode::from_str(name, false).map(Mode::name);
        for row in &rows {
            assert_eq!(read(row.mode), Ok(row.mode), "as an option");
            assert!(row.ratio_to_plain > 0.0 && row.ratio_to_hand_written > 0.0);
        }
    }
}
