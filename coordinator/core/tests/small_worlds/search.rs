//! Goes through all orders of moves, every state once, shorter stories first.

use std::{
    collections::{HashMap, hash_map},
    fmt::Write as _,
};

use accede_core::*;

use crate::{
    plot::Plot,
    stage::{Move, Stage},
    story::{Told, World},
};

/// How much was seen.
pub(crate) struct Seen {
    /// States of the coordinator and all who talk to it, none twice.
    pub(crate) states: usize,
    /// Orders of moves that lead from the beginning to an end.
    pub(crate) runs: u128,
}

/// A state and how it was reached.
struct Node {
    world: World,
    stage: Stage,
    runs: u128,
    /// The last move, in the list of all.
    trace: Option<usize>,
}

/// Moves with the one before each.
type Traces = Vec<(Option<usize>, Move)>;
/// States that are one move further than others.
type Layer = HashMap<(Vec<u8>, Stage), Node>;

/// Goes through all orders of a plot's moves.
///
/// # Errors
/// The shortest story that breaks what must hold.
pub(crate) fn all_orders(plot: &Plot) -> Told<Seen> {
    let mut traces = Traces::new();
    let mut seen = Seen { states: 0, runs: 0 };
    let (world, stage) = Stage::new();
    let mut nodes = vec![Node {
        world,
        stage,
        runs: 1,
        trace: None,
    }];
    while !nodes.is_empty() {
        seen.states += nodes.len();
        let mut next = Layer::new();
        for node in nodes {
            let moves = node.stage.moves(plot, &node.world);
            if moves.is_empty() {
                seen.runs += node.runs;
                everything_ends(plot, &node).map_err(|e| story(plot, &traces, node.trace, &e))?;
            }
            for step in moves {
                traces.push((node.trace, step));
                let trace = Some(traces.len() - 1);
                go(plot, &node, step, trace, &mut next)
                    .map_err(|e| story(plot, &traces, trace, &e))?;
            }
        }
        nodes = next.into_values().collect();
    }
    Ok(seen)
}

fn go(plot: &Plot, from: &Node, step: Move, trace: Option<usize>, next: &mut Layer) -> Told<()> {
    let (mut world, mut stage) = (from.world.clone(), from.stage.clone());
    let news = world.tell(&Stage::line(plot, step))?;
    stage.take(step, &news, &mut world);
    let key = (world.state.to_snapshot(), stage.clone());
    match next.entry(key) {
        hash_map::Entry::Occupied(mut known) => known.get_mut().runs += from.runs,
        hash_map::Entry::Vacant(new) => {
            if step == Move::Restart && world.replayed().to_snapshot() != new.key().0 {
                return Err("a restart from the log makes another state".into());
            }
            look(&mut world, &stage, &new.key().0)?;
            new.insert(Node {
                world,
                stage,
                runs: from.runs,
                trace,
            });
        }
    }
    Ok(())
}

/// What must hold in every state, besides what the ledger sees.
fn look(world: &mut World, stage: &Stage, bytes: &[u8]) -> Told<()> {
    let owed = world.state.resume();
    let mut orders = 0;
    for effect in &owed {
        let Effect::Order(order) = effect else {
            continue;
        };
        orders += 1;
        if !stage.has(order, world) {
            return Err(format!("{order:?} is owed, but no agent has that attempt"));
        }
    }
    let branches = world
        .state
        .transactions_after(None)
        .flat_map(Transaction::branches);
    let runs = |b: &Branch| b.status() == BranchStatus::Registered && b.action() == Action::Run;
    let asked = |b: &Branch| b.status() == BranchStatus::Finishing || runs(b);
    let out = |b: &&Branch| asked(b) && b.next_attempt_at().is_none();
    if branches.filter(out).count() != orders {
        return Err("a new leader would forget an order".into());
    }
    nothing_comes_of_repeats(world, bytes)
}

/// Every message that was sent so far comes once more: same answer, no effect.
fn nothing_comes_of_repeats(world: &World, bytes: &[u8]) -> Told<()> {
    let mut state = world.state.clone();
    let mut effects = Effects::new();
    for (entry, answer) in &world.log {
        if entry.command.xid().is_none() {
            continue;
        }
        // It gave up waiting for its begin: another try.
        if *answer == Reply::Refused(Rejection::NotBegun) {
            continue;
        }
        let mut repeat = Entry::clone(entry);
        (repeat.index, repeat.at) = (state.epoch().0, state.now());
        let reply = state.apply(repeat, &mut effects);
        let withdrawn = reply == Reply::Refused(Rejection::Withdrawn);
        // Whoever asks again for a saga's end hears how far it is now.
        let asked_again = matches!(entry.command, Command::StartSaga(_));
        if reply != *answer && !withdrawn && !asked_again {
            return Err(format!(
                "{:?} repeated: {reply:?} after {answer:?}",
                entry.command
            ));
        }
        if !effects.is_empty() {
            return Err(format!("{:?} repeated: {effects:?}", entry.command));
        }
    }
    if state.to_snapshot() != bytes {
        return Err("a repeated message changes the state".into());
    }
    Ok(())
}

/// When nobody has anything to do but to answer orders, everything comes to its end.
fn everything_ends(plot: &Plot, node: &Node) -> Told<()> {
    let (mut world, mut stage) = (node.world.clone(), node.stage.clone());
    let open = |world: &World| {
        let counts = world.state.counts();
        counts.active
            + counts.delegated
            + counts.pre_committed
            + counts.committing
            + counts.rolling_back
            + counts.stuck
    };
    for _ in 0..40 {
        if open(&world) == 0 {
            break;
        }
        let mut moves = vec![Move::Pass];
        moves.extend(stage.answer_all());
        for step in moves {
            let news = world.tell(&Stage::line(plot, step))?;
            stage.take(step, &news, &mut world);
        }
    }
    let counts = world.state.counts();
    if (open(&world), counts.row_locks, counts.waiting) != (0, 0, 0) {
        return Err(format!("it does not come to an end: {counts:?}"));
    }
    for transaction in world.state.transactions_after(None) {
        let alike =
            |b: &Branch| matches!(b.status(), BranchStatus::Finished | BranchStatus::Withdrawn);
        if !transaction.branches().iter().all(alike) {
            return Err(format!(
                "the branches of {} end differently",
                transaction.xid()
            ));
        }
    }
    steps_are_compensated(&stage, &mut world)?;
    for line in ["kill front", "kill back", "pass 10min"] {
        world.tell(line)?;
    }
    match world.state.transactions_after(None).next() {
        None => Ok(()),
        Some(left) => Err(format!("{} is never forgotten", left.xid())),
    }
}

/// Whatever a step's agent did or still does, its compensation finds out.
fn steps_are_compensated(stage: &Stage, world: &mut World) -> Told<()> {
    let back = |t: &&Transaction| t.decision() == Some(Decision::RollBack);
    let ended = world.state.transactions_after(None).filter(back);
    let ended: Vec<Xid> = ended.map(Transaction::xid).collect();
    for xid in ended {
        if let Some(branch) = stage.left_done(xid, world) {
            return Err(format!("step {branch} of {xid} is never compensated"));
        }
    }
    Ok(())
}

/// The story up to a move, as a scenario would tell it.
fn story(plot: &Plot, traces: &Traces, mut trace: Option<usize>, error: &str) -> String {
    let mut moves = Vec::new();
    while let Some((before, step)) = trace.map(|at| traces[at]) {
        moves.push(step);
        trace = before;
    }
    let (mut world, _) = Stage::new();
    let mut text = String::from("lease back\n");
    for step in moves.into_iter().rev() {
        let line = Stage::line(plot, step);
        let _ = writeln!(text, "{line}");
        let recorded = world.tell(&line).map(|news| world.recorded(&news));
        for line in recorded.unwrap_or_default() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text + "broken: " + &world.named(error)
}
