//! Small worlds, seen whole: two transactions of two branches each, their clients and agents in
//! every order of steps, with a restart and repeated messages at every point.
//!
//! `cargo test -p accede-core --test small_worlds -- --nocapture` prints how much was seen; with
//! `--features planted-bugs` it looks whether planted bugs are found, as `./dev test --long` does.

#[path = "small_worlds/plot.rs"]
mod plot;
#[path = "small_worlds/search.rs"]
mod search;
#[path = "small_worlds/stage.rs"]
mod stage;
mod story;

#[cfg(feature = "planted-bugs")]
use accede_core::planted::{Bug, plant};
use plot::PLOTS;

#[cfg(not(feature = "planted-bugs"))]
#[test]
fn nothing_breaks_in_any_order() {
    let (mut states, mut runs) = (0, 0);
    for plot in PLOTS {
        match search::all_orders(plot) {
            Ok(seen) => {
                println!(
                    "{:>7} states {:>22} runs: {}",
                    seen.states, seen.runs, plot.name
                );
                states += seen.states;
                runs += seen.runs;
            }
            Err(story) => panic!("{}:\n\n{story}", plot.name),
        }
    }
    println!("{states:>7} states {runs:>22} runs: all together");
}

/// What is told first of each bug that small worlds show; the simulator finds the others.
#[cfg(feature = "planted-bugs")]
const FINDINGS: [(Bug, &str); 20] = [
    (Bug::LockLostInSnapshot, "broken: "),
    (Bug::DeadlineLostInSnapshot, "broken: "),
    (Bug::LateOutcomeCounts, "a repeated message changes"),
    (Bug::WaiterSkipped, "which came earlier"),
    (Bug::WaiterForgotten, "waits for nothing"),
    (Bug::AttemptReused, "but no agent has that attempt"),
    (Bug::DecidedTwice, "is decided twice"),
    (Bug::RequestIdsForgotten, "after Registered"),
    (Bug::LocksReleasedTooEarly, "loses its rows before"),
    (Bug::CommitWithoutDone, "although branch 1 was not done"),
    (Bug::OrdersLostInRestart, "would forget an order"),
    (Bug::UndoneInWrongOrder, "is undone before later ones"),
    (Bug::ReadersIgnored, "gets a row that B holds"),
    (Bug::EscrowUnbounded, "gets a row that A holds"),
    (Bug::PreCommitSkipped, "before the others have heard"),
    (Bug::PreCommitBeforeDecision, "against the decision"),
    (Bug::CompensatedInStartOrder, "is undone before later ones"),
    (Bug::StepTooEarly, "is run too early"),
    (Bug::StepInFlightForgotten, "is never compensated"),
    // Its own message, come once more, ends another compensation.
    (
        Bug::LateStepEndsCompensation,
        "outcome: Ran(Payload(0 bytes)) }) repeated: ",
    ),
];

/// A bug is planted in the whole process: nothing else runs beside this.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_found() {
    for (bug, finding) in FINDINGS {
        plant(Some(bug));
        let mut stories = PLOTS
            .iter()
            .filter_map(|plot| search::all_orders(plot).err());
        let story = stories.next().unwrap_or_default();
        assert!(story.contains(finding), "{}:\n\n{story}", bug.name());
        println!("{}:\n\n{story}\n", bug.name());
    }
    plant(None);
}
