//! Reads the catalog.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{Catalog, Column, Incoming, Outgoing, SCHEMA, TableInfo, Trigger};
use crate::{
    at::{
        lexer::LexError,
        sqlite::{
            lexer::{Token, replaces, tokenize},
            value::{self, Collation},
        },
        table::{self, Equality, Table, UniqueIndex, quote, quote_qualified},
    },
    limits,
};

/// Tables of this library; a branch that changed them would change its own record.
const OWN_TABLES: [&str; 2] = ["undo_log", "accede_meta"];

/// Names of the row number. A column of the same name hides it.
const ROW_NUMBER: [&str; 3] = ["rowid", "_rowid_", "oid"];

/// An entry of `sqlite_schema`.
struct Entry {
    kind: String,
    name: String,
    table: String,
    root: i64,
    sql: Option<String>,
}

/// A column of a table, as `table_xinfo` has it.
struct ColumnRow {
    name: String,
    declared: String,
    /// Its place in the primary key, from 1.
    key: i64,
    hidden: i64,
}

/// A column of a unique index: the index, how it came to be, whether it has all rows,
/// which column, how it is compared.
struct IndexRow {
    index: String,
    origin: String,
    partial: bool,
    column: Option<String>,
    collation: String,
}

/// A column of a foreign key.
struct KeyRow {
    child: String,
    id: i64,
    parent: String,
    from: String,
    to: Option<String>,
    delete_changes: bool,
}

async fn rows<T>(
    connection: &mut SqliteConnection,
    sql: &'static str,
    read: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, sqlx::Error> {
    let found = sqlx::query(sql).fetch_all(connection).await?;
    found.iter().map(read).collect()
}

fn group<T>(rows: Vec<(String, T)>) -> HashMap<String, Vec<T>> {
    let mut groups: HashMap<String, Vec<T>> = HashMap::new();
    for (name, row) in rows {
        groups.entry(name).or_default().push(row);
    }
    groups
}

/// Reads all tables. The version must be that of the connection's open transaction.
pub(in crate::store::sqlite) async fn read(
    connection: &mut SqliteConnection,
    version: i64,
) -> Result<Catalog, sqlx::Error> {
    let entries = rows(
        connection,
        "SELECT type, name, tbl_name, COALESCE(rootpage, 0), sql FROM main.sqlite_schema",
        |row| {
            Ok(Entry {
                kind: row.try_get(0)?,
                name: row.try_get(1)?,
                table: row.try_get(2)?,
                root: row.try_get(3)?,
                sql: row.try_get(4)?,
            })
        },
    )
    .await?;
    let kinds: HashMap<String, (String, bool)> = rows(
        connection,
        "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'",
        |row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?))),
    )
    .await?
    .into_iter()
    .collect();
    let columns = group(read_columns(connection).await?);
    let indexes = group(read_indexes(connection).await?);
    let functions = rows(
        connection,
        "SELECT DISTINCT name FROM pragma_function_list WHERE builtin",
        |row| row.try_get(0),
    )
    .await?;
    let triggers = read_triggers(&entries);
    let mut tables = describe(&entries, &kinds, columns, indexes, &triggers);
    add_references(connection, &mut tables).await?;
    let names: HashMap<String, Arc<TableInfo>> = tables
        .into_iter()
        .map(|table| (table.name.to_ascii_lowercase(), Arc::new(table)))
        .collect();
    let mut roots = HashMap::new();
    for entry in entries.iter().filter(|entry| entry.root > 0) {
        if let Some(table) = names.get(&entry.table.to_ascii_lowercase()) {
            roots.insert(entry.root, Arc::clone(table));
        }
    }
    let is_table = |trigger: &Trigger| names.contains_key(&trigger.table);
    Ok(Catalog {
        version,
        widest: names.values().map(|t| t.columns.len()).max().unwrap_or(0),
        view_triggers: triggers.into_iter().filter(|t| !is_table(t)).collect(),
        sequence: entries
            .iter()
            .find(|entry| entry.name == "sqlite_sequence")
            .map(|entry| entry.root),
        functions: functions.into_iter().collect::<HashSet<String>>(),
        plans: Mutex::default(),
        roots,
        names,
    })
}

/// Puts together what the catalog says about each table.
fn describe(
    entries: &[Entry],
    kinds: &HashMap<String, (String, bool)>,
    mut columns: HashMap<String, Vec<ColumnRow>>,
    mut indexes: HashMap<String, Vec<IndexRow>>,
    triggers: &[Trigger],
) -> Vec<TableInfo> {
    let mut tables = Vec::new();
    for entry in entries {
        // What has no root page is virtual or a view.
        if entry.kind != "table" || entry.root == 0 || entry.name.starts_with("sqlite_") {
            continue;
        }
        let kind = kinds.get(&entry.name);
        let mut table = Described {
            columns: columns.remove(&entry.name).unwrap_or_default(),
            indexes: indexes.remove(&entry.name).unwrap_or_default(),
            without_rowid: kind.is_some_and(|(_, without)| *without),
        }
        .build(entry);
        let lower = entry.name.to_ascii_lowercase();
        let of_table = triggers.iter().filter(|trigger| trigger.table == lower);
        table.triggers = of_table.cloned().collect();
        if OWN_TABLES.contains(&&*lower) {
            let part = "it is Accede's own".to_owned();
            table.obstacle = Some((part, "leave it alone inside global transactions"));
        } else if kind.is_none_or(|(kind, _)| kind != "table") {
            let part = "it belongs to a virtual table".to_owned();
            table.obstacle = Some((part, "use XA mode, or write it outside of transactions"));
        }
        tables.push(table);
    }
    tables
}

async fn read_columns(
    connection: &mut SqliteConnection,
) -> Result<Vec<(String, ColumnRow)>, sqlx::Error> {
    rows(
        connection,
        "SELECT m.name, x.name, x.type, x.pk, x.hidden
         FROM main.sqlite_schema m, pragma_table_xinfo(m.name, 'main') x
         WHERE m.type = 'table' AND m.rootpage > 0 ORDER BY m.name, x.cid",
        |row| {
            let column = ColumnRow {
                name: row.try_get(1)?,
                declared: row.try_get(2)?,
                key: row.try_get(3)?,
                hidden: row.try_get(4)?,
            };
            Ok((row.try_get(0)?, column))
        },
    )
    .await
}

async fn read_indexes(
    connection: &mut SqliteConnection,
) -> Result<Vec<(String, IndexRow)>, sqlx::Error> {
    rows(
        connection,
        "SELECT m.name, l.name, l.origin, l.partial, x.name, x.coll
         FROM main.sqlite_schema m, pragma_index_list(m.name, 'main') l,
              pragma_index_xinfo(l.name, 'main') x
         WHERE m.type = 'table' AND m.rootpage > 0 AND l.\"unique\" = 1 AND x.key = 1
         ORDER BY m.name, l.name, x.seqno",
        |row| {
            let index = IndexRow {
                index: row.try_get(1)?,
                origin: row.try_get(2)?,
                partial: row.try_get(3)?,
                column: row.try_get(4)?,
                collation: row.try_get(5)?,
            };
            Ok((row.try_get(0)?, index))
        },
    )
    .await
}

/// Triggers by their texts. One that cannot be read counts as the most that it may be.
fn read_triggers(entries: &[Entry]) -> Vec<Trigger> {
    let mut triggers = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == "trigger") {
        let tokens = tokenize(entry.sql.as_deref().unwrap_or_default());
        let known = tokens.as_deref().unwrap_or_default();
        // CREATE TRIGGER name, then when.
        let when = known.get(3);
        let after = when.is_some_and(|t| t.is_word("AFTER") || t.is_word("INSTEAD"));
        triggers.push(Trigger {
            name: entry.name.clone(),
            table: entry.table.to_ascii_lowercase(),
            before: !after,
            replaces: unknown_or(&tokens, replaces),
            words: known.iter().filter_map(Token::name).collect(),
        });
    }
    triggers
}

fn unknown_or(
    tokens: &Result<Vec<Token<'_>>, LexError>,
    test: impl Fn(&[Token<'_>]) -> bool,
) -> bool {
    tokens.as_deref().map_or(true, test)
}

/// What the catalog says about one table.
struct Described {
    columns: Vec<ColumnRow>,
    indexes: Vec<IndexRow>,
    without_rowid: bool,
}

impl Described {
    fn build(self, entry: &Entry) -> TableInfo {
        let mut obstacle = None;
        let mut columns = Vec::new();
        let mut key = Vec::new();
        let alias = self.row_number_column();
        if !self.without_rowid && alias.is_none() {
            let taken = |name: &str| {
                let same = |column: &ColumnRow| column.name.eq_ignore_ascii_case(name);
                self.columns.iter().any(same)
            };
            let free = ROW_NUMBER.into_iter().find(|name| !taken(name));
            if free.is_none() {
                let part = "columns named rowid, oid and _rowid_ hide its row numbers";
                let advice = "give it an INTEGER PRIMARY KEY";
                obstacle = Some((part.to_owned(), advice));
            }
            columns.push(Column {
                name: free.unwrap_or(ROW_NUMBER[0]).into(),
                generated: false,
            });
            key.push((0, 0));
        }
        for column in &self.columns {
            if self.without_rowid && column.key > 0 || alias == Some(&*column.name) {
                key.push((column.key, columns.len()));
            }
            columns.push(Column {
                name: column.name.as_str().into(),
                // 1 would be a hidden column of a virtual table.
                generated: matches!(column.hidden, 2 | 3),
            });
        }
        let hidden = columns.len() - self.columns.len();
        key.sort_unstable();
        let key: Vec<usize> = key.into_iter().map(|(_, position)| position).collect();
        if columns.len() > limits::MAX_COLUMNS {
            let part = format!("it has more than {} columns", limits::MAX_COLUMNS);
            obstacle = Some((part, "split it"));
        }
        let sql = tokenize(entry.sql.as_deref().unwrap_or_default());
        let mut table = TableInfo {
            root: entry.root,
            name: entry.name.as_str().into(),
            without_rowid: self.without_rowid,
            collations: vec![Collation::Binary; key.len()],
            locks: Table {
                schema: SCHEMA.into(),
                name: entry.name.as_str().into(),
                ..Table::default()
            },
            columns,
            key,
            primary: self.primary(hidden),
            sources: Vec::new(),
            has_partial: false,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            triggers: Vec::new(),
            replaces: unknown_or(&sql, replaces),
            obstacle,
        };
        self.add_locks(&mut table);
        table
    }

    /// The declared primary key, behind so many hidden columns.
    fn primary(&self, hidden: usize) -> Vec<usize> {
        let mut primary: Vec<(i64, usize)> = self
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.key > 0)
            .map(|(position, column)| (column.key, position + hidden))
            .collect();
        primary.sort_unstable();
        primary.into_iter().map(|(_, position)| position).collect()
    }

    /// The column that is the row number itself: a single key column of type INTEGER
    /// without an index of its own.
    fn row_number_column(&self) -> Option<&str> {
        let mut key = self.columns.iter().filter(|column| column.key > 0);
        let (Some(column), None) = (key.next(), key.next()) else {
            return None;
        };
        let is_alias = !self.without_rowid
            && column.declared.eq_ignore_ascii_case("INTEGER")
            && !self.indexes.iter().any(|index| index.origin == "pk");
        is_alias.then_some(&*column.name)
    }

    fn add_locks(&self, table: &mut TableInfo) {
        let mut indexes: BTreeMap<&str, Vec<&IndexRow>> = BTreeMap::new();
        for row in &self.indexes {
            indexes.entry(&row.index).or_default().push(row);
        }
        // A hidden row number is no column that an index names.
        let hidden = table.columns.len() - self.columns.len();
        let position = |name: &str| {
            let mut columns = self.columns.iter();
            let found = columns.position(|column| column.name.eq_ignore_ascii_case(name));
            found.map(|position| position + hidden)
        };
        let mut obstacle = None;
        let mut parts = Vec::new();
        for (name, rows) in &indexes {
            let mut sources = Vec::new();
            for row in rows {
                let column = row.column.as_deref().and_then(position);
                let collation = Collation::named(&row.collation);
                match (column, collation) {
                    (Some(column), Some(collation)) => sources.push((column, collation)),
                    (None, _) => {
                        let part = format!("the unique index {name} is over an expression");
                        obstacle = Some((part, "put the value into a generated column"));
                    }
                    (_, None) => {
                        let part = format!("{name} compares by the collation {}", row.collation);
                        let advice = "use BINARY, NOCASE or RTRIM for what must be unique";
                        obstacle = Some((part, advice));
                    }
                }
            }
            let is_key = self.without_rowid && rows.iter().any(|row| row.origin == "pk");
            if is_key && sources.len() == table.key.len() {
                table.key = sources.iter().map(|(column, _)| *column).collect();
                table.collations = sources.iter().map(|(_, collation)| *collation).collect();
            } else {
                table.has_partial |= rows.iter().any(|row| row.partial);
                parts.push((*name, sources));
            }
        }
        let key: Vec<(usize, Collation)> = table
            .key
            .iter()
            .copied()
            .zip(table.collations.iter().copied())
            .collect();
        table.locks.key = (0..key.len()).collect();
        table.sources = key;
        for (name, sources) in parts {
            let start = table.sources.len();
            table.sources.extend(sources);
            table.locks.unique.push(UniqueIndex {
                name: name.into(),
                columns: (start..table.sources.len()).collect(),
                nulls_are_equal: false,
            });
        }
        table.locks.columns = vec![lock_column(); table.sources.len()];
        if table.obstacle.is_none() {
            table.obstacle = obstacle;
        }
    }
}

fn lock_column() -> table::Column {
    table::Column {
        name: "".into(),
        type_oid: value::TYPE,
        type_name: "".into(),
        as_text: false,
        merges: false,
        escrow: None,
        generated: false,
        identity_always: false,
        equality: Equality::Bytes,
    }
}

async fn add_references(
    connection: &mut SqliteConnection,
    tables: &mut [TableInfo],
) -> Result<(), sqlx::Error> {
    let keys = rows(
        connection,
        "SELECT m.name, f.id, f.\"table\", f.\"from\", f.\"to\", f.on_delete
         FROM main.sqlite_schema m, pragma_foreign_key_list(m.name, 'main') f
         WHERE m.type = 'table' AND m.rootpage > 0 ORDER BY m.name, f.id, f.seq",
        |row| {
            let changes = |action: String| action != "NO ACTION" && action != "RESTRICT";
            Ok(KeyRow {
                child: row.try_get(0)?,
                id: row.try_get(1)?,
                parent: row.try_get(2)?,
                from: row.try_get(3)?,
                to: row.try_get(4)?,
                delete_changes: changes(row.try_get(5)?),
            })
        },
    )
    .await?;
    for part in keys.chunk_by(|a, b| a.child == b.child && a.id == b.id) {
        let first = &part[0];
        let parent = tables
            .iter_mut()
            .find(|table| table.name.eq_ignore_ascii_case(&first.parent));
        let Some(parent) = parent else { continue };
        let named = |name: &String| {
            let mut columns = parent.columns.iter();
            columns.position(|column| column.name.eq_ignore_ascii_case(name))
        };
        let columns: Option<Vec<usize>> = part
            .iter()
            .map(|row| row.to.as_ref().and_then(named))
            .collect();
        // Without names it references the primary key.
        let columns = columns.unwrap_or_else(|| parent.primary.clone());
        if columns.len() != part.len() {
            continue;
        }
        let name = |&position: &usize| quote(&parent.columns[position].name);
        let outgoing = (
            parent.qualified(),
            columns.iter().map(name).collect::<Vec<String>>(),
        );
        parent.incoming.push(Incoming {
            child: quote_qualified(SCHEMA, &first.child),
            child_columns: part.iter().map(|row| quote(&row.from)).collect(),
            collations: parent.collations_of(&columns),
            columns,
            delete_changes: first.delete_changes,
        });
        let child = tables.iter_mut().find(|table| *table.name == *first.child);
        let Some(child) = child else { continue };
        let of_child = |row: &KeyRow| {
            let mut columns = child.columns.iter();
            columns.position(|column| column.name.eq_ignore_ascii_case(&row.from))
        };
        if let Some(columns) = part.iter().map(of_child).collect::<Option<Vec<usize>>>() {
            child.outgoing.push(Outgoing {
                parent: outgoing.0,
                parent_columns: outgoing.1,
                columns,
            });
        }
    }
    Ok(())
}
