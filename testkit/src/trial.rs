//! What is tried out, and where.

use std::{fmt, future::Future, ops::Range, sync::Arc};

use futures_util::future::BoxFuture;

use crate::{coordinator::Coordinator, report::Rule};

/// Whatever a test's own code runs into.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Cases if nobody says how many.
const CASES: u64 = 200;
/// The first seed if nobody says which.
const SEED: u64 = 1;

type Reset = Box<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;
type Observe = Box<dyn Fn() -> BoxFuture<'static, Result<String, BoxError>> + Send + Sync>;
type Invariant = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Handlers that are tried out: [`Calls`](crate::Calls) or [`Steps`](crate::Steps).
pub struct Trial<S> {
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) subject: S,
    reset: Option<Reset>,
    observe: Option<Observe>,
    invariant: Option<Invariant>,
    seed: u64,
    cases: u64,
}

impl<S: fmt::Debug> fmt::Debug for Trial<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial")
            .field("subject", &self.subject)
            .field("seed", &self.seed)
            .field("cases", &self.cases)
            .finish_non_exhaustive()
    }
}

fn of_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

impl<S> Trial<S> {
    pub(crate) fn new(coordinator: Arc<Coordinator>, subject: S) -> Self {
        Self {
            coordinator,
            subject,
            reset: None,
            observe: None,
            invariant: None,
            seed: of_environment("ACCEDE_TESTKIT_SEED").unwrap_or(SEED).max(1),
            cases: of_environment("ACCEDE_TESTKIT_CASES").unwrap_or(CASES),
        }
    }

    /// Brings what the handlers work on to where each case begins.
    #[must_use]
    pub fn reset<F>(mut self, reset: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.reset = Some(Box::new(move || Box::pin(reset())));
        self
    }

    /// Tells all that matters of what the handlers work on, in a form that can be compared: rows in
    /// order, without times and generated numbers.
    #[must_use]
    pub fn observe<F>(mut self, observe: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, BoxError>> + Send + 'static,
    {
        self.observe = Some(Box::new(move || Box::pin(observe())));
        self
    }

    /// What must hold of that after each case, and after transactions that nothing disturbed: the
    /// kit knows what handlers do, not whether it is what they should. `Err` says what is wrong.
    #[must_use]
    pub fn invariant(
        mut self,
        invariant: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.invariant = Some(Box::new(invariant));
        self
    }

    /// How many cases are played; 200 unless this or `ACCEDE_TESTKIT_CASES` says otherwise. The
    /// variable wins.
    #[must_use]
    pub fn cases(mut self, cases: u64) -> Self {
        self.cases = of_environment("ACCEDE_TESTKIT_CASES").unwrap_or(cases);
        self
    }

    pub(crate) fn seeds(&self) -> Range<u64> {
        self.seed..self.seed.saturating_add(self.cases)
    }

    /// To where each case begins.
    pub(crate) async fn begin_anew(&self) -> Result<(), Rule> {
        let Some(reset) = &self.reset else {
            return Ok(());
        };
        let failed = |error| Rule::Test(format!("reset: {error}"));
        reset().await.map_err(failed)
    }

    /// What there is now.
    pub(crate) async fn look(&self) -> Result<String, Rule> {
        let Some(observe) = &self.observe else {
            let reason = "nothing is observed: give the trial an `observe`".to_owned();
            return Err(Rule::Test(reason));
        };
        let failed = |error| Rule::Test(format!("observe: {error}"));
        observe().await.map_err(failed)
    }

    /// The same when nothing is under way, so that the invariant must hold.
    pub(crate) async fn look_at_end(&self) -> Result<String, Rule> {
        let seen = self.look().await?;
        if let Some(invariant) = &self.invariant {
            invariant(&seen).map_err(Rule::Invariant)?;
        }
        Ok(seen)
    }
}
