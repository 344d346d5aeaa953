//! The log from outside, on real and on faulting file systems.

mod life;
mod recorder;
