//! Counts what the state machine allocates for one transaction; started by `accede-bench core`.

// The same load; it offers more than counting needs.
#[allow(dead_code, reason = "shared with the benchmark")]
#[path = "../core/load.rs"]
mod load;

use std::io::Write as _;

use anyhow::Context as _;
use load::{ROUND, SIDE_BY_SIDE, World};

fn main() -> anyhow::Result<()> {
    let open = std::env::args().nth(1).context("how many are open?")?;
    let open = open.parse().context("how many are open?")?;
    let mut world = World::settled(open)?;
    let commands = world.transactions(ROUND, SIDE_BY_SIDE)?;
    let mut result = Ok(());
    let counted = allocation_counter::measure(|| result = world.apply_all(commands));
    result?;
    let each = counted.count_total as f64 / ROUND as f64;
    writeln!(std::io::stdout(), "{each}").context("stdout is closed")
}
