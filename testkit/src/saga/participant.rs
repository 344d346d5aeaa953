//! Who does steps.

use std::fmt;

use accede_core::{Action, Order, StepOrder, limits};
use accede_proto::{
    Xid,
    callback::{Call, Direction, Verdict, json},
    v1,
};
use accede_rm_agent::testkit::{Step, StepEnd, Trouble};
use futures_util::future::BoxFuture;
use serde::Serialize;

/// What a service answers that does steps without an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepAnswer {
    /// As of HTTP: 2xx done, 409 it cannot be done and nothing was, anything else: tried again.
    pub status: u16,
    /// What the step returned, as JSON, or nothing; why it cannot be done.
    pub body: String,
}

impl StepAnswer {
    /// It is done, and returned this.
    #[must_use]
    pub fn done<T: Serialize + ?Sized>(result: &T) -> Self {
        match serde_json::to_string(result) {
            Ok(body) => Self { status: 200, body },
            Err(error) => Self::later(format!("the result cannot be written as JSON: {error}")),
        }
    }

    /// It is done, and there is nothing to return.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            status: 204,
            body: String::new(),
        }
    }

    /// It cannot be done, and nothing was.
    pub fn refused(why: impl Into<String>) -> Self {
        Self {
            status: 409,
            body: why.into(),
        }
    }

    /// It may work later.
    pub fn later(why: impl Into<String>) -> Self {
        Self {
            status: 503,
            body: why.into(),
        }
    }
}

type Service = Box<dyn Fn(Call) -> BoxFuture<'static, StepAnswer> + Send + Sync>;

/// Who does a step.
pub(super) enum Participant {
    Agent(Step),
    Callback(Service),
}

impl fmt::Debug for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent(_) => "agent",
            Self::Callback(_) => "callback",
        })
    }
}

/// What came of an order that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The step is done and returned this.
    Ran(Vec<u8>),
    /// It cannot be done.
    Refused(String),
    /// It is compensated.
    Compensated,
}

/// Services have few moments at which they can die.
const MOST_POLLS_OF_SERVICES: usize = 4;

impl Participant {
    /// After how many polls one dies that was to die after so many of an agent's.
    pub(super) fn polls(&self, polls: usize) -> usize {
        match self {
            Self::Agent(_) => polls,
            Self::Callback(_) => 1 + polls % MOST_POLLS_OF_SERVICES,
        }
    }

    /// Carries an order out.
    pub(super) async fn carry_out(&self, order: &Order) -> Result<Ended, Trouble> {
        let Some(step) = order.step.as_deref() else {
            return Err(Trouble::Stuck("the order is for no step".to_owned()));
        };
        let runs = order.action == Action::Run;
        match self {
            Self::Agent(agent) => by_agent(agent, order, step, runs).await,
            Self::Callback(service) => {
                let answer = service(call(order, step, runs)).await;
                read(answer, runs)
            }
        }
    }
}

async fn by_agent(
    agent: &Step,
    order: &Order,
    step: &StepOrder,
    runs: bool,
) -> Result<Ended, Trouble> {
    let xid = Xid::from_u64(order.xid.get()).expect("it is the same number");
    let (branch, input) = (order.branch.0, &order.payload[..]);
    let output = |r: &accede_core::StepResult| v1::StepOutput {
        step: (*r.step).to_owned(),
        result: r.result.to_vec().into(),
    };
    let wire = v1::StepOrder {
        name: (*step.name).to_owned(),
        attempt_timeout_ms: step.attempt_timeout_ms,
        results: step.results.iter().map(output).collect(),
        result: step.result.as_deref().map(|result| result.to_vec().into()),
    };
    if !runs {
        let back = agent.compensate(xid, branch, order.was_done, input, &wire);
        return back.await.map(|()| Ended::Compensated);
    }
    Ok(match agent.run(xid, branch, input, &wire).await? {
        StepEnd::Ran(result) => Ended::Ran(result.into()),
        StepEnd::Refused(why) => Ended::Refused(why),
    })
}

fn call(order: &Order, step: &StepOrder, runs: bool) -> Call {
    let results = step.results.iter();
    Call {
        xid: order.xid.to_string(),
        branch: order.branch.0,
        step: (*step.name).to_owned(),
        attempt: order.attempt.0,
        direction: match runs {
            true => Direction::Run,
            false => Direction::Compensate,
        },
        input: json(&order.payload),
        results: results
            .map(|r| ((*r.step).to_owned(), json(&r.result)))
            .collect(),
        result: match runs {
            true => None,
            false => step.result.as_deref().map(json),
        },
    }
}

/// As the coordinator reads it.
fn read(StepAnswer { status, body }: StepAnswer, runs: bool) -> Result<Ended, Trouble> {
    let said = format!("the answer was {status}: {body}");
    let most = limits::MAX_STEP_RESULT_BYTES;
    match (Verdict::of_status(status), runs) {
        (Verdict::Done | Verdict::CannotBe, true) if body.len() > most => Ok(Ended::Refused(
            format!("the answer was {status} with more than {most} bytes"),
        )),
        (Verdict::Done, true) => {
            let result = body.into_bytes();
            let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&result).is_ok();
            match result.is_empty() || is_json {
                true => Ok(Ended::Ran(result)),
                false => Err(Trouble::Passing(format!("{said}, which is no JSON"))),
            }
        }
        (Verdict::Done, false) => Ok(Ended::Compensated),
        (Verdict::CannotBe, true) => Ok(Ended::Refused(body)),
        (Verdict::CannotBe, false) => Err(Trouble::Stuck(said)),
        (Verdict::Later, _) => Err(Trouble::Passing(said)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_the_coordinator_reads_them() {
        let ran = |text: &str| Ok(Ended::Ran(text.as_bytes().to_vec()));
        assert_eq!(read(StepAnswer::done(&5), true), ran("5"));
        assert_eq!(read(StepAnswer::nothing(), true), ran(""));
        assert_eq!(read(StepAnswer::nothing(), false), Ok(Ended::Compensated));
        let refused = read(StepAnswer::refused("no room"), true);
        assert_eq!(refused, Ok(Ended::Refused("no room".to_owned())));
        let stuck = read(StepAnswer::refused("spent"), false);
        assert!(matches!(stuck, Err(Trouble::Stuck(why)) if why.contains("409: spent")));
        let later = read(StepAnswer::later("busy"), true);
        assert!(matches!(later, Err(Trouble::Passing(why)) if why.contains("503: busy")));
        let text = StepAnswer {
            status: 200,
            body: "thanks".into(),
        };
        let passing = read(text, true);
        assert!(matches!(passing, Err(Trouble::Passing(why)) if why.contains("no JSON")));
        let large = StepAnswer::done(&"x".repeat(limits::MAX_STEP_RESULT_BYTES));
        let refused = read(large, true);
        assert!(matches!(refused, Ok(Ended::Refused(why)) if why.contains("more than")));
    }
}
