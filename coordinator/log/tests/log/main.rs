//! The log from outside, on real and on faulting file systems.

mod faults;
mod life;
mod recorder;
mod snapshots;
