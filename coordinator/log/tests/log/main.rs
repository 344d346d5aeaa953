//! The log from outside, on real and on faulting file systems.

mod faults;
mod golden;
mod life;
mod raw;
mod recorder;
mod snapshots;
