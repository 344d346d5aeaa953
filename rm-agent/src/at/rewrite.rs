//! Puts images into a statement's output.
//!
//! Every image is one column: `ROW(t.tableoid, t.*)`, PostgreSQL's own binary
//! record. It says its columns' types itself and follows the table's real
//! columns, so a column that was added a moment ago cannot be missed.

use std::fmt::Write as _;

use super::{
    statement::{LockingRead, WriteKind, WriteStatement},
    table::{Table, quote, quote_qualified, text_form},
};

/// A statement text whose last output columns are images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) sql: String,
    /// Whether the last but one, or the last, column is a before image.
    pub(crate) has_before: bool,
    /// Whether the last column is an after image.
    pub(crate) has_after: bool,
    /// The before image is a text that `captured` reads, and a last column says
    /// when the statement began.
    pub(crate) captured: bool,
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
        WriteKind::Insert if statement.updates_on_conflict => rewrite_upsert(sql, statement, table),
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
                captured: false,
            }
        }
    }
}

/// The setting, local to the transaction, that carries a before image from DO
/// UPDATE's condition to RETURNING.
const CAPTURED: &str = "'accede.before'";

/// RETURNING shows only the new row. The condition of DO UPDATE sees the old one,
/// under its lock and in the version that is updated, just before it is updated;
/// there the image is put aside, and RETURNING of the same row takes it. The
/// statement's own time in front of it tells it from one that was left there.
fn rewrite_upsert(sql: &str, statement: &WriteStatement, table: &Table) -> Rewritten {
    let image = image(table, &statement.reference);
    let mut text = sql[statement.body.clone()].to_owned();
    let capture = format!(
        "pg_catalog.set_config({CAPTURED}, pg_catalog.concat(pg_catalog.statement_timestamp(), \
         '=', pg_catalog.encode(pg_catalog.record_send({image}), 'hex')), true) IS NOT NULL"
    );
    let _ = match &statement.condition {
        Some(condition) => writeln!(
            text,
            "\nWHERE CASE WHEN ({}\n) THEN {capture} ELSE false END",
            &sql[condition.clone()]
        ),
        None => writeln!(text, "\nWHERE {capture}"),
    };
    text.push_str("RETURNING ");
    if let Some(list) = &statement.returning {
        text.push_str(&sql[list.clone()]);
        text.push_str("\n, ");
    }
    let _ = write!(
        text,
        "pg_catalog.current_setting({CAPTURED}, true) AS accede_before, {image} AS accede_after, \
         pg_catalog.set_config({CAPTURED}, pg_catalog.statement_timestamp()::text, true) \
         AS accede_began"
    );
    Rewritten {
        sql: text,
        has_before: true,
        has_after: true,
        captured: true,
    }
}

/// The image record that a statement, which began at `began`, put aside for this
/// row; `None` if the row is a new one.
pub(crate) fn captured(setting: Option<&str>, began: &str) -> Option<Vec<u8>> {
    let hex = setting?.strip_prefix(began)?.strip_prefix('=')?;
    let digits = hex.as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
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
    let from = statement.from.clone().map(|from| &sql[from]);
    let condition = statement.condition.clone().map(|condition| &sql[condition]);
    let mut text = sql[statement.prefix.clone()].to_owned();
    let _ = write!(
        text,
        "UPDATE{head}\nSET{}\nFROM ",
        &sql[statement.body.clone()],
    );
    if let Some(from) = from {
        let _ = write!(text, "{from}\n, ");
    }
    let _ = write!(text, "(SELECT {} AS accede_before", image(table, reference));
    for (index, column) in key.iter().enumerate() {
        let _ = write!(text, ", {reference}.{column} AS accede_k{index}");
    }
    // By its schema, so that no name of a WITH clause takes its place.
    let _ = write!(
        text,
        "\nFROM {}",
        quote_qualified(&table.schema, &table.name)
    );
    if statement.aliased {
        let _ = write!(text, " AS {reference}");
    }
    if let Some(from) = from {
        let _ = write!(text, ", {from}");
    }
    text.push('\n');
    if let Some(condition) = condition {
        let _ = writeln!(text, "WHERE{condition}");
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
    let _ = writeln!(
        text,
        "ORDER BY {} FOR {strength} OF {reference}) AS accede_b WHERE {}",
        order.join(", "),
        joined.join(" AND "),
    );
    if let (Some(_), Some(condition)) = (from, condition) {
        let _ = writeln!(text, "AND ({condition}\n)");
    }
    text.push_str("RETURNING ");
    let everything: Vec<String> = statement
        .wildcard_sources
        .iter()
        .map(|source| format!("{source}.*"))
        .collect();
    let everything = everything.join(", ");
    if let Some(list) = &statement.returning {
        let mut from = list.start;
        for &wildcard in &statement.wildcards {
            text.push_str(&sql[from..wildcard]);
            text.push_str(&everything);
            from = wildcard + 1;
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
        captured: false,
    }
}

fn assigns_unique(statement: &WriteStatement, table: &Table) -> bool {
    let assigned: Vec<usize> = statement
        .assigned
        .iter()
        .filter_map(|name| table.column(name))
        .collect();
    let unique = table.unique.iter().flat_map(|index| &index.columns);
    unique
        .chain(&table.key)
        .any(|column| assigned.contains(column))
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
