//! A transaction of XA that is kept open: its statements are done, its client has heard so, and it
//! waits for the order to prepare or to commit in one phase. It is gone with its agent's life or
//! its database, and then whoever gets the order bars it.

use accede_core::{
    BranchDone, BranchId, Command, DoomBranch, Mode, Outcome, RequestId, alone::Phase,
};

use super::{
    Agent, AgentEvent,
    phase_two::{Job, problem},
};
use crate::{
    database::{BranchKey, NotCommitted},
    outside::Outside,
};

/// Pause until it is looked again whether an order has ended it.
const OPEN_LOOK_MS: u64 = 500;

/// An open local transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    place: usize,
    give_up_at: u64,
}

impl Agent {
    /// The coordinator said that the branch of this job shall stay open.
    pub(super) fn keep_open(
        &mut self,
        out: &mut Outside,
        number: u64,
        (_, branch, give_up_at): (RequestId, BranchId, u64),
    ) {
        let Some(job) = self.jobs.get(&number) else {
            return;
        };
        let (key, place) = ((job.xid, branch), job.work.database);
        self.kept_open.insert(key, Open { place, give_up_at });
        let ms = out.random.between(200, 3_000);
        out.agent_later(ms, self.me(), AgentEvent::OpenTooLong(key));
        self.end(out, number, Ok(()));
    }

    /// It cannot wait any longer: it is prepared without an order.
    pub(super) fn open_too_long(&mut self, out: &mut Outside, key: BranchKey) {
        if !self.kept_open.contains_key(&key) {
            return;
        }
        if self.in_hand.contains_key(&key) {
            // The order may come to nothing, and another agent's may end the branch.
            return out.agent_later(OPEN_LOOK_MS, self.me(), AgentEvent::OpenTooLong(key));
        }
        let (xid, branch) = key;
        let command = match self.prepare_open(out, key) {
            Some(Ok(())) => Command::BranchDone(BranchDone { xid, branch }),
            _ => Command::DoomBranch(DoomBranch {
                xid,
                branch,
                detail: "it could not be prepared".to_owned(),
            }),
        };
        self.deliver(out, command);
    }

    fn prepare_open(
        &mut self,
        out: &mut Outside,
        key: BranchKey,
    ) -> Option<Result<(), NotCommitted>> {
        let Open { place, give_up_at } = self.kept_open.remove(&key)?;
        let now = out.now;
        let promised = out.databases[place].promise(key, Mode::Xa, give_up_at, now);
        if promised.is_ok() {
            self.turned(out, key, (Phase::Working, Phase::Prepared), false);
        }
        Some(promised)
    }

    /// The connections to a database broke.
    pub(super) fn open_lost(&mut self, database: usize) {
        self.kept_open.retain(|_, open| open.place != database);
    }

    /// The registration of a branch may be answered at any moment, or is on its way to be kept.
    pub(super) fn may_open(&self, place: usize, key: BranchKey) -> bool {
        let registers = |job: &super::job::Job| {
            job.xid == key.0
                && job.work.database == place
                && job.work.promises == Some(Mode::Xa)
                && job.asking().is_some()
        };
        !self.kept_open.contains_key(&key) && self.jobs.values().any(registers)
    }

    /// What comes of the order to prepare or to commit in one phase, or to roll back what is open.
    pub(super) fn order_of_open(
        &mut self,
        out: &mut Outside,
        place: usize,
        key: BranchKey,
        job: Job,
    ) -> Outcome {
        let phase = out.databases[place].phase(key);
        match (job, phase) {
            (Job::Prepare, _) if self.kept_open.contains_key(&key) => {
                match self.prepare_open(out, key) {
                    Some(Ok(())) => Outcome::Prepared,
                    _ => Outcome::Refused(problem("it came too late")),
                }
            }
            (Job::CommitOnePhase, Phase::Working) if self.kept_open.remove(&key).is_some() => {
                self.commit_open(out, place, key);
                Outcome::Finished
            }
            (Job::Prepare, Phase::Prepared) => Outcome::Prepared,
            (Job::CommitOnePhase, Phase::Prepared) => {
                let now = out.now;
                out.databases[place].turn(key, Mode::Xa, Phase::Committed, now);
                self.turned(out, key, (phase, Phase::Committed), false);
                Outcome::Finished
            }
            (Job::CommitOnePhase, Phase::Committed) => Outcome::Finished,
            (_, Phase::Working) => {
                let now = out.now;
                out.databases[place].turn(key, Mode::Xa, Phase::Aborted, now);
                self.turned(out, key, (phase, Phase::Aborted), false);
                Outcome::Refused(problem("its session is gone"))
            }
            (_, Phase::Aborted) => {
                self.kept_open.remove(&key);
                Outcome::Refused(problem("it was barred"))
            }
            (_, Phase::Prepared | Phase::PreCommitted | Phase::Committed) => {
                Outcome::Stuck(problem("this cannot be"))
            }
        }
    }

    fn commit_open(&self, out: &mut Outside, place: usize, key: BranchKey) {
        let now = out.now;
        #[cfg(feature = "planted-bugs")]
        let fenced = !accede_core::planted::is(accede_core::planted::Bug::CommittedWithoutFence);
        #[cfg(not(feature = "planted-bugs"))]
        let fenced = true;
        if fenced {
            out.databases[place].turn(key, Mode::Xa, Phase::Committed, now);
        }
        self.turned(out, key, (Phase::Working, Phase::Committed), false);
    }
}
