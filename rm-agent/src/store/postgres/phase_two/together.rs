//! Undoes many branches in one local transaction.
//!
//! Rows that a branch changed or inserted, and nobody has touched since, go back by one statement
//! for all that are alike. It waits for nobody's locks, and needs none of the care that
//! [`rows`](super::rows) takes: whatever is different, or goes wrong, is left to a local
//! transaction of its own.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use sqlx::{PgConnection, PgPool, Postgres, Row as _, postgres::PgArguments, query::Query};

use super::{
    BranchKey, PhaseTwoError, columns_of,
    rows::{Bound, CurrentTable, Described, describe},
};
use crate::{
    at::{
        codec::{UndoRecord, UndoRow, UndoTable},
        image::{RowImage, Value},
        table::quote,
    },
    limits,
    store::{
        finish::{UNDOABLE, UNDONE},
        postgres::connection::Held,
    },
};

/// Undoes those of these branches that can be undone so, and says which. Durable when it returns.
pub(crate) async fn roll_back_together(
    pool: &PgPool,
    branches: &[BranchKey],
) -> Result<Vec<BranchKey>, PhaseTwoError> {
    let mut held = Held::new(pool.acquire().await?);
    held.soil();
    match roll_back_inside(&mut held, branches).await {
        Ok(undone) if !undone.is_empty() => {
            sqlx::raw_sql("COMMIT").execute(held.get()).await?;
            held.clean();
            Ok(undone)
        }
        nothing => {
            // The connection is closed if this fails, which rolls back as well.
            let _ = held.roll_back().await;
            nothing
        }
    }
}

async fn roll_back_inside(
    held: &mut Held,
    branches: &[BranchKey],
) -> Result<Vec<BranchKey>, PhaseTwoError> {
    let begin = format!(
        "BEGIN; SET CONSTRAINTS ALL DEFERRED; \
         SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}",
        limits::TOGETHER_LOCK_TIMEOUT.as_millis(),
        limits::TOGETHER_STATEMENT_TIMEOUT.as_millis()
    );
    let begin = sqlx::raw_sql(sqlx::AssertSqlSafe(begin));
    begin.execute(held.get()).await?;
    let mut together = Together::default();
    let mut places = Vec::new();
    for recorded in read_records(held.get(), branches).await? {
        together.describe(held.get(), &recorded.record).await?;
        together.take(recorded.branch, recorded.record);
        places.push((recorded.branch, recorded.place));
    }
    for alike in &mut together.alike {
        alike
            .rows
            .retain(|row| together.undone.contains(&row.branch));
        for number in alike.lock(held.get()).await? {
            together.undone.remove(&alike.rows[number].branch);
        }
    }
    let undone = together.undone;
    for alike in &mut together.alike {
        alike.rows.retain(|row| undone.contains(&row.branch));
        alike.undo(held.get()).await?;
    }
    places.retain(|(branch, _)| undone.contains(branch));
    if !places.is_empty() {
        let places: Vec<&str> = places.iter().map(|(_, place)| place.as_str()).collect();
        mark(held.get(), &places).await?;
    }
    Ok(undone.into_iter().collect())
}

/// A record, and where it lies.
struct Recorded {
    branch: BranchKey,
    place: String,
    record: UndoRecord,
}

/// Looked up as [`is_of_branches`](super::is_of_branches) does it; here a row lock keeps it from
/// becoming a join.
pub(in crate::store::postgres) const RECORDS: &str = "
SELECT u.* FROM unnest($1::bigint[], $2::integer[]) AS k(xid, branch_id)
CROSS JOIN LATERAL (
    SELECT u.xid, u.branch_id, u.ctid::text, u.rollback_info FROM undo_log u
    WHERE u.xid = k.xid AND u.branch_id = k.branch_id
      AND u.log_status = $3 AND octet_length(u.rollback_info) <= $4
    FOR UPDATE SKIP LOCKED
) u";

/// Those that are there, short, and nobody else's at this moment. They are locked.
async fn read_records(
    connection: &mut PgConnection,
    branches: &[BranchKey],
) -> Result<Vec<Recorded>, PhaseTwoError> {
    let (xids, numbers) = columns_of(branches);
    let rows = sqlx::query(RECORDS)
        .bind(xids)
        .bind(numbers)
        .bind(UNDOABLE)
        .bind(limits::TOGETHER_UNDO_BYTES)
        .fetch_all(connection)
        .await?;
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        let (xid, number): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
        let named = |key: &&BranchKey| (key.xid_column(), key.branch_column()) == (xid, number);
        let decoded = UndoRecord::decode(row.try_get(3)?);
        // One that cannot be read is reported by whoever undoes it alone.
        if let (Some(branch), Ok(record)) = (branches.iter().find(named), decoded) {
            records.push(Recorded {
                branch: *branch,
                place: row.try_get(2)?,
                record,
            });
        }
    }
    Ok(records)
}

/// Locked rows stay in their places.
pub(in crate::store::postgres) const MARK: &str = "
UPDATE undo_log SET log_status = $2, rollback_info = '', log_created = clock_timestamp()
WHERE ctid = ANY ($1::text[]::tid[])";

/// So that a repeat finds out that they were undone.
async fn mark(connection: &mut PgConnection, places: &[&str]) -> Result<(), PhaseTwoError> {
    let marked = sqlx::query(MARK).bind(places).bind(UNDONE);
    let marked = marked.execute(connection).await?.rows_affected();
    if marked == places.len() as u64 {
        return Ok(());
    }
    let reason = "an undo record vanished while its branch was undone".to_owned();
    Err(PhaseTwoError::Failed { reason })
}

/// A table's schema and name.
type Name = (Arc<str>, Arc<str>);

/// Branches that are undone in one local transaction.
#[derive(Default)]
struct Together {
    /// Those that nothing speaks against so far.
    undone: HashSet<BranchKey>,
    alike: Vec<Alike>,
    /// Rows of all of them.
    rows: usize,
    /// Two branches that changed one row have their order.
    keys: HashSet<(Name, Vec<Value>)>,
    described: HashMap<Name, Vec<Described>>,
}

/// Rows of a table that one statement undoes: the same columns of them were recorded, and the same
/// is to be done.
struct Alike {
    table: CurrentTable,
    undo: Undo,
    rows: Vec<Row>,
}

/// How rows are undone.
#[derive(PartialEq, Eq)]
enum Undo {
    /// These columns get the values that they had.
    Write(Vec<usize>),
    /// The branch inserted them, and they go.
    Delete,
}

/// A row that a branch left so.
struct Row {
    branch: BranchKey,
    /// `None`: it was not there.
    before: Option<RowImage>,
    after: RowImage,
    /// Its columns that the images do not have, as text.
    rest: Option<String>,
}

impl Undo {
    /// `None`: it takes more than is done here.
    fn of(table: &UndoTable, row: &UndoRow) -> Option<Self> {
        match (&row.before, &row.after) {
            (None, Some(_)) => Some(Self::Delete),
            (Some(before), Some(after)) if !row.escrow => {
                let columns = table.columns.iter().enumerate();
                let changed: Vec<usize> = columns
                    .filter(|(_, column)| !column.generated)
                    .map(|(at, _)| at)
                    .filter(|&at| before.values[at] != after.values[at])
                    .collect();
                (!changed.is_empty()).then_some(Self::Write(changed))
            }
            _ => None,
        }
    }
}

impl Together {
    /// Asks about those of the record's tables that are not known yet.
    async fn describe(
        &mut self,
        connection: &mut PgConnection,
        record: &UndoRecord,
    ) -> Result<(), PhaseTwoError> {
        for table in &record.tables {
            if let Entry::Vacant(unknown) = self.described.entry(name_of(table)) {
                unknown.insert(describe(connection, &table.schema, &table.name).await?);
            }
        }
        Ok(())
    }

    /// Takes a branch if its record is simple enough.
    fn take(&mut self, branch: BranchKey, record: UndoRecord) {
        let more: usize = record.tables.iter().map(|table| table.rows.len()).sum();
        // Rows of several tables may reference each other, and then go in a certain order.
        let may_delete = record.tables.len() == 1;
        let is_simple = self.rows + more <= limits::TOGETHER_ROWS
            && record.tables.iter().all(|table| {
                let mut rows = table.rows.iter();
                rows.all(|row| self.is_simple(table, row, may_delete))
            });
        if !is_simple {
            return;
        }
        self.rows += more;
        self.undone.insert(branch);
        for table in record.tables {
            // A table that is not as it was any more is reported by whoever undoes it alone.
            if self.add(branch, table).is_err() {
                self.undone.remove(&branch);
            }
        }
    }

    fn is_simple(&mut self, table: &UndoTable, row: &UndoRow, may_delete: bool) -> bool {
        let (Some(undo), Some(after)) = (Undo::of(table, row), &row.after) else {
            return false;
        };
        (may_delete || undo != Undo::Delete)
            && self.keys.insert((name_of(table), key_of(table, after)))
    }

    fn add(&mut self, branch: BranchKey, mut table: UndoTable) -> Result<(), PhaseTwoError> {
        for row in std::mem::take(&mut table.rows) {
            let (Some(undo), Some(after)) = (Undo::of(&table, &row), row.after) else {
                continue;
            };
            let row = Row {
                branch,
                before: row.before,
                after,
                rest: None,
            };
            let mut alike = self.alike.iter_mut();
            let same = alike.find(|alike| alike.undo == undo && alike.table.undo == table);
            if let Some(alike) = same {
                alike.rows.push(row);
            } else {
                let now = self.described.get(&name_of(&table));
                let now = now.map(Vec::as_slice).unwrap_or_default();
                self.alike.push(Alike {
                    table: CurrentTable::new(table.clone(), now)?,
                    undo,
                    rows: vec![row],
                });
            }
        }
        Ok(())
    }
}

fn name_of(table: &UndoTable) -> Name {
    (Arc::clone(&table.schema), Arc::clone(&table.name))
}

fn key_of(table: &UndoTable, image: &RowImage) -> Vec<Value> {
    let key = table.key.iter();
    key.map(|&column| image.values[column].clone()).collect()
}

/// Few different texts, so that they are prepared once: the last row comes again until there are
/// as many as a power of two.
fn padded(rows: &[Row]) -> impl Iterator<Item = &Row> {
    let count = rows.len().next_power_of_two();
    rows.iter()
        .chain(rows.last().into_iter().cycle())
        .take(count)
}

impl Alike {
    /// Locks the rows, and says which are not as their branch left them, not there, somebody
    /// else's at this moment, or take others with them.
    async fn lock(&mut self, connection: &mut PgConnection) -> Result<Vec<usize>, PhaseTwoError> {
        if self.undo == Undo::Delete {
            self.table.read_cascades(connection).await?;
            if !self.table.cascades().is_empty() || self.table.unrecorded().next().is_some() {
                return Ok((0..self.rows.len()).collect());
            }
        }
        let table = &self.table;
        let mut found = HashMap::new();
        for rows in self.rows.chunks(limits::TOGETHER_STATEMENT_ROWS) {
            let mut bound = Bound { values: Vec::new() };
            let sql = format!(
                "SELECT {}, {} FROM {} WHERE {} FOR UPDATE SKIP LOCKED",
                table.image_output(),
                table.rest_output(),
                table.name,
                self.condition(rows, &mut bound),
            );
            for row in bound.query(sql).fetch_all(&mut *connection).await? {
                let (now, rest) = table.restored(&row)?;
                found.insert(key_of(&table.undo, &now), (now, rest));
            }
        }
        let mut others = Vec::new();
        for (number, row) in self.rows.iter_mut().enumerate() {
            match found.remove(&key_of(&table.undo, &row.after)) {
                Some((now, rest)) if now == row.after => row.rest = rest,
                _ => others.push(number),
            }
        }
        Ok(others)
    }

    /// The rows, by their keys.
    fn condition<'a>(&'a self, rows: &'a [Row], bound: &mut Bound<'a>) -> String {
        let keys: Vec<String> = padded(rows)
            .map(|row| format!("({})", self.table.key_values(bound, &row.after).join(", ")))
            .collect();
        let names = self.table.key_names().join(", ");
        format!("({names}) IN ({})", keys.join(", "))
    }

    /// Makes the rows what they were, and checks that they are.
    async fn undo(&self, connection: &mut PgConnection) -> Result<(), PhaseTwoError> {
        for rows in self.rows.chunks(limits::TOGETHER_STATEMENT_ROWS) {
            let as_wanted = match &self.undo {
                Undo::Write(changed) => self.write(rows, changed, connection).await?,
                Undo::Delete => self.delete(rows, connection).await?,
            };
            if !as_wanted {
                let name = &self.table.name;
                let reason = format!("a row of {name} is not as before after its undo");
                return Err(PhaseTwoError::Failed { reason });
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        rows: &[Row],
        changed: &[usize],
        connection: &mut PgConnection,
    ) -> Result<bool, PhaseTwoError> {
        let table = &self.table;
        let mut undone = HashMap::new();
        let update = self.update(rows, changed);
        for row in update.fetch_all(connection).await? {
            let (now, rest) = table.restored(&row)?;
            undone.insert(key_of(&table.undo, &now), (now, rest));
        }
        Ok(rows.iter().all(|row| {
            let restored = undone.get(&key_of(&table.undo, &row.after));
            let both = row.before.as_ref().zip(restored);
            both.is_some_and(|(before, restored)| {
                table.is_as_wanted(before, row.rest.as_deref(), restored)
            })
        }))
    }

    async fn delete(
        &self,
        rows: &[Row],
        connection: &mut PgConnection,
    ) -> Result<bool, PhaseTwoError> {
        let mut bound = Bound { values: Vec::new() };
        let condition = self.condition(rows, &mut bound);
        let sql = format!("DELETE FROM {} WHERE {condition}", self.table.name);
        let deleted = bound.query(sql).execute(connection).await?;
        Ok(deleted.rows_affected() == rows.len() as u64)
    }

    fn update(&self, rows: &[Row], changed: &[usize]) -> Query<'static, Postgres, PgArguments> {
        let table = &self.table;
        let column = |at: usize| &table.undo.columns[at];
        let mut bound = Bound { values: Vec::new() };
        let values: Vec<String> = padded(rows)
            .filter_map(|row| Some((row, row.before.as_ref()?)))
            .map(|(row, before)| {
                let mut values = table.key_values(&mut bound, &row.after);
                let changed = changed.iter();
                values.extend(changed.map(|&at| bound.add(column(at), &before.values[at])));
                format!("({})", values.join(", "))
            })
            .collect();
        let keys: Vec<String> = (0..table.undo.key.len())
            .map(|number| format!("accede_k{number}"))
            .collect();
        let news: Vec<String> = (0..changed.len())
            .map(|number| format!("accede_v{number}"))
            .collect();
        let set = changed.iter().zip(&news);
        let set: Vec<String> = set
            .map(|(&at, new)| format!("{} = {new}", quote(&column(at).name)))
            .collect();
        let names = table.key_names();
        let same = names.iter().zip(&keys);
        let same: Vec<String> = same.map(|(name, key)| format!("{name} = {key}")).collect();
        let sql = format!(
            "UPDATE {} SET {} FROM (VALUES {}) AS accede_undone({}) WHERE {} RETURNING {}, {}",
            table.name,
            set.join(", "),
            values.join(", "),
            [keys, news].concat().join(", "),
            same.join(" AND "),
            table.image_output(),
            table.rest_output(),
        );
        bound.query(sql)
    }
}
