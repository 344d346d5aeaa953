//! Changes rows back.
//!
//! One net change is undone per row, the last one first. What the branch did in
//! between is gone, so a row may meet a unique value that another row still has, or a
//! foreign key whose row is not back yet: it is tried again after the others.

use sqlx::{Executor as _, MySqlConnection, mysql::MySqlArguments};

use super::{
    super::{error_number, executor::Statement, images},
    PhaseTwoError, failure,
    rows::{CurrentTable, Step},
};
use crate::at::{image::RowImage, merge::is_undone, mysql::quote};

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
            // A unique value, a foreign key on either side.
            Some(1062 | 1216 | 1217 | 1451 | 1452) => Self::InTheWay(failure(&error)),
            _ => Self::Final(failure(&error)),
        }
    }
}

impl From<PhaseTwoError> for Failure {
    fn from(error: PhaseTwoError) -> Self {
        Self::Final(error)
    }
}

/// Applies the steps, which are in the order of their undoing. A statement that fails
/// leaves nothing behind, so each is tried again until what is in its way has gone.
pub(super) async fn apply_all(
    connection: &mut MySqlConnection,
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

/// Rows that exchanged unique values block each other. One that nothing references
/// can leave, and come back as a new row with the same bytes.
async fn park_one(
    connection: &mut MySqlConnection,
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
        connection: &mut MySqlConnection,
        step: &Step,
        forced: bool,
    ) -> Result<(), Failure> {
        let Some(target) = &step.target else {
            let Some(current) = &step.current else {
                return Ok(());
            };
            self.delete(connection, current).await?;
            let left = self
                .read_rows(connection, std::slice::from_ref(current))
                .await?;
            if left.contains(current) {
                let reason = format!("a row of {} is still there after its undo", self.name);
                return Err(PhaseTwoError::stuck(reason).into());
            }
            return Ok(());
        };
        match &step.current {
            Some(current) => self.update(connection, current, target).await?,
            None => self.insert(connection, target).await?,
        }
        let rows = self
            .read_rows(connection, std::slice::from_ref(target))
            .await?;
        let as_wanted = match rows.as_slice() {
            [got] => is_undone(&self.undo.columns, target, got),
            _ => false,
        };
        if as_wanted || forced {
            return Ok(());
        }
        Err(PhaseTwoError::stuck(format!(
            "a row of {} is not as before after its undo: a trigger or a generated column made \
             it different; switch the trigger off and repair with retry, or accept the rows",
            self.name
        ))
        .into())
    }

    /// The columns that can be written.
    fn written(&self) -> impl Iterator<Item = usize> {
        (0..self.undo.columns.len()).filter(|&position| !self.undo.columns[position].generated)
    }

    /// Runs a statement that changes this one row.
    async fn execute(
        &self,
        connection: &mut MySqlConnection,
        sql: String,
        arguments: MySqlArguments,
    ) -> Result<(), Failure> {
        let done = connection.execute(Statement::own(sql, arguments)).await?;
        if done.rows_affected() == 1 {
            return Ok(());
        }
        Err(PhaseTwoError::stuck(format!(
            "undoing one row of {} changed {} rows; restore them by hand, then repair with accept",
            self.name,
            done.rows_affected()
        ))
        .into())
    }

    /// Assigns every column, so that `ON UPDATE CURRENT_TIMESTAMP` assigns none.
    async fn update(
        &self,
        connection: &mut MySqlConnection,
        current: &RowImage,
        target: &RowImage,
    ) -> Result<(), Failure> {
        let mut arguments = MySqlArguments::default();
        let mut assignments = Vec::new();
        for position in self.written() {
            let column = &self.undo.columns[position];
            images::bind(&mut arguments, column.type_oid, &target.values[position])?;
            assignments.push(format!("{} = ?", quote(&column.name)));
        }
        images::bind_keys(
            &mut arguments,
            &self.table,
            std::slice::from_ref(current),
            1,
        )?;
        let sql = format!(
            "UPDATE {} SET {} WHERE {}",
            self.name,
            assignments.join(", "),
            images::key_condition(&images::key_columns(&self.table), 1)
        );
        self.execute(connection, sql, arguments).await
    }

    async fn insert(
        &self,
        connection: &mut MySqlConnection,
        target: &RowImage,
    ) -> Result<(), Failure> {
        let mut arguments = MySqlArguments::default();
        let mut names = Vec::new();
        for position in self.written() {
            let column = &self.undo.columns[position];
            images::bind(&mut arguments, column.type_oid, &target.values[position])?;
            names.push(quote(&column.name));
        }
        let sql = format!(
            "INSERT INTO {} ({}) VALUES ({})",
            self.name,
            names.join(", "),
            vec!["?"; names.len()].join(", ")
        );
        self.execute(connection, sql, arguments).await
    }

    async fn delete(
        &self,
        connection: &mut MySqlConnection,
        current: &RowImage,
    ) -> Result<(), Failure> {
        for key in &self.table.incoming {
            let values: Vec<_> = key.columns.iter().map(|&p| &current.values[p]).collect();
            if values.iter().any(|value| value.is_none()) {
                continue;
            }
            let mut arguments = MySqlArguments::default();
            let mut terms = Vec::new();
            for (&position, child) in key.columns.iter().zip(&key.child_columns) {
                let column = &self.undo.columns[position];
                images::bind(&mut arguments, column.type_oid, &current.values[position])?;
                terms.push(format!("{} = ?", quote(child)));
            }
            let sql = format!(
                "SELECT 1 FROM {} WHERE {} LIMIT 1 FOR UPDATE",
                key.child,
                terms.join(" AND ")
            );
            let referencing = connection
                .fetch_optional(Statement::own(sql, arguments))
                .await?;
            if referencing.is_some() {
                return Err(Failure::InTheWay(PhaseTwoError::stuck(format!(
                    "rows of {} reference a row of {} that the branch inserted, and the foreign \
                     key {} would change them when it is deleted; remove them and repair with \
                     retry, or accept the rows",
                    key.child, self.name, key.constraint
                ))));
            }
        }
        let mut arguments = MySqlArguments::default();
        images::bind_keys(
            &mut arguments,
            &self.table,
            std::slice::from_ref(current),
            1,
        )?;
        let sql = format!(
            "DELETE FROM {} WHERE {}",
            self.name,
            images::key_condition(&images::key_columns(&self.table), 1)
        );
        self.execute(connection, sql, arguments).await
    }
}
