//! Phase two, and the steps of sagas: one order at a time for a branch; a repeat meanwhile only
//! changes the numbers that the answer will carry.

use accede_core::{Action, Command, FinishBranch, Mode, Order, Outcome, Payload, Problem};

use super::{Agent, AgentEvent, Numbers};
use crate::{
    client::CANNOT,
    database::{BranchKey, Fence, NotFinished, Record},
    message::{Ask, Peer},
    oracle::News,
    outside::Outside,
};

/// What is to be done with a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Commit,
    PreCommit,
    RollBack {
        was_done: bool,
        forced: bool,
    },
    /// A step of a saga.
    Run {
        cannot: bool,
    },
    Compensate,
    /// What is kept open.
    Prepare,
    CommitOnePhase,
}

/// A branch that is being worked on.
#[derive(Debug)]
pub(super) struct InHand {
    database: usize,
    /// It promised something, in this mode.
    promised: Option<Mode>,
    job: Job,
    numbers: Numbers,
    /// A newer order that asks for something else; runs if this one does not succeed.
    next: Option<(Job, Numbers)>,
}

impl Agent {
    /// Takes an order.
    pub(super) fn order(&mut self, out: &mut Outside, order: &Order) {
        let key: BranchKey = (order.xid, order.branch);
        let of_action = !matches!(order.mode, Mode::At | Mode::Xa);
        let place = out.databases.iter().position(|database| match of_action {
            true => database.action == order.resource,
            false => database.resource == order.resource,
        });
        let Some(database) = place.filter(|place| self.databases.contains(place)) else {
            return;
        };
        let numbers = Numbers {
            attempt: order.attempt,
            epoch: order.epoch,
        };
        let job = match order.action {
            Action::Run => Job::Run {
                cannot: &*order.payload == CANNOT,
            },
            _ if order.mode == Mode::Saga => Job::Compensate,
            Action::Commit => Job::Commit,
            Action::PreCommit => Job::PreCommit,
            Action::Prepare => Job::Prepare,
            Action::CommitOnePhase => Job::CommitOnePhase,
            Action::RollBack | Action::Accept => Job::RollBack {
                was_done: order.was_done,
                forced: false,
            },
            Action::RollBackForced => Job::RollBack {
                was_done: order.was_done,
                forced: true,
            },
        };
        if let Some(running) = self.in_hand.get_mut(&key) {
            if running.job == job {
                running.numbers = numbers;
                running.next = None;
            } else {
                running.next = Some((job, numbers));
            }
            let tag = self.next_number();
            out.ask(self.me(), tag, Ask::InProgress(order.xid, order.branch));
            return;
        }
        self.in_hand.insert(
            key,
            InHand {
                database,
                promised: Some(order.mode).filter(|mode| !matches!(mode, Mode::At | Mode::Saga)),
                job,
                numbers,
                next: None,
            },
        );
        self.plan(out, key);
    }

    fn plan(&self, out: &mut Outside, key: BranchKey) {
        let mut ms = out.random.between(1, 6);
        if out.goes_wrong(out.rates.slow_agent) {
            ms += out.random.between(100, 12_000);
        }
        out.agent_later(ms, self.me(), AgentEvent::PhaseTwo(key));
    }

    /// The database does it; the answer follows.
    pub(super) fn phase_two(&mut self, out: &mut Outside, key: BranchKey) {
        let Some(running) = self.in_hand.get(&key) else {
            return;
        };
        let (place, job, promised) = (running.database, running.job, running.promised);
        let of_open = matches!(job, Job::Prepare | Job::CommitOnePhase);
        if of_open && self.may_open(place, key) {
            return self.plan(out, key);
        }
        if matches!(job, Job::RollBack { .. }) {
            // Rolled back with its session; it is barred below all the same.
            self.kept_open.remove(&key);
        }
        let outcome = if !out.databases[place].up {
            Outcome::Unavailable(problem("the database is down"))
        } else if out.goes_wrong(out.rates.failed_order) {
            Outcome::Failed(problem("the database refuses today"))
        } else if out.goes_wrong(out.rates.stuck_order) {
            Outcome::Stuck(problem("somebody must look at this"))
        } else if of_open {
            self.order_of_open(out, place, key, job)
        } else if let Some(mode) = promised {
            self.order_of_promise(out, place, (key, mode), job)
        } else {
            match job {
                Job::PreCommit | Job::Prepare | Job::CommitOnePhase => {
                    Outcome::Stuck(problem("nothing was promised"))
                }
                Job::Commit => commit(out, self.me(), place, key),
                Job::RollBack { was_done, forced } => {
                    roll_back(out, self.me(), place, key, (was_done, forced))
                }
                Job::Run { cannot: true } => Outcome::Refused(problem("sold out")),
                Job::Run { cannot: false } => run(out, self.me(), place, key),
                Job::Compensate => compensate(out, self.me(), place, key),
            }
        };
        let ms = out.random.between(1, 3);
        out.agent_later(ms, self.me(), AgentEvent::PhaseTwoDone(key, outcome));
    }

    /// Answers with the newest numbers, or goes on with what was ordered meanwhile.
    pub(super) fn phase_two_done(&mut self, out: &mut Outside, key: BranchKey, outcome: Outcome) {
        let Some(mut running) = self.in_hand.remove(&key) else {
            return;
        };
        let numbers = match running.next.take() {
            // Success is final, whoever asked.
            Some((_, numbers)) if outcome == Outcome::Finished => numbers,
            Some((job, numbers)) => {
                self.in_hand.insert(
                    key,
                    InHand {
                        job,
                        numbers,
                        ..running
                    },
                );
                return self.plan(out, key);
            }
            None => running.numbers,
        };
        let (xid, branch) = key;
        out.note(self.me().address, Some(xid), || {
            let how = match &outcome {
                Outcome::Finished => "finished".to_owned(),
                Outcome::PreCommitted => "pre-committed".to_owned(),
                other => format!("{other:?}"),
            };
            format!(
                "answers attempt {} for branch {}: {how}",
                numbers.attempt.0, branch.0
            )
        });
        let finish = FinishBranch {
            xid,
            branch,
            attempt: numbers.attempt,
            epoch: numbers.epoch,
            outcome,
        };
        let tag = self.next_number();
        out.ask(self.me(), tag, Ask::Command(Command::FinishBranch(finish)));
    }
}

fn run(out: &mut Outside, me: Peer, place: usize, key: BranchKey) -> Outcome {
    let (xid, branch) = key;
    match out.databases[place].run_step(key) {
        (Fence::Barred, _) => Outcome::Refused(problem("it was compensated before")),
        (Fence::Done, fresh) => {
            if fresh {
                out.note(me.address, Some(xid), || {
                    format!("does the step of branch {}", branch.0)
                });
                out.tell(&News::StepDone { xid, branch });
            }
            Outcome::Ran(Payload::from(&b"done"[..]))
        }
    }
}

fn compensate(out: &mut Outside, me: Peer, place: usize, key: BranchKey) -> Outcome {
    let (xid, branch) = key;
    if out.databases[place].compensate(key) != Some(Fence::Barred) {
        out.note(me.address, Some(xid), || {
            format!("compensates the step of branch {}", branch.0)
        });
        out.tell(&News::Compensated { xid, branch });
    }
    Outcome::Finished
}

fn commit(out: &mut Outside, me: Peer, place: usize, key: BranchKey) -> Outcome {
    let (xid, branch) = key;
    if out.databases[place].drop_record(key) {
        out.note(me.address, Some(xid), || {
            format!("drops the undo record of branch {}", branch.0)
        });
        out.tell(&News::Kept { xid, branch });
    }
    Outcome::Finished
}

fn roll_back(
    out: &mut Outside,
    me: Peer,
    place: usize,
    key: BranchKey,
    (was_done, forced): (bool, bool),
) -> Outcome {
    let (xid, branch) = key;
    let now = out.now;
    let database = &mut out.databases[place];
    let resource = database.resource.clone();
    let found: Vec<Option<i64>> = match database.undo.get(&key) {
        Some(Record::Undo(images)) => images
            .iter()
            .map(|image| database.value(image.row))
            .collect(),
        _ => Vec::new(),
    };
    match database.roll_back(key, was_done, forced, now) {
        Ok(images) => {
            out.note(me.address, Some(xid), || {
                format!(
                    "undoes branch {} in {resource}: {} rows",
                    branch.0,
                    images.len()
                )
            });
            if !images.is_empty() {
                let (images, found) = (&images[..], &found[..]);
                out.tell(&News::Undone {
                    database: &resource,
                    xid,
                    branch,
                    images,
                    found,
                });
            }
            Outcome::Finished
        }
        Err(NotFinished::Locked) => Outcome::Failed(problem("a local transaction holds the rows")),
        Err(why) => {
            let text = format!("{why:?}");
            out.tell(&News::CannotUndo {
                xid,
                branch,
                why: text.clone(),
            });
            Outcome::Stuck(problem(&text))
        }
    }
}

pub(super) fn problem(reason: &str) -> Problem {
    Problem {
        reason: reason.to_owned(),
        ..Problem::default()
    }
}
