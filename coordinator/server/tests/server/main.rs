//! The daemon as its clients see it, over real sockets and a real directory.

mod bad_input;
mod clients;
mod modes;
mod one_phase;
mod orders;
mod plain;
mod row_locks;
mod support;
mod whole;
