//! A saga's plan, and how far it has come.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use crate::{
    id::{BranchId, RequestId, Resource, Timestamp},
    payload::Payload,
};

/// One step of a plan, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlan {
    /// What results are called by; no two steps of a plan have the same.
    pub name: Arc<str>,
    /// The action that agents serve, or the URL of a callback.
    pub resource: Resource,
    /// The resource is a URL that the leader calls itself.
    pub callback: bool,
    /// For the step and its compensation. Opaque here.
    pub input: Payload,
    /// Steps that must be done first, by their places in the plan, counted from 0. All are below
    /// the step's own place, so no plan waits for itself. Sorted, none twice.
    pub after: Vec<u16>,
    /// Milliseconds after which an attempt without an answer counts as failed.
    pub attempt_timeout_ms: u32,
    /// What comes of failed attempts.
    pub on_trouble: OnTrouble,
}

/// What to do about attempts that failed. A step that says itself that it cannot be done ends the
/// saga in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTrouble {
    /// After so many failed attempts the transaction rolls back.
    Backward {
        /// At least one.
        attempts: u32,
    },
    /// Tried until the transaction's own deadline.
    Forward,
}

/// The plan of a transaction. Steps are branches from when they are started: logged before the
/// order goes out, numbered in the order in which they were started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saga {
    /// Names the request that stored it, and its repeats.
    pub(crate) request: RequestId,
    /// Digest of what was asked.
    pub(crate) content: u64,
    pub(crate) commit_when_done: bool,
    pub(crate) steps: Vec<Step>,
}

/// A step and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its input is the branch's once it is started.
    pub(crate) plan: StepPlan,
    pub(crate) branch: Option<BranchId>,
    pub(crate) result: Option<Payload>,
    /// When the attempt that is out counts as failed.
    pub(crate) answer_by: Option<Timestamp>,
}

impl Saga {
    /// Its steps, in the order of the plan.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// It commits by itself when its last step is done.
    #[must_use]
    pub fn commit_when_done(&self) -> bool {
        self.commit_when_done
    }

    /// Every step has its result.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.steps.iter().all(|step| step.result.is_some())
    }

    /// Somebody waits for its end.
    pub(crate) fn is_awaited(&self) -> bool {
        self.commit_when_done || !self.is_done()
    }

    /// The step that a branch is.
    #[must_use]
    pub fn step_of(&self, branch: BranchId) -> Option<&Step> {
        self.steps.iter().find(|step| step.branch == Some(branch))
    }

    pub(crate) fn step_mut(&mut self, branch: BranchId) -> Option<&mut Step> {
        let mut steps = self.steps.iter_mut();
        steps.find(|step| step.branch == Some(branch))
    }

    /// The first step that can be started: all that it waits for is done.
    pub(crate) fn next(&self) -> Option<usize> {
        self.steps.iter().position(|step| {
            let mut after = step.plan.after.iter();
            step.branch.is_none() && after.all(|at| self.steps[usize::from(*at)].result.is_some())
        })
    }

    pub(crate) fn unstarted(&self) -> usize {
        let steps = self.steps.iter();
        steps.filter(|step| step.branch.is_none()).count()
    }

    /// The results so far, in the order of the plan.
    pub(crate) fn results(&self) -> Vec<StepResult> {
        self.steps.iter().filter_map(Step::named_result).collect()
    }

    /// Bytes of inputs that no branch has yet, and of results.
    pub(crate) fn payload_bytes(&self) -> u64 {
        let bytes = |s: &Step| s.plan.input.len() + s.result.as_ref().map_or(0, |r| r.len());
        self.steps.iter().map(|step| bytes(step) as u64).sum()
    }

    /// Steps that were not started never will be; returns how many bytes that frees.
    pub(crate) fn drop_unstarted(&mut self) -> u64 {
        let steps = self.steps.iter_mut();
        let inputs = steps
            .filter(|step| step.branch.is_none())
            .map(|step| core::mem::take(&mut step.plan.input));
        inputs.map(|input| input.len() as u64).sum()
    }

    /// What an order for a step says beside what every order says.
    pub(crate) fn order(&self, branch: BranchId) -> Option<Box<StepOrder>> {
        let at = (self.steps.iter()).position(|step| step.branch == Some(branch))?;
        // All that it follows, however indirectly: steps wait for earlier ones only.
        let mut before = alloc::vec![false; self.steps.len()];
        before[at] = true;
        for place in (0..=at).rev() {
            if before[place] {
                let after = &self.steps[place].plan.after;
                after.iter().for_each(|at| before[usize::from(*at)] = true);
            }
        }
        let earlier = self.steps[..at].iter().zip(&before);
        let results = earlier.filter(|(_, before)| **before);
        let step = &self.steps[at];
        Some(Box::new(StepOrder {
            name: Arc::clone(&step.plan.name),
            callback: step.plan.callback,
            attempt_timeout_ms: step.plan.attempt_timeout_ms,
            results: results
                .filter_map(|(step, _)| step.named_result())
                .collect(),
            result: step.result.clone(),
        }))
    }
}

impl Step {
    /// Its name in the plan.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Steps that must be done first, by their places in the plan, counted from 0.
    #[must_use]
    pub fn after(&self) -> &[u16] {
        &self.plan.after
    }

    /// The action that agents serve, or the URL of a callback.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.plan.resource
    }

    /// The branch that it became when it was started.
    #[must_use]
    pub fn branch(&self) -> Option<BranchId> {
        self.branch
    }

    /// What it returned, once it is done.
    #[must_use]
    pub fn result(&self) -> Option<&[u8]> {
        self.result.as_deref()
    }

    fn named_result(&self) -> Option<StepResult> {
        let result = self.result.clone()?;
        let step = Arc::clone(&self.plan.name);
        Some(StepResult { step, result })
    }
}

/// What a step returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepResult {
    /// The step's name.
    pub step: Arc<str>,
    /// Opaque here.
    pub result: Payload,
}

/// What an order for a step of a saga says beside what every order says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepOrder {
    /// The step's name.
    pub name: Arc<str>,
    /// The leader carries it out itself: the resource is a URL.
    pub callback: bool,
    /// Milliseconds that an attempt may take.
    pub attempt_timeout_ms: u32,
    /// What the steps before it returned, those before them included, in the order of the plan.
    pub results: Vec<StepResult>,
    /// To compensate it: what it returned itself, if that is known.
    pub result: Option<Payload>,
}

/// How an attempt to do a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOver {
    /// The step is done.
    Done,
    /// The attempt failed; there may be others.
    Failed,
    /// The participant, or its database, could not be reached.
    Unavailable,
    /// No answer came in time.
    TimedOut,
    /// It cannot be done at all.
    Refused,
}

impl StepOver {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Done,
        Self::Failed,
        Self::Unavailable,
        Self::TimedOut,
        Self::Refused,
    ];

    /// The word for tables and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed out",
            Self::Refused => "refused",
        }
    }
}
