//! One reconnecting, multiplexed stream to the coordinator.
//!
//! A [`Session`] belongs to one process and one role. It connects in the
//! background, for ever, to one of several addresses; requests wait for the
//! connection as long as their caller wants. There are three ways to send:
//!
//! | way | answer | when the connection breaks |
//! |---|---|---|
//! | [`Session::call`] | awaited | sent again if the caller said it may be, else [`SessionError::Unknown`] |
//! | [`Session::delivery_slot`] | only acknowledged | sent again until acknowledged |
//! | [`Session::send`] | none | forgotten once written; the [`Role`] may send it again |
//!
//! Everything sent goes through one queue, in order. The writer yields once
//! before each write, so that requests of many tasks share a write.
//!
//! Once a session knows its cluster, it refuses every other one: data of two
//! clusters never mix.

mod address;
mod connect;
mod error;
mod frames;
mod handle;
mod limits;
mod role;
mod shared;
mod status;

pub use address::normalize_address;
pub use error::{ClusterId, ConnectProblem, SessionError};
pub use frames::{BranchFrames, Frames, Outbound, TransactionFrames};
pub use handle::{Call, DeliverySlot, SendSlot, Session, SessionOptions};
pub use limits::SessionLimits;
pub use role::{QueuedFrames, Role};
pub use status::SessionStatus;
