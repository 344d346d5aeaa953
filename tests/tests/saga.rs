//! Sagas over three services with databases of their own: real daemon, real databases. The daemon
//! is killed between steps, whoever started the saga goes away, steps cannot be done.

#[path = "../../rm-agent/src/store/postgres/tests/server.rs"]
mod server;

use std::{path::PathBuf, sync::Arc, time::Duration};

use accede_rm_agent::{
    AtPool, FencedTransaction, RmAgent,
    saga::{HandlerError, SagaAction, StepInput},
    saga_step, schema,
};
use accede_tests::{
    daemon::{Daemon, free_port},
    eventually,
};
use accede_tm_client::{
    Options, Outcome, RollBackCause, Saga, SagaError, Step, TransactionClient, Xid,
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::{sync::Semaphore, task::JoinSet};

/// Far beyond a restart of the daemon.
const SOON: Duration = Duration::from_secs(60);
const PLACES: [&str; 3] = ["flight", "hotel", "car"];
/// Enough that some are under way at any moment.
const TRIPS: i64 = 24;

/// `trips` holds what is booked, `journal` what was done when.
const TABLES: &str = "
    CREATE TABLE trips (trip bigint PRIMARY KEY, after text NOT NULL);
    CREATE TABLE journal (what text NOT NULL, trip bigint NOT NULL,
                          at timestamptz NOT NULL DEFAULT clock_timestamp());";

#[derive(Clone, Serialize, Deserialize)]
struct Booking {
    trip: i64,
    /// The place that has nothing free.
    sold_out: Option<String>,
    /// Wait at this place until the test lets go.
    waits_at: Option<String>,
}

impl Booking {
    fn of(trip: i64) -> Self {
        Self {
            trip,
            sold_out: None,
            waits_at: None,
        }
    }
}

/// One service: flights, hotels or cars.
struct Place {
    name: &'static str,
    gate: Arc<Semaphore>,
    waits: Arc<Semaphore>,
}

impl Place {
    async fn do_it(
        &self,
        tx: &mut FencedTransaction,
        step: &StepInput<Booking>,
    ) -> Result<String, HandlerError> {
        let is_here = |place: &Option<String>| place.as_deref() == Some(self.name);
        if is_here(&step.input.sold_out) {
            return Err(HandlerError::definite("sold out"));
        }
        if is_here(&step.input.waits_at) {
            self.waits.add_permits(1);
            let _open = self.gate.acquire().await;
        }
        // What the steps before returned, those before them included.
        let mut before = String::new();
        for place in PLACES.iter().take_while(|place| **place != self.name) {
            before += &step.result::<String>(place)?;
        }
        sqlx::query("INSERT INTO trips VALUES ($1, $2)")
            .bind(step.input.trip)
            .bind(&before)
            .execute(&mut **tx)
            .await?;
        sqlx::query("INSERT INTO journal VALUES ('book', $1)")
            .bind(step.input.trip)
            .execute(&mut **tx)
            .await?;
        Ok(format!("{before}{}{};", self.name, step.input.trip))
    }

    async fn undo_it(
        &self,
        tx: &mut FencedTransaction,
        step: &StepInput<Booking>,
    ) -> Result<(), HandlerError> {
        let own: Option<String> = step.own_result()?;
        let own = own.ok_or_else(|| HandlerError::definite("what was booked?"))?;
        assert!(own.ends_with(&format!("{}{};", self.name, step.input.trip)));
        sqlx::query("DELETE FROM trips WHERE trip = $1")
            .bind(step.input.trip)
            .execute(&mut **tx)
            .await?;
        sqlx::query("INSERT INTO journal VALUES ('cancel', $1)")
            .bind(step.input.trip)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
}

macro_rules! service {
    ($service:ident, $resource:literal) => {
        struct $service(Place);

        impl $service {
            #[saga_step(resource = $resource, compensate = cancel)]
            async fn book(
                &self,
                tx: &mut FencedTransaction,
                step: StepInput<Booking>,
            ) -> Result<String, HandlerError> {
                self.0.do_it(tx, &step).await
            }

            async fn cancel(
                &self,
                tx: &mut FencedTransaction,
                step: StepInput<Booking>,
            ) -> Result<(), HandlerError> {
                self.0.undo_it(tx, &step).await
            }
        }
    };
}

service!(Flights, "flight.book");
service!(Hotels, "hotel.book");
service!(Cars, "car.book");

struct Surroundings {
    data: PathBuf,
    port: u16,
    daemon: Option<Daemon>,
    agents: Vec<RmAgent>,
    pools: Vec<AtPool>,
    transactions: TransactionClient,
    /// Lets those go who wait.
    gate: Arc<Semaphore>,
    /// Counts those who wait.
    waits: Arc<Semaphore>,
    _folder: TempDir,
}

async fn surroundings() -> anyhow::Result<Surroundings> {
    let folder = tempfile::tempdir()?;
    let (data, port) = (folder.path().join("data"), free_port());
    let daemon = Daemon::start(&data, port).await?;
    let (gate, waits) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let place = |name| Place {
        name,
        gate: Arc::clone(&gate),
        waits: Arc::clone(&waits),
    };
    let actions: [SagaAction; 3] = [
        Flights::book_step(&Arc::new(Flights(place(PLACES[0])))),
        Hotels::book_step(&Arc::new(Hotels(place(PLACES[1])))),
        Cars::book_step(&Arc::new(Cars(place(PLACES[2])))),
    ];
    let (mut agents, mut pools) = (Vec::new(), Vec::new());
    for (name, action) in PLACES.iter().zip(&actions) {
        let database = server::database().await;
        schema::create(&database).await?;
        let resource = format!("{name}-db");
        let agent = RmAgent::builder(name)
            .coordinator(daemon.url())
            .postgres(&resource, &database)
            .saga_step(&resource, action)
            .start()
            .await?;
        let pool = agent.pool(&resource)?;
        sqlx::raw_sql(TABLES).execute(pool.plain()).await?;
        agents.push(agent);
        pools.push(pool);
    }
    let transactions = TransactionClient::connect(daemon.url()).await?;
    let s = Surroundings {
        data,
        port,
        daemon: Some(daemon),
        agents,
        pools,
        transactions,
        gate,
        waits,
        _folder: folder,
    };
    // An action is known once its agent has been attached.
    eventually("all agents are attached", SOON, async || {
        trip(&Booking::of(0)).ok()?.run(&s.transactions).await.ok()
    })
    .await?;
    Ok(s)
}

fn trip(booking: &Booking) -> anyhow::Result<Saga> {
    let mut saga = Saga::builder("book-trip").timeout(SOON);
    for name in PLACES {
        let step = Step::new(name, format!("{name}.book"))
            .input(booking)?
            .retry_backward(50)
            .attempt_timeout(Duration::from_secs(20));
        saga = saga.step(step);
    }
    Ok(saga.build()?)
}

impl Surroundings {
    async fn count(&self, place: usize, sql: &'static str, trip: i64) -> Option<i64> {
        let count = sqlx::query_scalar(sql).bind(trip);
        count.fetch_one(self.pools[place].plain()).await.ok()
    }

    /// At how many places a trip is booked.
    async fn booked(&self, trip: i64) -> Option<i64> {
        let mut booked = 0;
        for place in 0..PLACES.len() {
            let sql = "SELECT count(*) FROM trips WHERE trip = $1";
            booked += self.count(place, sql, trip).await?;
        }
        Some(booked)
    }

    /// Whether each of these is booked everywhere or nowhere.
    async fn is_settled(&self, trips: &[(i64, bool)]) -> Option<()> {
        for (trip, is_booked) in trips {
            let wanted = if *is_booked { 3 } else { 0 };
            if self.booked(*trip).await? != wanted {
                return None;
            }
        }
        Some(())
    }

    /// When a trip was booked and cancelled at each place, by one clock: the places in order.
    async fn order_of(&self, what: &'static str, trip: i64) -> anyhow::Result<Vec<&'static str>> {
        let mut times: Vec<(i64, &'static str)> = Vec::new();
        for (place, pool) in PLACES.iter().zip(&self.pools) {
            let found: Vec<i64> = sqlx::query_scalar(
                "SELECT (extract(epoch FROM at) * 1000000)::bigint FROM journal \
                 WHERE what = $1 AND trip = $2",
            )
            .bind(what)
            .bind(trip)
            .fetch_all(pool.plain())
            .await?;
            assert!(found.len() <= 1, "{place}: {what} {trip} took effect twice");
            times.extend(found.into_iter().map(|at| (at, *place)));
        }
        times.sort_unstable();
        Ok(times.into_iter().map(|(_, place)| place).collect())
    }

    async fn end(self) {
        self.transactions.shutdown().await;
        for agent in self.agents {
            agent.shutdown().await;
        }
        for pool in self.pools {
            pool.plain().close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_is_done_in_order_or_undone_in_reverse() -> anyhow::Result<()> {
    let s = surroundings().await?;
    let outcome = trip(&Booking::of(1))?.run(&s.transactions).await?;
    assert!(outcome.result::<String>("car")?.ends_with("car1;"));
    let none = outcome.result::<String>("boat").expect_err("no such step");
    assert!(none.to_string().contains("no such step"), "{none}");
    assert_eq!(s.order_of("book", 1).await?, PLACES);
    let sold_out = Booking {
        sold_out: Some("car".to_owned()),
        ..Booking::of(2)
    };
    let error = trip(&sold_out)?.run(&s.transactions).await;
    let Err(SagaError::RolledBack(back)) = error else {
        panic!("{error:?}: the third cannot be done");
    };
    assert_eq!(back.cause, RollBackCause::StepFailed);
    assert_eq!(back.detail, "car: sold out");
    eventually("what was done is compensated", SOON, async || {
        s.is_settled(&[(1, true), (2, false)]).await
    })
    .await?;
    assert_eq!(s.order_of("book", 2).await?, ["flight", "hotel"]);
    assert_eq!(s.order_of("cancel", 2).await?, ["hotel", "flight"]);
    // As part of a transaction that its client decides.
    let transaction = s.transactions.begin(Options::new("trip")).await?;
    trip(&Booking::of(3))?.run_in(&transaction).await?;
    assert_eq!(s.booked(3).await, Some(3));
    transaction.roll_back("changed my mind").await?;
    eventually("what was done is compensated", SOON, async || {
        s.is_settled(&[(3, false)]).await
    })
    .await?;
    assert_eq!(s.order_of("cancel", 3).await?, ["car", "hotel", "flight"]);
    let unknown = Saga::builder("trip")
        .step(Step::new("a", "no.such"))
        .build()?;
    let error = unknown.run(&s.transactions).await.expect_err("refused");
    assert!(error.to_string().contains("\"no.such\""), "{error}");
    s.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_goes_on_without_whoever_started_it() -> anyhow::Result<()> {
    let s = surroundings().await?;
    let front = TransactionClient::connect(format!("http://127.0.0.1:{}", s.port)).await?;
    let waits = Booking {
        waits_at: Some("hotel".to_owned()),
        ..Booking::of(1)
    };
    let saga = trip(&waits)?;
    let started = front.clone();
    let task = tokio::spawn(async move { saga.run(&started).await.map(|_| ()) });
    s.waits.acquire().await?.forget();
    task.abort();
    // Its lease ends with it.
    front.shutdown().await;
    s.gate.add_permits(1_000);
    eventually("the saga is done", SOON, async || {
        s.is_settled(&[(1, true)]).await
    })
    .await?;
    s.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_loses_no_saga() -> anyhow::Result<()> {
    let s = surroundings().await?;
    let mut trips = JoinSet::new();
    for number in 1..=TRIPS {
        let transactions = s.transactions.clone();
        let booking = Booking {
            sold_out: (number % 3 == 0).then(|| "car".to_owned()),
            // Some stand in the middle of a step when the daemon dies.
            waits_at: (number % 4 == 0).then(|| "hotel".to_owned()),
            ..Booking::of(number)
        };
        trips.spawn(async move {
            let booked = match trip(&booking)?.run(&transactions).await {
                Ok(_) => true,
                Err(SagaError::RolledBack(_)) => false,
                Err(SagaError::Unknown { xid, .. }) => ended(&transactions, xid).await?,
                Err(error) => return Err(error.into()),
            };
            anyhow::Ok((number, booked))
        });
    }
    s.waits.acquire_many(TRIPS as u32 / 8).await?.forget();
    let mut s = s;
    let killed = s.daemon.take().expect("it runs");
    killed.kill()?;
    s.daemon = Some(Daemon::start(&s.data, s.port).await?);
    s.gate.add_permits(1_000);
    let mut ended = Vec::new();
    while let Some(trip) = trips.join_next().await {
        ended.push(trip??);
    }
    for (number, booked) in &ended {
        assert_eq!(*booked, number % 3 != 0, "trip {number}");
    }
    eventually("all is as it was decided", SOON, async || {
        s.is_settled(&ended).await
    })
    .await?;
    for (number, booked) in ended {
        assert_eq!(s.order_of("book", number).await?[..2], PLACES[..2]);
        let cancelled: &[&str] = if booked { &[] } else { &["hotel", "flight"] };
        assert_eq!(s.order_of("cancel", number).await?, cancelled);
    }
    s.end().await;
    Ok(())
}

/// What became of it, once somebody knows.
async fn ended(transactions: &TransactionClient, xid: Xid) -> anyhow::Result<bool> {
    eventually("its outcome is told", SOON, async || {
        match transactions.outcome(xid).await.ok()? {
            Outcome::Committed(_) => Some(true),
            Outcome::RolledBack(_) => Some(false),
            _ => None,
        }
    })
    .await
}
