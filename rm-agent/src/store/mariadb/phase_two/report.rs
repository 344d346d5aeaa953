//! Tells people how rows differ from what a branch left, and how to repair them.

use std::fmt::Write as _;

use super::{PhaseTwoError, rows::Step, table::CurrentTable};
use crate::{
    at::{
        image::{RowImage, Value},
        mysql::{quote, types::Class},
    },
    limits,
};

/// Describes the steps at `mismatches`; its statement repairs all rows of the branch.
pub(super) fn stuck(
    tables: &[CurrentTable],
    steps: &[Step],
    mismatches: &[usize],
) -> PhaseTwoError {
    let mut difference = String::new();
    for &mismatch in mismatches {
        let step = &steps[mismatch];
        describe(&mut difference, &tables[step.table], step);
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
        repair_one(&mut repair, table, step);
        if repair.len() > limits::MAX_REPORT_BYTES {
            // Half of a repair would be worse than none.
            repair.clear();
            break;
        }
    }
    difference.truncate(difference.floor_char_boundary(limits::MAX_REPORT_BYTES));
    PhaseTwoError::Stuck {
        reason: format!(
            "{} of the branch's rows were changed by something that takes no row locks; look at \
             the difference, then repair with apply (undo all the same) or accept (keep them)",
            mismatches.len()
        ),
        difference,
        repair_statement: repair,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_weight(type_oid: u32) -> bool {
    type_oid == Class::Weight as u32
}

fn shown(image: Option<&RowImage>, position: usize) -> String {
    match image.map(|image| &image.values[position]) {
        None => "(no row)".to_owned(),
        Some(None) => "NULL".to_owned(),
        Some(Some(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
            _ => format!("0x{}", hex(bytes)),
        },
    }
}

fn describe(out: &mut String, table: &CurrentTable, step: &Step) {
    let (before, after, now) = (
        step.row.before.as_ref(),
        step.row.after.as_ref(),
        step.current.as_ref().map(|found| &found.image),
    );
    let any = before.or(after);
    let columns = &table.undo.columns;
    let key: Vec<String> = table
        .undo
        .key
        .iter()
        .map(|&position| format!("{}={}", columns[position].name, shown(any, position)))
        .collect();
    let _ = writeln!(out, "{} {}:", table.name, key.join(", "));
    for (position, column) in columns.iter().enumerate() {
        let [before, after, now] = [before, after, now].map(|image| shown(image, position));
        if after != now && !is_weight(column.type_oid) {
            let _ = writeln!(
                out,
                "  {}: before {before}, after the branch {after}, now {now}",
                column.name
            );
        }
    }
    if table.is_lost(step) {
        out.push_str("  columns that the branch did not change are lost with the row\n");
    }
    if table.has_more() && before.is_none() {
        out.push_str("  columns added since then may hold values that would be lost\n");
    }
}

fn literal(type_oid: u32, value: &Value) -> String {
    let Some(bytes) = value else {
        return "NULL".to_owned();
    };
    match (Class::from_number(type_oid), std::str::from_utf8(bytes)) {
        (
            Some(Class::Signed | Class::Unsigned | Class::Number | Class::Decimal | Class::Float),
            Ok(text),
        ) => text.to_owned(),
        (Some(Class::Temporal | Class::Literal), Ok(text)) => format!("'{text}'"),
        _ => format!("X'{}'", hex(bytes)),
    }
}

fn repair_one(out: &mut String, table: &CurrentTable, step: &Step) {
    let columns = &table.undo.columns;
    let value = |image: &RowImage, position: usize| {
        literal(columns[position].type_oid, &image.values[position])
    };
    let condition = |image: &RowImage| {
        let terms: Vec<String> = table
            .undo
            .key
            .iter()
            .map(|&p| format!("{} = {}", quote(&columns[p].name), value(image, p)))
            .collect();
        terms.join(" AND ")
    };
    let written = || table.written();
    let current = step.current.as_ref().map(|found| &found.image);
    let _ = match (&step.target, current) {
        (None, None) => Ok(()),
        (None, Some(now)) => writeln!(out, "DELETE FROM {} WHERE {};", table.name, condition(now)),
        (Some(before), None) => {
            let names: Vec<String> = written().map(|p| quote(&columns[p].name)).collect();
            let values: Vec<String> = written().map(|p| value(before, p)).collect();
            writeln!(
                out,
                "INSERT INTO {} ({}) VALUES ({});",
                table.name,
                names.join(", "),
                values.join(", ")
            )
        }
        (Some(before), Some(now)) => {
            let changed = written().filter(|&p| before.values[p] != now.values[p]);
            let changed: Vec<usize> = changed.collect();
            if changed.is_empty() {
                return;
            }
            let assign = |&p: &usize| format!("{} = {}", quote(&columns[p].name), value(before, p));
            let mut assignments: Vec<String> = changed.iter().map(assign).collect();
            // What an UPDATE sets by itself, it leaves if it is assigned.
            for name in table.set_on_update() {
                if changed.iter().all(|&p| *columns[p].name != *name) {
                    assignments.push(format!("{0} = {0}", quote(name)));
                }
            }
            writeln!(
                out,
                "UPDATE {} SET {} WHERE {};",
                table.name,
                assignments.join(", "),
                condition(now)
            )
        }
    };
}
