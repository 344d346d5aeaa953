use super::{counted::Counts, *};
use crate::report::Row as _;

const COUNTS: Counts = Counts {
    plain_round_trips: 4.0,
    round_trips: 4.0,
    statements: Some(6.0),
};

fn samples(values: &[(Way, f64)]) -> Samples {
    let sample = |&(way, value)| {
        let noisy = false;
        (way, Sample { value, noisy })
    };
    values.iter().map(sample).collect()
}

/// The names and values of a row in JSON, without those that are empty.
fn filled(row: &Figures) -> Vec<(String, serde_json::Value)> {
    assert_eq!(row.cells().len(), Figures::head().len());
    match serde_json::to_value(row).unwrap() {
        serde_json::Value::Object(row) => row
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect(),
        other => panic!("{other}"),
    }
}

fn pairs(expected: serde_json::Value) -> Vec<(String, serde_json::Value)> {
    match expected {
        serde_json::Value::Object(expected) => expected.into_iter().collect(),
        other => panic!("{other}"),
    }
}

#[test]
fn ratios_are_of_medians_and_json_has_the_agreed_names() {
    let samples = samples(&[
        (Way::Plain, 100.0),
        (Way::Plain, 200.0),
        (Way::Plain, 900.0),
        (Way::At, 120.0),
        (Way::Naive, 60.0),
        (Way::WithoutCoordinator, 160.0),
        (Way::RolledBack, 80.0),
    ]);
    let row = Figures::committed(Kind::Postgres, Work::Random, 8, &samples, COUNTS);
    let expected = serde_json::json!({
        "database": "postgres", "workload": "random", "concurrency": 8, "open_ms": 0,
        "plain_per_s": 200.0, "at_per_s": 120.0, "naive_per_s": 60.0,
        "ratio": 0.6, "ratio_to_naive": 2.0, "ratio_without_coordinator": 0.8,
        "plain_round_trips": 4.0, "round_trips_per_branch": 4.0, "statements_per_branch": 6.0,
    });
    assert_eq!(filled(&row), pairs(expected));
    let row = Figures::rolled_back(Kind::MariaDb, 1, &samples);
    let expected = serde_json::json!({
        "database": "mariadb", "workload": "rollback", "concurrency": 1, "open_ms": 0,
        "at_per_s": 120.0, "rollback_per_s": 80.0, "rollback_cost": 1.5,
    });
    assert_eq!(filled(&row), pairs(expected));
}

#[test]
fn what_was_not_measured_is_empty() {
    let samples = samples(&[(Way::Plain, 10.0), (Way::At, 5.0)]);
    let counts = Counts {
        statements: None,
        ..COUNTS
    };
    let row = Figures::committed(Kind::MariaDb, Work::Insert1000, 1, &samples, counts);
    let expected = serde_json::json!({
        "database": "mariadb", "workload": "insert_1000", "concurrency": 1, "open_ms": 0,
        "plain_per_s": 10.0, "at_per_s": 5.0, "ratio": 0.5,
        "plain_round_trips": 4.0, "round_trips_per_branch": 4.0,
    });
    assert_eq!(filled(&row), pairs(expected));
    let row = Figures::hot(Mode::Escrow, 10, 400.0);
    let expected = serde_json::json!({
        "database": "postgres", "workload": "hot_escrow", "concurrency": 32, "open_ms": 10,
        "at_per_s": 400.0,
    });
    assert_eq!(filled(&row), pairs(expected));
}

/// Counts every kind of work on a real database; trips of a plain transaction and of a branch.
async fn are_counted(kind: Kind, expected: [(Work, f64, f64); 3]) {
    let database = Database::start(kind).await.unwrap();
    for (work, plain, branch) in expected {
        let counts = counted::count(&database, work).await.unwrap();
        assert_eq!(counts.plain_round_trips, plain, "{work:?}: {counts:?}");
        assert_eq!(counts.round_trips, branch, "{work:?}: {counts:?}");
        match kind {
            // BEGIN, two settings, the statement, the undo record, COMMIT.
            Kind::Postgres => assert_eq!(counts.statements, Some(5.0), "{counts:?}"),
            Kind::MariaDb => assert_eq!(counts.statements, None),
        }
    }
    database.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_are_counted_on_postgres() {
    // BEGIN with its settings, the statement with its images, undo record with COMMIT; a plain
    // transaction's connection is tested by its pool as well.
    let expected = [
        (Work::Random, 4.0, 3.0),
        (Work::Insert1000, 4.0, 3.0),
        (Work::Update1000, 4.0, 3.0),
    ];
    are_counted(Kind::Postgres, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_are_counted_on_mariadb() {
    // Rows are locked and read before an UPDATE and read again after it, and after an INSERT.
    let expected = [
        (Work::Random, 4.0, 5.0),
        (Work::Insert1000, 4.0, 4.0),
        (Work::Update1000, 4.0, 5.0),
    ];
    are_counted(Kind::MariaDb, expected).await;
}
