//! A local transaction: plain, or one that the database prepares.

use accede_proto::Xid;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use sqlx::{AssertSqlSafe, Either, Executor as _, Row as _, postgres::PgQueryResult};

use super::{XaPool, has_written, prepare, statement::DIALECT};
use crate::{
    at::savepoint::SavepointCommand,
    clock,
    context::Kind,
    error::{Error, is_retryable},
    limits,
    store::{
        postgres::{
            AtPool,
            branch::{Branch, Ending},
            connection::{Held, Session, connection_is_lost},
            executor::Statement,
            transaction::{Step, break_by},
        },
        retry::Repeatable,
        state::State,
        watch::Watch,
        xa::statement::{Text, Writes},
    },
};

xa_transaction!(postgres, PgConnection, PgQueryResult, "BEGIN");

fn new_branch(kind: Kind, pool: &AtPool) -> Option<Branch> {
    Branch::new(kind, pool, Ending::Prepared)
}

fn returns_to_savepoint(sql: &str) -> bool {
    matches!(
        SavepointCommand::read(sql),
        Some(SavepointCommand::RollBackTo(_))
    )
}

/// Any failure dooms the transaction, or what came after its last savepoint.
fn after_error(state: &mut State, retryable: &mut bool, error: sqlx::Error) -> sqlx::Error {
    break_by(state, retryable, error)
}

impl XaTransaction {
    #[expect(clippy::unused_async, reason = "other databases look something up")]
    async fn inspect(&mut self, sql: &str) -> Result<Text, Error> {
        DIALECT.read(sql)
    }

    async fn commit_unwritten(&mut self) -> Result<(), sqlx::Error> {
        let commit = sqlx::raw_sql("COMMIT").execute(self.held.get());
        commit.await.map(drop)
    }

    async fn has_written_unseen(&mut self) -> Result<bool, sqlx::Error> {
        has_written(&mut self.held).await
    }

    async fn prepare(&mut self, xid: Xid, branch: &Branch) -> Result<(), Error> {
        prepare(self.pool.at(), &mut self.held, xid, branch, Vec::new()).await
    }

    /// BEGIN, the lock time-out and, for a branch, which process of the database it is, in one
    /// message.
    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        let plain = self.pool.plain().clone();
        // What the application does to its session is not looked at.
        *self.held.session() = Session::default();
        let message = match &self.branch {
            None => "BEGIN".to_owned(),
            Some(branch) => format!(
                "BEGIN; SELECT pg_backend_pid(), set_config('lock_timeout', '{}', true)",
                branch.remaining().max(limits::MIN_LOCK_TIMEOUT).as_millis()
            ),
        };
        let watch = Watch::new(self.pool.at(), self.xid(), None);
        let begin = self
            .held
            .first(&plain, connection_is_lost, |connection, _| {
                Box::pin(sqlx::raw_sql(AssertSqlSafe(message.clone())).fetch_all(connection))
            });
        let answer = watch.over(begin).await?;
        if let Some(branch) = &mut self.branch {
            branch.begun = Some(clock::now());
            let backend = answer.first().and_then(|row| row.try_get::<i32, _>(0).ok());
            branch.backend = backend.map(i64::from);
        }
        Ok(())
    }
}
