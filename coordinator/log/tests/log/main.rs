//! The log from outside, on real and on faulting file systems.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod faults;
mod golden;
mod life;
mod raw;
mod recorder;
mod snapshots;
