//! Small worlds, seen whole: two transactions of two branches each, their clients and agents in
//! every order of steps, with a restart and repeated messages at every point.
//!
//! `cargo test -p accede-core --test small_worlds -- --nocapture` prints how much was seen.

#[path = "small_worlds/plot.rs"]
mod plot;
#[path = "small_worlds/search.rs"]
mod search;
#[path = "small_worlds/stage.rs"]
mod stage;
mod story;

use plot::PLOTS;

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
