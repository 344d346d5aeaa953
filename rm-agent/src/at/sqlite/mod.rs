//! What AT knows of SQLite's dialect and values. Pure, like its parent.

pub(crate) mod lexer;
pub(crate) mod value;
