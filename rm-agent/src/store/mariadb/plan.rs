//! How a statement text runs inside a global transaction: analysed, checked against
//! the catalog and rewritten once, then remembered.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use sqlx::MySqlConnection;

use super::{
    catalog::{
        self, TableInfo,
        references::{self, Reference},
    },
    change::ChangePlan,
    images,
    insert::InsertPlan,
    locking::{LockingPlan, lock_columns},
};
use crate::{
    at::{
        escrow::{self, Bounds},
        mysql::{
            analysis,
            insert::OnConflict,
            quote, quote_qualified,
            statement::{Analysis, Locking, Uses, Write},
            types::Class,
        },
        statement::{TableName, WriteKind},
        table::{ReferentialAction, Table},
    },
    clock,
    error::Error,
    limits,
};

/// How one statement text runs.
#[derive(Debug)]
pub(super) enum Plan {
    /// Untouched.
    Read,
    /// With the keys of the locked rows in its last columns.
    Locking(LockingPlan),
    /// With images of the changed rows.
    Write(WritePlan),
}

/// A write with its images.
#[derive(Debug)]
pub(super) enum WritePlan {
    Change(ChangePlan),
    Insert(InsertPlan),
}

/// What the application allows although its effects are not undone.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowed {
    /// Tables and triggers.
    pub(super) triggers: BTreeSet<(String, String)>,
    pub(super) functions: BTreeSet<String>,
    /// Tables and columns that others may change while a branch can be undone.
    pub(super) merges: BTreeSet<(String, String)>,
    /// Tables and columns that several transactions may add to at the same time.
    pub(super) escrow: BTreeMap<(String, String), Bounds>,
}

/// Plans statements and remembers the plans.
#[derive(Debug)]
pub(super) struct Planner {
    allowed: Allowed,
    plans: Remembered<Arc<str>, Arc<Plan>>,
    tables: Remembered<TableName, Arc<TableInfo>>,
    /// Tables that are no views.
    plain: Remembered<TableName, ()>,
    /// Who references a table, by its schema and name.
    references: Remembered<(String, String), Arc<[Reference]>>,
    /// Numbers of tables by their name; images of one branch meet by them.
    numbers: Mutex<HashMap<TableName, u32>>,
    next: AtomicU32,
}

/// What was read, and when.
type Remembered<K, V> = Mutex<HashMap<K, (V, Instant)>>;

fn is_fresh(since: Instant) -> bool {
    clock::now().saturating_duration_since(since) < limits::METADATA_RECHECK
}

/// Inserts; empties the map first when it is full.
fn remember<K: Eq + std::hash::Hash, V>(
    map: &Mutex<HashMap<K, V>>,
    limit: usize,
    key: K,
    value: V,
) {
    let mut map = map.lock();
    if map.len() >= limit {
        map.clear();
    }
    map.insert(key, value);
}

pub(super) fn refuse(part: impl Into<String>, advice: impl Into<String>) -> Error {
    Error::Statement {
        part: part.into(),
        advice: advice.into(),
    }
}

impl Planner {
    pub(super) fn new(allowed: Allowed) -> Self {
        Self {
            allowed,
            plans: Mutex::default(),
            tables: Mutex::default(),
            plain: Mutex::default(),
            references: Mutex::default(),
            numbers: Mutex::default(),
            next: AtomicU32::new(1),
        }
    }

    /// The remembered plan of a text, if it is fresh. Needs no connection.
    pub(super) fn remembered(&self, sql: &str) -> Option<Arc<Plan>> {
        let plans = self.plans.lock();
        let (plan, since) = plans.get(sql)?;
        is_fresh(*since).then(|| Arc::clone(plan))
    }

    /// Plans a statement. Reads the catalog over `connection` for what is not remembered.
    pub(super) async fn plan(
        &self,
        sql: &str,
        connection: &mut MySqlConnection,
    ) -> Result<Arc<Plan>, Error> {
        if let Some(plan) = self.remembered(sql) {
            return Ok(plan);
        }
        let analysis = analysis::analyse(sql).map_err(|found| refuse(found.part, found.advice))?;
        let mut since = clock::now();
        let uses = match &analysis {
            Analysis::Read(uses) => uses,
            Analysis::Locking(read) => &read.uses,
            Analysis::Write(write) => &write.uses,
        };
        self.check_functions(uses)?;
        self.check_views(uses, connection).await?;
        let plan = match &analysis {
            Analysis::Read(_) => Plan::Read,
            Analysis::Locking(read) => {
                let info = self.table(&read.table, connection, &mut since).await?;
                check_obstacle(&info)?;
                Plan::Locking(plan_locking(sql, read, &info.table))
            }
            Analysis::Write(write) => {
                let info = self.table(&write.table, connection, &mut since).await?;
                self.check_write(write, &info)?;
                Plan::Write(match &write.insert {
                    Some(parts) => WritePlan::Insert(InsertPlan::new(sql, write, parts, &info)?),
                    None => WritePlan::Change(ChangePlan::new(sql, write, &info.table)?),
                })
            }
        };
        let plan = Arc::new(plan);
        remember(
            &self.plans,
            limits::MAX_REMEMBERED_STATEMENTS,
            Arc::from(sql),
            (Arc::clone(&plan), since),
        );
        Ok(plan)
    }

    /// Forgets everything about tables, after one of them proved to have changed.
    pub(super) fn forget(&self) {
        self.plans.lock().clear();
        self.tables.lock().clear();
        self.plain.lock().clear();
        self.references.lock().clear();
    }

    /// Foreign keys that reference a table, as they were at most
    /// [`METADATA_RECHECK`](limits::METADATA_RECHECK) ago: to find them opens every table of the
    /// server.
    pub(super) async fn references(
        &self,
        connection: &mut MySqlConnection,
        schema: &str,
        table: &str,
    ) -> Result<Arc<[Reference]>, sqlx::Error> {
        let key = (schema.to_owned(), table.to_owned());
        if let Some((known, read)) = self.references.lock().get(&key)
            && is_fresh(*read)
        {
            return Ok(Arc::clone(known));
        }
        let read = clock::now();
        let found: Arc<[Reference]> = references::read(connection, schema, table).await?.into();
        let entry = (Arc::clone(&found), read);
        remember(&self.references, limits::MAX_REMEMBERED_TABLES, key, entry);
        Ok(found)
    }

    async fn table(
        &self,
        name: &TableName,
        connection: &mut MySqlConnection,
        since: &mut Instant,
    ) -> Result<Arc<TableInfo>, Error> {
        let remembered = self.tables.lock().get(name).cloned();
        if let Some((info, read)) = remembered
            && is_fresh(read)
        {
            *since = (*since).min(read);
            return Ok(info);
        }
        let read = clock::now();
        let number = *self
            .numbers
            .lock()
            .entry(name.clone())
            .or_insert_with(|| self.next.fetch_add(1, Ordering::Relaxed));
        let mut info = catalog::read_table(connection, name, number)
            .await
            .map_err(Error::database("reading the catalog"))?
            .ok_or_else(|| {
                refuse(
                    format!("there is no table {}", name.name),
                    "check its name and the database of the connection",
                )
            })?;
        if let Some(table) = Arc::get_mut(&mut info.table) {
            let names = [table.display_name(), table.name.to_string()];
            for column in &mut table.columns {
                let listed = |name: &String| (name.clone(), column.name.to_string());
                let mut listed = names.iter().map(listed);
                column.merges = listed.any(|entry| self.allowed.merges.contains(&entry));
                let mut listed = names
                    .iter()
                    .map(|name| (name.clone(), column.name.to_string()));
                column.escrow = listed.find_map(|entry| self.allowed.escrow.get(&entry).copied());
            }
        }
        let referenced = (info.table.schema.to_string(), info.table.name.to_string());
        let entry = (Arc::clone(&info.references), read);
        let limit = limits::MAX_REMEMBERED_TABLES;
        remember(&self.references, limit, referenced, entry);
        let info = Arc::new(info);
        let entry = (Arc::clone(&info), read);
        remember(
            &self.tables,
            limits::MAX_REMEMBERED_TABLES,
            name.clone(),
            entry,
        );
        *since = (*since).min(read);
        Ok(info)
    }

    fn check_functions(&self, uses: &Uses) -> Result<(), Error> {
        let unknown = |name: &&String| !self.allowed.functions.contains(*name);
        match uses.functions.iter().find(unknown) {
            Some(name) => Err(refuse(
                format!("the function {name} is not known to be harmless, so it may write"),
                "name it in AtPool's allow_function if it only reads, or use XA mode",
            )),
            None => Ok(()),
        }
    }

    /// A view may call functions that write.
    async fn check_views(
        &self,
        uses: &Uses,
        connection: &mut MySqlConnection,
    ) -> Result<(), Error> {
        let unknown: Vec<&TableName> = {
            let plain = self.plain.lock();
            let known = |name: &TableName| plain.get(name).is_some_and(|(_, read)| is_fresh(*read));
            uses.tables.iter().filter(|name| !known(name)).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let read = clock::now();
        let views = catalog::views(connection, &unknown).await?;
        if let Some(view) = views.first() {
            return Err(refuse(
                format!("it uses the view {view}, behind which functions may write"),
                "name the tables themselves, or use XA mode",
            ));
        }
        for name in unknown {
            let limit = limits::MAX_REMEMBERED_TABLES;
            remember(&self.plain, limit, name.clone(), ((), read));
        }
        Ok(())
    }

    fn check_write(&self, write: &Write, info: &TableInfo) -> Result<(), Error> {
        check_obstacle(info)?;
        let table = &*info.table;
        check_escrow(table)?;
        let refuse = |part: String, advice: &str| {
            Err(Error::Table {
                table: table.display_name(),
                part,
                advice: advice.to_owned(),
            })
        };
        let is_allowed = |trigger: &String| {
            [table.display_name(), table.name.to_string()]
                .into_iter()
                .any(|name| self.allowed.triggers.contains(&(name, trigger.clone())))
        };
        if let Some(trigger) = info.triggers.iter().find(|trigger| !is_allowed(trigger)) {
            return refuse(
                format!("its trigger {trigger} may write elsewhere"),
                "name the trigger in AtPool's allow_trigger if it only changes the row itself, \
                 or use XA mode",
            );
        }
        let advice = "change the referencing rows by statements of their own and the key to \
                      NO ACTION, or use XA mode";
        let replaces = write
            .insert
            .as_ref()
            .is_some_and(|insert| matches!(insert.conflict, OnConflict::Replace(_)));
        for key in &table.incoming {
            if let (true, ReferentialAction::Change(action)) =
                (replaces || write.kind == WriteKind::Delete, key.on_delete)
            {
                return refuse(
                    format!(
                        "the foreign key {} of {} has ON DELETE {action}, whose rows would not \
                         be undone",
                        key.constraint, key.child
                    ),
                    advice,
                );
            }
        }
        for name in &write.assigned {
            // An unknown column is the database's to refuse.
            let position = table
                .columns
                .iter()
                .position(|c| c.name.eq_ignore_ascii_case(name));
            let Some(position) = position else { continue };
            if write.joins && table.key.contains(&position) {
                return refuse(
                    format!("the UPDATE of joined tables assigns the primary key column {name}"),
                    "update the table alone, with sub-queries; or use XA mode",
                );
            }
            let changing = table.incoming.iter().find_map(|key| match key.on_update {
                ReferentialAction::Change(action) if key.columns.contains(&position) => {
                    Some((key, action))
                }
                _ => None,
            });
            if let Some((key, action)) = changing {
                return refuse(
                    format!(
                        "the UPDATE assigns {name}, and the foreign key {} of {} has ON UPDATE \
                         {action}, whose rows would not be undone",
                        key.constraint, key.child
                    ),
                    advice,
                );
            }
        }
        Ok(())
    }
}

/// What is listed for escrow must be fit for it.
fn check_escrow(table: &Table) -> Result<(), Error> {
    let listed = (0..table.columns.len()).filter(|&c| table.columns[c].escrow.is_some());
    for position in listed {
        if let Some(why) = escrow::obstacle(table, position) {
            let name = &table.columns[position].name;
            return Err(Error::Table {
                table: table.display_name(),
                part: format!("its column {name} is listed by escrow_column, but {why}"),
                advice: "leave it out of escrow_column".to_owned(),
            });
        }
    }
    Ok(())
}

fn check_obstacle(info: &TableInfo) -> Result<(), Error> {
    match &info.obstacle {
        Some((part, advice)) => Err(Error::Table {
            table: info.table.display_name(),
            part: part.clone(),
            advice: (*advice).to_owned(),
        }),
        None => Ok(()),
    }
}

/// Reads whole rows and locks them: the newest ones, whatever the transaction's
/// snapshot shows.
pub(super) fn read_sql(table: &Table, condition: &str) -> String {
    format!(
        "SELECT {} FROM {} WHERE {condition} FOR UPDATE",
        images::outputs(table).join(", "),
        quote_qualified(&table.schema, &table.name),
    )
}

/// Takes parameters that a statement does not need: always true.
pub(super) fn consumed(parameters: usize) -> Vec<&'static str> {
    vec!["ISNULL(?) >= 0"; parameters]
}

fn plan_locking(sql: &str, read: &Locking, table: &Arc<Table>) -> LockingPlan {
    let mut list = String::new();
    for (number, position) in lock_columns(table).into_iter().enumerate() {
        let column = &table.columns[position];
        let class = Class::from_number(column.type_oid).unwrap_or(Class::Bytes);
        let name = format!("{}.{}", read.reference, quote(&column.name));
        let output = class.output(&name, &column.type_name);
        list += &format!(", {output} AS accede_lock{number}");
    }
    LockingPlan {
        sql: format!(
            "{}\n{list} {}",
            sql[..read.select_list_end].trim_end(),
            &sql[read.select_list_end..read.end]
        ),
        table: Arc::clone(table),
        wait: read.wait,
    }
}
