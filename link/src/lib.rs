//! What every client of the coordinator shares: the transaction that a task
//! works for, how it travels from one service to the next, and the connection
//! to the coordinator.

mod clock;
pub mod context;
pub mod propagate;
pub mod session;
