//! What the clients and agents of a small world know, and what they may do next.

use std::{collections::BTreeSet, fmt};

use accede_core::*;

use crate::{
    plot::{Ends, Exception, Plot, SAGA},
    story::{News, World},
};

/// Transactions and the clients that begin them.
const PARTS: [(&str, &str); 2] = [("A", "front"), ("B", "back")];

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    Begin(usize),
    Register(usize, usize),
    Done(usize, u32),
    Withdraw(usize, usize),
    Doom(usize, u32),
    Commit(usize),
    RollBack(usize),
    Finished(Delivery),
    Failed(Delivery),
    Refused(Delivery),
    Restart,
    Pass,
}

/// An order that an agent has, with the epoch in which it came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Delivery {
    part: usize,
    branch: u32,
    attempt: u32,
    epoch: u64,
    asks: Ask,
}

/// What an order asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Ask {
    End,
    /// To pre-commit.
    Early,
    /// To do a step.
    Run,
}

impl Delivery {
    fn is_same(&self, other: &Self) -> bool {
        let what = |o: &Self| (o.part, o.branch, o.attempt);
        what(self) == what(other)
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = PARTS[self.part].0;
        write!(
            f,
            "{name} {} attempt {} epoch {}",
            self.branch, self.attempt, self.epoch
        )
    }
}

/// All that the clients and agents know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stage {
    parts: [Part; 2],
    /// Orders that their agents have not answered yet.
    orders: BTreeSet<Delivery>,
    /// Steps of sagas that were ordered, by their transactions and branches.
    steps: BTreeSet<(usize, u32)>,
    /// Those among them whose compensation was answered.
    compensated: BTreeSet<(usize, u32)>,
    restarted: bool,
    failed: bool,
    refused: bool,
    passed: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Part {
    begun: bool,
    ended: bool,
    branches: [Phase; 2],
    withdrawn: [bool; 2],
}

/// How far the local transaction of a branch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Working,
    Asked,
    Registered(u32),
    Done,
    Doomed,
    RolledBack,
}

impl Phase {
    fn is_registered(self) -> bool {
        matches!(self, Self::Registered(_) | Self::Done | Self::Doomed)
    }
}

impl Part {
    fn becomes(&mut self, branch: u32, now: Phase) {
        let registered = Phase::Registered(branch);
        let phases = self.branches.iter_mut();
        phases
            .filter(|phase| **phase == registered)
            .for_each(|phase| *phase = now);
    }
}

impl Stage {
    /// The world before the first move.
    pub(crate) fn new() -> (World, Self) {
        let mut world = World::new();
        world.tell("lease back").expect("there are ids for two");
        for action in ["pay", "ship"] {
            let line = format!("name action {action}");
            world.tell(&line).expect("a new name");
        }
        for (name, client) in PARTS {
            world.xid(name, client).expect("it has a lease");
        }
        let stage = Self {
            parts: Default::default(),
            orders: BTreeSet::new(),
            steps: BTreeSet::new(),
            compensated: BTreeSet::new(),
            restarted: false,
            failed: false,
            refused: false,
            passed: 0,
        };
        (world, stage)
    }

    /// All that may happen next.
    pub(crate) fn moves(&self, plot: &Plot, world: &World) -> Vec<Move> {
        let mut moves = Vec::new();
        for p in 0..PARTS.len() {
            self.moves_of(p, plot, &mut moves);
        }
        let present = world.state.epoch().0;
        for order in &self.orders {
            let now = Delivery {
                epoch: present,
                ..*order
            };
            moves.push(Move::Finished(now));
            // The answer to the order of a former leader comes late.
            let late = (order.epoch != present).then_some(Move::Finished(*order));
            moves.extend(late);
            if plot.fails && !self.failed {
                moves.push(Move::Failed(now));
                moves.extend(late.map(|_| Move::Failed(*order)));
            }
            if plot.refuses && !self.refused && order.asks == Ask::Run {
                moves.push(Move::Refused(now));
            }
        }
        if moves.is_empty() {
            return moves;
        }
        if !self.restarted {
            moves.push(Move::Restart);
        }
        // Earlier there is little that could become due.
        let begun = self.parts.iter().all(|part| part.begun);
        if begun && self.passed < plot.passes && world.state.next_deadline().is_some() {
            moves.push(Move::Pass);
        }
        moves
    }

    fn moves_of(&self, p: usize, plot: &Plot, moves: &mut Vec<Move>) {
        let (part, plan) = (&self.parts[p], &plot.parts[p]);
        if !part.begun {
            moves.push(Move::Begin(p));
        }
        for (i, phase) in part.branches.iter().enumerate() {
            let exception = plan.exception;
            let called = i == 0 || !plan.in_turn || part.branches[0].is_registered();
            let called = called && !plan.branches[i].is_empty();
            match phase {
                Phase::Working if called => moves.push(Move::Register(p, i)),
                Phase::Registered(branch) if exception == Exception::Doubts(i) => {
                    moves.push(Move::Doom(p, *branch));
                }
                Phase::Registered(branch) if exception != Exception::GivesUp(i) => {
                    moves.push(Move::Done(p, *branch));
                }
                _ => {}
            }
            if called && exception == Exception::GivesUp(i) && !part.withdrawn[i] {
                moves.push(Move::Withdraw(p, i));
            }
        }
        if part.ended || !part.begun {
            return;
        }
        // What was refused, and a branch in doubt, the client hears as an error.
        let failed = |i: usize| {
            let (phase, withdrawn) = (part.branches[i], part.withdrawn[i]);
            phase == Phase::Doomed || phase == Phase::RolledBack && !withdrawn
        };
        let answered = |i: usize| {
            plan.branches[i].is_empty()
                || !matches!(part.branches[i], Phase::Working | Phase::Asked)
        };
        match plan.ends {
            Ends::RollsBack => moves.push(Move::RollBack(p)),
            Ends::Commits if failed(0) || failed(1) => moves.push(Move::RollBack(p)),
            Ends::Commits if answered(0) && answered(1) => moves.push(Move::Commit(p)),
            Ends::Commits | Ends::Leaves => {}
        }
    }

    /// A move in the words of a story.
    pub(crate) fn line(plot: &Plot, step: Move) -> String {
        let name = |p: usize| PARTS[p].0;
        match step {
            Move::Begin(p) => {
                format!(
                    "begin {} timeout {} by {}",
                    name(p),
                    plot.parts[p].timeout,
                    PARTS[p].1
                )
            }
            Move::Register(p, i) => {
                let wanted = plot.parts[p].branches[i];
                let (name, request) = (name(p), request(p, i));
                match wanted
                    .strip_prefix(SAGA)
                    .and_then(|plan| plan.split_once(':'))
                {
                    Some((how, steps)) => format!("saga {name} {how} as {request}:{steps}"),
                    None => format!("register {name} {wanted} as {request}"),
                }
            }
            Move::Done(p, branch) => format!("done {} {branch}", name(p)),
            Move::Withdraw(p, i) => format!("withdraw {} {}", name(p), request(p, i)),
            Move::Doom(p, branch) => format!("doom {} {branch} \"broken\"", name(p)),
            Move::Commit(p) => format!("commit {}", name(p)),
            Move::RollBack(p) => format!("roll back {}", name(p)),
            Move::Finished(order) => {
                let verb = match order.asks {
                    Ask::End => "finished",
                    Ask::Early => "pre-committed",
                    Ask::Run => "ran",
                };
                format!("{verb} {order}")
            }
            Move::Refused(order) => {
                let order = order
                    .to_string()
                    .replacen(" attempt", " \"full\" attempt", 1);
                format!("refused {order}")
            }
            Move::Failed(order) => {
                let order = order
                    .to_string()
                    .replacen(" attempt", " \"busy\" attempt", 1);
                format!("failed {order}")
            }
            Move::Restart => "restart from the snapshot".into(),
            Move::Pass => "pass until something is due".into(),
        }
    }

    /// What everybody knows after a move.
    pub(crate) fn take(&mut self, step: Move, news: &News, world: &mut World) {
        match step {
            Move::Begin(p) => self.parts[p].begun = true,
            Move::Register(p, i) => {
                self.parts[p].branches[i] = Phase::Asked;
                self.answered(p, i, news.reply.as_ref());
            }
            Move::Done(p, branch) => self.parts[p].becomes(branch, Phase::Done),
            Move::Doom(p, branch) => self.parts[p].becomes(branch, Phase::Doomed),
            Move::Withdraw(p, i) => {
                let part = &mut self.parts[p];
                part.withdrawn[i] = true;
                if part.branches[i] != Phase::Working {
                    part.branches[i] = Phase::RolledBack;
                }
            }
            Move::Commit(p) | Move::RollBack(p) => self.parts[p].ended = true,
            Move::Finished(order) => {
                self.orders.retain(|o| !o.is_same(&order));
                let step = (order.part, order.branch);
                if order.asks == Ask::End && self.steps.contains(&step) {
                    self.compensated.insert(step);
                }
            }
            Move::Refused(order) => {
                self.refused = true;
                self.orders.retain(|o| !o.is_same(&order));
            }
            Move::Failed(order) => {
                self.failed = true;
                self.orders.retain(|o| !o.is_same(&order));
                let present = world.state.epoch().0;
                if order.epoch != present {
                    // That says nothing about the present leader's order.
                    self.orders.insert(Delivery {
                        epoch: present,
                        ..order
                    });
                }
            }
            Move::Restart => self.restarted = true,
            Move::Pass => self.passed += 1,
        }
        for (_, effect) in &news.effects {
            self.hear(effect, world);
        }
    }

    fn hear(&mut self, effect: &Effect, world: &mut World) {
        match effect {
            Effect::Order(order) => {
                let order = delivery(order, world);
                if order.asks == Ask::Run {
                    self.steps.insert((order.part, order.branch));
                }
                if !self.orders.iter().any(|o| o.is_same(&order)) {
                    self.orders.insert(order);
                }
            }
            Effect::Answer {
                waiter: Waiter::Request(xid, id),
                reply,
            } => {
                // The last byte of a request's name is the digit of its branch.
                let i = (id.sequence as u8 - b'1') as usize;
                self.answered(part_of(world, *xid), i, Some(reply));
            }
            _ => {}
        }
    }

    fn answered(&mut self, p: usize, i: usize, reply: Option<&Reply>) {
        let phase = &mut self.parts[p].branches[i];
        match reply {
            _ if *phase != Phase::Asked => {}
            Some(Reply::Registered { branch, .. }) => *phase = Phase::Registered(branch.0),
            Some(Reply::SagaDone(..)) => *phase = Phase::Done,
            Some(Reply::Refused(_) | Reply::Decided(..)) => *phase = Phase::RolledBack,
            _ => {}
        }
    }

    /// Whether what the coordinator would order again is what its agents have.
    pub(crate) fn has(&self, order: &Order, world: &mut World) -> bool {
        let order = delivery(order, world);
        self.orders.iter().any(|o| o.is_same(&order))
    }

    /// A step that was ordered and not compensated, of the transaction of this name.
    pub(crate) fn left_done(&self, xid: Xid, world: &mut World) -> Option<u32> {
        let part = part_of(world, xid);
        let mut steps = self.steps.difference(&self.compensated);
        steps.find_map(|(of, branch)| (*of == part).then_some(*branch))
    }

    /// Every order is answered with success.
    pub(crate) fn answer_all(&mut self) -> Vec<Move> {
        let orders = std::mem::take(&mut self.orders);
        orders.into_iter().map(Move::Finished).collect()
    }
}

fn delivery(order: &Order, world: &mut World) -> Delivery {
    Delivery {
        part: part_of(world, order.xid),
        branch: order.branch.0,
        attempt: order.attempt.0,
        epoch: order.epoch.0,
        asks: match order.action {
            Action::Run => Ask::Run,
            Action::PreCommit => Ask::Early,
            _ => Ask::End,
        },
    }
}

fn request(p: usize, i: usize) -> String {
    format!("{}{}", PARTS[p].0, i + 1)
}

fn part_of(world: &mut World, xid: Xid) -> usize {
    let mut parts = PARTS.iter();
    let part = parts.position(|(name, client)| world.xid(name, client) == Ok(xid));
    part.expect("there are two transactions")
}
