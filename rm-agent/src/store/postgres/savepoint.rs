//! Savepoints inside a local transaction.

use futures_util::stream::BoxStream;
use sqlx::{Executor as _, PgConnection, postgres::PgQueryResult};

use super::{
    executor::Statement,
    transaction::{AtTransaction, Step},
};
use crate::at::{savepoint::SavepointCommand, table::quote};

/// The SQL of a command.
pub(super) fn text(command: &SavepointCommand) -> String {
    match command {
        SavepointCommand::Set(name) => format!("SAVEPOINT {}", quote(name)),
        SavepointCommand::RollBackTo(name) => format!("ROLLBACK TO {}", quote(name)),
        SavepointCommand::Release(name) => format!("RELEASE {}", quote(name)),
    }
}

/// A part of an [`AtTransaction`] that can be rolled back alone. Made by
/// [`AtTransaction::begin`].
///
/// Statements run on it as they run on the transaction. Rolling it back drops what
/// the branch recorded since: images and row locks. It also makes a transaction
/// usable again in which a statement failed after the savepoint. Dropping it rolls
/// it back before the transaction does anything else.
#[derive(Debug)]
pub struct AtSavepoint<'t> {
    transaction: &'t mut AtTransaction,
    name: String,
    /// How many savepoints are around it.
    depth: usize,
    ended: bool,
}

impl Drop for AtSavepoint<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.transaction.savepoints().drop_from(self.depth);
        }
    }
}

impl AtTransaction {
    /// Opens a savepoint: a part of this transaction that can be rolled back alone.
    ///
    /// # Errors
    /// When the transaction cannot go on, or the connection broke.
    pub async fn begin(&mut self) -> Result<AtSavepoint<'_>, sqlx::Error> {
        self.roll_back_dropped().await?;
        let depth = self.savepoints().depth();
        // Users' names cannot begin like this.
        let name = format!("accede_savepoint_{depth}");
        self.run_savepoint(SavepointCommand::Set(name.clone()))
            .await?;
        Ok(AtSavepoint {
            transaction: self,
            name,
            depth,
            ended: false,
        })
    }
}

impl AtSavepoint<'_> {
    /// Keeps what was done since, as a part of the transaction.
    ///
    /// # Errors
    /// When the transaction cannot go on, or the connection broke.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.transaction.roll_back_dropped().await?;
        let release = SavepointCommand::Release(self.name.clone());
        self.transaction.run_savepoint(release).await?;
        self.ended = true;
        Ok(())
    }

    /// Rolls back what was done since; the transaction goes on.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        self.ended = true;
        self.transaction.savepoints().drop_from(self.depth);
        self.transaction.roll_back_dropped().await
    }

    /// Opens a savepoint inside this one.
    ///
    /// # Errors
    /// When the transaction cannot go on, or the connection broke.
    pub async fn begin(&mut self) -> Result<AtSavepoint<'_>, sqlx::Error> {
        self.transaction.begin().await
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.transaction.connection()
    }

    pub(super) async fn start<'c>(
        &'c mut self,
        statement: Statement,
    ) -> Result<BoxStream<'c, Result<Step, sqlx::Error>>, sqlx::Error> {
        self.transaction.start(statement).await
    }
}

/// Sends a command.
pub(super) async fn send(
    connection: &mut PgConnection,
    command: &SavepointCommand,
) -> Result<PgQueryResult, sqlx::Error> {
    let query = sqlx::raw_sql(sqlx::AssertSqlSafe(text(command)));
    connection.execute(query).await
}
