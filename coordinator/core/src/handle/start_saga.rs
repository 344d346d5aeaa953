//! A transaction gets a plan.

use alloc::boxed::Box;
use core::hash::Hasher as _;

use super::size;
use crate::{
    command::{Command, StartSaga},
    handle::Context,
    hash::Folded,
    limits::{
        MAX_BRANCHES, MAX_PAYLOAD_BYTES, MAX_PLAN_BYTES, MAX_STEP_ATTEMPTS, MAX_STEPS,
        MAX_TIMEOUT_MS, MAX_URL_BYTES,
    },
    reply::{Decision, Rejection, Reply, Waiter, Whereabouts},
    saga::{OnTrouble, Saga, Step, StepPlan},
    state::State,
    transaction::{Answer, Transaction},
};

impl Context<'_> {
    pub(crate) fn start_saga(&mut self, command: StartSaga) -> Reply {
        let (xid, request) = (command.xid, command.request);
        if let Err(rejection) = fits(&command.steps) {
            return Reply::Refused(rejection);
        }
        let content = digest(&command);
        let transaction = self.state.transactions.get(xid);
        if let Some(reply) = transaction.and_then(|t| repeated(t, &command, content)) {
            return reply;
        }
        if self.state.whereabouts(xid) == Whereabouts::NotBegun {
            return self.park(xid, request, Command::StartSaga(command));
        }
        if let Err(rejection) = self.admit_saga(&command) {
            return Reply::Refused(rejection);
        }
        let StartSaga {
            steps,
            commit_when_done,
            ..
        } = command;
        let steps = steps.into_iter().map(|plan| self.state.unstarted(plan));
        let saga = Saga {
            request,
            content,
            commit_when_done,
            steps: steps.collect(),
        };
        self.state.payload_bytes += saga.payload_bytes();
        self.indexed(xid).saga = Some(Box::new(saga));
        self.start_steps(xid);
        Reply::Waiting(Waiter::Request(xid, request))
    }

    /// The refusals that depend on the state, in order of precedence.
    fn admit_saga(&mut self, command: &StartSaga) -> Result<(), Rejection> {
        let unknown = command.steps.iter().find(|step| {
            let known = self.state.actions.contains(&step.resource);
            !step.callback && !known
        });
        let unknown = unknown.map(|step| step.resource.clone());
        let payloads = command.steps.iter().map(|step| step.input.len() as u64);
        let has_room = self.state.has_room_for(payloads.sum());
        let transaction = self.known(command.xid)?;
        if let Some(known) = transaction.request(command.request) {
            return Err(match known.answer {
                Answer::Withdrawn => Rejection::Withdrawn,
                _ => Rejection::DifferentContent,
            });
        }
        if transaction.saga().is_some() {
            return Err(Rejection::OtherSaga);
        }
        if let Some(decision) = transaction.decision() {
            return Err(Rejection::AlreadyDecided(decision));
        }
        if transaction.commit_asked() {
            return Err(Rejection::CommitAsked);
        }
        if let Some(action) = unknown {
            return Err(Rejection::ActionUnknown { action });
        }
        if transaction.branches.len() + command.steps.len() > MAX_BRANCHES {
            let limit = MAX_BRANCHES as u64;
            return Err(Rejection::TooManyBranches { limit });
        }
        has_room
    }
}

impl State {
    fn unstarted(&self, mut plan: StepPlan) -> Step {
        // One copy of each action's name serves all steps.
        plan.resource = self.name_of(plan.resource);
        Step {
            plan,
            branch: None,
            result: None,
            answer_by: None,
        }
    }
}

/// The answer to a request that came before.
fn repeated(transaction: &Transaction, command: &StartSaga, content: u64) -> Option<Reply> {
    let saga = transaction.saga()?;
    if saga.request != command.request {
        return None;
    }
    if saga.content != content {
        return Some(Reply::Refused(Rejection::DifferentContent));
    }
    Some(match transaction.decision() {
        Some(decision @ Decision::RollBack) => Reply::Decided(decision, transaction.reason.clone()),
        None if saga.is_awaited() => Reply::Waiting(Waiter::Request(transaction.xid, saga.request)),
        decision @ (None | Some(Decision::Commit)) => Reply::SagaDone(saga.results(), decision),
    })
}

/// What a plan must be like whatever the state is, in order of precedence.
fn fits(steps: &[StepPlan]) -> Result<(), Rejection> {
    size::check("the number of a saga's steps", steps.len(), MAX_STEPS)?;
    for step in steps {
        size::name("a step's name", &step.name)?;
        match step.callback {
            true => size::check("a callback's URL", step.resource.len(), MAX_URL_BYTES)?,
            false => size::name("an action's name", &step.resource)?,
        }
        size::check("a step's input", step.input.len(), MAX_PAYLOAD_BYTES)?;
        let timeout = step.attempt_timeout_ms as usize;
        let what = "the time-out of a step's attempt in milliseconds";
        size::check(what, timeout, MAX_TIMEOUT_MS as usize)?;
        if let OnTrouble::Backward { attempts } = step.on_trouble {
            let limit = MAX_STEP_ATTEMPTS as usize;
            size::check("the number of a step's attempts", attempts as usize, limit)?;
        }
    }
    let bytes = steps.iter().map(|step| step.input.len()).sum();
    size::check("all inputs of a saga together", bytes, MAX_PLAN_BYTES)?;
    if steps.is_empty() {
        return Err(Rejection::Malformed("a saga must have a step"));
    }
    for (at, step) in steps.iter().enumerate() {
        is_sound(at, step)?;
        if steps[..at].iter().any(|earlier| earlier.name == step.name) {
            let why = "no two steps of a saga can have the same name";
            return Err(Rejection::Malformed(why));
        }
    }
    Ok(())
}

fn is_sound(at: usize, step: &StepPlan) -> Result<(), Rejection> {
    let malformed = |why| Err(Rejection::Malformed(why));
    if step.name.is_empty() || step.resource.is_empty() {
        return malformed("a step must have a name and an action or a callback's URL");
    }
    if step.attempt_timeout_ms == 0 {
        return malformed("a step's attempt must have at least one millisecond");
    }
    if step.on_trouble == (OnTrouble::Backward { attempts: 0 }) {
        return malformed("a step must have at least one attempt");
    }
    if step.after.iter().any(|before| usize::from(*before) >= at) {
        return malformed("a step can wait for earlier steps of the plan only");
    }
    if step.after.windows(2).any(|pair| pair[0] >= pair[1]) {
        return malformed("the steps that a step waits for must be sorted, none twice");
    }
    Ok(())
}

/// A digest of all that makes a plan what it is.
fn digest(command: &StartSaga) -> u64 {
    let mut hash = Folded::default();
    hash.write_u64(u64::from(command.commit_when_done));
    for step in &command.steps {
        hash.write(step.name.as_bytes());
        hash.write(step.resource.as_bytes());
        hash.write_u64(u64::from(step.callback));
        hash.write(&step.input);
        hash.write_usize(step.after.len());
        step.after
            .iter()
            .for_each(|at| hash.write_u64((*at).into()));
        hash.write_u64(step.attempt_timeout_ms.into());
        hash.write_u64(match step.on_trouble {
            OnTrouble::Forward => 0,
            OnTrouble::Backward { attempts } => attempts.into(),
        });
    }
    hash.finish()
}
