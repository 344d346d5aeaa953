//! From the queue into the log, and from there to those who wait.

use std::path::Path;

use accede_core::{
    Command, Effect, Epoch, LockKey, LockMode, Outcome, Reply, RequestId, RowLock, TakeOffice,
    Timestamp, Waiter, WallTime, codec,
};
use accede_log::fs::Fs;

use super::{
    Applied, BATCH, Caller, Coordinator, CoordinatorEvent, Death, ME, Out, Process, TICK_MS,
    WALL_AT_START, is_final, read, send_orders,
};
use crate::{
    agenda::Event,
    message::{Answer, Ask, Peer},
    oracle::News,
    outside::Outside,
};

/// Callers that may wait for the same answer; a newer one takes the place of the oldest.
const CALLERS_PER_WAITER: usize = 16;

impl Process {
    /// The coordinator's time: goes on from the last entry, never back.
    fn at(&mut self, now: u64) -> Timestamp {
        let (base, since) = self.clock;
        self.last_at = self.last_at.max(base.plus(now - since));
        self.last_at
    }
}

impl Coordinator {
    /// The first entry of a leader. Nothing is owed before it is applied.
    pub(super) fn take_office(&mut self, out: &mut Outside) {
        if let Some(process) = &mut self.process {
            process.in_office = false;
            let last = process.last_at;
            process.clock = (last, out.now);
        }
        self.write(
            out,
            &[Command::TakeOffice(TakeOffice::default())],
            true,
            Vec::new(),
            Vec::new(),
        );
    }

    /// Leadership was lost and won again: nobody can be told here what they wait for.
    pub(crate) fn reelect(&mut self, out: &mut Outside) {
        let Some(process) = self.process.as_mut().filter(|p| p.in_office && !p.writing) else {
            return;
        };
        out.faults += 1;
        out.note(ME, None, || {
            "loses its leadership and wins it again".to_owned()
        });
        let waiting = std::mem::take(&mut process.waiters).into_values().flatten();
        let queued = std::mem::take(&mut process.queue)
            .into_iter()
            .map(|c| (c.peer, c.tag));
        for (peer, tag) in waiting.chain(queued).collect::<Vec<_>>() {
            out.answer(peer, tag, Answer::Unknown);
        }
        process.orders.clear();
        process.expire_due = false;
        process.armed = None;
        self.take_office(out);
    }

    pub(super) fn batch(&mut self, out: &mut Outside) {
        let Some(process) = &mut self.process else {
            return;
        };
        process.batch_planned = false;
        if process.writing || !process.in_office {
            return;
        }
        let count = process.queue.len().min(BATCH);
        let callers: Vec<Caller> = process.queue.drain(..count).collect();
        let own = std::mem::take(&mut process.expire_due);
        let first = own.then_some(Command::Expire);
        let commands: Vec<Command> = first
            .into_iter()
            .chain(callers.iter().map(|c| c.command.clone()))
            .collect();
        let reads = std::mem::take(&mut process.reads);
        self.write(out, &commands, own, callers, reads);
    }

    /// Makes the commands one entry; what comes of it goes out when it is durable.
    fn write(
        &mut self,
        out: &mut Outside,
        commands: &[Command],
        own: bool,
        callers: Vec<Caller>,
        reads: Vec<(Peer, u64, Ask)>,
    ) {
        let Some(process) = &mut self.process else {
            return;
        };
        let mut index = out.oracle.facts.last_index;
        let mut applied = Applied::default();
        if !commands.is_empty() {
            let wall = WallTime((WALL_AT_START + out.now).saturating_add_signed(self.wall_offset));
            let bytes = codec::encode_batch(process.at(out.now), wall, commands);
            match process.log.propose(bytes.clone().into()) {
                Ok((at, result)) => (index, applied) = (at, result),
                Err(failure) => {
                    out.note(ME, None, || format!("cannot write: {failure}"));
                    return self.die(out, Death::PowerLost);
                }
            }
            for command in commands {
                out.note(ME, command.xid(), || {
                    format!("entry {index}: {}", describe(command))
                });
            }
            if let Some(witness) = out.oracle.entry(out.now, index, &bytes) {
                out.tell(&News::BothApplied {
                    leader: &applied,
                    witness: &witness,
                    index,
                });
            }
        }
        let Some(process) = &mut self.process else {
            return;
        };
        let state = &process.log.machine().state;
        let reads = reads.into_iter().map(|(peer, tag, ask)| {
            let about = if let Ask::Outcome(xid) = ask {
                Some(xid)
            } else {
                None
            };
            (peer, tag, about, read(state, &ask))
        });
        let entry = Out {
            index,
            applied,
            own,
            callers,
            reads: reads.collect(),
        };
        process.writing = true;
        if process.log.snapshot_wanted() && !self.snapshot(out) {
            return;
        }
        let event = CoordinatorEvent::Out(Box::new(entry));
        out.later(out.plan.flush_ms, Event::Coordinator(self.life, event));
    }

    /// False if the process died of it.
    fn snapshot(&mut self, out: &mut Outside) -> bool {
        let Some(process) = &mut self.process else {
            return false;
        };
        if let Err(failure) = process.log.snapshot() {
            out.note(ME, None, || format!("cannot write a snapshot: {failure}"));
            self.die(out, Death::PowerLost);
            return false;
        }
        let files = self
            .disk
            .list(Path::new("/data"))
            .map_or(0, |names| names.len());
        out.note(ME, None, || format!("writes a snapshot; {files} files"));
        out.tell(&News::Snapshot { files });
        true
    }

    /// An entry is durable and applied.
    pub(super) fn out(&mut self, out: &mut Outside, entry: Out) {
        let Some(process) = &mut self.process else {
            return;
        };
        process.writing = false;
        let Out {
            index,
            applied,
            own,
            callers,
            reads,
        } = entry;
        let mut callers = callers.into_iter();
        for (place, (reply, effects)) in applied.results.into_iter().enumerate() {
            if out.goes_wrong(out.rates.crash_between_answers) {
                let death = if out.random.chance(500) {
                    Death::Killed
                } else {
                    Death::PowerLost
                };
                return self.die(out, death);
            }
            if own && place == 0 {
                self.own_reply(out, &reply);
            } else if let Some(caller) = callers.next() {
                self.settle(out, index, caller, reply);
            }
            for effect in effects {
                self.carry_out(out, index, effect);
            }
        }
        for (peer, tag, xid, answer) in reads {
            out.tell(&News::Answered {
                index,
                xid,
                answer: &answer,
            });
            out.answer(peer, tag, answer);
        }
        let Some(process) = &mut self.process else {
            return;
        };
        send_orders(process, out);
        self.watch_memory(out);
        self.arm(out);
        if self
            .process
            .as_ref()
            .is_some_and(|p| !p.queue.is_empty() || !p.reads.is_empty())
        {
            self.plan_batch(out);
        }
    }

    fn own_reply(&mut self, out: &mut Outside, reply: &Reply) {
        let Some(process) = &mut self.process else {
            return;
        };
        match reply {
            Reply::InOffice(Epoch(epoch)) => {
                process.in_office = true;
                process.orders.clear();
                let owed = process.log.machine().state.resume();
                out.note(ME, None, || {
                    format!(
                        "is in office, epoch {epoch}; {} orders are owed",
                        owed.len()
                    )
                });
                for effect in owed {
                    self.carry_out(out, *epoch, effect);
                }
            }
            Reply::MoreIsDue => {
                process.expire_due = true;
                self.plan_batch(out);
            }
            _ => {}
        }
    }

    /// Hands a reply to its caller, or has the caller wait.
    fn settle(&mut self, out: &mut Outside, index: u64, caller: Caller, reply: Reply) {
        let Caller {
            peer,
            tag,
            command,
            attach,
        } = caller;
        let Some(process) = &mut self.process else {
            return;
        };
        if let Command::FinishBranch(finish) = &command {
            // The late success of a step says nothing about an order to compensate it.
            let finished = finish.outcome == Outcome::Finished;
            let key = (finish.xid, finish.branch);
            process
                .orders
                .answered(key, finish.attempt, finish.epoch, finished);
        }
        if let Some(resources) = attach {
            return self.attach(out, peer, tag, resources);
        }
        match reply {
            Reply::Waiting(waiter) => {
                let callers = process.waiters.entry(waiter).or_default();
                callers.retain(|caller| *caller != (peer, tag));
                if callers.len() >= CALLERS_PER_WAITER {
                    callers.pop_front();
                }
                callers.push_back((peer, tag));
            }
            reply => promise(out, index, command.xid(), (peer, tag), reply),
        }
    }

    /// Carries an effect out; it may have been carried out before.
    fn carry_out(&mut self, out: &mut Outside, index: u64, effect: Effect) {
        let Some(process) = self.process.as_mut().filter(|process| process.in_office) else {
            return;
        };
        match effect {
            Effect::Order(order) => {
                out.tell(&News::Ordered(&order));
                process.orders.put(order);
            }
            Effect::DropOrder { xid, branch } => process.orders.drop_order(xid, branch),
            Effect::Answer { waiter, reply } => {
                let xid = match waiter {
                    Waiter::Request(xid, _) | Waiter::Commit(xid) => xid,
                };
                debug_assert!(is_final(&reply));
                for caller in process.waiters.remove(&waiter).into_iter().flatten() {
                    promise(out, index, Some(xid), caller, reply.clone());
                }
            }
            Effect::Decided { xid, decision } => {
                out.note(ME, Some(xid), || format!("is decided: {decision:?}"));
            }
            Effect::Ended { xid, decision } => {
                out.note(ME, Some(xid), || format!("has ended: {decision:?}"));
            }
            Effect::StepOver { xid, branch, how } => {
                let how = how.as_str();
                out.note(ME, Some(xid), || format!("step {}: {how}", branch.0));
            }
            Effect::Stuck { xid, branch } => {
                out.note(ME, Some(xid), || format!("branch {} is stuck", branch.0));
            }
        }
    }

    fn watch_memory(&self, out: &mut Outside) {
        let Some(process) = &self.process else {
            return;
        };
        let waiters = process.waiters.len();
        let counts = out.oracle.facts.witness.counts();
        // Each waiter is a waiting or parked request, or a commit or a plan of an undecided
        // transaction.
        let limit = counts.waiting as usize + 2 * counts.active as usize + PARKED;
        out.tell(&News::Memory {
            what: "waiters",
            count: waiters,
            limit,
        });
        let open = counts.active
            + counts.delegated
            + counts.pre_committed
            + counts.committing
            + counts.rolling_back
            + counts.stuck;
        let branches = accede_core::limits::MAX_BRANCHES.min(MOST_BRANCHES);
        let (count, limit) = (process.orders.open(), open as usize * branches);
        out.tell(&News::Memory {
            what: "open orders",
            count,
            limit,
        });
    }

    pub(super) fn timer(&mut self, out: &mut Outside) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process.armed.is_none_or(|armed| armed > out.now) {
            return;
        }
        process.armed = None;
        let now = process.at(out.now);
        let deadline = process.log.machine().state.next_deadline();
        if process.in_office && deadline.is_some_and(|deadline| deadline <= now) {
            process.expire_due = true;
            self.plan_batch(out);
        } else {
            self.arm(out);
        }
    }

    /// Sets the timer, unless it rings early enough anyway.
    fn arm(&mut self, out: &mut Outside) {
        let Some(process) = self
            .process
            .as_mut()
            .filter(|p| p.in_office && !p.expire_due)
        else {
            return;
        };
        let Some(deadline) = process.log.machine().state.next_deadline() else {
            return;
        };
        let (base, since) = process.clock;
        let at = (since + deadline.since(base)).max(out.now);
        if process.armed.is_none_or(|armed| armed > at) {
            process.armed = Some(at);
            out.agenda
                .plan(at, Event::Coordinator(self.life, CoordinatorEvent::Timer));
        }
    }

    pub(super) fn tick(&mut self, out: &mut Outside) {
        out.later(
            TICK_MS,
            Event::Coordinator(self.life, CoordinatorEvent::Tick),
        );
        if let Some(process) = self.process.as_mut().filter(|process| process.in_office) {
            process.orders.repeat_silent(out.now);
            send_orders(process, out);
        }
    }
}

/// A command for people.
fn describe(command: &Command) -> String {
    match command {
        Command::RegisterBranch(c) => {
            let local = if c.holds_local_locks {
                ", holds local locks"
            } else {
                ""
            };
            let RequestId { process, sequence } = c.request;
            format!(
                "register request {}.{sequence} on {}, rows {}, waits {} ms{local}",
                process.0 % 1000,
                c.resource,
                row_locks(&c.locks),
                c.wait_limit_ms
            )
        }
        Command::CheckLocks(c) => format!("check {} on {}", rows(&c.locks), c.resource),
        Command::WithdrawBranch(c) => {
            format!(
                "withdraw request {}.{}",
                c.request.process.0 % 1000,
                c.request.sequence
            )
        }
        other => format!("{other:?}"),
    }
}

fn row_locks(locks: &[RowLock]) -> String {
    let named = locks.iter().map(|lock| {
        let row = rows(std::slice::from_ref(&lock.key));
        match &lock.mode {
            LockMode::Exclusive => row,
            LockMode::Shared => format!("{row} shared"),
            LockMode::Escrow(deltas) => {
                let deltas = deltas.iter();
                let deltas = deltas.map(|c| format!("{:+} to {}", c.delta, c.value));
                format!("{row} ({})", deltas.collect::<Vec<_>>().join(" "))
            }
        }
    });
    named.collect::<Vec<_>>().join(" ")
}

fn rows(keys: &[LockKey]) -> String {
    let rows: Vec<String> = keys
        .iter()
        .map(|key| String::from_utf8_lossy(key).replace("row ", ""))
        .collect();
    rows.join(" ")
}

/// Requests that may be parked at once in these small worlds.
const PARKED: usize = 200;
/// Branches that a transaction may have in these small worlds.
const MOST_BRANCHES: usize = 32;

/// An answer leaves: from now on it must be kept.
fn promise(
    out: &mut Outside,
    index: u64,
    xid: Option<accede_core::Xid>,
    (peer, tag): (Peer, u64),
    reply: Reply,
) {
    out.note(ME, xid, || format!("answers {}: {reply:?}", peer.address));
    let answer = Answer::Reply(reply);
    out.tell(&News::Answered {
        index,
        xid,
        answer: &answer,
    });
    out.answer(peer, tag, answer);
}
