//! The coordinator: the real state machine over the real segments and snapshots, driven as the
//! daemon's driver does it.
//!
//! Commands that wait are put into the log as one entry; its answers and effects go out when the
//! entry is durable and applied. What is in memory only (the queue, those who wait, which agents
//! are attached, which orders are out) is lost with the process.

mod driver;
mod machine;
mod orders;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use accede_core::{
    Command, ProcessId, Reply, State, Timestamp, Waiter, WallTime, Whereabouts, Xid,
};
use accede_log::{
    ClusterId, LogConfig,
    inline::InlineLog,
    sim::{Faults, SimFs},
};

pub(crate) use self::machine::Applied;
use self::{machine::Machine, orders::Orders};
use crate::{
    agenda::Event,
    message::{Address, Answer, Ask, Outcome, Peer, Shown},
    oracle::News,
    outside::Outside,
};

const ME: Address = Address::Coordinator;
/// Where the simulated wall clock stands when a run begins.
const WALL_AT_START: u64 = WallTime::XID_EPOCH.0 + 10_000_000;
/// Bytes of one segment: small, so that segments are changed and recycled often.
const SEGMENT_BYTES: u64 = 16 * 1024;
/// Commands of one entry, so that it fits into a segment.
const BATCH: usize = 40;
/// Milliseconds between two looks at orders that could not be sent or were not answered.
const TICK_MS: u64 = 500;

/// What happens inside the coordinator.
#[derive(Debug)]
pub(crate) enum CoordinatorEvent {
    /// The process is started.
    Start,
    /// What is queued becomes an entry.
    Batch,
    /// The entry is durable: its answers and effects go out.
    Out(Box<Out>),
    /// Something may be due.
    Timer,
    Tick,
}

/// What goes out after an entry.
#[derive(Debug)]
pub(crate) struct Out {
    index: u64,
    applied: Applied,
    /// The first reply belongs to the driver itself.
    own: bool,
    callers: Vec<Caller>,
    /// Questions with the transaction they are about, and what the state says.
    reads: Vec<(Peer, u64, Option<Xid>, Answer)>,
}

/// Who asked for a command.
#[derive(Clone, Debug)]
struct Caller {
    peer: Peer,
    tag: u64,
    command: Command,
    /// Attaches when its binding is logged.
    attach: Option<Vec<Shown>>,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// The machine stays up.
    Killed,
    /// What was not forced is lost or torn.
    PowerLost,
}

/// The coordinator's machine, and the process on it while it runs.
pub(crate) struct Coordinator {
    disk: SimFs,
    life: u32,
    /// The disk was told to fail.
    disk_fails: Cell<bool>,
    /// Milliseconds by which the wall clock is wrong.
    pub(crate) wall_offset: i64,
    process: Option<Process>,
}

/// One life.
struct Process {
    log: InlineLog<Machine>,
    /// The coordinator's time at a moment of the simulation.
    clock: (Timestamp, u64),
    last_at: Timestamp,
    queue: VecDeque<Caller>,
    reads: Vec<(Peer, u64, Ask)>,
    waiters: BTreeMap<Waiter, VecDeque<(Peer, u64)>>,
    orders: Orders,
    /// The newest connection of each client.
    sessions: BTreeMap<ProcessId, u64>,
    in_office: bool,
    batch_planned: bool,
    /// An entry is on its way to the disk.
    writing: bool,
    expire_due: bool,
    armed: Option<u64>,
}

impl Coordinator {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            disk: SimFs::new(seed),
            life: 0,
            disk_fails: Cell::new(false),
            wall_offset: 0,
            process: None,
        }
    }

    pub(crate) fn life(&self) -> u32 {
        self.life
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.in_office)
    }

    /// What is not done yet, if anything.
    pub(crate) fn unfinished(&self) -> Option<&'static str> {
        match &self.process {
            None => Some("the coordinator is down"),
            Some(p) if !p.in_office => Some("the coordinator is not in office"),
            Some(p) if !p.waiters.is_empty() => Some("callers wait for an answer"),
            Some(p) if p.orders.open() > 0 => Some("orders are open"),
            Some(_) => None,
        }
    }

    pub(crate) fn handle(&mut self, out: &mut Outside, life: u32, event: CoordinatorEvent) {
        if life != self.life {
            return;
        }
        match event {
            CoordinatorEvent::Start => self.start(out),
            CoordinatorEvent::Batch => self.batch(out),
            CoordinatorEvent::Out(entry) => self.out(out, *entry),
            CoordinatorEvent::Timer => self.timer(out),
            CoordinatorEvent::Tick => self.tick(out),
        }
    }

    fn config(&self, out: &Outside) -> LogConfig {
        let mut config = LogConfig::new("/data");
        config.cluster_id = Some(ClusterId(0x00ac_cede));
        config.segment_bytes = SEGMENT_BYTES;
        config.snapshot_every.entries = out.plan.entries_per_snapshot;
        config.cache_bytes = 4096;
        config.fs = Arc::new(self.disk.clone());
        config
    }

    fn start(&mut self, out: &mut Outside) {
        if self.process.is_some() {
            return;
        }
        match InlineLog::open(&self.config(out), Machine::default()) {
            Ok(log) => self.recovered(out, log),
            // The power went again while it started.
            Err(error) if self.disk_fails.get() => {
                out.note(ME, None, || format!("does not start: {error}"));
                self.die(out, Death::PowerLost);
            }
            Err(error) => {
                let what = format!("it does not start: {error}");
                out.oracle.broken(out.now, "recovers", what);
            }
        }
    }

    fn recovered(&mut self, out: &mut Outside, mut log: InlineLog<Machine>) {
        let known = out.oracle.facts.last_index;
        let found = log.entries(known + 1).unwrap_or_default();
        // Entries whose fate was unknown: they were forced after all.
        for (index, bytes) in &found {
            out.oracle.entry(out.now, *index, bytes);
        }
        let last_index = log.found_through().unwrap_or(0);
        let state = &log.machine().state;
        out.note(ME, None, || {
            format!(
                "starts; the log ends with entry {last_index}, {} of them news",
                found.len()
            )
        });
        out.tell(&News::Recovered { state, last_index });
        let now = state.now();
        self.process = Some(Process {
            log,
            clock: (now, out.now),
            last_at: now,
            queue: VecDeque::new(),
            reads: Vec::new(),
            waiters: BTreeMap::new(),
            orders: Orders::default(),
            sessions: BTreeMap::new(),
            in_office: false,
            batch_planned: false,
            writing: false,
            expire_due: false,
            armed: None,
        });
        self.take_office(out);
        out.later(
            TICK_MS,
            Event::Coordinator(self.life, CoordinatorEvent::Tick),
        );
    }

    /// Ends the process, however it is doing, and plans the next life.
    pub(crate) fn die(&mut self, out: &mut Outside, death: Death) {
        out.faults += 1;
        out.note(ME, None, || format!("dies: {death:?}"));
        self.process = None;
        self.disk = match death {
            Death::Killed => self.disk.kill(),
            Death::PowerLost => self.disk.crash(),
        };
        self.disk_fails.set(false);
        self.life += 1;
        let down_ms = if out.random.chance(150) {
            out.random.between(3_000, 20_000)
        } else {
            out.random.between(20, 2_000)
        };
        out.later(
            down_ms,
            Event::Coordinator(self.life, CoordinatorEvent::Start),
        );
    }

    /// Sets what the disk does wrong from now on.
    fn set_faults(&self, faults: Faults) {
        self.disk.set_faults(faults);
        self.disk_fails.set(true);
    }

    /// Cuts the power after so many more operations on the disk.
    pub(crate) fn power_off_after(&self, operations: u64) {
        let power_off_at = Some(self.disk.operations() + operations);
        self.set_faults(Faults {
            power_off_at,
            ..Faults::default()
        });
    }

    /// Has the next forced write fail.
    pub(crate) fn fail_next_sync(&self) {
        let fail_sync = Some(self.disk.syncs());
        self.set_faults(Faults {
            fail_sync,
            ..Faults::default()
        });
    }

    /// The disk works again.
    pub(crate) fn heal_disk(&self) {
        self.disk.set_faults(Faults::default());
    }

    /// A message has arrived.
    pub(crate) fn receive(&mut self, out: &mut Outside, from: Peer, tag: u64, ask: Ask) {
        let Some(process) = self.process.as_mut().filter(|process| process.in_office) else {
            return;
        };
        match ask {
            Ask::Open(command) => {
                let session = process.sessions.entry(from.process).or_default();
                *session = from.session.max(*session);
                self.queue(
                    out,
                    Caller {
                        peer: from,
                        tag,
                        command,
                        attach: None,
                    },
                );
            }
            Ask::Command(command) => {
                let state = &process.log.machine().state;
                if matches!(command, Command::Blocked(c) if !state.holds_up(c.xid)) {
                    // Nobody waits for it here: an entry would change nothing.
                    return;
                }
                let begin = matches!(command, Command::Begin(_));
                if begin && process.sessions.get(&from.process) != Some(&from.session) {
                    // Of a connection that is gone.
                    return;
                }
                let new_work = begin
                    || matches!(
                        command,
                        Command::RegisterBranch(_) | Command::CheckLocks(_) | Command::StartSaga(_)
                    );
                if new_work && process.queue.len() >= out.plan.queue_limit {
                    out.answer(from, tag, Answer::Overloaded);
                    return;
                }
                self.queue(
                    out,
                    Caller {
                        peer: from,
                        tag,
                        command,
                        attach: None,
                    },
                );
            }
            Ask::Attach(resources) => self.attach(out, from, tag, resources),
            Ask::InProgress(xid, branch) => {
                process
                    .orders
                    .in_progress(from.process, (xid, branch), out.now);
            }
            read @ (Ask::Ended(_) | Ask::Standing(_) | Ask::Outcome(_) | Ask::Stuck) => {
                process.reads.push((from, tag, read));
                self.plan_batch(out);
            }
        }
    }

    fn queue(&mut self, out: &mut Outside, caller: Caller) {
        if let Some(process) = &mut self.process {
            process.queue.push_back(caller);
            self.plan_batch(out);
        }
    }

    fn plan_batch(&mut self, out: &mut Outside) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process.in_office && !process.batch_planned && !process.writing {
            process.batch_planned = true;
            // Whoever else is ready may add its commands.
            let ms = out.random.below(3);
            out.later(ms, Event::Coordinator(self.life, CoordinatorEvent::Batch));
        }
    }

    /// A connection has broken.
    pub(crate) fn detach(&mut self, out: &mut Outside, peer: Peer) {
        if let Some(process) = &mut self.process {
            process.orders.detach(peer);
            send_orders(process, out);
        }
    }

    /// What was sent to this life of an agent found nobody there.
    pub(crate) fn not_delivered(&mut self, out: &mut Outside, address: Address, life: u32) {
        if let Some(process) = &mut self.process {
            process.orders.detach_life(address, life);
            send_orders(process, out);
        }
    }

    /// The resources of an agent are bound first; then it gets what waits for it.
    fn attach(&mut self, out: &mut Outside, peer: Peer, tag: u64, resources: Vec<Shown>) {
        let Some(process) = &mut self.process else {
            return;
        };
        let state = &process.log.machine().state;
        let bound = |(resource, database): &&Shown| match database {
            Some(database) => {
                let mut known = state.resources();
                known.any(|(name, id)| (name, id) == (resource, database))
            }
            None => state.is_action(resource),
        };
        if let Some((resource, database)) = resources.iter().find(|r| !bound(r)).cloned() {
            let command = match database {
                Some(database) => {
                    Command::BindResource(accede_core::BindResource { resource, database })
                }
                None => Command::NameAction(accede_core::NameAction { action: resource }),
            };
            self.queue(
                out,
                Caller {
                    peer,
                    tag,
                    command,
                    attach: Some(resources),
                },
            );
            return;
        }
        out.answer(peer, tag, Answer::Attached);
        let names = resources.into_iter().map(|(name, _)| name).collect();
        if process.orders.attach(peer, names) {
            out.note(ME, None, || format!("{} is attached", peer.address));
        }
        send_orders(process, out);
    }
}

fn send_orders(process: &mut Process, out: &mut Outside) {
    for (peer, order) in process.orders.send(out.now) {
        out.note(ME, Some(order.xid), || {
            format!(
                "orders {} to {:?} branch {}, attempt {}, epoch {}",
                peer.address, order.action, order.branch.0, order.attempt.0, order.epoch.0
            )
        });
        let message = crate::message::Message::Order(order);
        out.send(ME, peer.address, Some(peer.life), message);
    }
}

/// What the state says to a question.
fn read(state: &State, ask: &Ask) -> Answer {
    match ask {
        Ask::Ended(xids) => {
            let ended = |xid: &&Xid| match state.transaction(**xid) {
                Some(transaction) => transaction.status().has_ended(),
                None => state.whereabouts(**xid) == Whereabouts::Forgotten,
            };
            Answer::Ended(xids.iter().filter(ended).copied().collect())
        }
        Ask::Standing(xids) => {
            Answer::Standing(xids.iter().map(|xid| state.standing(*xid)).collect())
        }
        Ask::Outcome(xid) => Answer::Outcome(match state.transaction(*xid) {
            Some(transaction) => transaction
                .decision()
                .map_or(Outcome::Active, Outcome::Decided),
            None if state.whereabouts(*xid) == Whereabouts::Forgotten => Outcome::Forgotten,
            None => Outcome::NotBegun,
        }),
        _ => {
            let stuck = state
                .transactions_after(None)
                .filter(|t| matches!(t.status(), accede_core::Status::Stuck(_)));
            Answer::Stuck(stuck.map(accede_core::Transaction::xid).collect())
        }
    }
}

/// Whether a caller has nothing more to wait for.
fn is_final(reply: &Reply) -> bool {
    !matches!(reply, Reply::Waiting(_))
}
