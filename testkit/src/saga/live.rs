//! What is known of a saga that is played.

use std::collections::BTreeMap;

use accede_core::{Action, Order, StepPlan};
use accede_proto::Xid;

use super::{
    participant::{Ended, Participant},
    plan,
    script::Script,
};
use crate::{play::persist, report::Rule};

/// A saga that is under way.
pub(super) struct Live {
    pub(super) script: Script,
    pub(super) xid: Xid,
    /// Orders for steps so far.
    pub(super) ordered: u32,
    pub(super) branches: BTreeMap<u32, Branch>,
}

/// A step that was started.
pub(super) struct Branch {
    pub(super) step: usize,
    pub(super) progress: Progress,
    pub(super) run: Order,
    pub(super) back: Option<Order>,
    /// The coordinator has heard that it is compensated.
    pub(super) is_closed: bool,
}

/// How far a step is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It did nothing.
    Untouched,
    /// Something was begun.
    Unknown,
    /// It is done and returned this.
    Done(Vec<u8>),
    /// It was taken back.
    Compensated,
    /// It was taken back before it did anything.
    Barred,
}

/// An order that is to be carried out.
#[derive(Clone)]
pub(super) struct Due {
    pub(super) saga: usize,
    pub(super) order: Order,
}

impl Due {
    pub(super) fn runs(&self) -> bool {
        self.order.action == Action::Run
    }

    pub(super) fn is_for(&self, other: &Self) -> bool {
        (self.saga, self.order.branch) == (other.saga, other.order.branch)
    }

    /// For people.
    pub(super) fn call(&self) -> String {
        let step = self.order.step.as_deref().map_or("", |step| &step.name);
        let what = match self.runs() {
            true => "step",
            false => "the compensation of step",
        };
        format!("{what} {step:?} of transaction {}", self.saga)
    }
}

/// Until it is carried out.
pub(super) async fn attempts(participant: &Participant, due: &Due) -> Result<Ended, Rule> {
    let ended = persist(|| participant.carry_out(&due.order)).await;
    ended.map_err(|reason| Rule::Finishes(format!("{}: {reason}", due.call())))
}

/// A step that is ordered to be done: its place in the plan, if all it should get is there.
pub(super) fn started(live: &Live, plan: &[StepPlan], due: &Due) -> Result<usize, Rule> {
    let wrong = |what: String| Rule::Order(format!("{}: {what}", due.call()));
    let order = due.order.step.as_deref();
    let order = order.ok_or_else(|| wrong("the order is for no step".to_owned()))?;
    let step = plan.iter().position(|step| step.name == order.name);
    let step = step.ok_or_else(|| wrong("the plan has no such step".to_owned()))?;
    let results = order.results.iter();
    let got: Vec<(&str, &[u8])> = results.map(|r| (&*r.step, &r.result[..])).collect();
    let returned = |name: &str| {
        let mut branches = live.branches.values();
        branches.find_map(|branch| match &branch.progress {
            Progress::Done(result) if *plan[branch.step].name == *name => Some(&result[..]),
            _ => None,
        })
    };
    let before = plan::before(plan, step).into_iter();
    let expected: Option<Vec<(&str, &[u8])>> =
        before.map(|name| Some((name, returned(name)?))).collect();
    match expected {
        Some(expected) if expected == got => Ok(step),
        _ => Err(wrong(
            "it does not get what the steps before it returned".to_owned(),
        )),
    }
}

/// For people.
pub(super) fn told(ended: &Ended) -> String {
    match ended {
        Ended::Ran(result) if result.is_empty() => "done".to_owned(),
        Ended::Ran(result) => format!("done, returned {}", String::from_utf8_lossy(result)),
        Ended::Refused(why) => format!("refused: {why}"),
        Ended::Compensated => "compensated".to_owned(),
    }
}
