//! How a statement text runs inside a global transaction: analysed, checked
//! against the catalog and rewritten once, then remembered.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;
use sqlx::PgConnection;

use super::catalog::{self, TableInfo, table_refusal};
use crate::{
    at::{
        analysis,
        escrow::{self, Bounds},
        rewrite::{Rewritten, rewrite, rewrite_locking},
        statement::{Analysis, LockingRead, TableName, Uses, Wait, WriteKind, WriteStatement},
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
    /// With images of the locked rows in its last columns, one per table.
    Locking {
        sql: Arc<str>,
        tables: Vec<Arc<Table>>,
        wait: Wait,
    },
    /// With images of the changed rows in its last columns.
    Write(WritePlan),
}

/// A write with its images.
#[derive(Debug)]
pub(super) struct WritePlan {
    pub(super) sql: Arc<str>,
    pub(super) table: Arc<Table>,
    pub(super) has_before: bool,
    pub(super) has_after: bool,
    /// The before image is a text beside the time at which the statement began.
    pub(super) captured: bool,
    /// It only adds to columns in escrow.
    pub(super) adds_only: bool,
    /// It assigns no column of the primary key.
    pub(super) keeps_key: bool,
    /// Whether the user's statement returns rows.
    pub(super) returns: bool,
}

/// What the application allows although its effects are not undone.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowed {
    /// Tables and triggers, as `schema.table` or `table`.
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
    functions: Remembered<String, bool>,
    /// Tables and views behind which nothing writes.
    harmless: Remembered<TableName, ()>,
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

impl Planner {
    pub(super) fn new(allowed: Allowed) -> Self {
        Self {
            allowed,
            plans: Mutex::default(),
            tables: Mutex::default(),
            functions: Mutex::default(),
            harmless: Mutex::default(),
        }
    }

    /// The remembered plan of a text, if it is fresh. Needs no connection.
    pub(super) fn remembered(&self, sql: &str) -> Option<Arc<Plan>> {
        let plans = self.plans.lock();
        let (plan, since) = plans.get(sql)?;
        is_fresh(*since).then(|| Arc::clone(plan))
    }

    /// Plans a text; asks the catalog over `connection` for what is not remembered.
    pub(super) async fn plan(
        &self,
        sql: &str,
        connection: &mut PgConnection,
    ) -> Result<Arc<Plan>, Error> {
        if let Some(plan) = self.remembered(sql) {
            return Ok(plan);
        }
        let analysis = analysis::analyse(sql).map_err(|found| Error::Statement {
            part: found.part,
            advice: found.advice,
        })?;
        let mut since = clock::now();
        let uses = match &analysis {
            Analysis::Read(read) => &read.uses,
            Analysis::LockingRead(read) => &read.uses,
            Analysis::Write(write) => &write.uses,
        };
        self.check_functions(uses, connection).await?;
        self.check_views(&uses.tables, connection).await?;
        let plan = match &analysis {
            Analysis::Read(_) => Plan::Read,
            Analysis::LockingRead(read) => {
                self.plan_locking(sql, read, connection, &mut since).await?
            }
            Analysis::Write(write) => {
                let info = self.table(&write.table, connection, &mut since).await?;
                self.check_write(write, &info)?;
                plan_write(sql, write, &info.table)
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
        self.harmless.lock().clear();
    }

    async fn plan_locking(
        &self,
        sql: &str,
        read: &LockingRead,
        connection: &mut PgConnection,
        since: &mut Instant,
    ) -> Result<Plan, Error> {
        let mut tables = Vec::with_capacity(read.tables.len());
        for locked in &read.tables {
            let info = self.table(&locked.table, connection, since).await?;
            check_obstacle(&info)?;
            tables.push(Arc::clone(&info.table));
        }
        let references: Vec<&Table> = tables.iter().map(|table| &**table).collect();
        let sql = rewrite_locking(sql, read, &references).into();
        Ok(Plan::Locking {
            sql,
            tables,
            wait: read.wait,
        })
    }

    async fn table(
        &self,
        name: &TableName,
        connection: &mut PgConnection,
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
        let mut info = catalog::read_table(connection, name)
            .await
            .map_err(Error::database("reading the catalog"))?
            .ok_or_else(|| Error::Statement {
                part: format!("there is no table {}", name.name),
                advice: "check its name and the connection's search_path".to_owned(),
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

    async fn check_functions(
        &self,
        uses: &Uses,
        connection: &mut PgConnection,
    ) -> Result<(), Error> {
        // With its dot, a name is another entry than without.
        let attributes = uses.attributes.iter().map(|name| format!(".{name}"));
        let names: Vec<String> = uses.functions.iter().cloned().chain(attributes).collect();
        let mut verdicts = HashMap::new();
        let mut unknown = Vec::new();
        for name in names.iter().filter(|name| {
            !self
                .allowed
                .functions
                .contains(name.trim_start_matches('.'))
        }) {
            match self.functions.lock().get(name) {
                Some((writes, read)) if is_fresh(*read) => {
                    verdicts.insert(name.clone(), *writes);
                }
                _ => unknown.push(name.clone()),
            }
        }
        if !unknown.is_empty() {
            let read = clock::now();
            let volatile = catalog::volatile_functions(connection, &unknown)
                .await
                .map_err(Error::database("reading the catalog"))?;
            for name in unknown {
                let writes = volatile.contains(&name);
                verdicts.insert(name.clone(), writes);
                let entry = (writes, read);
                remember(
                    &self.functions,
                    limits::MAX_REMEMBERED_FUNCTIONS,
                    name,
                    entry,
                );
            }
        }
        let writing = names
            .iter()
            .find(|&name| verdicts.get(name).is_some_and(|writes| *writes));
        match writing {
            Some(name) => Err(Error::Statement {
                part: format!(
                    "the function {} is VOLATILE, so it may write",
                    name.trim_start_matches('.')
                ),
                advice: "declare it STABLE if it only reads, name it in AtPool's \
                         allow_function, or use XA mode"
                    .to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// A view may call functions that write.
    async fn check_views(
        &self,
        names: &[TableName],
        connection: &mut PgConnection,
    ) -> Result<(), Error> {
        let unknown: Vec<&TableName> = {
            let harmless = self.harmless.lock();
            let known =
                |name: &TableName| harmless.get(name).is_some_and(|(_, read)| is_fresh(*read));
            names.iter().filter(|name| !known(name)).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let read = clock::now();
        let functions = catalog::functions_behind(connection, &unknown)
            .await
            .map_err(Error::database("reading the catalog"))?;
        let writing = |name: &&String| !self.allowed.functions.contains(*name);
        if let Some(function) = functions.iter().find(writing) {
            return Err(Error::Statement {
                part: format!("a view that it reads calls {function}, which may write"),
                advice:
                    "read the tables themselves, declare the function STABLE if it only reads, \
                         name it in AtPool's allow_function, or use XA mode"
                        .to_owned(),
            });
        }
        for name in unknown {
            let limit = limits::MAX_REMEMBERED_TABLES;
            remember(&self.harmless, limit, name.clone(), ((), read));
        }
        Ok(())
    }

    fn check_write(&self, write: &WriteStatement, info: &TableInfo) -> Result<(), Error> {
        check_obstacle(info)?;
        let table = &*info.table;
        check_escrow(table)?;
        let refuse = |part: String, advice: &str| Err(table_refusal(table, part, advice));
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
        let is_unknown = |name: &&String| !self.allowed.functions.contains(*name);
        if write.kind != WriteKind::Delete
            && let Some(function) = info.functions.iter().find(is_unknown)
        {
            return refuse(
                format!("one of its defaults or checks calls {function}, which may write"),
                "declare the function STABLE if it only reads, name it in AtPool's \
                 allow_function, or use XA mode",
            );
        }
        match write.kind {
            WriteKind::Insert => check_assigned(write, table),
            WriteKind::Delete => {
                for key in &table.incoming {
                    if let ReferentialAction::Change(action) = key.on_delete {
                        return refuse(
                            format!(
                                "the foreign key {} of {} has ON DELETE {action}, whose rows \
                                 would not be undone",
                                key.constraint, key.child
                            ),
                            "change the referencing rows by statements of their own and the \
                             key to NO ACTION, or use XA mode",
                        );
                    }
                }
                Ok(())
            }
            WriteKind::Update => check_assigned(write, table),
        }
    }
}

fn check_obstacle(info: &TableInfo) -> Result<(), Error> {
    match &info.obstacle {
        Some(found) => Err(table_refusal(&info.table, found.part.clone(), found.advice)),
        None => Ok(()),
    }
}

fn check_assigned(write: &WriteStatement, table: &Table) -> Result<(), Error> {
    for name in &write.assigned {
        // An unknown column is the database's to refuse.
        let Some(position) = table.column(name) else {
            continue;
        };
        let refuse = |part: String, advice: &str| Err(table_refusal(table, part, advice));
        if table.columns[position].identity_always {
            return refuse(
                format!("the UPDATE assigns {name}, which is GENERATED ALWAYS AS IDENTITY"),
                "make it GENERATED BY DEFAULT, or use XA mode",
            );
        }
        let identity = table.columns.iter().find(|column| column.identity_always);
        if let (true, Some(identity)) = (table.key.contains(&position), identity) {
            return refuse(
                format!(
                    "the UPDATE assigns its primary key column {name}, and its column {} is \
                     GENERATED ALWAYS AS IDENTITY",
                    identity.name
                ),
                "make it GENERATED BY DEFAULT, or use XA mode",
            );
        }
        for key in &table.incoming {
            if let ReferentialAction::Change(action) = key.on_update
                && key.columns.contains(&position)
            {
                return refuse(
                    format!(
                        "the UPDATE assigns {name}, and the foreign key {} of {} has ON UPDATE \
                         {action}, whose rows would not be undone",
                        key.constraint, key.child
                    ),
                    "change the referencing rows by statements of their own, or use XA mode",
                );
            }
        }
    }
    Ok(())
}

fn adds_only(write: &WriteStatement, table: &Table) -> bool {
    let in_escrow = |name: &String| {
        let position = table.column(name);
        position.is_some_and(|position| table.columns[position].escrow.is_some())
    };
    !write.deltas.is_empty() && write.deltas.iter().all(in_escrow)
}

/// What is listed for escrow must be fit for it.
fn check_escrow(table: &Table) -> Result<(), Error> {
    let listed = (0..table.columns.len()).filter(|&c| table.columns[c].escrow.is_some());
    for position in listed {
        if let Some(why) = escrow::obstacle(table, position) {
            let name = &table.columns[position].name;
            return Err(table_refusal(
                table,
                format!("its column {name} is listed by escrow_column, but {why}"),
                "leave it out of escrow_column",
            ));
        }
    }
    Ok(())
}

fn plan_write(sql: &str, write: &WriteStatement, table: &Arc<Table>) -> Plan {
    let Rewritten {
        sql,
        has_before,
        has_after,
        captured,
    } = rewrite(sql, write, table);
    Plan::Write(WritePlan {
        sql: sql.into(),
        table: Arc::clone(table),
        has_before,
        has_after,
        captured,
        keeps_key: !table.key.iter().any(|&column| {
            write
                .assigned
                .iter()
                .any(|name| **name == *table.columns[column].name)
        }),
        returns: write.returning.is_some(),
        adds_only: adds_only(write, table),
    })
}
