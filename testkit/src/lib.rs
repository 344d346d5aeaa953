//! Finds out in `cargo test` whether the handlers of a TCC action, of a participant of 3PC, or of a
//! saga's steps, keep their promises when agents die, orders are repeated, and messages overtake
//! each other. No daemon is needed: the coordinator's state machine runs inside the test, against
//! the database that the test gives.
//!
//! # TCC and 3PC
//!
//! The kit plays one or two transactions at a time, drawn from a seed. A try, a confirm or a
//! cancel is cut off after so many steps, as if its process had died; orders come again, twice at
//! once, or while the try is still under way. Afterwards what the test [observes](Trial::observe)
//! must be what the committed transactions alone would have left:
//!
//! - a transaction that rolled back leaves nothing,
//! - one that committed leaves what it leaves when nothing disturbs it, once,
//! - confirm and cancel succeed in the end, as do `do_commit` and `abort`,
//! - and the test's own [invariant](Trial::invariant) holds.
//!
//! What is broken is told with the story that led there and the seed that repeats it. The story is
//! the same each time; what the database does meanwhile may take a little more or less.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use accede_rm_agent::{FencedTransaction, tcc, tcc::HandlerError};
//! use accede_testkit::TestKit;
//! # struct Accounts;
//! # impl Accounts {
//! # #[tcc(resource = "account.freeze", confirm = settle, cancel = release)]
//! # async fn freeze(&self, _: &mut FencedTransaction, _: i64) -> Result<(), sqlx::Error> { Ok(()) }
//! # async fn settle(&self, _: &mut FencedTransaction, _: i64) -> Result<(), HandlerError> { Ok(()) }
//! # async fn release(&self, _: &mut FencedTransaction, _: i64) -> Result<(), HandlerError> { Ok(()) }
//! # }
//!
//! # async fn test(url: &str, pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! let kit = TestKit::postgres(url).await?;
//! let freeze = Accounts::freeze_tcc(&Arc::new(Accounts));
//! let (reset, look) = (pool.clone(), pool);
//! let report = kit
//!     .tcc(&freeze)?
//!     .reset(move || {
//!         let pool = reset.clone();
//!         async move {
//!             sqlx::query("UPDATE account SET free = 100, frozen = 0").execute(&pool).await?;
//!             Ok(())
//!         }
//!     })
//!     .observe(move || {
//!         let pool = look.clone();
//!         async move {
//!             let all = "SELECT string_agg(a::text, ' ' ORDER BY id) FROM account a";
//!             Ok(sqlx::query_scalar(all).fetch_one(&pool).await?)
//!         }
//!     })
//!     .run(|_| 5)
//!     .await?;
//! assert!(report.committed > 0 && report.rolled_back > 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Sagas
//!
//! The kit does the test's own plans, one or two at a time, with the test's own steps: those of
//! agents, and services that are called by URLs. Steps and compensations are cut off after so many
//! moments, come again, twice at once or late, their answers get lost, a rollback overtakes a step;
//! steps are given up, and the coordinator dies and comes back. After each call it
//! [observes](Trial::observe):
//!
//! - what there is, is what the steps that are done leave when nothing disturbs them: a
//!   compensated step leaves nothing, and that before an earlier one is compensated, in the exact
//!   reverse order of the starts,
//! - a repeat has no second effect, and is answered like the first,
//! - a compensation of a step that never did anything has no effect, nor has a step after it,
//! - a plan that nothing disturbs is done: what a step returns reaches those that ask for it,
//! - and the test's own [invariant](Trial::invariant) holds when all is over.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use accede_rm_agent::{FencedTransaction, saga::{HandlerError, StepInput}, saga_step};
//! use accede_testkit::{StepAnswer, StepCall, TestKit};
//! use accede_tm_client::{Saga, Step};
//! # struct Flights;
//! # impl Flights {
//! # #[saga_step(resource = "flight.book", compensate = cancel)]
//! # async fn book(&self, _: &mut FencedTransaction, _: StepInput<i64>) -> Result<i64, HandlerError> { Ok(7) }
//! # async fn cancel(&self, _: &mut FencedTransaction, _: StepInput<i64>) -> Result<(), HandlerError> { Ok(()) }
//! # }
//!
//! const MAIL: &str = "http://mail.example/steps/mail";
//!
//! /// The service's own code, below its HTTP layer.
//! async fn mail(call: StepCall) -> StepAnswer {
//! #   let _ = call;
//!     // … keeps order by `call.xid`, `call.branch` and `call.direction`
//!     StepAnswer::nothing()
//! }
//!
//! # async fn test(url: &str, pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! let kit = TestKit::postgres(url).await?;
//! let book = Flights::book_step(&Arc::new(Flights));
//! let look = pool.clone();
//! let report = kit
//!     .saga([&book])?
//!     .callback(MAIL, mail)
//!     .reset(move || {
//!         let pool = pool.clone();
//!         async move {
//!             sqlx::query("UPDATE flight SET free = 100").execute(&pool).await?;
//!             Ok(())
//!         }
//!     })
//!     .observe(move || {
//!         let pool = look.clone();
//!         async move {
//!             let all = "SELECT string_agg(f::text, ' ' ORDER BY number) FROM flight f";
//!             Ok(sqlx::query_scalar(all).fetch_one(&pool).await?)
//!         }
//!     })
//!     .run(|_| {
//!         let flight = Step::new("flight", "flight.book").input(&2).expect("it is small");
//!         let saga = Saga::builder("trip").step(flight).step(Step::callback("mail", MAIL));
//!         saga.build().expect("the plan is sound")
//!     })
//!     .await?;
//! assert!(report.committed > 0 && report.compensated > 0);
//! # Ok(())
//! # }
//! ```
//!
//! # How much
//!
//! Two variables of the environment say how much is played: `ACCEDE_TESTKIT_SEED` is the first
//! seed, `ACCEDE_TESTKIT_CASES` their number.

mod calls;
mod clock;
mod coordinator;
mod play;
mod report;
mod saga;
mod script;
mod trial;

use std::sync::Arc;

use accede_rm_agent::{
    AtPool, Error, mariadb,
    saga::SagaAction,
    schema, sqlite,
    tcc::Tcc,
    testkit::{Callable, Place, bind},
    three_phase::Participant,
};

pub use accede_proto::callback::{Call as StepCall, Direction};
pub use calls::Calls;
pub use report::{Broken, Call, Report, Rule};
pub use saga::{StepAnswer, Steps};
pub use trial::{BoxError, Trial};

use coordinator::Coordinator;

/// Connections to the test's database: enough for a few agents at once.
const CONNECTIONS: u32 = 8;
/// The name of the database in messages.
const RESOURCE: &str = "testkit";

/// A coordinator and one of a test's databases.
pub struct TestKit {
    place: Place,
    coordinator: Arc<Coordinator>,
}

impl std::fmt::Debug for TestKit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestKit")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl TestKit {
    /// For handlers whose fences are in PostgreSQL. Creates this library's tables there.
    ///
    /// # Errors
    /// What the database or the schema says; see [`schema::create`].
    pub async fn postgres(url: &str) -> Result<Self, Error> {
        schema::create(url).await?;
        Self::with(async |registrar| {
            let builder = AtPool::builder(url).resource(RESOURCE);
            let pool = builder.max_connections(CONNECTIONS).connect(registrar);
            Ok(Place::Postgres(pool.await?))
        })
        .await
    }

    /// For handlers whose fences are in MariaDB. Creates this library's tables there.
    ///
    /// # Errors
    /// What the database or the schema says; see [`schema::create`].
    pub async fn mariadb(url: &str) -> Result<Self, Error> {
        schema::create(url).await?;
        Self::with(async |registrar| {
            let builder = mariadb::AtPool::builder(url).resource(RESOURCE);
            let pool = builder.max_connections(CONNECTIONS).connect(registrar);
            Ok(Place::MariaDb(pool.await?))
        })
        .await
    }

    /// For handlers whose fences are in SQLite. Creates this library's tables there.
    ///
    /// # Errors
    /// What the database or the schema says; see [`schema::create`].
    pub async fn sqlite(url: &str) -> Result<Self, Error> {
        schema::create(url).await?;
        Self::with(async |registrar| {
            let builder = sqlite::AtPool::builder(url).resource(RESOURCE);
            Ok(Place::Sqlite(builder.connect(registrar).await?))
        })
        .await
    }

    /// For handlers that keep themselves in order
    /// ([`Unfenced`](accede_rm_agent::tcc::Unfenced)).
    #[must_use]
    pub fn without_database() -> Self {
        Self {
            place: Place::Nowhere,
            coordinator: Arc::new(Coordinator::new()),
        }
    }

    fn place(&self) -> &Place {
        &self.place
    }

    async fn with(
        connect: impl AsyncFnOnce(Arc<Coordinator>) -> Result<Place, Error>,
    ) -> Result<Self, Error> {
        let coordinator = Arc::new(Coordinator::new());
        let place = connect(Arc::clone(&coordinator)).await?;
        Ok(Self { place, coordinator })
    }

    /// Tries out an action.
    ///
    /// # Errors
    /// [`Error::Configuration`] if the action is in use already, here or with an agent, or its
    /// handlers work in another kind of place than this kit's.
    pub fn tcc<A, E, O>(&self, action: &Tcc<A, E, O>) -> Result<Trial<Calls<A, E, O>>, Error>
    where
        A: 'static,
        E: From<Error> + std::fmt::Display + 'static,
        O: 'static,
    {
        self.trial(Callable::Tcc(action.clone()))
    }

    /// Tries out a participant of 3PC: what TCC actions go through, and that it hears of its
    /// commit, commits alone when it hears nothing after that, and is ordered all the same.
    ///
    /// # Errors
    /// As [`tcc`](Self::tcc).
    pub fn three_phase<A, E, O>(
        &self,
        participant: &Participant<A, E, O>,
    ) -> Result<Trial<Calls<A, E, O>>, Error>
    where
        A: 'static,
        E: From<Error> + std::fmt::Display + 'static,
        O: 'static,
    {
        self.trial(Callable::ThreePhase(participant.clone()))
    }

    /// Tries out the steps of a saga whose rows are in this kit's database; none for a saga of
    /// [callbacks](Trial::callback) alone.
    ///
    /// # Errors
    /// As [`tcc`](Self::tcc).
    pub fn saga<'a>(
        &self,
        steps: impl IntoIterator<Item = &'a SagaAction>,
    ) -> Result<Trial<Steps>, Error> {
        let trial = Trial::new(Arc::clone(&self.coordinator), Steps::default());
        trial.steps(self, steps)
    }

    fn trial<A, E, O>(&self, action: Callable<A, E, O>) -> Result<Trial<Calls<A, E, O>>, Error>
    where
        A: 'static,
        E: From<Error> + std::fmt::Display + 'static,
        O: 'static,
    {
        let coordinator = Arc::clone(&self.coordinator);
        let registrar = Arc::clone(&self.coordinator);
        let participant = bind(&action, &self.place, registrar)?;
        self.coordinator.name_action(action.resource());
        let calls = Calls {
            action,
            participant,
        };
        Ok(Trial::new(coordinator, calls))
    }
}
