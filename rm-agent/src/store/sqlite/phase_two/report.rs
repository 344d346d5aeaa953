//! Tells people how rows differ from what a branch left, and how to repair them.

use std::fmt::Write as _;

use super::{
    PhaseTwoError,
    rows::{CurrentTable, Step},
};
use crate::{
    at::{
        image::{RowImage, Value},
        sqlite::value::Datum,
        table::quote,
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
        repair_one(&mut repair, &tables[step.table], step);
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

fn literal(value: &Value) -> String {
    Datum::decode(value).map_or_else(|| "?".to_owned(), Datum::literal)
}

fn shown(image: Option<&RowImage>, position: usize) -> String {
    image.map_or_else(
        || "(no row)".to_owned(),
        |image| literal(&image.values[position]),
    )
}

fn describe(out: &mut String, table: &CurrentTable, step: &Step) {
    let (before, after, now) = (
        step.row.before.as_ref(),
        step.row.after.as_ref(),
        step.current.as_ref(),
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
        if after != now {
            let _ = writeln!(
                out,
                "  {}: before {before}, after the branch {after}, now {now}",
                column.name
            );
        }
    }
    if table.has_new_columns && before.is_none() {
        out.push_str("  columns added since then may hold values that would be lost\n");
    }
}

fn repair_one(out: &mut String, table: &CurrentTable, step: &Step) {
    let columns = &table.undo.columns;
    let value = |image: &RowImage, position: usize| literal(&image.values[position]);
    let condition = |image: &RowImage| {
        let terms: Vec<String> = table
            .undo
            .key
            .iter()
            .map(|&p| format!("{} = {}", quote(&columns[p].name), value(image, p)))
            .collect();
        terms.join(" AND ")
    };
    let written = || (0..columns.len()).filter(|&position| !columns[position].generated);
    let _ = match (&step.target, &step.current) {
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
            let assignments: Vec<String> = written()
                .filter(|&p| before.values[p] != now.values[p])
                .map(|p| format!("{} = {}", quote(&columns[p].name), value(before, p)))
                .collect();
            if assignments.is_empty() {
                return;
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
