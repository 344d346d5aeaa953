//! Doing the steps of a plan, one after the other or side by side, until the decision.

use alloc::{boxed::Box, format, vec::Vec};

use super::{finish_branch::cut, request::make_room, size};
#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    command::{FinishBranch, Outcome, Problem},
    deadline::Timer,
    effect::{Action, Effect},
    handle::Context,
    id::{Attempt, BranchId, ProcessId, Xid},
    limits::MAX_STEP_RESULT_BYTES,
    mode::Mode,
    payload::Payload,
    reply::{Decision, Rejection, Reply, RollBackReason, Waiter},
    saga::{OnTrouble, StepOver},
    status::{BranchEvent, BranchStatus},
    transaction::Branch,
};

impl Context<'_> {
    /// Starts every step that waits for no other any more.
    pub(super) fn start_steps(&mut self, xid: Xid) {
        while let Some(at) = self.next_step(xid) {
            self.start_step(xid, at);
        }
    }

    fn next_step(&mut self, xid: Xid) -> Option<usize> {
        let saga = self.indexed(xid).saga()?;
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::StepTooEarly) {
            let unstarted = saga.steps.iter().position(|step| step.branch.is_none());
            return unstarted.filter(|at| *at <= 1).or_else(|| saga.next());
        }
        saga.next()
    }

    fn start_step(&mut self, xid: Xid, at: usize) {
        let transaction = self.indexed(xid);
        let id = BranchId(transaction.branches.len() as u32 + 1);
        let Some(step) = transaction.saga.as_mut().and_then(|s| s.steps.get_mut(at)) else {
            return;
        };
        step.branch = Some(id);
        let resource = step.plan.resource.clone();
        let payload = core::mem::take(&mut step.plan.input);
        make_room(&mut transaction.branches);
        transaction.branches.push(Branch {
            id,
            resource,
            mode: Mode::Saga,
            agent: ProcessId(0),
            status: BranchStatus::Registered,
            was_done: false,
            locks: Vec::new(),
            payload,
            action: Action::Run,
            attempt: Attempt(0),
            failures: 0,
            outages: 0,
            next_attempt_at: None,
            problem: None,
        });
        self.order_as(xid, id, Action::Run);
        self.prepare_what_is_open(xid);
    }

    /// The order for an attempt goes out.
    pub(super) fn expect_answer(&mut self, xid: Xid, id: BranchId) {
        let now = self.now();
        let saga = self.indexed(xid).saga.as_mut();
        if let Some(step) = saga.and_then(|saga| saga.step_mut(id)) {
            let until = now.plus(step.plan.attempt_timeout_ms.into());
            step.answer_by = Some(until);
            self.state.deadlines.arm(until, Timer::StepAnswer(xid, id));
        }
    }

    /// An attempt is over, or no longer of interest.
    fn expect_no_answer(&mut self, xid: Xid, id: BranchId) {
        let saga = self.indexed(xid).saga.as_mut();
        let step = saga.and_then(|saga| saga.step_mut(id));
        if let Some(until) = step.and_then(|step| step.answer_by.take()) {
            self.state
                .deadlines
                .disarm(until, Timer::StepAnswer(xid, id));
        }
    }

    /// What came of an order, if it says something about a step; `None` if it is about a
    /// compensation or no step at all.
    pub(super) fn news_of_step(&mut self, command: &FinishBranch) -> Option<Result<(), Rejection>> {
        let (xid, id) = (command.xid, command.branch);
        let epoch = self.state.epoch;
        let transaction = self.indexed(xid);
        let is_step = transaction.is_step(id);
        let branch = transaction.branch_mut(id)?;
        if !is_step {
            let of_step = matches!(command.outcome, Outcome::Ran(_) | Outcome::Refused(_));
            return of_step.then_some(Err(Rejection::BranchState("it is no step of a saga")));
        }
        if !branch.is_running() {
            return self.late_news_of_step(command);
        }
        let current =
            branch.is_ordered() && branch.attempt == command.attempt && epoch == command.epoch;
        match &command.outcome {
            // A success of any attempt counts.
            Outcome::Ran(result) => self.step_ran(xid, id, result),
            Outcome::Finished | Outcome::PreCommitted | Outcome::Prepared => {
                return Some(Err(Rejection::BranchState(
                    "it is a step under way, which ends with what it returned",
                )));
            }
            _ if !current => {}
            Outcome::Refused(problem) | Outcome::Stuck(problem) => {
                self.step_is_over(xid, id, StepOver::Refused);
                self.give_up(xid, id, problem);
            }
            Outcome::Failed(problem) => self.step_failed(xid, id, StepOver::Failed, problem, 0),
            Outcome::Later(problem, after_ms) => {
                self.step_failed(xid, id, StepOver::Failed, problem, *after_ms);
            }
            Outcome::Unavailable(problem) => {
                self.step_is_over(xid, id, StepOver::Unavailable);
                self.database_is_down(xid, id, problem);
            }
        }
        Some(Ok(()))
    }

    /// The same about a step that is done, or is to be compensated.
    fn late_news_of_step(&mut self, command: &FinishBranch) -> Option<Result<(), Rejection>> {
        let id = command.branch;
        let transaction = self.indexed(command.xid);
        let branch = transaction.branch_mut(id)?;
        let not_ordered = matches!(branch.status, BranchStatus::Registered | BranchStatus::Done);
        let Outcome::Ran(result) = &command.outcome else {
            let of_compensation = !not_ordered || command.outcome == Outcome::Finished;
            return (!of_compensation).then_some(Ok(()));
        };
        #[cfg(feature = "planted-bugs")]
        if !not_ordered && planted::is(Bug::LateStepEndsCompensation) {
            self.branch_is_finished(command.xid, id);
            return Some(Ok(()));
        }
        // The rollback overtook this message; the next attempt to compensate shall know.
        branch.was_done = true;
        let saga = transaction.saga.as_mut();
        if let Some(step) = saga.and_then(|saga| saga.step_mut(id))
            && step.result.is_none()
            && result.len() <= MAX_STEP_RESULT_BYTES
        {
            step.result = Some(result.clone());
            self.state.payload_bytes += result.len() as u64;
        }
        Some(Ok(()))
    }

    fn step_ran(&mut self, xid: Xid, id: BranchId, result: &Payload) {
        let waits = self.indexed(xid).branch_mut(id).and_then(|branch| {
            branch.was_done = true;
            branch.next_attempt_at.take()
        });
        if let Some(at) = waits {
            self.state.deadlines.disarm(at, Timer::Attempt(xid, id));
        }
        self.effects.push(Effect::DropOrder { xid, branch: id });
        self.step_is_over(xid, id, StepOver::Done);
        if result.len() > MAX_STEP_RESULT_BYTES {
            let (found, limit) = (result.len(), MAX_STEP_RESULT_BYTES);
            let reason = format!("it returned {found} bytes, of {limit} that are allowed");
            let problem = Problem {
                reason,
                ..Problem::default()
            };
            return self.give_up(xid, id, &problem);
        }
        let transaction = self.indexed(xid);
        if let Some(branch) = transaction.branch_mut(id) {
            branch.failures = 0;
            branch.outages = 0;
            branch.problem = None;
            branch.turn(BranchEvent::Done);
        }
        let saga = transaction.saga.as_mut();
        if let Some(step) = saga.and_then(|saga| saga.step_mut(id)) {
            step.result = Some(result.clone());
        }
        self.state.payload_bytes += result.len() as u64;
        self.start_steps(xid);
        let saga = self.indexed(xid).saga();
        if let Some(saga) = saga.filter(|saga| !saga.is_awaited()) {
            let waiter = Waiter::Request(xid, saga.request);
            let reply = Reply::SagaDone(saga.results(), None);
            self.effects.push(Effect::Answer { waiter, reply });
        }
        self.commit_if_complete(xid);
    }

    /// The time of an attempt is over; its timer is not armed any more.
    pub(super) fn answer_is_late(&mut self, xid: Xid, id: BranchId) {
        let saga = self.indexed(xid).saga.as_mut();
        let Some(step) = saga.and_then(|saga| saga.step_mut(id)) else {
            return;
        };
        step.answer_by = None;
        let ms = step.plan.attempt_timeout_ms;
        let problem = Problem {
            reason: format!("no answer within {ms} ms"),
            ..Problem::default()
        };
        // Whoever has it may still be at it; one that nobody has taken is not to be begun.
        self.effects.push(Effect::DropOrder { xid, branch: id });
        self.step_failed(xid, id, StepOver::TimedOut, &problem, 0);
    }

    fn step_failed(
        &mut self,
        xid: Xid,
        id: BranchId,
        how: StepOver,
        problem: &Problem,
        after_ms: u32,
    ) {
        self.step_is_over(xid, id, how);
        let transaction = self.indexed(xid);
        let step = transaction.saga().and_then(|saga| saga.step_of(id));
        let policy = step.map(|step| step.plan.on_trouble);
        let Some(branch) = transaction.branch_mut(id) else {
            return;
        };
        let failures = branch.count_failure();
        match policy {
            Some(OnTrouble::Backward { attempts }) if failures >= attempts => {
                self.give_up(xid, id, problem);
            }
            _ => self.try_again(xid, id, failures, problem, after_ms),
        }
    }

    fn step_is_over(&mut self, xid: Xid, id: BranchId, how: StepOver) {
        self.expect_no_answer(xid, id);
        let branch = id;
        self.effects.push(Effect::StepOver { xid, branch, how });
    }

    /// A step cannot be done: what was done so far is compensated.
    fn give_up(&mut self, xid: Xid, id: BranchId, problem: &Problem) {
        let transaction = self.indexed(xid);
        let step = transaction.saga().and_then(|saga| saga.step_of(id));
        let name = step.map_or("", |step| step.name());
        let detail = size::text(&format!("{name}: {}", problem.reason));
        if let Some(branch) = transaction.branch_mut(id) {
            branch.problem = Some(Box::new(cut(problem)));
        }
        self.decide_roll_back(xid, RollBackReason::StepFailed(id, detail));
    }

    /// The transaction was decided: no step is begun or tried again, and whoever waits for the
    /// plan's end has it.
    pub(super) fn end_plan(&mut self, xid: Xid, decided: &Reply) {
        let transaction = self.indexed(xid);
        let rolls_back = transaction.status.decision() == Some(Decision::RollBack);
        let Some(saga) = &mut transaction.saga else {
            return;
        };
        let answer = saga.is_awaited().then(|| match rolls_back {
            true => decided.clone(),
            false => Reply::SagaDone(saga.results(), Some(Decision::Commit)),
        });
        let (request, dropped) = (saga.request, saga.drop_unstarted());
        let running = transaction.branches.iter().filter(|b| b.is_running());
        let running: Vec<BranchId> = running.map(|branch| branch.id).collect();
        self.state.payload_bytes -= dropped;
        if let Some(reply) = answer {
            let waiter = Waiter::Request(xid, request);
            self.effects.push(Effect::Answer { waiter, reply });
        }
        for branch in running {
            self.stop_step(xid, branch);
        }
    }

    /// A step that is under way is not waited for: its compensation finds out what it did.
    fn stop_step(&mut self, xid: Xid, id: BranchId) {
        self.expect_no_answer(xid, id);
        self.effects.push(Effect::DropOrder { xid, branch: id });
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return;
        };
        branch.action = Action::RollBack;
        branch.failures = 0;
        branch.outages = 0;
        if let Some(at) = branch.next_attempt_at.take() {
            self.state.deadlines.disarm(at, Timer::Attempt(xid, id));
        }
    }
}
