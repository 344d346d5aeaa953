//! Changes rows back.
//!
//! One net change is undone per row, the last one first. What the branch did in
//! between is gone, so a row may meet a unique value that another row still has,
//! or a foreign key whose row is not back yet. Then it all begins anew, with each
//! row tried again until what is in its way has gone.

use sqlx::{Executor as _, PgConnection, Row as _, postgres::PgRow};

use super::{
    PhaseTwoError,
    rows::{Bound, CurrentTable, Step},
};
use crate::{
    at::{image::RowImage, merge::is_undone, table::quote},
    error::sql_state,
};

/// Why rows could not be changed back.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another row is in the way; it may be one that has its turn later.
    InTheWay(PhaseTwoError),
    /// Anything else.
    Final(PhaseTwoError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        // Integrity constraints.
        if sql_state(&error).is_some_and(|state| state.starts_with("23")) {
            Self::InTheWay(error.into())
        } else {
            Self::Final(error.into())
        }
    }
}

impl From<PhaseTwoError> for Failure {
    fn from(error: PhaseTwoError) -> Self {
        Self::Final(error)
    }
}

impl From<Failure> for PhaseTwoError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::InTheWay(error) | Failure::Final(error) => error,
        }
    }
}

/// Applies the steps, which are in the order of their undoing. `patient`: each one
/// in a savepoint of its own, tried again after the others when something is in
/// its way.
pub(super) async fn apply_all(
    connection: &mut PgConnection,
    tables: &mut [CurrentTable],
    mut steps: Vec<Step>,
    forced: bool,
    patient: bool,
) -> Result<(), Failure> {
    if !patient {
        for step in &steps {
            tables[step.table].apply(connection, step, forced).await?;
        }
        return Ok(());
    }
    while !steps.is_empty() {
        let before = steps.len();
        let mut first = None;
        let mut left = Vec::new();
        for step in steps {
            let table = &tables[step.table];
            connection.execute("SAVEPOINT accede_step").await?;
            match table.apply(connection, &step, forced).await {
                Ok(()) => connection.execute("RELEASE accede_step").await?,
                Err(Failure::InTheWay(error)) => {
                    first.get_or_insert(error);
                    left.push(step);
                    connection.execute("ROLLBACK TO accede_step").await?
                }
                Err(failure) => return Err(failure),
            };
        }
        if let Some(error) = first
            && left.len() == before
            && !park_one(connection, tables, &mut left).await?
        {
            return Err(Failure::InTheWay(error));
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
    connection: &mut PgConnection,
    tables: &mut [CurrentTable],
    steps: &mut [Step],
) -> Result<bool, Failure> {
    for step in steps {
        let (Some(current), Some(_)) = (&step.current, &step.target) else {
            continue;
        };
        let table = &mut tables[step.table];
        table.read_cascades(connection).await?;
        connection.execute("SAVEPOINT accede_step").await?;
        match table.delete(connection, current).await {
            Ok(()) => {
                connection.execute("RELEASE accede_step").await?;
                step.current = None;
                return Ok(true);
            }
            Err(Failure::InTheWay(_)) => {
                connection.execute("ROLLBACK TO accede_step").await?;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(false)
}

/// A row as an undo made it, and the text of its columns that the images do not have.
pub(super) type Restored = (RowImage, Option<String>);

impl CurrentTable {
    async fn apply(
        &self,
        connection: &mut PgConnection,
        step: &Step,
        forced: bool,
    ) -> Result<(), Failure> {
        let restored = match (&step.current, &step.target) {
            (None, None) => return Ok(()),
            (Some(current), None) => return self.delete(connection, current).await,
            (Some(current), Some(before)) => self.update(connection, current, before).await?,
            (None, Some(before)) => self.insert(connection, step, before).await?,
        };
        let was = step.rest.as_ref().map(|rest| rest.columns.as_str());
        let as_wanted = match (&restored, &step.target) {
            (Some(restored), Some(wanted)) => self.is_as_wanted(wanted, was, restored),
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

    /// Whether an undone row is as it should be, and nothing touched what the images do not have,
    /// which `was` so before.
    pub(super) fn is_as_wanted(
        &self,
        wanted: &RowImage,
        was: Option<&str>,
        (got, rest): &Restored,
    ) -> bool {
        let touched = matches!((was, rest), (Some(was), Some(now)) if was != now);
        !touched && is_undone(&self.undo.columns, wanted, got)
    }

    async fn update(
        &self,
        connection: &mut PgConnection,
        current: &RowImage,
        before: &RowImage,
    ) -> Result<Option<Restored>, Failure> {
        let mut bound = Bound { values: Vec::new() };
        let mut assignments = Vec::new();
        for (position, column) in self.undo.columns.iter().enumerate() {
            if !column.generated && current.values[position] != before.values[position] {
                let parameter = bound.add(column, &before.values[position]);
                assignments.push(format!("{} = {parameter}", quote(&column.name)));
            }
        }
        if assignments.is_empty() {
            return Ok(Some((current.clone(), None)));
        }
        let condition = self.key_condition(&mut bound, current);
        let sql = format!(
            "UPDATE {} SET {} WHERE {condition} RETURNING {}, {}",
            self.name,
            assignments.join(", "),
            self.image_output(),
            self.rest_output(),
        );
        let row = bound.query(sql).fetch_optional(connection).await?;
        Ok(row.map(|row| self.restored(&row)).transpose()?)
    }

    pub(super) fn restored(&self, row: &PgRow) -> Result<Restored, PhaseTwoError> {
        Ok((self.image(row)?, row.try_get(1)?))
    }

    async fn insert(
        &self,
        connection: &mut PgConnection,
        step: &Step,
        before: &RowImage,
    ) -> Result<Option<Restored>, Failure> {
        if self.is_lost(step) {
            return Err(PhaseTwoError::stuck(format!(
                "a row of {} that the branch changed is gone, and the undo record holds only some \
                 of its columns; restore it by hand, then repair with accept",
                self.name
            ))
            .into());
        }
        let mut bound = Bound { values: Vec::new() };
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (position, column) in self.undo.columns.iter().enumerate() {
            if !column.generated {
                names.push(quote(&column.name));
                values.push(bound.add(column, &before.values[position]));
            }
        }
        let number = bound.values.len() + 1;
        if step.rest.is_some() {
            // It had left for a moment, and comes back with all that it held.
            for name in self.unrecorded().map(quote) {
                values.push(format!("(accede_row).{name}"));
                names.push(name);
            }
        }
        let from = match step.rest {
            Some(_) => format!(
                " FROM (SELECT ${number}::text::{} AS accede_row) x",
                self.name
            ),
            None => String::new(),
        };
        let sql = format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {}{from} RETURNING {}, {}",
            self.name,
            names.join(", "),
            values.join(", "),
            self.image_output(),
            self.rest_output(),
        );
        let mut query = bound.query(sql);
        if let Some(rest) = &step.rest {
            query = query.bind(rest.row.clone());
        }
        let row = query.fetch_optional(connection).await?;
        Ok(row.map(|row| self.restored(&row)).transpose()?)
    }

    /// The row is locked, so no new row can come to reference it meanwhile.
    async fn delete(
        &self,
        connection: &mut PgConnection,
        current: &RowImage,
    ) -> Result<(), Failure> {
        for cascade in self.cascades() {
            let mut bound = Bound { values: Vec::new() };
            let terms: Vec<String> = cascade
                .columns
                .iter()
                .zip(&cascade.child_columns)
                .map(|(&position, child)| {
                    let column = &self.undo.columns[position];
                    let parameter = bound.add(column, &current.values[position]);
                    format!("{} = {parameter}", quote(child))
                })
                .collect();
            let sql = format!(
                "SELECT FROM {} WHERE {} LIMIT 1",
                cascade.child,
                terms.join(" AND ")
            );
            if bound
                .query(sql)
                .fetch_optional(&mut *connection)
                .await?
                .is_some()
            {
                return Err(Failure::InTheWay(PhaseTwoError::stuck(format!(
                    "rows of {} reference a row of {} that the branch inserted, and the foreign \
                     key {} would change them when it is deleted; remove them and repair with \
                     retry, or accept the rows",
                    cascade.child, self.name, cascade.constraint
                ))));
            }
        }
        let mut bound = Bound { values: Vec::new() };
        let condition = self.key_condition(&mut bound, current);
        let sql = format!("DELETE FROM {} WHERE {condition}", self.name);
        bound.query(sql).execute(connection).await?;
        Ok(())
    }
}
