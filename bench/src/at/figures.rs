//! The rows of the result.

use serde::Serialize;

use super::{
    counted::Counts,
    hot::{self, Mode},
    server::Kind,
    store::Work,
    ways::Way,
};
use crate::report::{Row, Sample, median, rounded};

/// One workload at one concurrency on one database; what it does not measure is empty.
#[derive(Debug, Default, Serialize)]
pub(super) struct Figures {
    database: &'static str,
    workload: &'static str,
    concurrency: u32,
    open_ms: u64,
    plain_per_s: Option<f64>,
    at_per_s: f64,
    naive_per_s: Option<f64>,
    rollback_per_s: Option<f64>,
    ratio: Option<f64>,
    ratio_to_naive: Option<f64>,
    ratio_without_coordinator: Option<f64>,
    rollback_cost: Option<f64>,
    plain_round_trips: Option<f64>,
    round_trips_per_branch: Option<f64>,
    statements_per_branch: Option<f64>,
}

/// What was measured of one way, round by round.
pub(super) type Samples = Vec<(Way, Sample)>;

fn median_of(samples: &Samples, way: Way) -> Option<f64> {
    let its = || samples.iter().filter(|(other, _)| *other == way);
    its().next()?;
    Some(median(its().map(|(_, sample)| *sample)))
}

impl Figures {
    /// A statement that commits, against the same in a plain transaction.
    pub(super) fn committed(
        kind: Kind,
        work: Work,
        concurrency: u32,
        samples: &Samples,
        counts: Counts,
    ) -> Self {
        let of = |way| median_of(samples, way);
        let at = of(Way::At).unwrap_or_default();
        let plain = of(Way::Plain);
        let to_plain = |figure: f64| plain.map(|plain| rounded(figure / plain));
        Self {
            database: kind.name(),
            workload: work.name(),
            concurrency,
            plain_per_s: plain.map(rounded),
            at_per_s: rounded(at),
            naive_per_s: of(Way::Naive).map(rounded),
            ratio: to_plain(at),
            ratio_to_naive: of(Way::Naive).map(|naive| rounded(at / naive)),
            ratio_without_coordinator: of(Way::WithoutCoordinator).and_then(to_plain),
            plain_round_trips: Some(rounded(counts.plain_round_trips)),
            round_trips_per_branch: Some(rounded(counts.round_trips)),
            statements_per_branch: counts.statements.map(rounded),
            ..Self::default()
        }
    }

    /// Branches that are rolled back, against those that commit.
    pub(super) fn rolled_back(kind: Kind, concurrency: u32, samples: &Samples) -> Self {
        let of = |way| median_of(samples, way);
        let at = of(Way::At).unwrap_or_default();
        Self {
            database: kind.name(),
            workload: "rollback",
            concurrency,
            at_per_s: rounded(at),
            rollback_per_s: of(Way::RolledBack).map(rounded),
            rollback_cost: of(Way::RolledBack).map(|back| rounded(at / back)),
            ..Self::default()
        }
    }

    /// One row that all writers want.
    pub(super) fn hot(mode: Mode, open_ms: u64, at: f64) -> Self {
        Self {
            database: Kind::Postgres.name(),
            workload: mode.workload(),
            concurrency: hot::WRITERS,
            open_ms,
            at_per_s: rounded(at),
            ..Self::default()
        }
    }
}

impl Row for Figures {
    fn head() -> Vec<&'static str> {
        vec![
            "database",
            "workload",
            "at once",
            "open ms",
            "plain/s",
            "AT/s",
            "naive/s",
            "rolled back/s",
            "ratio",
            "to naive",
            "without coordinator",
            "rollback cost",
            "trips plain",
            "trips AT",
            "statements",
        ]
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.database.to_owned(),
            self.workload.to_owned(),
            self.concurrency.to_string(),
            self.open_ms.to_string(),
            whole(self.plain_per_s),
            whole(Some(self.at_per_s)),
            whole(self.naive_per_s),
            whole(self.rollback_per_s),
            fine(self.ratio),
            fine(self.ratio_to_naive),
            fine(self.ratio_without_coordinator),
            fine(self.rollback_cost),
            fine(self.plain_round_trips),
            fine(self.round_trips_per_branch),
            fine(self.statements_per_branch),
        ]
    }
}

fn whole(figure: Option<f64>) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.0}"))
}

fn fine(figure: Option<f64>) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.2}"))
}
