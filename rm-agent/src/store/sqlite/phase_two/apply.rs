//! Changes rows back.
//!
//! One net change is undone per row, the last one first. What the branch did in
//! between is gone, so a row may meet a unique value that another row still has: it is
//! tried again after the others. Foreign keys are looked at in the end; meanwhile these
//! connections do not enforce them.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Row as _, SqliteConnection, sqlite::SqliteArguments};

use super::{
    super::{
        NOT_UNIQUE, error_number,
        rows::{self, bind, key_condition},
    },
    PhaseTwoError, failure,
    rows::{CurrentTable, Step},
};
use crate::at::{image::RowImage, merge::is_undone};

/// Why a row could not be changed back.
enum Failure {
    /// Another row is in the way; it may be one that has its turn later.
    InTheWay(PhaseTwoError),
    /// Anything else.
    Final(PhaseTwoError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match error_number(&error) {
            Some(number) if NOT_UNIQUE.contains(&number) => Self::InTheWay(failure(&error)),
            _ => Self::Final(failure(&error)),
        }
    }
}

impl From<PhaseTwoError> for Failure {
    fn from(error: PhaseTwoError) -> Self {
        Self::Final(error)
    }
}

/// What keeps the application's AFTER triggers from running on this connection.
pub(super) struct Quieted(Vec<String>);

/// Keeps the triggers of these tables from running: what they wrote when the branch ran
/// is undone as rows of its own. A temporary trigger comes first, and ends the work on
/// the row without taking the change back. That it does is seen from what each
/// statement changes.
pub(super) async fn quiet(
    connection: &mut SqliteConnection,
    tables: &[CurrentTable],
) -> Result<Quieted, PhaseTwoError> {
    let mut quieted = Vec::new();
    let mut script = String::new();
    for table in tables
        .iter()
        .filter(|table| !table.table.triggers.is_empty())
    {
        for event in ["INSERT", "UPDATE", "DELETE"] {
            let name = format!("accede_quiet_{}_{event}", table.table.root);
            let _ = writeln!(
                script,
                "CREATE TEMP TRIGGER {name} AFTER {event} ON {} \
                 BEGIN SELECT RAISE(IGNORE); END;",
                table.name
            );
            quieted.push(name);
        }
    }
    run(connection, script).await?;
    Ok(Quieted(quieted))
}

async fn run(connection: &mut SqliteConnection, script: String) -> Result<(), PhaseTwoError> {
    sqlx::raw_sql(AssertSqlSafe(script))
        .execute(connection)
        .await
        .map(drop)
        .map_err(|error| failure(&error))
}

impl Quieted {
    /// Lets them run again.
    pub(super) async fn end(self, connection: &mut SqliteConnection) -> Result<(), PhaseTwoError> {
        let drops = self
            .0
            .iter()
            .map(|name| format!("DROP TRIGGER temp.{name};\n"));
        run(connection, drops.collect()).await
    }
}

/// Applies the steps, which are in the order of their undoing. A statement that fails
/// leaves nothing behind, so each is tried again until what is in its way has gone.
pub(super) async fn apply_all(
    connection: &mut SqliteConnection,
    tables: &[CurrentTable],
    mut steps: Vec<Step>,
    forced: bool,
) -> Result<(), PhaseTwoError> {
    while !steps.is_empty() {
        let before = steps.len();
        let mut first = None;
        let mut left = Vec::new();
        for step in steps {
            match tables[step.table].apply(connection, &step, forced).await {
                Ok(()) => {}
                Err(Failure::InTheWay(error)) => {
                    first.get_or_insert(error);
                    left.push(step);
                }
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        if let Some(error) = first
            && left.len() == before
            && !park_one(connection, tables, &mut left).await?
        {
            return Err(error);
        }
        // What one row waits for often stands right behind it.
        left.reverse();
        steps = left;
    }
    Ok(())
}

/// Rows that exchanged unique values block each other. One can leave, and come back as
/// a new row with the same values.
async fn park_one(
    connection: &mut SqliteConnection,
    tables: &[CurrentTable],
    steps: &mut [Step],
) -> Result<bool, PhaseTwoError> {
    for step in steps {
        let (Some(current), Some(_)) = (&step.current, &step.target) else {
            continue;
        };
        let table = &tables[step.table];
        // It would come back without what its new columns hold.
        if table.has_new_columns {
            continue;
        }
        match table.delete(connection, current).await {
            Ok(()) => {
                step.current = None;
                return Ok(true);
            }
            Err(Failure::InTheWay(_)) => {}
            Err(Failure::Final(error)) => return Err(error),
        }
    }
    Ok(false)
}

impl CurrentTable {
    async fn apply(
        &self,
        connection: &mut SqliteConnection,
        step: &Step,
        forced: bool,
    ) -> Result<(), Failure> {
        match (&step.current, &step.target) {
            (None, None) => return Ok(()),
            (Some(current), None) => self.delete(connection, current).await?,
            (Some(current), Some(target)) => self.update(connection, current, target).await?,
            (None, Some(target)) => self.insert(connection, target).await?,
        }
        let Some(image) = step.target.as_ref().or(step.current.as_ref()) else {
            return Ok(());
        };
        let got = self.read(connection, image).await?;
        let as_wanted = match (&step.target, &got) {
            (None, None) => true,
            (Some(target), Some(got)) => is_undone(&self.undo.columns, target, got),
            _ => false,
        };
        if as_wanted || forced {
            return Ok(());
        }
        Err(PhaseTwoError::stuck(format!(
            "a row of {} is not as before after its undo: a trigger or a generated column made \
             it different; drop the trigger and repair with retry, or accept the rows",
            self.name
        ))
        .into())
    }

    /// The columns that can be written.
    fn written(&self) -> impl Iterator<Item = usize> {
        (0..self.undo.columns.len()).filter(|&position| !self.undo.columns[position].generated)
    }

    /// Runs a statement that changes this one row and no other.
    async fn execute(
        &self,
        connection: &mut SqliteConnection,
        sql: String,
        arguments: SqliteArguments,
    ) -> Result<(), Failure> {
        let before = total_changes(connection).await?;
        sqlx::query_with(AssertSqlSafe(sql), arguments)
            .execute(&mut *connection)
            .await?;
        let changed = total_changes(connection).await? - before;
        if changed == 1 {
            return Ok(());
        }
        Err(PhaseTwoError::stuck(format!(
            "undoing one row of {} changes {changed} rows, by a trigger; drop the trigger and \
             repair with retry, or restore the rows by hand and accept",
            self.name
        ))
        .into())
    }

    async fn update(
        &self,
        connection: &mut SqliteConnection,
        current: &RowImage,
        target: &RowImage,
    ) -> Result<(), Failure> {
        let mut arguments = SqliteArguments::default();
        let mut assignments = Vec::new();
        for position in self.written() {
            let value = bind(&mut arguments, &target.values[position])?;
            let name = rows::name(&self.table, position);
            assignments.push(format!("{name} = {value}"));
        }
        let key = self.table.key_of(current);
        let condition = key_condition(&self.table, &key, &mut arguments)?;
        let sql = format!(
            "UPDATE OR ABORT {} SET {} WHERE {condition}",
            self.name,
            assignments.join(", "),
        );
        self.execute(connection, sql, arguments).await
    }

    async fn insert(
        &self,
        connection: &mut SqliteConnection,
        target: &RowImage,
    ) -> Result<(), Failure> {
        let mut arguments = SqliteArguments::default();
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for position in self.written() {
            values.push(bind(&mut arguments, &target.values[position])?);
            names.push(rows::name(&self.table, position));
        }
        // Whatever the constraints would do by themselves: no other row goes.
        let sql = format!(
            "INSERT OR ABORT INTO {} ({}) VALUES ({})",
            self.name,
            names.join(", "),
            values.join(", ")
        );
        self.execute(connection, sql, arguments).await
    }

    async fn delete(
        &self,
        connection: &mut SqliteConnection,
        current: &RowImage,
    ) -> Result<(), Failure> {
        let mut arguments = SqliteArguments::default();
        let key = self.table.key_of(current);
        let condition = key_condition(&self.table, &key, &mut arguments)?;
        let sql = format!("DELETE FROM {} WHERE {condition}", self.name);
        self.execute(connection, sql, arguments).await
    }
}

async fn total_changes(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query("SELECT total_changes()")
        .fetch_one(connection)
        .await?
        .try_get(0)
}
