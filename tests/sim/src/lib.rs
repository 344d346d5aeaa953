//! A deterministic simulation of the whole system, made to find what breaks it.
//!
//! One run is one seed: a coordinator (the real state machine over the real segment files and
//! snapshots), model agents with model databases, model clients with random transactions, and a
//! network, a disk and clocks that fail in every way they can. First faults strike, then they
//! stop and everything must come to its end. All the while invariants are checked, each in a file
//! of its own, by an oracle that takes answers as promises and lost answers as unknown.
//!
//! The same seed does exactly the same, so that what was found can be looked at.

mod agenda;
mod agent;
mod args;
mod client;
mod coordinator;
mod database;
mod faults;
mod invariants;
mod message;
mod network;
mod operator;
mod oracle;
mod outside;
mod planted;
mod random;
mod runner;
mod trace;
mod work;
mod world;

pub use args::{Arguments, USAGE};
pub use oracle::Violation;
pub use planted::{Found, SEEDS, find_all, names};
pub use runner::{Summary, run, run_many, run_traced, verdict};
pub use world::Run;
