//! What a branch has changed in the end: one net change per row.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::TryStreamExt as _;
use sqlx::{Row as _, SqliteConnection};

use super::{
    capture::{DELETED, INSERTED, LOG, MET, UPDATED},
    catalog::{Catalog, SCHEMA, TableInfo},
    plan::Allowed,
    rows,
};
use crate::{
    at::{
        codec::{UndoColumn, UndoRecord, UndoRow, UndoTable},
        image::RowImage,
        sqlite::value,
    },
    error::Error,
    limits,
    registrar::LockKey,
};

/// What must be undone, and the rows to lock.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) record: UndoRecord,
    pub(super) locks: Vec<LockKey>,
    /// Rows that were noted, and changes that they tell of.
    noted: i64,
    events: i64,
}

impl Net {
    /// Whether nothing has changed in the end.
    pub(super) fn is_empty(&self) -> bool {
        self.record.tables.is_empty()
    }

    /// Whether the connection changed more rows than were noted, so that the undo would
    /// not be complete. `changed`: all rows, those of the notes among them.
    pub(super) fn misses(&self, changed: i64) -> bool {
        changed - self.noted > self.events
    }
}

/// A row on its way to its net change.
struct Changed {
    order: u32,
    before: Option<RowImage>,
}

type Rows = BTreeMap<Vec<u8>, Changed>;

fn failed() -> impl FnOnce(sqlx::Error) -> Error {
    Error::database("reading what the branch changed")
}

/// Reads the notes and the rows as they are now.
pub(super) async fn net(
    connection: &mut SqliteConnection,
    catalog: &Catalog,
    allowed: &Allowed,
) -> Result<Net, Error> {
    let mut net = Net {
        record: UndoRecord::default(),
        locks: Vec::new(),
        noted: 0,
        events: 0,
    };
    let mut tables: BTreeMap<i64, Rows> = BTreeMap::new();
    read_notes(connection, catalog, &mut net, &mut tables).await?;
    let mut locks = BTreeSet::new();
    for (root, rows) in tables {
        let table = catalog.by_root(root).ok_or_else(|| unknown(root))?;
        let now = read_now(connection, table).await.map_err(failed())?;
        let rows = finish(table, rows, now, &mut locks);
        if !rows.is_empty() {
            net.record.tables.push(undo_table(table, rows, allowed));
        }
    }
    if locks.len() > limits::MAX_ROW_LOCKS {
        return Err(Error::TooLarge {
            what: format!("the branch's number of row locks, {}", locks.len()),
            limit: limits::MAX_ROW_LOCKS,
        });
    }
    net.locks = locks.into_iter().map(Into::into).collect();
    Ok(net)
}

fn unknown(root: i64) -> Error {
    Error::TableChanged {
        table: format!("with root page {root}"),
    }
}

async fn read_notes(
    connection: &mut SqliteConnection,
    catalog: &Catalog,
    net: &mut Net,
    tables: &mut BTreeMap<i64, Rows>,
) -> Result<(), Error> {
    let mut bytes = 0;
    let sql = sqlx::AssertSqlSafe(format!("SELECT * FROM temp.{LOG} ORDER BY seq"));
    let mut notes = sqlx::query(sql).fetch(connection);
    while let Some(note) = notes.try_next().await.map_err(failed())? {
        let root: i64 = note.try_get(1).map_err(failed())?;
        let kind: i64 = note.try_get(2).map_err(failed())?;
        let table = catalog.by_root(root).ok_or_else(|| unknown(root))?;
        net.noted += 1;
        if matches!(kind, INSERTED | DELETED | UPDATED) {
            net.events += 1;
        }
        let order = u32::try_from(net.events).unwrap_or(u32::MAX);
        if order as usize > limits::MAX_ROWS_PER_BRANCH {
            return Err(too_many_rows());
        }
        let before = match kind {
            DELETED | UPDATED | MET => {
                let values = rows::values(&note, 3, table.columns.len()).map_err(failed())?;
                Some(RowImage { values })
            }
            _ => None,
        };
        let key = match &before {
            Some(image) => table.key_of(image),
            None => rows::values(&note, 3, table.key.len()).map_err(failed())?,
        };
        let rows = tables.entry(table.root).or_default();
        match rows.entry(table.identity(&key)) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                bytes += before.as_ref().map_or(0, RowImage::size);
                check_bytes(bytes)?;
                entry.insert(Changed { order, before });
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let row = entry.get_mut();
                // An inserted row goes when all that came to reference it has gone.
                if row.before.is_some() || kind == DELETED || kind == INSERTED {
                    row.order = order;
                }
            }
        }
    }
    Ok(())
}

pub(super) fn too_many_rows() -> Error {
    Error::TooLarge {
        what: "the branch's number of changed rows".to_owned(),
        limit: limits::MAX_ROWS_PER_BRANCH,
    }
}

fn check_bytes(bytes: usize) -> Result<(), Error> {
    if bytes > limits::MAX_UNDO_BYTES {
        return Err(Error::TooLarge {
            what: format!("the branch's row images of {bytes} bytes"),
            limit: limits::MAX_UNDO_BYTES,
        });
    }
    Ok(())
}

/// The noted rows of a table that are there now, by their keys.
async fn read_now(
    connection: &mut SqliteConnection,
    table: &TableInfo,
) -> Result<BTreeMap<Vec<u8>, RowImage>, sqlx::Error> {
    let kinds = [DELETED, UPDATED, MET].map(|kind| kind.to_string());
    let kinds = kinds.join(", ");
    // Whole rows have their key where its columns are, keys alone at the beginning.
    let keys = |columns: Vec<usize>, condition: String| {
        let columns: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(index, column)| format!("c{column} AS k{index}"))
            .collect();
        format!(
            "SELECT {} FROM temp.{LOG} WHERE t = {} AND k {condition}",
            columns.join(", "),
            table.root
        )
    };
    let matches: Vec<String> = table
        .key
        .iter()
        .zip(&table.collations)
        .enumerate()
        .map(|(index, (&position, collation))| {
            let name = rows::name(table, position);
            if table.without_rowid {
                format!("r.{name} COLLATE {} = n.k{index}", collation.name())
            } else {
                format!("r.{name} = n.k{index}")
            }
        })
        .collect();
    let sql = format!(
        "SELECT {} FROM ({} UNION {}) n CROSS JOIN {} r ON {}",
        rows::columns(table, "r."),
        keys(table.key.clone(), format!("IN ({kinds})")),
        keys((0..table.key.len()).collect(), format!("NOT IN ({kinds})")),
        table.qualified(),
        matches.join(" AND ")
    );
    let images = rows::read_images(connection, table, sql).await?;
    let images = images
        .into_iter()
        .map(|image| (table.identity(&table.key_of(&image)), image));
    Ok(images.collect())
}

fn finish(
    table: &TableInfo,
    rows: Rows,
    mut now: BTreeMap<Vec<u8>, RowImage>,
    locks: &mut BTreeSet<Vec<u8>>,
) -> Vec<UndoRow> {
    let mut net = Vec::new();
    for (identity, Changed { order, before }) in rows {
        let after = now.remove(&identity);
        if before == after {
            continue;
        }
        table.add_locks(locks, before.as_ref(), after.as_ref());
        net.push(UndoRow {
            order,
            before,
            after,
            escrow: false,
        });
    }
    net
}

fn undo_table(table: &Arc<TableInfo>, rows: Vec<UndoRow>, allowed: &Allowed) -> UndoTable {
    let is_key = |position: usize| table.key.contains(&position);
    let column = |(position, column): (usize, &super::catalog::Column)| UndoColumn {
        name: Arc::clone(&column.name),
        type_oid: value::TYPE,
        text_type: None,
        generated: column.generated,
        merges: !is_key(position) && allowed.merges(table, &column.name),
    };
    UndoTable {
        schema: SCHEMA.into(),
        name: Arc::clone(&table.name),
        columns: table.columns.iter().enumerate().map(column).collect(),
        key: table.key.clone(),
        rows,
    }
}
