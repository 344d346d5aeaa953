//! What every client of the coordinator shares: the transaction that a task
//! works for and how it travels from one service to the next.

mod clock;
pub mod context;
pub mod propagate;

