//! A plan, as the coordinator takes it.

use accede_core::{OnTrouble, Payload, StepPlan};
use accede_proto::v1::{SagaStepPlan, saga_step_plan};
use accede_tm_client::Saga;

use super::Steps;

/// Reads a plan; an error says which step nobody does.
pub(super) fn read(saga: &Saga, steps: &Steps) -> Result<Vec<StepPlan>, String> {
    saga.plan()
        .iter()
        .map(|step| read_step(step, steps))
        .collect()
}

fn read_step(step: &SagaStepPlan, steps: &Steps) -> Result<StepPlan, String> {
    let name = &step.name;
    let (place, callback) = match &step.participant {
        Some(saga_step_plan::Participant::Action(action)) => (action, false),
        Some(saga_step_plan::Participant::Callback(url)) => (url, true),
        None => return Err(format!("step {name:?} names nobody who does it")),
    };
    if !steps.participants.contains_key(place) {
        let what = match callback {
            true => "callback",
            false => "step",
        };
        return Err(format!(
            "step {name:?} is done by {place:?}, which the trial does not know: give it the {what}"
        ));
    }
    let after = step.after.iter().map(|&at| u16::try_from(at));
    Ok(StepPlan {
        name: name.as_str().into(),
        resource: place.as_str().into(),
        callback,
        input: Payload::from(&step.input[..]),
        after: after
            .collect::<Result<_, _>>()
            .map_err(|_| format!("step {name:?} waits for a step that is not there"))?,
        attempt_timeout_ms: step.attempt_timeout_ms,
        on_trouble: match step.on_trouble {
            Some(saga_step_plan::OnTrouble::BackwardAttempts(attempts)) => {
                OnTrouble::Backward { attempts }
            }
            Some(saga_step_plan::OnTrouble::Forward(_)) | None => OnTrouble::Forward,
        },
    })
}

/// The names of all steps that a step follows, directly or not, in the order of the plan.
pub(super) fn before(plan: &[StepPlan], at: usize) -> Vec<&str> {
    let mut follows = vec![false; plan.len()];
    follows[at] = true;
    for place in (0..=at).rev() {
        if follows[place] {
            for &earlier in &plan[place].after {
                follows[usize::from(earlier)] = true;
            }
        }
    }
    let earlier = plan[..at].iter().zip(follows);
    earlier
        .filter_map(|(step, follows)| follows.then_some(&*step.name))
        .collect()
}
