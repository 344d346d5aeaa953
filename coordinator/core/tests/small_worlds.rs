//! Small worlds, seen whole: two transactions of two branches each, their clients and agents in
//! every order of steps, with a restart and repeated messages at every point.
//!
//! `cargo test -p accede-core --test small_worlds -- --nocapture` prints how much was seen; with
//! `--features planted-bugs` it looks whether bugs of sagas are found.

#[path = "small_worlds/plot.rs"]
mod plot;
#[path = "small_worlds/search.rs"]
mod search;
#[path = "small_worlds/stage.rs"]
mod stage;
mod story;

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

/// A bug is planted in the whole process: nothing else runs beside this.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_of_sagas_are_found() {
    use accede_core::planted::{Bug, plant};

    for (bug, finding) in [
        (Bug::CompensatedInStartOrder, "is undone before later ones"),
        (Bug::StepTooEarly, "is run too early"),
        (Bug::StepInFlightForgotten, "is never compensated"),
        // Its own message, come once more, ends another compensation.
        (
            Bug::LateStepEndsCompensation,
            "outcome: Ran(Payload(0 bytes)) }) repeated: ",
        ),
    ] {
        plant(Some(bug));
        let sagas = PLOTS.iter().filter(|plot| plot.has_saga());
        let mut stories = sagas.filter_map(|plot| search::all_orders(plot).err());
        let story = stories.next().unwrap_or_default();
        assert!(story.contains(finding), "{}:\n\n{story}", bug.name());
        println!("{}:\n\n{story}\n", bug.name());
    }
    plant(None);
}
