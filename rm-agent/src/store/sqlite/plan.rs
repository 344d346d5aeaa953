//! What a statement writes, as the program says that SQLite makes of it; or a refusal.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::catalog::{Catalog, TableInfo, Trigger};
use crate::{
    at::{
        sqlite::lexer::{Token, one_statement, replaces},
        statement::Unsupported,
    },
    error::Error,
};

/// What the application allows.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowed {
    /// Table and trigger.
    pub(super) triggers: BTreeSet<(String, String)>,
    /// Functions, by their names in small letters.
    pub(super) functions: BTreeSet<String>,
    /// Table and column.
    pub(super) merges: BTreeSet<(String, String)>,
}

impl Allowed {
    fn trigger(&self, table: &TableInfo, trigger: &Trigger) -> bool {
        let mut allowed = self.triggers.iter();
        allowed.any(|(t, name)| same_name(t, table) && trigger.name.eq_ignore_ascii_case(name))
    }

    /// Whether others may change the column while a branch can be undone.
    pub(super) fn merges(&self, table: &TableInfo, column: &str) -> bool {
        let mut merges = self.merges.iter();
        merges.any(|(t, name)| same_name(t, table) && name.eq_ignore_ascii_case(column))
    }
}

fn same_name(name: &str, table: &TableInfo) -> bool {
    let name = name.strip_prefix("main.").unwrap_or(name);
    table.name.eq_ignore_ascii_case(name)
}

/// What to do with a statement.
#[derive(Debug)]
pub(super) enum Plan {
    /// Changes nothing: runs untouched.
    Read,
    /// Changes rows of these tables, by itself, by triggers or by foreign keys.
    Write {
        tables: Vec<Arc<TableInfo>>,
        /// It may remove rows that are in the way of others, of which triggers hear only
        /// if they are recursive.
        replaces: bool,
    },
}

/// Functions of extensions that come with SQLite and change nothing.
const HARMLESS: &[&str] = &[
    "bm25",
    "fts5_source_id",
    "highlight",
    "match",
    "matchinfo",
    "offsets",
    "rtreecheck",
    "rtreedepth",
    "rtreenode",
    "snippet",
];

/// Built-in functions that change something all the same.
const HARMFUL: &[&str] = &["load_extension", "fts3_tokenizer", "optimize"];

/// Plans a statement on a connection whose open transaction sees `catalog`.
/// `log_root`: where its notes are.
pub(super) async fn plan(
    connection: &mut SqliteConnection,
    catalog: &Catalog,
    allowed: &Allowed,
    log_root: Option<i64>,
    sql: &str,
) -> Result<Arc<Plan>, sqlx::Error> {
    if let Some(plan) = catalog.remembered(sql) {
        return Ok(plan);
    }
    let tokens = one_statement(sql).map_err(refused)?;
    let plan = if starts_harmlessly(&tokens)? {
        Plan::Read
    } else {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN {sql}"));
        let program = sqlx::query(explain)
            .persistent(false)
            .fetch_all(connection)
            .await?;
        let program = Program::read(&program)?;
        program.plan(catalog, allowed, log_root, &tokens)?
    };
    let plan = Arc::new(plan);
    catalog.remember(sql, &plan);
    Ok(plan)
}

fn refused(unsupported: Unsupported) -> Error {
    Error::Statement {
        part: unsupported.part,
        advice: unsupported.advice,
    }
}

fn refuse(part: impl Into<String>, advice: impl Into<String>) -> Error {
    refused(Unsupported::new(part, advice))
}

/// By the first word: true if there is nothing to look into, an error if it may not run.
/// Some PRAGMAs take effect as soon as the database reads them.
fn starts_harmlessly(tokens: &[Token<'_>]) -> Result<bool, Error> {
    let word = match tokens.first() {
        None => return Ok(true),
        Some(Token::Word(word)) => word.to_ascii_uppercase(),
        Some(_) => String::new(),
    };
    Err(match word.as_str() {
        "SELECT" | "VALUES" | "WITH" | "INSERT" | "UPDATE" | "DELETE" | "REPLACE" => {
            return Ok(false);
        }
        "EXPLAIN" if !tokens.iter().any(|token| token.is_word("PRAGMA")) => return Ok(true),
        "BEGIN" | "COMMIT" | "END" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" => refuse(
            format!("{word}: the local transaction belongs to AtTransaction"),
            "use its commit and rollback, or SAVEPOINT, ROLLBACK TO and RELEASE with a name",
        ),
        "PRAGMA" | "EXPLAIN" => refuse(
            "PRAGMA, which may change the database or the connection",
            "set it in the connection options of the pool; read it as SELECT … FROM pragma_…",
        ),
        "ATTACH" | "DETACH" => refuse(
            format!("{word}, which changes the connection"),
            "keep the tables of a branch in one database",
        ),
        "CREATE" | "ALTER" | "DROP" | "REINDEX" | "ANALYZE" | "VACUUM" => refuse(
            format!("{word}, which changes more than rows"),
            "run it outside global transactions",
        ),
        _ => refuse(
            "a text that begins as no statement does which reads or writes rows",
            "send SELECT, INSERT, UPDATE, DELETE or REPLACE",
        ),
    })
}

/// What is looked at in the program of a statement, its triggers and foreign keys.
#[derive(Debug, Default)]
struct Program {
    /// Databases that it writes.
    databases: BTreeSet<i64>,
    /// What it opens for writing or clears: database and root page.
    written: BTreeSet<(i64, i64)>,
    functions: BTreeSet<String>,
    virtual_write: bool,
    /// Operations that write something else than rows.
    other: Option<String>,
}

impl Program {
    fn read(rows: &[SqliteRow]) -> Result<Self, sqlx::Error> {
        let mut program = Self::default();
        for row in rows {
            let operation: String = row.try_get_unchecked("opcode")?;
            let number = |name: &str| row.try_get_unchecked::<i64, _>(name);
            match operation.as_str() {
                "Transaction" if number("p2")? != 0 => {
                    program.databases.insert(number("p1")?);
                }
                // The page stands in a register in programs that make tables.
                "OpenWrite" if number("p5")? & 0x10 != 0 => program.other = Some(operation),
                "OpenWrite" => {
                    program.written.insert((number("p3")?, number("p2")?));
                }
                "Clear" => {
                    program.written.insert((number("p2")?, number("p1")?));
                }
                "VUpdate" | "VCreate" | "VDestroy" | "VRename" | "VBegin" => {
                    program.virtual_write = true;
                }
                "Function" | "PureFunc" | "AggStep" | "AggStep1" | "AggInverse" => {
                    let called: Option<String> = row.try_get_unchecked("p4")?;
                    let called = called.unwrap_or_default();
                    let name = called.rsplit_once('(').map_or(&*called, |(name, _)| name);
                    program.functions.insert(name.to_ascii_lowercase());
                }
                "AutoCommit" | "Savepoint" | "Vacuum" | "IncrVacuum" | "JournalMode"
                | "Checkpoint" | "SetCookie" | "CreateBtree" | "Destroy" | "ParseSchema"
                | "DropTable" | "DropIndex" | "DropTrigger" | "SqlExec" | "LoadAnalysis"
                | "Expire" | "MaxPgcnt" => program.other = Some(operation),
                _ => {}
            }
        }
        Ok(program)
    }

    fn plan(
        mut self,
        catalog: &Catalog,
        allowed: &Allowed,
        log_root: Option<i64>,
        tokens: &[Token<'_>],
    ) -> Result<Plan, Error> {
        self.check_functions(catalog, allowed)?;
        if self.virtual_write {
            return Err(refuse(
                "a write to a virtual table, by the statement or a trigger",
                "use XA mode, or write it outside the global transaction",
            ));
        }
        if let Some(other) = &self.other {
            return Err(refuse(
                format!("the operation {other}, which changes more than rows"),
                "run it outside global transactions",
            ));
        }
        // What this library notes itself.
        if let Some(root) = log_root {
            self.written.remove(&(1, root));
            if !self.written.iter().any(|(database, _)| *database == 1) {
                self.databases.remove(&1);
            }
        }
        if self.databases.is_empty() && self.written.is_empty() {
            return Ok(Plan::Read);
        }
        if let Some(database) = self.other_database() {
            return Err(refuse(
                format!("a write to {database}"),
                "write tables of the database itself; put others in between into WITH",
            ));
        }
        self.write(catalog, allowed, tokens)
    }

    fn other_database(&self) -> Option<&'static str> {
        let written = self.written.iter().map(|(database, _)| *database);
        let other = self
            .databases
            .iter()
            .copied()
            .chain(written)
            .find(|&d| d != 0)?;
        Some(if other == 1 {
            "a temporary table"
        } else {
            "an attached database"
        })
    }

    fn check_functions(&self, catalog: &Catalog, allowed: &Allowed) -> Result<(), Error> {
        for name in &self.functions {
            let known = catalog.functions.contains(name) || HARMLESS.contains(&&**name);
            if (!known || HARMFUL.contains(&&**name)) && !allowed.functions.contains(name) {
                return Err(refuse(
                    format!("the function {name}, which may write"),
                    "allow it by allow_function if it does not",
                ));
            }
        }
        Ok(())
    }

    fn write(
        &self,
        catalog: &Catalog,
        allowed: &Allowed,
        tokens: &[Token<'_>],
    ) -> Result<Plan, Error> {
        let mut tables = BTreeMap::new();
        let mut sequence = false;
        for &(_, root) in &self.written {
            match catalog.by_root(root) {
                Some(table) => {
                    tables.insert(table.root, Arc::clone(table));
                }
                None if catalog.sequence == Some(root) => sequence = true,
                None => {
                    return Err(refuse(
                        "a write to a table of SQLite's own",
                        "change it outside global transactions",
                    ));
                }
            }
        }
        let tables: Vec<Arc<TableInfo>> = tables.into_values().collect();
        if tables.is_empty() {
            return Err(refuse(
                "a write of which the database does not tell what it is to",
                "write tables of this database only",
            ));
        }
        let names: BTreeSet<String> = tokens.iter().filter_map(Token::name).collect();
        let views: Vec<&Trigger> = involved_views(catalog, &tables, &names);
        let triggers = || {
            tables
                .iter()
                .flat_map(|t| &t.triggers)
                .chain(views.iter().copied())
        };
        let by_name = |name: &str| {
            names.contains(name) || triggers().any(|trigger| trigger.words.contains(name))
        };
        if sequence && by_name("sqlite_sequence") {
            return Err(refuse(
                "a write to sqlite_sequence",
                "numbers that AUTOINCREMENT has given are never taken back; change it outside \
                 global transactions",
            ));
        }
        for table in &tables {
            check_table(table, allowed)?;
        }
        let replaces = replaces(tokens)
            || tables.iter().any(|table| table.replaces)
            || triggers().any(|trigger| trigger.replaces);
        if replaces {
            check_replace(&tables, triggers().next())?;
        }
        Ok(Plan::Write { tables, replaces })
    }
}

/// Recursive triggers hear of rows that REPLACE removes, so there must be none that
/// would not run otherwise.
fn check_replace(tables: &[Arc<TableInfo>], trigger: Option<&Trigger>) -> Result<(), Error> {
    let advice = "use INSERT … ON CONFLICT DO UPDATE, or DELETE and INSERT";
    if let Some(trigger) = trigger {
        return Err(refuse(
            format!(
                "REPLACE, in the statement, a constraint or a trigger, together with the trigger \
                 {} of {}",
                trigger.name, trigger.table
            ),
            advice,
        ));
    }
    if let Some(table) = tables.iter().find(|table| table.cascades_to_itself()) {
        return Err(Error::Table {
            table: format!("main.{}", table.name),
            part: "REPLACE, whose foreign key to itself changes rows when one is removed"
                .to_owned(),
            advice: advice.to_owned(),
        });
    }
    Ok(())
}

/// Triggers of views that the statement may write to: whose names it, or a trigger that
/// may run, has. Rather too many than too few.
fn involved_views<'a>(
    catalog: &'a Catalog,
    tables: &[Arc<TableInfo>],
    names: &BTreeSet<String>,
) -> Vec<&'a Trigger> {
    let named = |view: &str| {
        let mut triggers = tables.iter().flat_map(|table| &table.triggers);
        let mut views = catalog.view_triggers.iter();
        names.contains(view)
            || triggers.any(|trigger| trigger.words.contains(view))
            || views.any(|trigger| trigger.table != view && trigger.words.contains(view))
    };
    let views = catalog.view_triggers.iter();
    views.filter(|trigger| named(&trigger.table)).collect()
}

fn check_table(table: &TableInfo, allowed: &Allowed) -> Result<(), Error> {
    let refuse = |part: String, advice: &str| Error::Table {
        table: format!("main.{}", table.name),
        part,
        advice: advice.to_owned(),
    };
    if let Some((part, advice)) = &table.obstacle {
        return Err(refuse(part.clone(), advice));
    }
    let mut triggers = table.triggers.iter();
    if let Some(trigger) = triggers.find(|t| t.before && !allowed.trigger(table, t)) {
        return Err(refuse(
            format!(
                "its trigger {} runs BEFORE the change, so an undo cannot keep it from running",
                trigger.name
            ),
            "make it an AFTER trigger; or if it only checks values, allow it by allow_trigger",
        ));
    }
    Ok(())
}
