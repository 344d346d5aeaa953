//! The replication core behind the log. No name of its library leaves this folder and `log.rs`.

pub(crate) mod machine;
pub(crate) mod members;
pub(crate) mod network;
pub(crate) mod store;
pub(crate) mod types;

#[cfg(test)]
mod suite;
