//! Foreign keys after an undo: no row may reference what is not there any more.
//!
//! The connections that finish branches do not enforce foreign keys, because an undo goes
//! through states that break them, and must never change rows of others by CASCADE or
//! SET NULL. What it could have broken is looked at in the end.

use sqlx::{AssertSqlSafe, SqliteConnection, sqlite::SqliteArguments};

use super::{
    super::rows::{self, bind, key_condition},
    PhaseTwoError, failure,
    rows::{CurrentTable, Step},
};
use crate::at::image::RowImage;

/// Remembers, for these connections, whether the application's enforce foreign keys.
pub(in crate::store::sqlite) const SETTINGS: &str = "\
CREATE TEMP TABLE accede_settings AS SELECT foreign_keys FROM pragma_foreign_keys;
PRAGMA foreign_keys = OFF;";

/// Queries that find nothing if all references hold.
pub(super) struct References(Vec<Query>);

struct Query {
    sql: String,
    arguments: SqliteArguments,
    reason: String,
}

impl References {
    /// What these steps may break.
    pub(super) async fn of(
        connection: &mut SqliteConnection,
        tables: &[CurrentTable],
        steps: &[Step],
    ) -> Result<Self, PhaseTwoError> {
        let enforced: i64 = sqlx::query_scalar("SELECT foreign_keys FROM temp.accede_settings")
            .fetch_one(connection)
            .await
            .map_err(|error| failure(&error))?;
        let mut queries = Vec::new();
        if enforced == 1 {
            for step in steps {
                let table = &tables[step.table];
                let (current, target) = (step.current.as_ref(), step.target.as_ref());
                let found = table
                    .left_behind(current, target)
                    .and_then(|left| Ok((left, table.without_parent(current, target)?)));
                let (left, without) = found.map_err(|error| failure(&error))?;
                queries.extend(left);
                queries.extend(without);
            }
        }
        Ok(Self(queries))
    }

    /// Looks whether they hold.
    pub(super) async fn check(
        self,
        connection: &mut SqliteConnection,
    ) -> Result<(), PhaseTwoError> {
        for query in self.0 {
            let found = sqlx::query_with(AssertSqlSafe(query.sql), query.arguments)
                .fetch_optional(&mut *connection)
                .await
                .map_err(|error| failure(&error))?;
            if found.is_some() {
                return Err(PhaseTwoError::stuck(query.reason));
            }
        }
        Ok(())
    }
}

/// Whether these columns of the one row have values that the other one does not have.
fn differs(columns: &[usize], one: &RowImage, other: Option<&RowImage>) -> bool {
    let has_all = columns
        .iter()
        .all(|&position| one.values[position].is_some());
    let same = |other: &RowImage| columns.iter().all(|&p| one.values[p] == other.values[p]);
    has_all && !other.is_some_and(same)
}

impl CurrentTable {
    /// Rows that reference what the row is now and will not be.
    fn left_behind(
        &self,
        current: Option<&RowImage>,
        target: Option<&RowImage>,
    ) -> Result<Vec<Query>, sqlx::Error> {
        let mut queries = Vec::new();
        for reference in &self.table.incoming {
            let Some(current) = current.filter(|c| differs(&reference.columns, c, target)) else {
                continue;
            };
            let mut arguments = SqliteArguments::default();
            let (mut values, mut same) = (Vec::new(), Vec::new());
            let columns = reference.columns.iter().zip(&reference.child_columns);
            for ((&position, child), collation) in columns.zip(&reference.collations) {
                let value = bind(&mut arguments, &current.values[position])?;
                values.push(format!("c.{child} = {value} COLLATE {}", collation.name()));
                // The type and collation of the referenced column decide.
                same.push(format!(
                    "p.{} = c.{child}",
                    rows::name(&self.table, position)
                ));
            }
            queries.push(Query {
                sql: format!(
                    "SELECT 1 FROM {} c WHERE {} AND NOT EXISTS (SELECT 1 FROM {} p WHERE {}) LIMIT 1",
                    reference.child,
                    values.join(" AND "),
                    self.name,
                    same.join(" AND ")
                ),
                arguments,
                reason: format!(
                    "rows of {} reference a row of {} that the branch made; remove them and \
                     repair with retry, or accept the rows",
                    reference.child, self.name
                ),
            });
        }
        Ok(queries)
    }

    /// Whether the row will reference one that is not there.
    fn without_parent(
        &self,
        current: Option<&RowImage>,
        target: Option<&RowImage>,
    ) -> Result<Vec<Query>, sqlx::Error> {
        let mut queries = Vec::new();
        for reference in &self.table.outgoing {
            let Some(target) = target.filter(|t| differs(&reference.columns, t, current)) else {
                continue;
            };
            let mut arguments = SqliteArguments::default();
            let key = self.table.key_of(target);
            let condition = key_condition(&self.table, &key, &mut arguments)?;
            let columns = reference.columns.iter().zip(&reference.parent_columns);
            let same: Vec<String> = columns
                .map(|(&child, parent)| {
                    format!("p.{parent} = c.{}", rows::name(&self.table, child))
                })
                .collect();
            queries.push(Query {
                sql: format!(
                    "SELECT 1 FROM {} c WHERE {condition} \
                     AND NOT EXISTS (SELECT 1 FROM {} p WHERE {})",
                    self.name,
                    reference.parent,
                    same.join(" AND ")
                ),
                arguments,
                reason: format!(
                    "a row of {} would come back without the row of {} that it references; bring \
                     that back and repair with retry, or accept the rows",
                    self.name, reference.parent
                ),
            });
        }
        Ok(queries)
    }
}
