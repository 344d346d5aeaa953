//! Plans of sagas and what their steps return.

use accede_core::{self as core, OnTrouble, Payload, StepPlan, Xid, limits as core_limits};
use accede_proto::v1::{self, saga_step_plan};
use bytes::Bytes;

use super::{Checked, decision, name, reason, request_id, resource, xid};
use crate::refusal;

/// Reads a plan; `callback` looks whether the coordinator may call a URL, and says why not.
pub(crate) fn start(
    wire: v1::StartSagaRequest,
    callback: impl Fn(&str) -> Result<(), String>,
) -> Checked<core::StartSaga> {
    let steps = wire.steps;
    if steps.len() > core_limits::MAX_STEPS {
        let what = "the number of a saga's steps";
        let found = steps.len();
        return Err(Box::new(refusal::too_large(
            what,
            found,
            core_limits::MAX_STEPS,
        )));
    }
    Ok(core::StartSaga {
        xid: xid(wire.xid)?,
        request: request_id(wire.request)?,
        steps: steps
            .into_iter()
            .map(|wire| step(wire, &callback))
            .collect::<Checked<_>>()?,
        commit_when_done: wire.commit_when_done,
    })
}

fn step(
    wire: v1::SagaStepPlan,
    callback: &impl Fn(&str) -> Result<(), String>,
) -> Checked<StepPlan> {
    let step = name("step's name", wire.name)?;
    let invalid = |what: &str| Box::new(refusal::invalid(format!("step {step:?} {what}")));
    let (participant, is_callback) = match wire.participant {
        Some(saga_step_plan::Participant::Action(action)) => (resource(&action)?, false),
        Some(saga_step_plan::Participant::Callback(url)) => {
            if url.len() > core_limits::MAX_URL_BYTES {
                let what = "a callback's URL (in bytes)";
                let limit = core_limits::MAX_URL_BYTES;
                return Err(Box::new(refusal::too_large(what, url.len(), limit)));
            }
            callback(&url).map_err(|why| invalid(&why))?;
            let input = serde_json::from_slice::<serde::de::IgnoredAny>(&wire.input);
            if !wire.input.is_empty() && url.starts_with("http") && input.is_err() {
                return Err(invalid(
                    "has an input that is no JSON, which its callback takes",
                ));
            }
            (url.into(), true)
        }
        None => return Err(invalid("names neither an action nor a callback's URL")),
    };
    if wire.input.len() > core_limits::MAX_PAYLOAD_BYTES {
        let limit = core_limits::MAX_PAYLOAD_BYTES;
        let what = format!("the input of step {step:?} (in bytes)");
        return Err(Box::new(refusal::too_large(&what, wire.input.len(), limit)));
    }
    let on_trouble = match wire.on_trouble {
        Some(saga_step_plan::OnTrouble::BackwardAttempts(attempts)) => {
            OnTrouble::Backward { attempts }
        }
        Some(saga_step_plan::OnTrouble::Forward(_)) => OnTrouble::Forward,
        None => {
            return Err(invalid(
                "does not say what comes of failed attempts: so many of them, or forward",
            ));
        }
    };
    let after = wire.after.into_iter().map(u16::try_from);
    let after = after
        .collect::<Result<Vec<u16>, _>>()
        .map_err(|_| invalid("waits for a step that the plan does not have"))?;
    Ok(StepPlan {
        name: step.into(),
        resource: participant,
        callback: is_callback,
        input: Payload::from(&wire.input[..]),
        after,
        attempt_timeout_ms: wire.attempt_timeout_ms,
        on_trouble,
    })
}

/// What an agent says that a step returned.
pub(super) fn ran(wire: &v1::StepRan) -> core::Outcome {
    core::Outcome::Ran(Payload::from(&wire.result[..]))
}

/// A problem of one sentence.
pub(crate) fn problem(reason: String) -> core::Problem {
    core::Problem {
        reason: super::cut(reason, core_limits::MAX_PROBLEM_BYTES),
        ..core::Problem::default()
    }
}

pub(super) fn step_order(step: &core::StepOrder) -> v1::StepOrder {
    v1::StepOrder {
        name: (*step.name).to_owned(),
        attempt_timeout_ms: step.attempt_timeout_ms,
        results: outputs(&step.results),
        result: step.result.as_deref().map(Bytes::copy_from_slice),
    }
}

pub(crate) fn outputs(results: &[core::StepResult]) -> Vec<v1::StepOutput> {
    let output = |r: &core::StepResult| v1::StepOutput {
        step: (*r.step).to_owned(),
        result: Bytes::copy_from_slice(&r.result),
    };
    results.iter().map(output).collect()
}

/// The end of a plan, as the answer to who started it; the reply itself if it is another one.
pub(crate) fn ended(xid: Xid, reply: core::Reply) -> Result<v1::SagaOutcome, core::Reply> {
    match reply {
        core::Reply::SagaDone(results, decided) => Ok(v1::SagaOutcome {
            xid: xid.get(),
            results: outputs(&results),
            decision: decided.map_or(v1::Decision::Unspecified, decision).into(),
            reason: None,
        }),
        core::Reply::Decided(decided, why) => Ok(v1::SagaOutcome {
            xid: xid.get(),
            results: Vec::new(),
            decision: decision(decided).into(),
            reason: why.as_ref().map(reason),
        }),
        other => Err(other),
    }
}

/// What is being done with a branch that is a step.
pub(crate) fn direction(branch: &core::Branch) -> &'static str {
    use core::BranchStatus;
    match (branch.status(), branch.action()) {
        (BranchStatus::Registered, core::Action::Run) => "run",
        (BranchStatus::Done, _) | (BranchStatus::Finished, core::Action::Run) => "done",
        (BranchStatus::Finished | BranchStatus::Accepted | BranchStatus::Skipped, _) => {
            "compensated"
        }
        _ => "compensate",
    }
}
