//! A pool's connection that is never reused with a transaction left open.

use sqlx::{Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};

use super::turns::Turn;
use crate::limits;

/// A connection on loan. Unless it was marked clean when it is dropped, it is
/// closed instead of going back to the pool.
#[derive(Debug)]
pub(super) struct Held {
    connection: Option<PoolConnection<Sqlite>>,
    clean: bool,
    /// A setting is not as it was.
    spoilt: bool,
    /// As long as a transaction may be open that writes.
    turn: Option<Turn>,
}

impl Held {
    pub(super) fn new(connection: PoolConnection<Sqlite>) -> Self {
        Self {
            connection: Some(connection),
            clean: true,
            spoilt: false,
            turn: None,
        }
    }

    /// The connection itself.
    pub(super) fn get(&mut self) -> &mut SqliteConnection {
        self.connection
            .as_mut()
            .expect("after `drop`, `abandon` or a failed `renew` nobody asks")
    }

    /// The same, only to look at.
    pub(super) fn peek(&self) -> &SqliteConnection {
        self.connection
            .as_ref()
            .expect("after `drop`, `abandon` or a failed `renew` nobody asks")
    }

    /// From now on there may be an open transaction.
    pub(super) fn soil(&mut self) {
        self.clean = false;
    }

    /// There certainly is no open transaction.
    pub(super) fn clean(&mut self) {
        self.clean = true;
        self.turn = None;
    }

    /// Keeps a turn until the transaction has ended.
    pub(super) fn keep(&mut self, turn: Turn) {
        self.turn = Some(turn);
    }

    /// Says whether a setting of the connection is not as it was. Such a one is closed
    /// instead of rolled back.
    pub(super) fn spoil(&mut self, spoilt: bool) {
        self.spoilt = spoilt;
    }

    /// Rolls back; on success the connection may be reused. If the database has ended
    /// the transaction by itself, as ON CONFLICT ROLLBACK makes it do, the connection is
    /// closed: whatever it was, it is over.
    pub(super) async fn roll_back(&mut self) {
        if self.clean || self.connection.is_none() {
            return;
        }
        if !self.spoilt && sqlx::raw_sql("ROLLBACK").execute(self.get()).await.is_ok() {
            self.clean();
        } else {
            self.close().await;
        }
    }

    /// Closes the connection, which rolls back, and takes another.
    pub(super) async fn renew(&mut self, pool: &SqlitePool) -> Result<(), sqlx::Error> {
        // First out, then in: it may be the pool's only one.
        if let Some(broken) = self.connection.take() {
            let _ = broken.close().await;
        }
        self.turn = None;
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
        self.turn = None;
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
            turn: self.turn.take(),
        };
        if held.connection.is_none() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let rollback =
                    tokio::time::timeout(limits::DROP_ROLLBACK_TIMEOUT, held.roll_back());
                if rollback.await.is_err() {
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
