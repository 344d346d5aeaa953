//! What a saga is to do.

use std::time::Duration;

use accede_proto::v1::{Empty, SagaStepPlan, saga_step_plan};
use serde::Serialize;

use crate::{Error, Options, limits};

/// One step of a saga: an action that agents serve, or a URL that the coordinator calls.
///
/// Without [`after`](Self::after) a step waits for the one before it in the plan.
#[derive(Clone, Debug)]
#[must_use]
pub struct Step {
    name: String,
    participant: saga_step_plan::Participant,
    input: Vec<u8>,
    after: Option<Vec<String>>,
    attempt_timeout: Duration,
    on_trouble: saga_step_plan::OnTrouble,
}

impl Step {
    /// A step that any agent of `action` does, for example `flight.book`. `name` is what its
    /// result is called by; no two steps of a saga have the same.
    pub fn new(name: impl Into<String>, action: impl Into<String>) -> Self {
        let action = saga_step_plan::Participant::Action(action.into());
        Self::of(name.into(), action)
    }

    /// A step that a service in any language does, which the coordinator calls at `url`:
    /// `https://…` by JSON, `grpcs://host:port` as `accede.v1.SagaStep`; without TLS `http` and
    /// `grpc`. The URL must be below a prefix in the coordinator's setting `saga_callbacks`.
    pub fn callback(name: impl Into<String>, url: impl Into<String>) -> Self {
        let url = saga_step_plan::Participant::Callback(url.into());
        Self::of(name.into(), url)
    }

    fn of(name: String, participant: saga_step_plan::Participant) -> Self {
        Self {
            name,
            participant,
            input: Vec::new(),
            after: None,
            attempt_timeout: limits::DEFAULT_ATTEMPT_TIMEOUT,
            on_trouble: saga_step_plan::OnTrouble::BackwardAttempts(limits::DEFAULT_ATTEMPTS),
        }
    }

    /// What the step and its compensation get, as JSON. Without it they get nothing (`null`).
    ///
    /// # Errors
    /// [`Error::InvalidOption`]: it cannot be written as JSON, or is too large.
    pub fn input<T: Serialize + ?Sized>(mut self, input: &T) -> Result<Self, Error> {
        let wrong = |problem: String| Error::InvalidOption {
            option: "a step's input",
            problem,
        };
        let input = serde_json::to_vec(input)
            .map_err(|error| wrong(format!("cannot be written as JSON: {error}")))?;
        let (found, limit) = (input.len(), limits::MAX_STEP_INPUT_BYTES);
        if found > limit {
            return Err(wrong(format!(
                "has {found} bytes, at most {limit} are allowed"
            )));
        }
        self.input = input;
        Ok(self)
    }

    /// Starts only when the step `earlier`, which stands before this one in the plan, is done.
    /// May be said several times; from the first on the step before counts only if it is named.
    pub fn after(mut self, earlier: impl Into<String>) -> Self {
        self.after.get_or_insert_default().push(earlier.into());
        self
    }

    /// Starts at once, whatever stands before it in the plan.
    pub fn at_once(mut self) -> Self {
        self.after = Some(Vec::new());
        self
    }

    /// After so many failed attempts the transaction rolls back; three by default.
    pub fn retry_backward(mut self, attempts: u32) -> Self {
        self.on_trouble = saga_step_plan::OnTrouble::BackwardAttempts(attempts);
        self
    }

    /// Tried until the transaction's time-out. A step that says itself that it cannot be done
    /// rolls back all the same.
    pub fn retry_forward(mut self) -> Self {
        self.on_trouble = saga_step_plan::OnTrouble::Forward(Empty {});
        self
    }

    /// How long one attempt may take before it counts as failed; 10 seconds by default. Whoever
    /// works on it may still succeed, which then counts.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }
}

/// A plan: steps in order. Can be run again and again, each time in a transaction of its own.
#[derive(Clone, Debug)]
pub struct Saga {
    pub(super) options: Options,
    pub(super) steps: Vec<SagaStepPlan>,
}

/// Collects the steps of a [`Saga`].
#[derive(Clone, Debug)]
#[must_use]
pub struct SagaBuilder {
    options: Options,
    steps: Vec<Step>,
}

impl Saga {
    /// A saga of this name, which is that of its transaction.
    pub fn builder(name: impl Into<std::borrow::Cow<'static, str>>) -> SagaBuilder {
        SagaBuilder {
            options: Options::new(name),
            steps: Vec::new(),
        }
    }

    /// The steps as the coordinator gets them. For `accede-testkit`.
    #[doc(hidden)]
    #[must_use]
    pub fn plan(&self) -> &[SagaStepPlan] {
        &self.steps
    }
}

impl SagaBuilder {
    /// How long the whole saga may take; [`limits::DEFAULT_TIMEOUT`]. Undecided by then, it rolls
    /// back. Counts for [`Saga::run`] only.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.timeout(timeout);
        self
    }

    /// Adds a step.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Checks the plan.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] names the step and what is wrong with it.
    pub fn build(self) -> Result<Saga, Error> {
        let count = self.steps.len();
        if count == 0 || count > limits::MAX_STEPS {
            let most = limits::MAX_STEPS;
            return Err(wrong(format!("has {count} steps, 1 to {most} are allowed")));
        }
        let names: Vec<String> = self.steps.iter().map(|step| step.name.clone()).collect();
        let steps = self.steps.into_iter().enumerate();
        let steps = steps.map(|(at, step)| planned(step, &names[..at]));
        Ok(Saga {
            options: self.options,
            steps: steps.collect::<Result<_, _>>()?,
        })
    }
}

fn planned(step: Step, earlier: &[String]) -> Result<SagaStepPlan, Error> {
    let name = &step.name;
    if name.is_empty() || name.len() > limits::MAX_NAME_BYTES {
        let (found, most) = (name.len(), limits::MAX_NAME_BYTES);
        return Err(wrong(format!(
            "has a step whose name has {found} bytes, 1 to {most} are allowed"
        )));
    }
    if earlier.contains(name) {
        return Err(wrong(format!("has two steps {name:?}")));
    }
    if step.on_trouble == saga_step_plan::OnTrouble::BackwardAttempts(0) {
        return Err(wrong(format!("gives step {name:?} no attempt")));
    }
    let timeout = step.attempt_timeout.as_millis();
    if timeout == 0 || timeout > limits::MAX_TIMEOUT.as_millis() {
        return Err(wrong(format!(
            "gives an attempt at step {name:?} {timeout} ms, 1 ms to {:?} are allowed",
            limits::MAX_TIMEOUT
        )));
    }
    let place = |wanted: &String| {
        let found = earlier.iter().position(|name| name == wanted);
        found.ok_or_else(|| wrong(format!("has no step {wanted:?} before step {name:?}")))
    };
    let mut after: Vec<u32> = match &step.after {
        Some(names) => {
            let places = names.iter().map(|name| Ok(place(name)? as u32));
            places.collect::<Result<_, Error>>()?
        }
        None => earlier
            .len()
            .checked_sub(1)
            .map(|at| at as u32)
            .into_iter()
            .collect(),
    };
    after.sort_unstable();
    after.dedup();
    Ok(SagaStepPlan {
        name: step.name,
        participant: Some(step.participant),
        input: step.input.into(),
        after,
        attempt_timeout_ms: timeout as u32,
        on_trouble: Some(step.on_trouble),
    })
}

fn wrong(problem: String) -> Error {
    Error::InvalidOption {
        option: "the saga",
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str) -> Step {
        Step::new(name, "ship")
    }

    fn after(saga: &Saga) -> Vec<Vec<u32>> {
        saga.steps.iter().map(|step| step.after.clone()).collect()
    }

    fn refused(builder: SagaBuilder) -> String {
        builder.build().expect_err("refused").to_string()
    }

    #[test]
    fn steps_follow_each_other_unless_they_say_otherwise() {
        let saga = Saga::builder("trip")
            .step(step("a"))
            .step(step("b"))
            .step(step("c").at_once())
            .step(step("d").after("c").after("a").after("c"))
            .build()
            .expect("sound");
        assert_eq!(after(&saga), [vec![], vec![0], vec![], vec![0, 2]]);
    }

    #[test]
    fn a_plan_that_cannot_be_is_refused_with_the_step() {
        let saga = || Saga::builder("trip").step(step("a"));
        assert!(refused(Saga::builder("trip")).contains("has 0 steps, 1 to 64"));
        assert!(refused(saga().step(step("a"))).contains("two steps \"a\""));
        assert!(refused(saga().step(step(""))).contains("0 bytes"));
        assert!(refused(saga().step(step("b").after("c"))).contains("no step \"c\" before"));
        assert!(refused(saga().step(step("b").retry_backward(0))).contains("no attempt"));
        let none = step("b").attempt_timeout(Duration::ZERO);
        assert!(refused(saga().step(none)).contains("0 ms"));
        let large = "x".repeat(limits::MAX_STEP_INPUT_BYTES);
        let error = step("b").input(&large).expect_err("too large").to_string();
        assert!(error.contains("65538 bytes"), "{error}");
    }
}
