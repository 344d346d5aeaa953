//! Brings a branch's rows back to their state before it.
//!
//! First every row is locked, in key order, and compared; only when all of them
//! can be undone are they changed, the last change first.

use sqlx::{PgConnection, Postgres, Row as _, postgres::PgArguments, query::Query};

use super::{
    super::values::{RawValue, TEXT_OID},
    PhaseTwoError,
    apply::{Failure, apply_all},
    report::{self, Mismatch},
};
use crate::at::{
    codec::{UndoColumn, UndoRecord, UndoRow, UndoTable},
    escrow::taken_back,
    image::{RowImage, Value, split_record},
    merge::merge,
    table::{quote, quote_qualified, text_form},
};

/// A table of the undo record, as it is now.
pub(super) struct CurrentTable {
    pub(super) undo: UndoTable,
    /// Qualified and quoted.
    pub(super) name: String,
    /// Each image column's type with its modifier, as a cast may name it.
    pub(super) type_names: Vec<String>,
    /// Columns that the images do not have, because they came later or because the branch did
    /// not change them, and the value that rows got from `ADD COLUMN … DEFAULT`.
    added: Vec<(String, Option<String>)>,
    /// Those that matter when a row goes, once they were asked for.
    cascades: Option<Vec<Cascade>>,
}

/// A foreign key that would change other rows when one of this table goes.
pub(super) struct Cascade {
    pub(super) constraint: String,
    pub(super) child: String,
    pub(super) child_columns: Vec<String>,
    pub(super) columns: Vec<usize>,
}

/// One row that must change.
pub(super) struct Step {
    pub(super) table: usize,
    pub(super) row: UndoRow,
    pub(super) current: Option<RowImage>,
    /// What it shall be: as before the branch, with what others changed and may.
    pub(super) target: Option<RowImage>,
    /// The row whose key is equal, but written differently.
    equal: Option<RowImage>,
    pub(super) rest: Option<Rest>,
}

/// What the images do not show of a row that others must find as it was.
pub(super) struct Rest {
    /// Its columns that the images do not have, as text.
    pub(super) columns: String,
    /// The whole row, as text.
    pub(super) row: String,
}

/// What was found under a key.
#[derive(Default)]
struct Found {
    current: Option<RowImage>,
    /// Columns that came after the branch hold values of their own.
    has_new_values: bool,
    equal: Option<RowImage>,
    rest: Option<Rest>,
}

/// A key that was only written differently (5.0 became 5) was recorded as a row that
/// went and one that came. To the database it is the same key, so that it is one
/// change to undo; other rows may reference it all the time.
fn respell(steps: &mut Vec<Step>) {
    let mut gone = Vec::new();
    for index in 0..steps.len() {
        let Some(equal) = steps[index].equal.take() else {
            continue;
        };
        let (table, target) = (steps[index].table, steps[index].target.clone());
        let came = steps.iter_mut().find(|step| {
            step.table == table && step.target.is_none() && step.current.as_ref() == Some(&equal)
        });
        if let (Some(came), Some(_)) = (came, &target) {
            came.target = target;
            gone.push(index);
        }
    }
    for index in gone.into_iter().rev() {
        steps.remove(index);
    }
}

/// Undoes a record inside the open transaction of `connection`. After
/// [`Failure::InTheWay`] it may work with `patient`, in a new transaction.
pub(super) async fn undo(
    connection: &mut PgConnection,
    mut record: UndoRecord,
    forced: bool,
    patient: bool,
) -> Result<(), Failure> {
    record
        .tables
        .sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    let mut tables = Vec::with_capacity(record.tables.len());
    let mut steps = Vec::new();
    let mut mismatches = Vec::new();
    for undo in record.tables {
        let now = describe(connection, &undo.schema, &undo.name).await?;
        let mut table = CurrentTable::new(undo, &now)?;
        for row in std::mem::take(&mut table.undo.rows) {
            let Found {
                current,
                has_new_values,
                equal,
                rest,
            } = table.lock(connection, &row).await?;
            // Who only added did not leave the row in any certain state.
            if current == row.before && !row.escrow {
                continue;
            }
            let mut target = row.before.clone();
            let mut clean = current == row.after && !(has_new_values && target.is_none());
            if let (true, Some(before), Some(after), Some(now)) =
                (row.escrow, &row.before, &row.after, &current)
            {
                let rest = taken_back(&table.undo.columns, before, after, now);
                clean = rest.is_some();
                target = rest.or(target);
            }
            if let (false, Some(before), Some(after), Some(now)) =
                (clean || forced, &row.before, &row.after, &current)
                && let Some(merged) = merge(&table.undo.columns, before, after, now)
            {
                clean = true;
                target = Some(merged);
            }
            if !forced && !clean {
                mismatches.push(Mismatch {
                    step: steps.len(),
                    has_new_values,
                });
            }
            if target.is_none() {
                table.read_cascades(connection).await?;
            }
            steps.push(Step {
                table: tables.len(),
                row,
                current,
                target,
                equal,
                rest,
            });
        }
        tables.push(table);
    }
    if !mismatches.is_empty() {
        let stuck = report::stuck(connection, &tables, &steps, &mismatches).await?;
        return Err(stuck.into());
    }
    respell(&mut steps);
    steps.sort_by_key(|step| std::cmp::Reverse(step.row.order));
    apply_all(connection, &mut tables, steps, forced, patient).await
}

impl UndoColumn {
    fn bind_oid(&self) -> u32 {
        if self.text_type.is_some() {
            TEXT_OID
        } else {
            self.type_oid
        }
    }

    /// How a parameter with this column's value is written.
    fn parameter(&self, number: usize) -> String {
        match &self.text_type {
            Some(name) => format!("${number}::text::{name}"),
            None => format!("${number}"),
        }
    }

    fn output(&self) -> String {
        let name = quote(&self.name);
        if self.text_type.is_some() {
            text_form(&name, self.type_oid)
        } else {
            name
        }
    }
}

/// Collects parameters while SQL is written around them.
pub(super) struct Bound<'a> {
    pub(super) values: Vec<(&'a UndoColumn, &'a Value)>,
}

impl<'a> Bound<'a> {
    pub(super) fn add(&mut self, column: &'a UndoColumn, value: &'a Value) -> String {
        self.values.push((column, value));
        column.parameter(self.values.len())
    }

    pub(super) fn query(&self, sql: String) -> Query<'static, Postgres, PgArguments> {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (column, value) in &self.values {
            query = query.bind(RawValue::new(column.bind_oid(), value));
        }
        query
    }
}

/// A column of a table as it is now.
pub(super) struct Described {
    name: String,
    type_oid: i64,
    /// With its modifier.
    type_name: String,
    generated: bool,
    /// What rows got from `ADD COLUMN … DEFAULT`.
    missing: Option<String>,
}

/// Reads the columns of a table; none if there is no such table.
pub(super) async fn describe(
    connection: &mut PgConnection,
    schema: &str,
    name: &str,
) -> Result<Vec<Described>, PhaseTwoError> {
    let rows = sqlx::query(
        "SELECT a.attname::text, a.atttypid::int8, format_type(a.atttypid, a.atttypmod),
                a.attgenerated <> '', (a.attmissingval::text::text[])[1]
         FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attnum",
    )
    .bind(quote_qualified(schema, name))
    .fetch_all(connection)
    .await?;
    let described = rows.iter().map(|row| {
        Ok(Described {
            name: row.try_get(0)?,
            type_oid: row.try_get(1)?,
            type_name: row.try_get(2)?,
            generated: row.try_get(3)?,
            missing: row.try_get(4)?,
        })
    });
    described.collect()
}

impl CurrentTable {
    /// Compares what the record says with the columns as they are now.
    pub(super) fn new(undo: UndoTable, now: &[Described]) -> Result<Self, PhaseTwoError> {
        let name = quote_qualified(&undo.schema, &undo.name);
        if now.is_empty() {
            return Err(changed(&name, "the table is gone"));
        }
        let mut type_names = vec![String::new(); undo.columns.len()];
        let mut seen = 0;
        let mut added = Vec::new();
        for column in now {
            let mut known = undo.columns.iter();
            match known.position(|known| *known.name == column.name) {
                Some(position) if i64::from(undo.columns[position].type_oid) == column.type_oid => {
                    type_names[position].clone_from(&column.type_name);
                    seen += 1;
                }
                Some(_) => {
                    return Err(changed(&name, &format!("{} changed its type", column.name)));
                }
                None if column.generated => {}
                None => added.push((column.name.clone(), column.missing.clone())),
            }
        }
        if seen != undo.columns.len() {
            return Err(changed(&name, "a column was dropped or renamed"));
        }
        Ok(Self {
            undo,
            name,
            type_names,
            added,
            cascades: None,
        })
    }

    /// Reads, if they are not known, which foreign keys would change other rows when one goes.
    pub(super) async fn read_cascades(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<(), PhaseTwoError> {
        if self.cascades.is_none() {
            self.cascades = Some(read_cascades(connection, &self.name, &self.undo).await?);
        }
        Ok(())
    }

    /// Those keys, as far as they were asked for.
    pub(super) fn cascades(&self) -> &[Cascade] {
        self.cascades.as_deref().unwrap_or_default()
    }

    pub(super) fn image_output(&self) -> String {
        let columns: Vec<String> = self.undo.columns.iter().map(UndoColumn::output).collect();
        format!("ROW({})", columns.join(", "))
    }

    /// The columns that the images do not have, without computed ones; NULL if there are none.
    pub(super) fn rest_output(&self) -> String {
        if self.added.is_empty() {
            return "NULL::text".to_owned();
        }
        let columns: Vec<String> = self.unrecorded().map(quote).collect();
        format!("ROW({})::text", columns.join(", "))
    }

    /// Whether a row that the branch changed is gone, and cannot be made again: its record holds
    /// only some of its columns.
    pub(super) fn is_lost(&self, step: &Step) -> bool {
        let changed = step.row.before.is_some() && step.row.after.is_some();
        changed && step.current.is_none() && step.rest.is_none() && !self.added.is_empty()
    }

    /// Their names.
    pub(super) fn unrecorded(&self) -> impl Iterator<Item = &str> {
        self.added.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn key_condition<'a>(
        &'a self,
        bound: &mut Bound<'a>,
        image: &'a RowImage,
    ) -> String {
        let values = self.key_values(bound, image);
        let names = self.key_names();
        let terms = names.iter().zip(values);
        let terms: Vec<String> = terms
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        terms.join(" AND ")
    }

    /// The columns of the key, quoted.
    pub(super) fn key_names(&self) -> Vec<String> {
        let key = self.undo.key.iter();
        key.map(|&position| quote(&self.undo.columns[position].name))
            .collect()
    }

    /// Parameters for their values in an image.
    pub(super) fn key_values<'a>(
        &'a self,
        bound: &mut Bound<'a>,
        image: &'a RowImage,
    ) -> Vec<String> {
        let key = self.undo.key.iter();
        key.map(|&position| bound.add(&self.undo.columns[position], &image.values[position]))
            .collect()
    }

    /// Locks a row and reads it.
    async fn lock(
        &self,
        connection: &mut PgConnection,
        row: &UndoRow,
    ) -> Result<Found, PhaseTwoError> {
        let image = row.before.as_ref().or(row.after.as_ref());
        let image =
            image.ok_or_else(|| PhaseTwoError::stuck("the undo record has an empty row"))?;
        let mut bound = Bound { values: Vec::new() };
        let condition = self.key_condition(&mut bound, image);
        let mut number = bound.values.len();
        // Only what came later can be lost, with a row that the branch inserted.
        let later = match row.before {
            None => self.added.as_slice(),
            Some(_) => &[],
        };
        let own: Vec<String> = later
            .iter()
            .map(|(column, _)| {
                number += 1;
                format!(" OR {}::text IS DISTINCT FROM ${number}", quote(column))
            })
            .collect();
        let mut query = bound.query(format!(
            "SELECT {}, false{}, {}, accede_row::text FROM {} AS accede_row \
             WHERE {condition} FOR UPDATE",
            self.image_output(),
            own.concat(),
            self.rest_output(),
            self.name,
        ));
        for (_, missing) in later {
            query = query.bind(missing);
        }
        match query.fetch_optional(connection).await? {
            None => Ok(Found::default()),
            Some(row) => {
                let current = self.image(&row)?;
                // Equal for the database, but written differently (1.5 and 1.50): another
                // row, which took the place of the one that is looked for.
                let same = |&column: &usize| current.values[column] == image.values[column];
                if self.undo.key.iter().all(same) {
                    Ok(Found {
                        current: Some(current),
                        has_new_values: row.try_get(1)?,
                        equal: None,
                        rest: row
                            .try_get::<Option<String>, _>(2)?
                            .map(|columns| {
                                Ok::<_, sqlx::Error>(Rest {
                                    columns,
                                    row: row.try_get(3)?,
                                })
                            })
                            .transpose()?,
                    })
                } else {
                    Ok(Found {
                        equal: Some(current),
                        ..Found::default()
                    })
                }
            }
        }
    }

    pub(super) fn image(&self, row: &sqlx::postgres::PgRow) -> Result<RowImage, PhaseTwoError> {
        let value = row.try_get_raw(0)?;
        let record = value.as_bytes().map_err(sqlx::Error::Decode)?;
        let fields = split_record(record)
            .map_err(|_| PhaseTwoError::stuck("the database sent a row in an unknown form"))?;
        Ok(RowImage {
            values: fields.into_iter().map(|(_, value)| value).collect(),
        })
    }
}

async fn read_cascades(
    connection: &mut PgConnection,
    name: &str,
    undo: &UndoTable,
) -> Result<Vec<Cascade>, PhaseTwoError> {
    let rows = sqlx::query(
        "SELECT k.conname::text, quote_ident(n.nspname) || '.' || quote_ident(c.relname),
                ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, ord)
                      JOIN pg_catalog.pg_attribute a
                        ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.ord),
                ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, ord)
                      JOIN pg_catalog.pg_attribute a
                        ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.ord)
         FROM pg_catalog.pg_constraint k
         JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE k.contype = 'f' AND k.confrelid = to_regclass($1)
           AND k.confdeltype IN ('c', 'n', 'd')",
    )
    .bind(name)
    .fetch_all(connection)
    .await?;
    let mut cascades = Vec::with_capacity(rows.len());
    for row in &rows {
        let referenced: Vec<String> = row.try_get(3)?;
        let columns: Option<Vec<usize>> = referenced
            .iter()
            .map(|name| {
                undo.columns
                    .iter()
                    .position(|column| *column.name == **name)
            })
            .collect();
        cascades.push(Cascade {
            constraint: row.try_get(0)?,
            child: row.try_get(1)?,
            child_columns: row.try_get(2)?,
            // A key over a column that came later cannot be checked by the image.
            columns: columns
                .ok_or_else(|| changed(name, "a foreign key references a new column"))?,
        });
    }
    Ok(cascades)
}

fn changed(table: &str, what: &str) -> PhaseTwoError {
    PhaseTwoError::stuck(format!(
        "{table} changed since the branch ran ({what}), so its rows cannot be undone by \
         themselves; restore them by hand, then repair with accept"
    ))
}
