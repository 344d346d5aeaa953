//! Changes rows back.
//!
//! One net change is undone per row, the last one first. What the branch did in
//! between is gone, so a row may meet a unique value that another row still has, or a
//! foreign key whose row is not back yet: it is tried again after the others.

use sqlx::{Executor as _, MySqlConnection, mysql::MySqlArguments};

use super::{
    super::{error_number, executor::Statement, images, keys::RowKeys, plan::Planner},
    PhaseTwoError, failure,
    rows::Step,
    table::{CurrentTable, Found},
};
use crate::at::{
    image::RowImage,
    merge::is_undone,
    mysql::quote,
    table::{IncomingKey, ReferentialAction},
};

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
    planner: &Planner,
    tables: &mut [CurrentTable],
    steps: Vec<Step>,
    forced: bool,
) -> Result<(), PhaseTwoError> {
    let (mut waiting, mut done) = (steps, Vec::new());
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut first = None;
        let mut left = Vec::new();
        for step in waiting {
            match tables[step.table].apply(connection, &step).await {
                Ok(()) => done.push(step),
                Err(Failure::InTheWay(error)) => {
                    first.get_or_insert(error);
                    left.push(step);
                }
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        if let Some(error) = first
            && left.len() == before
            && !park_one(connection, planner, tables, &mut left).await?
        {
            return Err(error);
        }
        // What one row waits for often stands right behind it.
        left.reverse();
        waiting = left;
    }
    for (position, table) in tables.iter().enumerate() {
        let steps = done.iter().filter(|step| step.table == position);
        table.check(connection, steps, forced).await?;
    }
    Ok(())
}

/// Rows that exchanged unique values block each other. One that nothing references
/// can leave, and come back as a new row with the same bytes.
async fn park_one(
    connection: &mut MySqlConnection,
    planner: &Planner,
    tables: &mut [CurrentTable],
    steps: &mut [Step],
) -> Result<bool, PhaseTwoError> {
    for step in steps {
        let (Some(current), Some(_)) = (&step.current, &step.target) else {
            continue;
        };
        let table = &mut tables[step.table];
        // It would come back without what those columns hold.
        if table.has_unknown() {
            continue;
        }
        table.read_incoming(connection, planner).await?;
        match table.delete(connection, current).await {
            Ok(()) => {
                step.parked = step.current.take();
                return Ok(true);
            }
            Err(Failure::InTheWay(_)) => {}
            Err(Failure::Final(error)) => return Err(error),
        }
    }
    Ok(false)
}

impl CurrentTable {
    async fn apply(&self, connection: &mut MySqlConnection, step: &Step) -> Result<(), Failure> {
        match (&step.current, &step.target) {
            (None, None) => Ok(()),
            (Some(current), None) => self.delete(connection, current).await,
            (Some(current), Some(target)) => self.update(connection, current, target).await,
            (None, Some(target)) => self.insert(connection, step, target).await,
        }
    }

    /// Whether all rows are as they should be.
    async fn check(
        &self,
        connection: &mut MySqlConnection,
        steps: impl Iterator<Item = &Step> + Clone,
        forced: bool,
    ) -> Result<(), PhaseTwoError> {
        let images = steps.clone().filter_map(|step| {
            let current = step.current.as_ref().map(|found| &found.image);
            step.target.as_ref().or(current)
        });
        let images: Vec<&RowImage> = images.collect();
        let found = self.read_rows(connection, &images).await?;
        for step in steps {
            let Some(target) = &step.target else {
                let gone = step.current.as_ref().is_none_or(|current| {
                    let found = found.get(&self.key_of(&current.image));
                    found.is_none_or(|found| found.image != current.image)
                });
                if gone {
                    continue;
                }
                let reason = format!("a row of {} is still there after its undo", self.name);
                return Err(PhaseTwoError::stuck(reason));
            };
            let was = step.current.as_ref().or(step.parked.as_ref());
            let as_wanted = found.get(&self.key_of(target)).is_some_and(|got| {
                let touched = was.is_some_and(|was| was.rest != got.rest);
                !touched && is_undone(&self.undo.columns, target, &got.image)
            });
            if !as_wanted && !forced {
                return Err(PhaseTwoError::stuck(format!(
                    "a row of {} is not as before after its undo: a trigger or a generated \
                     column made it different; switch the trigger off and repair with retry, or \
                     accept the rows",
                    self.name
                )));
            }
        }
        Ok(())
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

    /// Assigns every column that the images have, and those to themselves that would get a
    /// value from `ON UPDATE CURRENT_TIMESTAMP`.
    async fn update(
        &self,
        connection: &mut MySqlConnection,
        current: &Found,
        target: &RowImage,
    ) -> Result<(), Failure> {
        let changes = |key: &&IncomingKey| {
            let mut columns = key.columns.iter();
            matches!(key.on_update, ReferentialAction::Change(_))
                && columns.any(|&p| {
                    target
                        .values
                        .get(p)
                        .is_some_and(|new| new != current.value(p))
                })
        };
        self.check_references(connection, current, changes, "updated")
            .await?;
        let mut arguments = MySqlArguments::default();
        let mut assignments = Vec::new();
        for position in self.written() {
            let column = &self.undo.columns[position];
            images::bind(&mut arguments, column.type_oid, &target.values[position])?;
            assignments.push(format!("{} = ?", quote(&column.name)));
        }
        for name in self.set_on_update() {
            let mut columns = self.undo.columns.iter();
            if columns.all(|column| *column.name != *name) {
                assignments.push(format!("{0} = {0}", quote(name)));
            }
        }
        let row = [&current.image];
        let keys = RowKeys::of(self.table(), &row);
        keys.bind(&mut arguments)?;
        let sql = format!(
            "UPDATE {} SET {} WHERE {}",
            self.name,
            assignments.join(", "),
            keys.condition(None)
        );
        self.execute(connection, sql, arguments).await
    }

    async fn insert(
        &self,
        connection: &mut MySqlConnection,
        step: &Step,
        target: &RowImage,
    ) -> Result<(), Failure> {
        if self.is_lost(step) {
            return Err(PhaseTwoError::stuck(format!(
                "a row of {} that the branch changed is gone, and the undo record holds only some \
                 of its columns; restore it by hand, then repair with accept",
                self.name
            ))
            .into());
        }
        let recorded = self.written().map(|position| {
            let column = &self.undo.columns[position];
            (&column.name, column.type_oid, &target.values[position])
        });
        let parked = step.parked.iter().flat_map(|row| &row.rest);
        let rest = self.rest().iter().zip(parked);
        let rest = rest.map(|(column, value)| (&column.name, column.type_oid, value));
        let mut arguments = MySqlArguments::default();
        let mut names = Vec::new();
        for (name, type_oid, value) in recorded.chain(rest) {
            images::bind(&mut arguments, type_oid, value)?;
            names.push(quote(name));
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
        current: &Found,
    ) -> Result<(), Failure> {
        let changes = |key: &&IncomingKey| matches!(key.on_delete, ReferentialAction::Change(_));
        self.check_references(connection, current, changes, "deleted")
            .await?;
        let mut arguments = MySqlArguments::default();
        let row = [&current.image];
        let keys = RowKeys::of(self.table(), &row);
        keys.bind(&mut arguments)?;
        let sql = format!("DELETE FROM {} WHERE {}", self.name, keys.condition(None));
        self.execute(connection, sql, arguments).await
    }

    /// Whether rows reference this one by a foreign key that would change them.
    async fn check_references(
        &self,
        connection: &mut MySqlConnection,
        current: &Found,
        would_change: impl Fn(&&IncomingKey) -> bool,
        when: &str,
    ) -> Result<(), Failure> {
        for key in self.incoming().iter().filter(would_change) {
            if key.columns.iter().any(|&p| current.value(p).is_none()) {
                continue;
            }
            let mut arguments = MySqlArguments::default();
            let mut terms = Vec::new();
            for (&position, child) in key.columns.iter().zip(&key.child_columns) {
                let type_oid = self.table().columns[position].type_oid;
                images::bind(&mut arguments, type_oid, current.value(position))?;
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
                    "rows of {} reference a row of {} that the branch wrote, and the foreign \
                     key {} would change them when it is {when}; remove them and repair with \
                     retry, or accept the rows",
                    key.child, self.name, key.constraint
                ))));
            }
        }
        Ok(())
    }
}
