//! Steps of sagas that keep their promises, and others that break one each: the kit tells which.

#[path = "../../rm-agent/src/store/postgres/tests/server.rs"]
mod server;

use std::sync::Arc;

use accede_rm_agent::{
    FencedTransaction,
    saga::{HandlerError, StepInput},
    saga_step,
};
use accede_testkit::{Broken, Report, Rule, Steps, TestKit, Trial};
use accede_tm_client::{Saga, Step};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgPool;

/// What is wrong with the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The hotel's compensation gives nothing back.
    Forgets,
    /// The flight is booked outside of the step's local transaction.
    BooksOutside,
    /// The flight is given back outside of it.
    CancelsOutside,
    /// The hotel does not take anything back.
    Refuses,
    /// The hotel is booked for whoever flew last.
    Remembers,
}

#[derive(Serialize, Deserialize)]
struct Booking {
    seats: i64,
}

struct Travel {
    fault: Fault,
    pool: PgPool,
    last_flight: std::sync::Mutex<i64>,
}

const TAKE: &str = "UPDATE place SET free = free - $2 WHERE name = $1 AND free >= $2";
const GIVE: &str = "UPDATE place SET free = free + $2 WHERE name = $1";

impl Travel {
    #[saga_step(resource = "flight.book", compensate = cancel_flight)]
    async fn book_flight(
        &self,
        tx: &mut FencedTransaction,
        step: StepInput<Booking>,
    ) -> Result<i64, HandlerError> {
        let seats = step.input.seats;
        let take = sqlx::query(TAKE).bind("flight").bind(seats);
        let taken = match self.fault {
            Fault::BooksOutside => take.execute(&self.pool).await?,
            _ => take.execute(&mut *tx).await?,
        };
        *self.last_flight.lock().expect("nobody panicked") = seats;
        match taken.rows_affected() {
            0 => Err(HandlerError::definite("no flight has so many free seats")),
            _ => Ok(seats),
        }
    }

    async fn cancel_flight(
        &self,
        tx: &mut FencedTransaction,
        step: StepInput<Booking>,
    ) -> Result<(), HandlerError> {
        let seats: Option<i64> = step.own_result()?;
        let give = sqlx::query(GIVE)
            .bind("flight")
            .bind(seats.unwrap_or(step.input.seats));
        match self.fault {
            Fault::CancelsOutside => give.execute(&self.pool).await?,
            _ => give.execute(&mut *tx).await?,
        };
        Ok(())
    }

    /// As many beds as seats, which only the flight knows.
    #[saga_step(resource = "hotel.book", compensate = cancel_hotel)]
    async fn book_hotel(
        &self,
        tx: &mut FencedTransaction,
        step: StepInput<()>,
    ) -> Result<i64, HandlerError> {
        let beds: i64 = match self.fault {
            Fault::Remembers => *self.last_flight.lock().expect("nobody panicked"),
            _ => step.result("flight")?,
        };
        let take = sqlx::query(TAKE).bind("hotel").bind(beds);
        take.execute(&mut *tx).await?;
        Ok(beds)
    }

    async fn cancel_hotel(
        &self,
        tx: &mut FencedTransaction,
        step: StepInput<()>,
    ) -> Result<(), HandlerError> {
        let beds: i64 = match self.fault {
            Fault::Refuses => return Err(HandlerError::definite("the beds are made")),
            Fault::Forgets => 0,
            _ => step.result("flight")?,
        };
        let give = sqlx::query(GIVE).bind("hotel").bind(beds);
        give.execute(&mut *tx).await?;
        Ok(())
    }

    #[saga_step(resource = "car.rent", compensate = return_car)]
    async fn rent_car(
        &self,
        tx: &mut FencedTransaction,
        _step: StepInput<()>,
    ) -> Result<(), HandlerError> {
        sqlx::query(TAKE)
            .bind("car")
            .bind(1_i64)
            .execute(&mut *tx)
            .await?;
        Ok(())
    }

    async fn return_car(
        &self,
        tx: &mut FencedTransaction,
        _step: StepInput<()>,
    ) -> Result<(), HandlerError> {
        sqlx::query(GIVE)
            .bind("car")
            .bind(1_i64)
            .execute(&mut *tx)
            .await?;
        Ok(())
    }
}

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

async fn trial(fault: Fault) -> Trial<Steps> {
    let url = server::database().await;
    let kit = TestKit::postgres(&url).await.expect("a kit");
    let pool = PgPool::connect(&url).await.expect("connects");
    sqlx::raw_sql(
        "CREATE TABLE place (name text PRIMARY KEY, free bigint);
         INSERT INTO place VALUES ('car', 0), ('flight', 0), ('hotel', 0)",
    )
    .execute(&pool)
    .await
    .expect("made");
    let travel = Arc::new(Travel {
        fault,
        pool: pool.clone(),
        last_flight: Default::default(),
    });
    let steps = [
        Travel::book_flight_step(&travel),
        Travel::book_hotel_step(&travel),
        Travel::rent_car_step(&travel),
    ];
    let (reset, look) = (pool.clone(), pool);
    kit.saga(&steps)
        .expect("bound")
        .reset(move || {
            let pool = reset.clone();
            async move {
                sqlx::query("UPDATE place SET free = 50")
                    .execute(&pool)
                    .await?;
                Ok(())
            }
        })
        .observe(move || {
            let pool = look.clone();
            async move {
                let all = "SELECT string_agg(p::text, ' ' ORDER BY name) FROM place p";
                Ok(sqlx::query_scalar(all).fetch_one(&pool).await?)
            }
        })
}

fn held(played: Result<Report, Broken>) -> Report {
    let report = played.unwrap_or_else(|broken| panic!("{broken}"));
    assert!(
        report.committed > 20 && report.rolled_back > 20,
        "{report:?}"
    );
    assert!(report.compensated > 20, "{report:?}");
    report
}

async fn found(fault: Fault) -> Broken {
    let broken = trial(fault).await.run(line).await;
    let broken = broken.expect_err("the fault is found");
    assert!(broken.seed > 0, "{broken}");
    let text = broken.to_string();
    assert!(text.contains("ACCEDE_TESTKIT_SEED="), "{text}");
    assert!(text.contains("of transaction 0: "), "{text}");
    broken
}

#[tokio::test]
async fn steps_one_after_the_other_pass() {
    let report = held(trial(Fault::None).await.run(line).await);
    assert_eq!(report.cases, 200);
}

#[tokio::test]
async fn steps_side_by_side_pass() {
    let trial = trial(Fault::None).await.cases(100);
    // What is taken is given back or used: a flight's seats are beds, too.
    let trial = trial.invariant(|seen| {
        let numbers = seen.split(|c: char| !c.is_ascii_digit());
        let numbers: Vec<i64> = numbers.filter_map(|n| n.parse().ok()).collect();
        let same = numbers[1] == numbers[2];
        same.then_some(())
            .ok_or_else(|| format!("seats and beds: {seen}"))
    });
    held(trial.run(side_by_side).await);
}

#[tokio::test]
async fn a_compensation_that_forgets_is_found() {
    let broken = found(Fault::Forgets).await;
    let Rule::Compensated(call) = &broken.rule else {
        panic!("{broken}");
    };
    assert!(call.call.contains("the compensation of step \"hotel\""));
    assert!(call.expected.contains("(hotel,50)"), "{broken}");
}

#[tokio::test]
async fn what_takes_effect_outside_of_the_local_transaction_is_found() {
    let broken = found(Fault::BooksOutside).await;
    assert!(
        matches!(broken.rule, Rule::SameAsUndisturbed { .. }),
        "{broken}"
    );
    let broken = found(Fault::CancelsOutside).await;
    assert!(matches!(broken.rule, Rule::Compensated(_)), "{broken}");
}

#[tokio::test]
async fn a_compensation_that_refuses_is_found() {
    let broken = found(Fault::Refuses).await;
    let Rule::Finishes(reason) = &broken.rule else {
        panic!("{broken}");
    };
    assert!(reason.contains("\"hotel\" of transaction"), "{reason}");
    assert!(reason.ends_with(": the beds are made"), "{reason}");
}

#[tokio::test]
async fn a_step_that_remembers_instead_of_asking_is_found() {
    let broken = found(Fault::Remembers).await;
    assert!(
        matches!(broken.rule, Rule::SameAsUndisturbed { .. }),
        "{broken}"
    );
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
    let broken = trial(Fault::None).await.run(saga).await;
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
    let broken = trial(Fault::None).await.run(saga).await;
    let text = broken.expect_err("there is no boat").to_string();
    assert!(
        text.contains("\"boat.book\", which the trial does not know"),
        "{text}"
    );
}

#[tokio::test]
async fn steps_need_a_kit_with_their_database() {
    let url = server::database().await;
    let travel = Arc::new(Travel {
        fault: Fault::None,
        pool: PgPool::connect(&url).await.expect("connects"),
        last_flight: Default::default(),
    });
    let step = Travel::rent_car_step(&travel);
    let refused = TestKit::without_database().saga([&step]);
    let text = refused.expect_err("it has none").to_string();
    assert!(text.contains("takes part by a callback"), "{text}");
    let kit = TestKit::postgres(&url).await.expect("a kit");
    kit.saga([&step]).expect("bound");
    let text = kit.saga([&step]).expect_err("bound already").to_string();
    assert!(text.contains("served by another agent"), "{text}");
}
