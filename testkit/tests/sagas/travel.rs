//! A journey of three steps on each kind of database, and what can be wrong with them.

use accede_testkit::{Steps, Trial};
use serde::{Deserialize, Serialize};

/// What is wrong with the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
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
pub(crate) struct Booking {
    pub(crate) seats: i64,
}

/// Steps on every database, each with its database's name.
pub(crate) async fn everywhere(fault: Fault) -> Vec<(&'static str, Trial<Steps>)> {
    let mut trials = vec![
        ("PostgreSQL", postgres::trial(fault).await),
        ("MariaDB", mariadb::trial(fault).await),
    ];
    // What is done beside the local transaction waits for that on a SQLite, in vain.
    if !matches!(fault, Fault::BooksOutside | Fault::CancelsOutside) {
        trials.push(("SQLite", sqlite::trial(fault).await));
    }
    trials
}

/// The steps, over a module's `FencedTransaction`, `Pool` and SQL.
macro_rules! travel {
    () => {
        use std::sync::{Arc, Mutex};

        use accede_rm_agent::{
            saga::{HandlerError, StepInput},
            saga_step,
        };
        use accede_testkit::{Steps, Trial};

        use super::{Booking, Fault};

        pub(crate) struct Travel {
            pub(crate) fault: Fault,
            pub(crate) pool: Pool,
            pub(crate) last_flight: Mutex<i64>,
        }

        impl Travel {
            #[saga_step(resource = "flight.book", compensate = cancel_flight)]
            async fn book_flight(
                &self,
                tx: &mut FencedTransaction,
                step: StepInput<Booking>,
            ) -> Result<i64, HandlerError> {
                let seats = step.input.seats;
                let take = sqlx::query(TAKE).bind(seats).bind("flight").bind(seats);
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
                    .bind(seats.unwrap_or(step.input.seats))
                    .bind("flight");
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
                take(tx, "hotel", beds).await?;
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
                give(tx, "hotel", beds).await
            }

            #[saga_step(resource = "car.rent", compensate = return_car)]
            pub(crate) async fn rent_car(
                &self,
                tx: &mut FencedTransaction,
                _step: StepInput<()>,
            ) -> Result<(), HandlerError> {
                take(tx, "car", 1).await
            }

            async fn return_car(
                &self,
                tx: &mut FencedTransaction,
                _step: StepInput<()>,
            ) -> Result<(), HandlerError> {
                give(tx, "car", 1).await
            }
        }

        async fn take(
            tx: &mut FencedTransaction,
            place: &str,
            count: i64,
        ) -> Result<(), HandlerError> {
            let take = sqlx::query(TAKE).bind(count).bind(place).bind(count);
            Ok(take.execute(&mut *tx).await.map(drop)?)
        }

        async fn give(
            tx: &mut FencedTransaction,
            place: &str,
            count: i64,
        ) -> Result<(), HandlerError> {
            let give = sqlx::query(GIVE).bind(count).bind(place);
            Ok(give.execute(&mut *tx).await.map(drop)?)
        }

        pub(crate) async fn trial(fault: Fault) -> Trial<Steps> {
            let (kit, pool, folder) = kit().await;
            sqlx::raw_sql(
                "CREATE TABLE place (name varchar(20) PRIMARY KEY, free bigint);
                 INSERT INTO place VALUES ('car', 0), ('flight', 0), ('hotel', 0)",
            )
            .execute(&pool)
            .await
            .expect("made");
            let travel = Arc::new(Travel {
                fault,
                pool: pool.clone(),
                last_flight: Mutex::default(),
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
                    // It goes with the trial.
                    let _folder = &folder;
                    let pool = look.clone();
                    async move { Ok(sqlx::query_scalar(ALL).fetch_one(&pool).await?) }
                })
        }
    };
}

pub(crate) mod postgres {
    use accede_rm_agent::FencedTransaction;
    use accede_testkit::TestKit;
    use sqlx::PgPool as Pool;
    use tempfile::TempDir;

    use crate::postgres_server::database;

    const TAKE: &str = "UPDATE place SET free = free - $1 WHERE name = $2 AND free >= $3";
    const GIVE: &str = "UPDATE place SET free = free + $1 WHERE name = $2";
    const ALL: &str = "SELECT string_agg(p::text, ' ' ORDER BY name) FROM place p";

    travel!();

    pub(crate) async fn kit() -> (TestKit, Pool, Option<TempDir>) {
        let url = database().await;
        let kit = TestKit::postgres(&url).await.expect("a kit");
        (kit, Pool::connect(&url).await.expect("connects"), None)
    }
}

mod mariadb {
    use accede_rm_agent::mariadb::FencedTransaction;
    use accede_testkit::TestKit;
    use sqlx::MySqlPool as Pool;
    use tempfile::TempDir;

    use crate::mariadb_server::database;

    const TAKE: &str = "UPDATE place SET free = free - ? WHERE name = ? AND free >= ?";
    const GIVE: &str = "UPDATE place SET free = free + ? WHERE name = ?";
    const ALL: &str = "SELECT group_concat(concat('(', name, ',', free, ')')
        ORDER BY name SEPARATOR ' ') FROM place";

    travel!();

    async fn kit() -> (TestKit, Pool, Option<TempDir>) {
        let url = database().await;
        let kit = TestKit::mariadb(&url).await.expect("a kit");
        (kit, Pool::connect(&url).await.expect("connects"), None)
    }
}

mod sqlite {
    use accede_rm_agent::sqlite::FencedTransaction;
    use accede_testkit::TestKit;
    use sqlx::SqlitePool as Pool;
    use tempfile::TempDir;

    const TAKE: &str = "UPDATE place SET free = free - $1 WHERE name = $2 AND free >= $3";
    const GIVE: &str = "UPDATE place SET free = free + $1 WHERE name = $2";
    const ALL: &str = "SELECT group_concat('(' || name || ',' || free || ')', ' ')
        FROM (SELECT name, free FROM place ORDER BY name)";

    travel!();

    async fn kit() -> (TestKit, Pool, Option<TempDir>) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("place.db");
        let url = format!("sqlite://{}?mode=rwc", file.display());
        let kit = TestKit::sqlite(&url).await.expect("a kit");
        let pool = Pool::connect(&url).await.expect("connects");
        (kit, pool, Some(folder))
    }
}
