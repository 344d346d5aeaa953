//! Puts images into a statement's output.
//!
//! Every image is one column: `ROW(t.tableoid, t.*)`, PostgreSQL's own binary
//! record. It says its columns' types itself and follows the table's real
//! columns, so a column that was added a moment ago cannot be missed.

use std::fmt::Write as _;

use super::{
    statement::{LockingRead, WriteKind, WriteStatement},
    table::{Table, quote, text_form},
};

/// A statement text whose last output columns are images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) sql: String,
    /// Whether the last but one, or the last, column is a before image.
    pub(crate) has_before: bool,
    /// Whether the last column is an after image.
    pub(crate) has_after: bool,
}

/// Whether texts mean the same to another session.
const STYLE: &str = ", pg_catalog.current_setting('DateStyle') LIKE 'ISO%' \
                     AND pg_catalog.current_setting('IntervalStyle') LIKE 'postgres%'";

/// The image of a row as one output column.
fn image(table: &Table, reference: &str) -> String {
    let mut sql = format!("ROW({reference}.tableoid, {reference}.*");
    for column in table.columns.iter().filter(|c| c.as_text) {
        let name = format!("{reference}.{}", quote(&column.name));
        let _ = write!(sql, ", {}", text_form(&name, column.type_oid));
    }
    if table.has_texts() {
        sql.push_str(STYLE);
    }
    sql.push(')');
    sql
}

/// Rewrites a write so that it returns its rows' images after the user's own list.
pub(crate) fn rewrite(sql: &str, statement: &WriteStatement, table: &Table) -> Rewritten {
    match statement.kind {
        WriteKind::Update => rewrite_update(sql, statement, table),
        WriteKind::Insert | WriteKind::Delete => {
            let inserted = statement.kind == WriteKind::Insert;
            let alias = if inserted {
                "accede_after"
            } else {
                "accede_before"
            };
            let mut text = sql[statement.body.clone()].to_owned();
            text.push_str("\nRETURNING ");
            if let Some(list) = &statement.returning {
                text.push_str(&sql[list.clone()]);
                text.push_str("\n, ");
            }
            let _ = write!(text, "{} AS {alias}", image(table, &statement.reference));
            Rewritten {
                sql: text,
                has_before: !inserted,
                has_after: inserted,
            }
        }
    }
}

/// The rows are first locked in key order and their images read under that
/// lock, by a sub-query in FROM; then updated. Without the lock, READ COMMITTED
/// would pair an old before image with a newer row. The sub-query's columns
/// have reserved names, so the user's unqualified names stay unambiguous.
fn rewrite_update(sql: &str, statement: &WriteStatement, table: &Table) -> Rewritten {
    let reference = &statement.reference;
    let key: Vec<String> = table
        .key
        .iter()
        .map(|&c| quote(&table.columns[c].name))
        .collect();
    let head = &sql[statement.head.clone()];
    let mut text = sql[statement.prefix.clone()].to_owned();
    let _ = write!(
        text,
        "UPDATE{head}\nSET{}\nFROM (SELECT {} AS accede_before",
        &sql[statement.body.clone()],
        image(table, reference),
    );
    for (index, column) in key.iter().enumerate() {
        let _ = write!(text, ", {reference}.{column} AS accede_k{index}");
    }
    let _ = write!(text, "\nFROM{head}\n");
    if let Some(condition) = &statement.condition {
        let _ = writeln!(text, "WHERE{}", &sql[condition.clone()]);
    }
    let order: Vec<String> = key
        .iter()
        .map(|column| format!("{reference}.{column}"))
        .collect();
    // An UPDATE of a unique column takes the stronger lock later; taking it at
    // once avoids an upgrade, which can deadlock.
    let strength = if assigns_unique(statement, table) {
        "UPDATE"
    } else {
        "NO KEY UPDATE"
    };
    let joined: Vec<String> = key
        .iter()
        .enumerate()
        .map(|(index, column)| format!("{reference}.{column} = accede_b.accede_k{index}"))
        .collect();
    let _ = write!(
        text,
        "ORDER BY {} FOR {strength}) AS accede_b WHERE {}\nRETURNING ",
        order.join(", "),
        joined.join(" AND "),
    );
    if let Some(list) = &statement.returning {
        let mut from = list.start;
        for &wildcard in &statement.wildcards {
            let _ = write!(text, "{}{reference}.", &sql[from..wildcard]);
            from = wildcard;
        }
        text.push_str(&sql[from..list.end]);
        text.push_str("\n, ");
    }
    let _ = write!(
        text,
        "accede_b.accede_before, {} AS accede_after",
        image(table, reference)
    );
    Rewritten {
        sql: text,
        has_before: true,
        has_after: true,
    }
}

fn assigns_unique(statement: &WriteStatement, table: &Table) -> bool {
    let assigned: Vec<usize> = statement
        .assigned
        .iter()
        .filter_map(|name| table.column(name))
        .collect();
    table
        .unique
        .iter()
        .any(|index| index.columns.iter().any(|column| assigned.contains(column)))
}

/// Rewrites a locking SELECT so that it returns the locked rows' images after
/// the user's own list, in the order of the tables.
pub(crate) fn rewrite_locking(sql: &str, read: &LockingRead, tables: &[&Table]) -> String {
    let mut text = sql[..read.select_list_end].to_owned();
    text.push('\n');
    for (index, (locked, table)) in read.tables.iter().zip(tables).enumerate() {
        let image = image(table, &locked.reference);
        let _ = write!(text, ", {image} AS accede_lock{index}");
    }
    text.push('\n');
    text.push_str(&sql[read.select_list_end..read.end]);
    text
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
