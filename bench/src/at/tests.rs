use super::*;

#[test]
fn ratios_are_of_medians_and_json_has_the_agreed_names() {
    let sample = |way, value| {
        let noisy = false;
        (way, Sample { value, noisy })
    };
    let samples = [
        sample(Way::Plain, 100.0),
        sample(Way::Plain, 200.0),
        sample(Way::Plain, 900.0),
        sample(Way::At, 120.0),
        sample(Way::Naive, 60.0),
        sample(Way::WithoutCoordinator, 160.0),
    ];
    let per_branch = PerBranch {
        round_trips: 3.0,
        statements: 6.0,
    };
    let row = figures(8, &samples, per_branch);
    assert_eq!((row.ratio, row.ratio_to_naive), (Some(0.6), Some(2.0)));
    assert_eq!(row.ratio_without_coordinator, Some(0.8));
    assert_eq!(row.cells().len(), Figures::head().len());
    let names: Vec<String> = match serde_json::to_value(&row).unwrap() {
        serde_json::Value::Object(row) => row.into_iter().map(|(name, _)| name).collect(),
        other => panic!("{other}"),
    };
    let mut expected = [
        "database",
        "workload",
        "concurrency",
        "open_ms",
        "plain_per_s",
        "at_per_s",
        "naive_per_s",
        "ratio",
        "ratio_to_naive",
        "ratio_without_coordinator",
        "round_trips_per_branch",
        "statements_per_branch",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_is_counted_on_a_real_database() {
    let database = Database::start().await.unwrap();
    let per_branch = counted::count(&database).await.unwrap();
    // BEGIN with its settings, the statement with its images, undo record with COMMIT, and the
    // pool's test of the connection; now and then the table's description is read again.
    assert!(
        (4.0..4.2).contains(&per_branch.round_trips),
        "{per_branch:?}"
    );
    assert!(
        (5.0..5.2).contains(&per_branch.statements),
        "{per_branch:?}"
    );
    database.stop().await.unwrap();
}
