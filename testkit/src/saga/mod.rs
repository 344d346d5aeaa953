//! Trying out the steps of sagas.

mod live;
mod look;
mod participant;
mod plan;
mod play;
mod script;

use std::{collections::BTreeMap, future::Future};

use accede_core::{Action, Decision, Order, Outcome, Payload, StepPlan};
use accede_proto::{Xid, callback::Call};
use accede_rm_agent::{Error, saga::SagaAction, testkit::bind_step};
use accede_tm_client::Saga;

pub use self::participant::StepAnswer;
use self::{
    participant::{Ended, Participant},
    play::Player,
};
use crate::{
    TestKit,
    play::persist,
    report::{Broken, Report, Rule},
    trial::Trial,
};

/// Sagas in one case at most.
const MOST_SAGAS: u64 = 2;

/// The steps of sagas that are tried out, by their actions and URLs.
#[derive(Debug, Default)]
pub struct Steps {
    participants: BTreeMap<String, Participant>,
}

/// The plans of the sagas of a case, by their numbers.
type Plans = Vec<Vec<StepPlan>>;

/// What these steps leave when nothing disturbs them.
type Expected = BTreeMap<Vec<(u64, usize)>, String>;

impl Trial<Steps> {
    /// Adds steps whose rows are in another kit's database.
    ///
    /// # Errors
    /// As [`TestKit::saga`].
    pub fn steps<'a>(
        mut self,
        kit: &TestKit,
        steps: impl IntoIterator<Item = &'a SagaAction>,
    ) -> Result<Self, Error> {
        for step in steps {
            let bound = bind_step(step, kit.place())?;
            let action = step.resource().to_owned();
            self.coordinator.name_action(&action);
            let participants = &mut self.subject.participants;
            participants.insert(action, Participant::Agent(bound));
        }
        Ok(self)
    }

    /// Adds a service without an agent, that the plan calls at `url`: `service` stands for it. It
    /// gets what the coordinator would post there.
    #[must_use]
    pub fn callback<F>(
        mut self,
        url: impl Into<String>,
        service: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = StepAnswer> + Send + 'static,
    {
        let service = Box::new(move |call| Box::pin(service(call)) as _);
        let participants = &mut self.subject.participants;
        participants.insert(url.into(), Participant::Callback(service));
        self
    }

    /// Plays. `plan` is what the n-th saga of a case, from 0, is to do; a case has two at most, and
    /// both must be possible together.
    ///
    /// Looks after each call: what is observed must be what the steps that are done and not
    /// compensated leave when nothing disturbs them. Steps that run side by side must leave the
    /// same in either order.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub async fn run(self, plan: impl Fn(u64) -> Saga) -> Result<Report, Broken> {
        let read = |number| plan::read(&plan(number), &self.subject);
        let plans: Result<Plans, String> = (0..MOST_SAGAS).map(read).collect();
        let plans = plans.map_err(|why| before_all(Rule::Test(why)))?;
        let mut expected = Expected::new();
        for (number, plan) in (0..).zip(&plans) {
            let all = (0..plan.len()).map(|step| (number, step)).collect();
            self.expected(&plans, &mut expected, all).await?;
        }
        let mut report = Report::default();
        for seed in self.seeds() {
            self.case(seed, &plans, &mut expected, &mut report).await?;
        }
        Ok(report)
    }

    async fn case(
        &self,
        seed: u64,
        plans: &Plans,
        expected: &mut Expected,
        report: &mut Report,
    ) -> Result<(), Broken> {
        let mut player = Player::new(self, plans, seed);
        let played = player.play().await;
        let (looks, story) = (player.looks, player.story);
        let broken = |rule| Broken {
            rule,
            seed,
            story: story.clone(),
        };
        // What was seen first that should not be, whatever came of it.
        for look in looks {
            let expected = self.expected(plans, expected, look.done).await?;
            if expected != look.seen {
                return Err(broken(look.kind.rule(look.call, expected, look.seen)));
            }
        }
        let decisions = played.map_err(broken)?;
        report.cases += 1;
        report.compensated += player.compensated;
        for decision in decisions {
            match decision {
                Decision::Commit => report.committed += 1,
                Decision::RollBack => report.rolled_back += 1,
            }
        }
        Ok(())
    }

    async fn expected(
        &self,
        plans: &Plans,
        known: &mut Expected,
        done: Vec<(u64, usize)>,
    ) -> Result<String, Broken> {
        if let Some(left) = known.get(&done) {
            return Ok(left.clone());
        }
        let left = self.undisturbed(plans, &done).await.map_err(before_all)?;
        known.insert(done, left.clone());
        Ok(left)
    }

    /// What these steps leave, done one after the other.
    async fn undisturbed(&self, plans: &Plans, done: &[(u64, usize)]) -> Result<String, Rule> {
        self.begin_anew().await?;
        let mut open = Vec::new();
        let mut is_whole = true;
        for (number, plan) in (0..).zip(plans) {
            let steps = done.iter().filter(|(saga, _)| *saga == number);
            let steps: Vec<&str> = steps.map(|(_, step)| &*plan[*step].name).collect();
            if steps.is_empty() {
                continue;
            }
            is_whole &= steps.len() == plan.len();
            let xid = self.coordinator.begin();
            let started = self.coordinator.start_saga(xid, plan.clone());
            started.map_err(Rule::Test)?;
            open.push(xid);
            self.do_steps(xid, &steps).await?;
        }
        let seen = match is_whole {
            true => self.look_at_end().await?,
            false => self.look().await?,
        };
        for xid in open {
            self.leave(xid);
        }
        Ok(seen)
    }

    async fn do_steps(&self, xid: Xid, steps: &[&str]) -> Result<(), Rule> {
        let mut due = Vec::new();
        for &step in steps {
            due.extend(self.coordinator.orders(xid));
            let is_it = |order: &Order| order.step.as_ref().is_some_and(|s| *s.name == *step);
            let Some(at) = due.iter().position(is_it) else {
                return Err(Rule::Order(format!("step {step:?} is not ordered")));
            };
            let order = due.swap_remove(at);
            let who = &self.subject.participants[&*order.resource];
            let ended = persist(|| who.carry_out(&order)).await;
            let result = match ended {
                Ok(Ended::Ran(result)) => Payload::from(&result[..]),
                Ok(Ended::Refused(why)) | Err(why) => {
                    return Err(Rule::Completes(format!("step {step:?}: {why}")));
                }
                Ok(Ended::Compensated) => {
                    return Err(Rule::Order(format!("step {step:?} was to be done")));
                }
            };
            self.coordinator.answered(&order, Outcome::Ran(result));
        }
        Ok(())
    }

    /// What is left of a saga is nobody's concern any more.
    fn leave(&self, xid: Xid) {
        self.coordinator.decide(xid, Decision::RollBack);
        loop {
            let orders = self.coordinator.orders(xid);
            if orders.is_empty() {
                return;
            }
            for order in orders.iter().filter(|order| order.action != Action::Run) {
                self.coordinator.answered(order, Outcome::Finished);
            }
        }
    }
}

/// Something is wrong with what is not disturbed.
fn before_all(rule: Rule) -> Broken {
    Broken {
        rule,
        seed: 0,
        story: vec!["without anything that disturbs".to_owned()],
    }
}
