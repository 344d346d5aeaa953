//! Steps of sagas that keep their promises, and others that break one each, on every database: the
//! kit tells which.

#[path = "../../rm-agent/src/store/mariadb/tests/server.rs"]
mod mariadb_server;
#[path = "../../rm-agent/src/store/postgres/tests/server.rs"]
mod postgres_server;
#[path = "sagas/travel.rs"]
mod travel;

use std::sync::{Arc, Mutex};

use accede_testkit::{Broken, Report, Rule, TestKit};
use accede_tm_client::{Saga, Step};
use serde_json::json;

use travel::{Booking, Fault, everywhere, postgres};

fn flight(number: u64) -> Step {
    // Not the same number of seats twice.
    let seats = 2 + number as i64;
    let step = Step::new("flight", "flight.book").input(&Booking { seats });
    step.expect("small")
}

/// One after the other.
fn line(number: u64) -> Saga {
    let saga = Saga::builder("trip")
        .step(flight(number))
        .step(Step::new("hotel", "hotel.book"))
        .step(Step::new("car", "car.rent").retry_backward(1))
        .build();
    saga.expect("sound")
}

/// The flight and the car at once, the hotel when both are there.
fn side_by_side(number: u64) -> Saga {
    let saga = Saga::builder("trip")
        .step(flight(number))
        .step(Step::new("car", "car.rent").at_once().retry_forward())
        .step(
            Step::new("hotel", "hotel.book")
                .after("flight")
                .after("car"),
        )
        .build();
    saga.expect("sound")
}

fn held(database: &str, played: Result<Report, Broken>) -> Report {
    let report = played.unwrap_or_else(|broken| panic!("{database}: {broken}"));
    assert!(
        report.committed > 20 && report.rolled_back > 20,
        "{database}: {report:?}"
    );
    assert!(report.compensated > 20, "{database}: {report:?}");
    report
}

/// What is found on each database.
async fn found(fault: Fault) -> Vec<Broken> {
    let mut all = Vec::new();
    for (database, trial) in everywhere(fault).await {
        let Err(broken) = trial.run(line).await else {
            panic!("{database}: {fault:?} is not found");
        };
        let text = format!("{database}: {broken}");
        assert!(broken.seed > 0, "{text}");
        assert!(text.contains("ACCEDE_TESTKIT_SEED="), "{text}");
        assert!(text.contains("of transaction 0: "), "{text}");
        all.push(broken);
    }
    all
}

#[tokio::test]
async fn steps_one_after_the_other_pass() {
    for (database, trial) in everywhere(Fault::None).await {
        let report = held(database, trial.run(line).await);
        assert_eq!(report.cases, 200, "{database}");
    }
}

#[tokio::test]
async fn steps_side_by_side_pass() {
    for (database, trial) in everywhere(Fault::None).await {
        // What is taken is given back or used: a flight's seats are beds, too.
        let trial = trial.cases(100).invariant(|seen| {
            let numbers = seen.split(|c: char| !c.is_ascii_digit());
            let numbers: Vec<i64> = numbers.filter_map(|n| n.parse().ok()).collect();
            let same = numbers[1] == numbers[2];
            same.then_some(())
                .ok_or_else(|| format!("seats and beds: {seen}"))
        });
        held(database, trial.run(side_by_side).await);
    }
}

#[tokio::test]
async fn a_compensation_that_forgets_is_found() {
    for broken in found(Fault::Forgets).await {
        let Rule::Compensated(call) = &broken.rule else {
            panic!("{broken}");
        };
        assert!(call.call.contains("the compensation of step \"hotel\""));
        assert!(call.expected.contains("(hotel,50)"), "{broken}");
    }
}

#[tokio::test]
async fn what_takes_effect_outside_of_the_local_transaction_is_found() {
    for broken in found(Fault::BooksOutside).await {
        assert!(
            matches!(broken.rule, Rule::SameAsUndisturbed { .. }),
            "{broken}"
        );
    }
    for broken in found(Fault::CancelsOutside).await {
        // What a dead handler had sent may take effect while the step's repeat is looked at.
        assert!(
            matches!(broken.rule, Rule::Compensated(_) | Rule::TooLate(_)),
            "{broken}"
        );
    }
}

#[tokio::test]
async fn a_compensation_that_refuses_is_found() {
    for broken in found(Fault::Refuses).await {
        let Rule::Finishes(reason) = &broken.rule else {
            panic!("{broken}");
        };
        assert!(reason.contains("\"hotel\" of transaction"), "{reason}");
        assert!(reason.ends_with(": the beds are made"), "{reason}");
    }
}

#[tokio::test]
async fn a_step_that_remembers_instead_of_asking_is_found() {
    for broken in found(Fault::Remembers).await {
        assert!(
            matches!(broken.rule, Rule::SameAsUndisturbed { .. }),
            "{broken}"
        );
    }
}

#[tokio::test]
async fn a_plan_that_cannot_be_done_is_found_before_anything_is_disturbed() {
    // The hotel asks for the flight's result, and does not wait for it.
    let saga = |number| {
        let saga = Saga::builder("trip")
            .step(flight(number))
            .step(Step::new("hotel", "hotel.book").at_once())
            .build();
        saga.expect("sound")
    };
    let broken = postgres::trial(Fault::None).await.run(saga).await;
    let broken = broken.expect_err("nobody gives it the result");
    assert!(matches!(broken.rule, Rule::Completes(_)), "{broken}");
    assert!(
        broken
            .to_string()
            .contains("put it after that one in the plan")
    );
    assert_eq!(broken.seed, 0);

    let saga = |_| {
        let step = Step::new("boat", "boat.book")
            .input(&json!(1))
            .expect("small");
        let saga = Saga::builder("trip").step(step).build();
        saga.expect("sound")
    };
    let broken = postgres::trial(Fault::None).await.run(saga).await;
    let text = broken.expect_err("there is no boat").to_string();
    assert!(
        text.contains("\"boat.book\", which the trial does not know"),
        "{text}"
    );
}

#[tokio::test]
async fn steps_need_a_kit_with_their_database() {
    let (kit, pool, _) = postgres::kit().await;
    let travel = Arc::new(postgres::Travel {
        fault: Fault::None,
        pool,
        last_flight: Mutex::default(),
    });
    let step = postgres::Travel::rent_car_step(&travel);
    let refused = TestKit::without_database().saga([&step]);
    let text = refused.expect_err("it has none").to_string();
    assert!(text.contains("takes part by a callback"), "{text}");
    kit.saga([&step]).expect("bound");
    let text = kit.saga([&step]).expect_err("bound already").to_string();
    assert!(text.contains("served by another agent"), "{text}");
}
