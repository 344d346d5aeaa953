//! The pure state machine of the coordinator: commands in, replies and effects out.
//!
//! No clock, socket, thread or random number can be named here: the crate is `no_std`, and hash
//! tables with a fixed hasher are all that it depends on. The only "now" is [`Entry::at`].
//!
//! Who calls what, in which order:
//!
//! 1. The driver stamps a command with time and puts it in the log as an [`Entry`].
//! 2. Every replica calls [`State::apply`] for every decided entry, in order.
//! 3. The leader hands the [`Reply`] to the caller and carries the [`Effects`] out; all others
//!    drop both. What comes of an effect returns as a new command.
//! 4. A new leader's first entry is [`Command::TakeOffice`]. When that is applied it calls
//!    [`State::resume`] for the effects that are owed; none is carried out before.
//! 5. When [`State::next_deadline`] has passed, the leader puts [`Command::Expire`] in the log.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod alone;
mod apply;
mod backoff;
pub mod codec;
mod command;
mod deadline;
mod effect;
mod handle;
mod hash;
mod id;
pub mod limits;
mod lock_mode;
mod mode;
mod payload;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod reply;
mod resources;
mod resume;
mod retention;
mod row_lock;
mod saga;
mod snapshot;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod transaction;
mod transactions;
mod worker;

pub use command::*;
pub use effect::{Action, Effect, Effects, Order};
pub use id::*;
pub use lock_mode::*;
pub use mode::Mode;
pub use payload::Payload;
pub use reply::*;
pub use retention::Retention;
pub use saga::{OnTrouble, Saga, Step, StepOrder, StepOver, StepPlan, StepResult};
pub use state::{Counts, LockHolder, LockWaiter, RowLockStatus, State, WaitingRequest};
pub use status::{BranchStatus, Status};
pub use transaction::{Branch, RepairRecord, Transaction};
