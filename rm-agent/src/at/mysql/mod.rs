//! What AT can undo in MariaDB's dialect. Pure, like its parent.

pub(crate) mod analysis;
mod change;
pub(crate) mod functions;
pub(crate) mod insert;
pub(crate) mod lexer;
pub(crate) mod statement;
pub(crate) mod types;

/// A name in backticks.
pub(crate) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `` `schema`.`table` ``.
pub(crate) fn quote_qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}
