//! What AT can undo: the statement model, row images and undo records. Pure:
//! nothing here talks to a database or to the coordinator.

pub(crate) mod analysis;
pub(crate) mod codec;
pub(crate) mod escrow;
pub(crate) mod functions;
pub(crate) mod image;
pub(crate) mod lexer;
pub(crate) mod lock_key;
pub(crate) mod lock_name;
mod locking;
pub(crate) mod merge;
pub(crate) mod mysql;
mod narrow;
pub(crate) mod rewrite;
pub(crate) mod savepoint;
pub(crate) mod sqlite;
pub(crate) mod statement;
pub(crate) mod table;
pub(crate) mod undo;
mod update;
