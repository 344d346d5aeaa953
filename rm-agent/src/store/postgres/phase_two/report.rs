//! Tells people how rows differ from what a branch left, and how to repair them.

use std::fmt::Write as _;

use sqlx::PgConnection;

use super::{
    PhaseTwoError,
    rows::{CurrentTable, Step},
};
use crate::{
    at::{image::RowImage, table::quote},
    limits,
    store::postgres::values::{RawValue, TEXT_OID},
};

/// A row that is not as the branch left it.
pub(super) struct Mismatch {
    pub(super) step: usize,
    /// Columns that were added later hold values that a delete would lose.
    pub(super) has_new_values: bool,
}

/// A row's values as texts.
type Texts = Vec<Option<String>>;

/// Describes the mismatches; its statement repairs all rows of the branch.
pub(super) async fn stuck(
    connection: &mut PgConnection,
    tables: &[CurrentTable],
    steps: &[Step],
    mismatches: &[Mismatch],
) -> Result<PhaseTwoError, PhaseTwoError> {
    let mut difference = String::new();
    for mismatch in mismatches {
        let step = &steps[mismatch.step];
        let table = &tables[step.table];
        let [before, after, now] = [
            step.row.before.as_ref(),
            step.row.after.as_ref(),
            step.current.as_ref(),
        ];
        let texts = (
            texts(connection, table, before).await?,
            texts(connection, table, after).await?,
            texts(connection, table, now).await?,
        );
        describe(&mut difference, table, &texts);
        if table.is_lost(step) {
            difference.push_str("  columns that the branch did not change are lost with the row\n");
        }
        if mismatch.has_new_values {
            difference.push_str("  columns added since then hold values that would be lost\n");
        }
        if difference.len() > limits::MAX_REPORT_BYTES {
            break;
        }
    }
    let mut repair = String::new();
    let mut in_order: Vec<&Step> = steps.iter().collect();
    in_order.sort_by_key(|step| std::cmp::Reverse(step.row.order));
    for step in in_order {
        let table = &tables[step.table];
        if table.is_lost(step) {
            repair.clear();
            break;
        }
        let before = texts(connection, table, step.target.as_ref()).await?;
        let now = texts(connection, table, step.current.as_ref()).await?;
        repair_one(&mut repair, table, before.as_ref(), now.as_ref());
        if repair.len() > limits::MAX_REPORT_BYTES {
            // Half of a repair would be worse than none.
            repair.clear();
            break;
        }
    }
    difference.truncate(difference.floor_char_boundary(limits::MAX_REPORT_BYTES));
    Ok(PhaseTwoError::Stuck {
        reason: format!(
            "{} of the branch's rows were changed by something that takes no row locks; look at \
             the difference, then repair with apply (undo all the same) or accept (keep them)",
            mismatches.len()
        ),
        difference,
        repair_statement: repair,
    })
}

async fn texts(
    connection: &mut PgConnection,
    table: &CurrentTable,
    image: Option<&RowImage>,
) -> Result<Option<Texts>, PhaseTwoError> {
    let Some(image) = image else { return Ok(None) };
    let columns = &table.undo.columns;
    let list: Vec<String> = (1..=columns.len())
        .map(|number| format!("${number}::text"))
        .collect();
    let sql = format!("SELECT ARRAY[{}]", list.join(", "));
    // Persistent on purpose: looking up an unknown type on the same connection
    // would take an unnamed statement's place.
    let mut query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
    for (column, value) in columns.iter().zip(&image.values) {
        let oid = if column.text_type.is_some() {
            TEXT_OID
        } else {
            column.type_oid
        };
        query = query.bind(RawValue::new(oid, value));
    }
    Ok(Some(query.fetch_one(connection).await?))
}

fn shown(texts: Option<&Texts>, position: usize) -> &str {
    match texts.map(|texts| texts[position].as_deref()) {
        None => "(no row)",
        Some(None) => "NULL",
        Some(Some(text)) => text,
    }
}

fn describe(
    out: &mut String,
    table: &CurrentTable,
    texts: &(Option<Texts>, Option<Texts>, Option<Texts>),
) {
    let (before, after, now) = (texts.0.as_ref(), texts.1.as_ref(), texts.2.as_ref());
    let any = before.or(after);
    let key: Vec<String> = table
        .undo
        .key
        .iter()
        .map(|&position| {
            format!(
                "{}={}",
                table.undo.columns[position].name,
                shown(any, position)
            )
        })
        .collect();
    let _ = writeln!(out, "{} {}:", table.name, key.join(", "));
    for (position, column) in table.undo.columns.iter().enumerate() {
        let shown = [before, after, now].map(|image| shown(image, position));
        if shown[1] != shown[2] {
            let [before, after, now] = shown;
            let _ = writeln!(
                out,
                "  {}: before {before}, after the branch {after}, now {now}",
                column.name
            );
        }
    }
}

fn literal(table: &CurrentTable, position: usize, value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(text) => {
            format!(
                "'{}'::{}",
                text.replace('\'', "''"),
                table.type_names[position]
            )
        }
    }
}

fn repair_one(out: &mut String, table: &CurrentTable, before: Option<&Texts>, now: Option<&Texts>) {
    let columns = &table.undo.columns;
    let condition = |image: &Texts| {
        let terms: Vec<String> = table
            .undo
            .key
            .iter()
            .map(|&position| {
                let value = literal(table, position, image[position].as_deref());
                format!("{} = {value}", quote(&columns[position].name))
            })
            .collect();
        terms.join(" AND ")
    };
    let written = || (0..columns.len()).filter(|&position| !columns[position].generated);
    let _ = match (before, now) {
        (None, None) => Ok(()),
        (None, Some(now)) => writeln!(out, "DELETE FROM {} WHERE {};", table.name, condition(now)),
        (Some(before), None) => {
            let names: Vec<String> = written().map(|p| quote(&columns[p].name)).collect();
            let values: Vec<String> = written()
                .map(|p| literal(table, p, before[p].as_deref()))
                .collect();
            writeln!(
                out,
                "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({});",
                table.name,
                names.join(", "),
                values.join(", ")
            )
        }
        (Some(before), Some(now)) => {
            let assignments: Vec<String> = written()
                .filter(|&p| before[p] != now[p])
                .map(|p| {
                    let value = literal(table, p, before[p].as_deref());
                    format!("{} = {value}", quote(&columns[p].name))
                })
                .collect();
            if assignments.is_empty() {
                return;
            }
            let assignments = assignments.join(", ");
            writeln!(
                out,
                "UPDATE {} SET {assignments} WHERE {};",
                table.name,
                condition(now)
            )
        }
    };
}
