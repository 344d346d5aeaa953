//! A pool's connection that is never reused with a transaction left open.

use sqlx::{Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};

use crate::limits;

/// Ends a transaction. Fails if the database has ended it by itself already; then the connection is
/// closed.
const ROLLBACK: &str = "ROLLBACK";

/// A connection on loan. Unless it was marked clean when it is dropped, it is
/// closed instead of going back to the pool.
#[derive(Debug)]
pub(super) struct Held {
    connection: Option<PoolConnection<Sqlite>>,
    clean: bool,
    /// A setting is not as it was.
    spoilt: bool,
}

impl Held {
    pub(super) fn new(connection: PoolConnection<Sqlite>) -> Self {
        Self {
            connection: Some(connection),
            clean: true,
            spoilt: false,
        }
    }

    /// The connection itself.
    pub(super) fn get(&mut self) -> &mut SqliteConnection {
        self.connection
            .as_mut()
            .expect("after `drop`, `abandon` or a failed `renew` nobody asks")
    }

    /// From now on there may be an open transaction.
    pub(super) fn soil(&mut self) {
        self.clean = false;
    }

    /// There certainly is no open transaction.
    pub(super) fn clean(&mut self) {
        self.clean = true;
    }

    /// Says whether a setting of the connection is not as it was. Such a one is closed
    /// instead of rolled back.
    pub(super) fn spoil(&mut self, spoilt: bool) {
        self.spoilt = spoilt;
    }

    /// Rolls back; on success the connection may be reused.
    pub(super) async fn roll_back(&mut self) -> Result<(), sqlx::Error> {
        if self.spoilt {
            self.close().await;
            return Ok(());
        }
        if !self.clean && self.connection.is_some() {
            sqlx::raw_sql(ROLLBACK).execute(&mut *self.get()).await?;
            self.clean();
        }
        Ok(())
    }

    /// Closes the connection, which rolls back, and takes another.
    pub(super) async fn renew(&mut self, pool: &SqlitePool) -> Result<(), sqlx::Error> {
        // First out, then in: it may be the pool's only one.
        if let Some(broken) = self.connection.take() {
            let _ = broken.close().await;
        }
        self.connection = Some(pool.acquire().await?);
        self.clean = true;
        self.spoilt = false;
        Ok(())
    }

    /// Closes the connection, which rolls back.
    pub(super) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = connection.close().await;
        }
    }

    /// For destructors: rolls back in the background if there is a runtime,
    /// else the connection is closed, which rolls back too.
    pub(super) fn abandon(&mut self) {
        if self.clean {
            return;
        }
        let mut held = Self {
            connection: self.connection.take(),
            clean: false,
            spoilt: self.spoilt,
        };
        if held.connection.is_none() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let rollback =
                    tokio::time::timeout(limits::DROP_ROLLBACK_TIMEOUT, held.roll_back());
                if !matches!(rollback.await, Ok(Ok(()))) {
                    tracing::debug!("closing a connection whose rollback did not finish");
                }
            });
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let (Some(connection), false) = (&mut self.connection, self.clean) {
            connection.close_on_drop();
        }
    }
}
