//! Models of atomic commit protocols, small enough that everything that can happen is looked at:
//! two-phase commit, the textbooks' three-phase commit, E3PC, and Accede's own three-phase commit.
//! Known holes of the first two must be found, and bugs planted in the last two.

mod accede;
mod checks;
mod e3pc;
mod explorer;
mod limits;
mod report;
mod rules;
mod skeen;
mod two_phase;

pub use accede_core::alone::alone_table;
pub use checks::{Report, explore_all};
pub use report::{docs_table, text};
pub use rules::Finding;
