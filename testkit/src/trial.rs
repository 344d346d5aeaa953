//! Cases, one after the other, and what is compared.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc};

use accede_core::Decision;
use accede_rm_agent::{
    Error,
    testkit::{Callable, Participant},
};
use futures_util::future::BoxFuture;

use crate::{
    coordinator::Coordinator,
    play::{Failure, Played},
    report::{Broken, Report, Rule},
    script::{Case, Script},
};

/// Whatever a test's own code runs into.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Cases if nobody says how many.
const CASES: u64 = 200;
/// The first seed if nobody says which.
const SEED: u64 = 1;

type Reset = Box<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;
type Observe = Box<dyn Fn() -> BoxFuture<'static, Result<String, BoxError>> + Send + Sync>;
type Invariant = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// An action that is tried out.
pub struct Trial<A, E, O> {
    coordinator: Arc<Coordinator>,
    action: Callable<A, E, O>,
    participant: Participant,
    reset: Option<Reset>,
    observe: Option<Observe>,
    invariant: Option<Invariant>,
    seed: u64,
    cases: u64,
}

impl<A, E, O> fmt::Debug for Trial<A, E, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial")
            .field("action", &self.action)
            .field("seed", &self.seed)
            .field("cases", &self.cases)
            .finish_non_exhaustive()
    }
}

fn of_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

impl<A, E, O> Trial<A, E, O>
where
    A: 'static,
    E: From<Error> + fmt::Display + 'static,
    O: 'static,
{
    pub(crate) fn new(
        coordinator: Arc<Coordinator>,
        action: Callable<A, E, O>,
        participant: Participant,
    ) -> Self {
        Self {
            coordinator,
            action,
            participant,
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

    /// Plays. `arguments` are what the n-th transaction of a case, from 0, is called with; a case
    /// has two at most, and both must be possible together.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub async fn run(self, arguments: impl Fn(u64) -> A) -> Result<Report, Broken> {
        let mut report = Report::default();
        let mut expected: BTreeMap<Vec<u64>, String> = BTreeMap::new();
        for seed in self.seed..self.seed.saturating_add(self.cases) {
            let case = Case::draw(seed);
            let mut story: Vec<String> = case.scripts.iter().map(ToString::to_string).collect();
            let broken = |rule: Rule, story: &[String]| Broken {
                rule,
                seed,
                story: story.to_vec(),
            };
            let played = self.play(&case.scripts, case.reversed, &arguments, &mut story);
            let committed = played.await.map_err(|rule| broken(rule, &story))?;
            let found = self.look().await.map_err(|rule| broken(rule, &story))?;
            if !expected.contains_key(&committed) {
                let left = self.undisturbed(&committed, &arguments).await?;
                expected.insert(committed.clone(), left);
            }
            let expected = &expected[&committed];
            if *expected != found {
                let expected = expected.clone();
                let rule = Rule::SameAsUndisturbed { expected, found };
                return Err(broken(rule, &story));
            }
            report.cases += 1;
            report.committed += committed.len() as u64;
            report.rolled_back += (case.scripts.len() - committed.len()) as u64;
        }
        Ok(report)
    }

    /// What these transactions leave when nothing disturbs them.
    async fn undisturbed(
        &self,
        committed: &[u64],
        arguments: &impl Fn(u64) -> A,
    ) -> Result<String, Broken> {
        let scripts: Vec<Script> = committed
            .iter()
            .map(|&number| Script::undisturbed(number, Decision::Commit))
            .collect();
        let mut story = vec!["without anything that disturbs".to_owned()];
        let mut look = async || {
            let done = self.play(&scripts, false, arguments, &mut story).await?;
            if done != committed {
                let reason = "a try that nothing disturbs does not succeed".to_owned();
                return Err(Rule::Test(reason));
            }
            self.look().await
        };
        let left = look().await;
        left.map_err(|rule| Broken {
            rule,
            seed: 0,
            story,
        })
    }

    /// Plays transactions from the start; those that committed.
    async fn play(
        &self,
        scripts: &[Script],
        reversed: bool,
        arguments: &impl Fn(u64) -> A,
        story: &mut Vec<String>,
    ) -> Result<Vec<u64>, Rule> {
        if let Some(reset) = &self.reset {
            let failed = |error| Rule::Test(format!("reset: {error}"));
            reset().await.map_err(failed)?;
        }
        let mut open = Vec::with_capacity(scripts.len());
        for script in scripts {
            let played = Played::new(&self.coordinator, &self.action, &self.participant, script);
            let tried = played
                .try_it(arguments(script.number))
                .await
                .map_err(|failure| self.rule(failure))?;
            if let Err(reason) = &tried {
                story.push(format!("the try of {}: {reason}", script.number));
            }
            open.push((played, tried.is_ok()));
        }
        if reversed {
            open.reverse();
        }
        let mut committed = Vec::new();
        for (played, can_commit) in open {
            let decision = played.end(can_commit).await;
            let decision = decision.map_err(|failure| self.rule(failure))?;
            let number = played.script.number;
            story.push(format!("transaction {number} ended: {decision:?}"));
            if decision == Decision::Commit {
                committed.push(number);
            }
        }
        committed.sort_unstable();
        Ok(committed)
    }

    async fn look(&self) -> Result<String, Rule> {
        let Some(observe) = &self.observe else {
            let reason = "nothing is observed: give the trial an `observe`".to_owned();
            return Err(Rule::Test(reason));
        };
        let failed = |error| Rule::Test(format!("observe: {error}"));
        let seen = observe().await.map_err(failed)?;
        if let Some(invariant) = &self.invariant {
            invariant(&seen).map_err(Rule::Invariant)?;
        }
        Ok(seen)
    }

    fn rule(&self, failure: Failure) -> Rule {
        match failure {
            Failure::Stuck { decision, reason } => {
                let handler = match (&self.action, decision) {
                    (Callable::Tcc(_), Decision::Commit) => "confirm",
                    (Callable::Tcc(_), Decision::RollBack) => "cancel",
                    (Callable::ThreePhase(_), Decision::Commit) => "do_commit",
                    (Callable::ThreePhase(_), Decision::RollBack) => "abort",
                };
                Rule::Finishes(format!("{handler}: {reason}"))
            }
            Failure::NotEnded => Rule::Ends,
        }
    }
}
