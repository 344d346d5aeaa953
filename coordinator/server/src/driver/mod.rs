//! The one loop between the doors and the log: takes commands from the queue, stamps them, puts
//! each batch as one entry into the log, hands answers and effects out in log order.

mod carry_out;
mod waiters;

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc};

use accede_core::{Command, Reply, TakeOffice, Timestamp, codec};
use accede_log::{Leadership, Proposal, ProposeError};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, Sleep, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::waiters::Waiters;
use crate::{
    clock,
    hub::Hub,
    intake::{Drained, Read},
    limits::{ENTRIES_IN_FLIGHT, ORDER_TICK, SWEEP_TICKS},
    machine::Applied,
    reply_to::ReplyTo,
    trouble::Trouble,
};

/// An entry that is proposed, with those who wait for it.
struct InFlight {
    pending: Pending,
    callers: Vec<ReplyTo>,
    reads: Vec<Read>,
    kind: Kind,
}

enum Pending {
    Entry(Proposal<Applied>),
    /// Reads without a command: the log says when the state is current.
    Barrier(Pin<Box<dyn Future<Output = Result<(), ProposeError>> + Send>>),
    /// It was not even queued.
    Refused(Option<ProposeError>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Commands of callers.
    Callers,
    /// The first entry of this leader.
    TakeOffice,
    /// Callers' commands after an `Expire` of ours.
    Expire,
}

/// What an entry came to.
enum Done {
    Applied(Applied),
    Current,
    Failed(ProposeError),
}

/// The driver. Runs until it is told to stop; nothing is in flight when it has stopped, unless
/// the log has failed.
pub(crate) struct Driver {
    hub: Arc<Hub>,
    leadership: watch::Receiver<Leadership>,
    in_flight: VecDeque<InFlight>,
    waiters: Waiters,
    in_office: bool,
    /// When the state wants an `Expire`.
    deadline: Option<Timestamp>,
    /// When the timer rings; not after `deadline`.
    armed: Option<Timestamp>,
    timer: Pin<Box<Sleep>>,
    expire_due: bool,
    expire_in_flight: bool,
    /// Told whenever nothing is queued, in flight or waited for.
    idle: watch::Sender<bool>,
}

impl Driver {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self {
            leadership: hub.log.leadership(),
            hub,
            in_flight: VecDeque::new(),
            waiters: Waiters::default(),
            in_office: false,
            deadline: None,
            armed: None,
            timer: Box::pin(sleep_until(clock::now())),
            expire_due: false,
            expire_in_flight: false,
            idle: watch::Sender::new(false),
        }
    }

    /// Whether nothing is queued or in flight.
    pub(crate) fn idle(&self) -> watch::Receiver<bool> {
        self.idle.subscribe()
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut tick = interval(ORDER_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        self.leadership_changed().await;
        loop {
            let hub = Arc::clone(&self.hub);
            let room = self.in_flight.len() < ENTRIES_IN_FLIGHT;
            let takes = room && (self.in_office || self.in_flight.is_empty());
            self.note_idle();
            tokio::select! {
                biased;
                done = next_done(&mut self.in_flight), if !self.in_flight.is_empty() => {
                    self.done(done);
                }
                Ok(()) = self.leadership.changed() => self.leadership_changed().await,
                () = &mut self.timer, if self.armed.is_some() => self.timer_rang(),
                () = std::future::ready(()), if room && self.in_office && self.expire_due => {
                    self.propose_next().await;
                }
                () = hub.intake.filled(), if takes => {
                    // Whoever else is ready may add its commands, so that they share the entry.
                    tokio::task::yield_now().await;
                    self.propose_next().await;
                }
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.tick(ticks);
                }
                () = stop.cancelled(), if self.in_flight.is_empty() => break,
            }
        }
        self.waiters.give_up(&Trouble::ShuttingDown);
    }

    fn note_idle(&self) {
        let idle = self.in_flight.is_empty() && self.hub.intake.len() == 0;
        self.idle
            .send_if_modified(|was| std::mem::replace(was, idle) != idle);
    }

    fn tick(&mut self, ticks: u32) {
        self.hub.orders.tick();
        if ticks.is_multiple_of(SWEEP_TICKS) {
            self.hub.orders.repeat_silent();
            self.waiters.sweep();
        }
    }

    async fn leadership_changed(&mut self) {
        let leadership = *self.leadership.borrow_and_update();
        match leadership {
            Leadership::Leader { term } => {
                tracing::info!(term, "leads the cluster, takes office");
                self.leave_office(&Trouble::NotLeader(None));
                let now = self.hub.state.read().now();
                self.hub.clock.go_on_from(now);
                let retention = self.hub.config.retention();
                self.propose(
                    vec![Command::TakeOffice(TakeOffice { retention })],
                    Vec::new(),
                    Vec::new(),
                    Kind::TakeOffice,
                )
                .await;
            }
            Leadership::Follower { leader } => {
                if self.in_office {
                    tracing::warn!(?leader, "no longer leads the cluster");
                }
                self.leave_office(&Trouble::NotLeader(leader));
            }
        }
    }

    /// What was promised here can no longer be kept here.
    fn leave_office(&mut self, why: &Trouble) {
        self.in_office = false;
        self.hub.set_office(None);
        self.hub.orders.clear();
        self.hub.callbacks.clear();
        self.waiters.give_up(why);
        self.deadline = None;
        self.armed = None;
        self.expire_due = false;
    }

    /// Takes a batch from the queue and proposes it.
    async fn propose_next(&mut self) {
        let Drained {
            mut commands,
            callers,
            reads,
        } = self.hub.intake.take();
        if !self.in_office {
            let why = match *self.leadership.borrow() {
                Leadership::Leader { .. } => Trouble::NotLeader(None),
                Leadership::Follower { leader } => Trouble::NotLeader(leader),
            };
            refuse(callers, reads, &why);
            return;
        }
        let mut kind = Kind::Callers;
        if std::mem::take(&mut self.expire_due) {
            self.expire_in_flight = true;
            kind = Kind::Expire;
            commands.insert(0, Command::Expire);
        }
        if !commands.is_empty() || !reads.is_empty() {
            self.propose(commands, callers, reads, kind).await;
        }
    }

    async fn propose(
        &mut self,
        commands: Vec<Command>,
        callers: Vec<ReplyTo>,
        reads: Vec<Read>,
        kind: Kind,
    ) {
        let pending = if commands.is_empty() {
            let log = self.hub.log.clone();
            Pending::Barrier(Box::pin(async move { log.read_barrier().await }))
        } else {
            self.hub.metrics.commands(&commands);
            let entry = codec::encode_batch(self.hub.clock.at(), clock::wall(), &commands);
            match self.hub.log.propose(entry.into()).await {
                Ok(proposal) => Pending::Entry(proposal),
                Err(error) => Pending::Refused(Some(error)),
            }
        };
        self.in_flight.push_back(InFlight {
            pending,
            callers,
            reads,
            kind,
        });
    }

    /// The oldest entry has come to an end.
    fn done(&mut self, done: Done) {
        let Some(entry) = self.in_flight.pop_front() else {
            return;
        };
        let InFlight {
            callers,
            reads,
            kind,
            ..
        } = entry;
        if kind == Kind::Expire {
            self.expire_in_flight = false;
        }
        match done {
            Done::Applied(applied) => {
                self.applied(applied, callers, kind);
                self.answer_reads(reads);
            }
            Done::Current => self.answer_reads(reads),
            Done::Failed(error) => {
                tracing::warn!(%error, callers = callers.len(), "an entry was not logged");
                let trouble = Trouble::from(error);
                refuse(callers, reads, &trouble);
                // What this daemon itself wanted is tried again, unless it is about to end.
                if kind == Kind::TakeOffice && self.hub.log.failure().is_none() {
                    self.leadership.mark_changed();
                }
                self.arm();
            }
        }
    }

    fn applied(&mut self, applied: Applied, callers: Vec<ReplyTo>, kind: Kind) {
        let mut effects = applied.effects.into_iter();
        let mut callers = callers.into_iter();
        let mut start = 0;
        for (place, (reply, end)) in applied.replies.into_iter().zip(applied.ends).enumerate() {
            if place == 0 && kind != Kind::Callers {
                self.own_reply(&reply);
            } else if let Some(to) = callers.next() {
                self.settle(reply, to);
            }
            for effect in effects.by_ref().take((end - start) as usize) {
                // A former leader's effects are its successor's.
                if self.in_office {
                    self.carry_out(effect);
                }
            }
            start = end;
        }
        self.deadline = applied.next_deadline;
        self.arm();
    }

    /// Hands a reply to its caller, or has the caller wait.
    fn settle(&mut self, reply: Reply, to: ReplyTo) {
        match reply {
            Reply::Waiting(waiter) => {
                self.waiters.park(waiter, to);
                self.hub.intake.hurry();
            }
            reply => to.answer(Ok(reply)),
        }
    }

    fn own_reply(&mut self, reply: &Reply) {
        match reply {
            Reply::InOffice(epoch) => {
                self.in_office = true;
                self.hub.set_office(Some(*epoch));
                self.hub.orders.clear();
                self.hub.callbacks.clear();
                let owed = self.hub.state.read().resume();
                tracing::info!(epoch = epoch.0, owed = owed.len(), "in office");
                for effect in owed {
                    self.carry_out(effect);
                }
                if let Some(archive) = &self.hub.archive {
                    archive.catch_up();
                }
            }
            Reply::MoreIsDue => self.expire_due = true,
            _ => {}
        }
    }

    fn answer_reads(&self, reads: Vec<Read>) {
        if reads.is_empty() {
            return;
        }
        let state = self.hub.state.read();
        for read in reads {
            read(Ok(&state));
        }
    }

    fn timer_rang(&mut self) {
        self.armed = None;
        let due = self
            .deadline
            .is_some_and(|deadline| self.hub.clock.at() >= deadline);
        if due && !self.expire_in_flight {
            self.expire_due = true;
        } else {
            self.arm();
        }
    }

    /// Sets the timer, unless it rings early enough anyway.
    fn arm(&mut self) {
        if !self.in_office || self.expire_due || self.expire_in_flight {
            return;
        }
        let Some(deadline) = self.deadline else {
            return;
        };
        if self.armed.is_none_or(|armed| armed > deadline) {
            self.armed = Some(deadline);
            let at = self.hub.clock.instant_of(deadline);
            self.timer.as_mut().reset(at);
        }
    }
}

fn refuse(callers: Vec<ReplyTo>, reads: Vec<Read>, why: &Trouble) {
    for to in callers {
        to.answer(Err(why.clone()));
    }
    for read in reads {
        read(Err(why.clone()));
    }
}

/// Waits for the oldest entry; it stays in the queue, so that this can be dropped.
async fn next_done(in_flight: &mut VecDeque<InFlight>) -> Done {
    let Some(oldest) = in_flight.front_mut() else {
        return std::future::pending().await;
    };
    let failed = match &mut oldest.pending {
        Pending::Entry(proposal) => match proposal.await {
            Ok(applied) => return Done::Applied(applied),
            Err(error) => error,
        },
        Pending::Barrier(barrier) => match barrier.await {
            Ok(()) => return Done::Current,
            Err(error) => error,
        },
        Pending::Refused(error) => error.take().unwrap_or(ProposeError::Unknown {
            reason: "its refusal was told before".to_owned(),
        }),
    };
    Done::Failed(failed)
}
