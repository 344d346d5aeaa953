//! Whoever promised something: a participant of 3PC, a try of TCC, a transaction that is prepared for
//! XA. What it does about orders; and what one of 3PC does when nobody speaks to it. Both go by one
//! table, of which TCC and XA need less.

use accede_core::{
    Mode, Outcome,
    alone::{Knows, May, Phase, Standing, may},
};

use super::{
    Agent, AgentEvent,
    phase_two::{Job, problem},
};
use crate::{database::BranchKey, message::Ask, oracle::News, outside::Outside};

/// Milliseconds after which a participant asks about a promise.
const TIME_OUT_MS: u64 = 4_000;
/// Milliseconds it waits for the answer.
const ANSWER_MS: u64 = 1_500;

/// A promise that is asked about: where it is, and whose.
pub(super) type Asked = (usize, BranchKey);

impl Agent {
    /// An order for a branch of 3PC.
    pub(super) fn order_of_promise(
        &self,
        out: &mut Outside,
        place: usize,
        promise: (BranchKey, Mode),
        job: Job,
    ) -> Outcome {
        let knows = match job {
            Job::Commit => Knows::Committing,
            Job::PreCommit => Knows::PreCommitted,
            Job::RollBack { .. } => Knows::RollingBack,
            Job::Run { .. } | Job::Compensate | Job::Prepare | Job::CommitOnePhase => {
                return Outcome::Stuck(problem("it is no step of a saga"));
            }
        };
        match self.act(out, place, promise, knows, false) {
            May::PreCommit => Outcome::PreCommitted,
            May::Never => Outcome::Stuck(problem("this cannot be")),
            _ => Outcome::Finished,
        }
    }

    /// Does what the table says, and answers with that.
    fn act(
        &self,
        out: &mut Outside,
        place: usize,
        (key, mode): (BranchKey, Mode),
        knows: Knows,
        alone: bool,
    ) -> May {
        let phase = out.databases[place].phase(key);
        let allowed = may(phase, knows);
        let next = match allowed {
            May::PreCommit => Phase::PreCommitted,
            May::Commit => Phase::Committed,
            // One that has not voted bars its vote.
            May::Abort => Phase::Aborted,
            May::Never => {
                let (xid, branch) = key;
                out.tell(&News::CannotBe {
                    xid,
                    branch,
                    phase,
                    knows,
                });
                return allowed;
            }
            May::Choose | May::Ask | May::Rest => return allowed,
        };
        let now = out.now;
        out.databases[place].turn(key, mode, next, now);
        self.turned(out, key, (phase, next), alone);
        allowed
    }

    pub(super) fn turned(
        &self,
        out: &mut Outside,
        (xid, branch): BranchKey,
        (from, to): (Phase, Phase),
        alone: bool,
    ) {
        out.note(self.me().address, Some(xid), || {
            let how = if alone { ", of its own" } else { "" };
            format!("branch {} goes from {from:?} to {to:?}{how}", branch.0)
        });
        out.tell(&News::Promise {
            xid,
            branch,
            from,
            to,
        });
    }

    /// Asks the coordinator about promises of which nothing was heard for long.
    pub(super) fn look_for_promises(&mut self, out: &mut Outside) {
        let ms = out.random.between(1_500, 4_000);
        out.agent_later(ms, self.me(), AgentEvent::Alone);
        let before = out.now.saturating_sub(TIME_OUT_MS);
        let mut asked: Vec<Asked> = Vec::new();
        for place in &self.databases {
            let database = &out.databases[*place];
            if database.up {
                let old = database.unheard_promises(before).into_iter();
                asked.extend(old.map(|key| (*place, key)));
            }
        }
        if asked.is_empty() || self.asked.is_some() {
            return;
        }
        let tag = self.next_number();
        if self.connected {
            let xids = asked.iter().map(|(_, (xid, _))| *xid).collect();
            out.ask(self.me(), tag, Ask::Standing(xids));
        }
        self.asked = Some((tag, asked));
        out.agent_later(ANSWER_MS, self.me(), AgentEvent::NoAnswer(tag));
    }

    /// The coordinator's answer.
    pub(super) fn told(&mut self, out: &mut Outside, tag: u64, standings: &[Standing]) {
        let Some((_, asked)) = self.asked.take_if(|(asked, _)| *asked == tag) else {
            return;
        };
        for ((place, key), standing) in asked.into_iter().zip(standings) {
            let knows = match standing {
                Standing::Known(knows) => *knows,
                Standing::NeverBegun | Standing::Forgotten => Knows::Silence,
            };
            self.act_alone(out, place, key, knows);
        }
    }

    /// Nobody has answered.
    pub(super) fn silence(&mut self, out: &mut Outside, tag: u64) {
        let Some((_, asked)) = self.asked.take_if(|(asked, _)| *asked == tag) else {
            return;
        };
        for (place, key) in asked {
            self.act_alone(out, place, key, Knows::Silence);
        }
    }

    fn act_alone(&self, out: &mut Outside, place: usize, key: BranchKey, knows: Knows) {
        if out.databases[place].up {
            self.act(out, place, (key, Mode::ThreePhase), knows, true);
        }
    }
}
