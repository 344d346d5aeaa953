//! A local transaction: plain, or one that the database prepares.

use accede_proto::Xid;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use sqlx::{AssertSqlSafe, Either, Executor as _, Row as _, postgres::PgQueryResult};

use super::{XaPool, has_written, prepare, statement::DIALECT};
use crate::{
    at::{lexer::Token, savepoint::SavepointCommand},
    clock,
    context::Kind,
    error::{Error, is_retryable},
    limits,
    store::{
        postgres::{
            AtPool,
            branch::{Branch, Ending, FENCE_STATEMENT},
            connection::{Held, Session, XaSession, connection_is_lost},
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
        let (text, words) = DIALECT.read(sql)?;
        let takes_away =
            |word: &Token| word.is_word(sql, "DEALLOCATE") || word.is_word(sql, "DISCARD");
        if words.iter().any(takes_away) {
            self.held.session().xa = XaSession::Unknown;
            if let Some(branch) = &mut self.branch {
                branch.unsure = true;
            }
        }
        Ok(text)
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

    /// BEGIN and the lock time-out in one message. What is not known of the session is asked for
    /// with it: which process of the database it is, and whether the fence's statement is prepared.
    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        let at = self.pool.at().clone();
        let known = match at.sessions_stay() {
            true => self.held.session().xa,
            false => XaSession::Unknown,
        };
        // AT does not know what statements of XA do to a session.
        *self.held.session() = Session {
            xa: known,
            ..Session::default()
        };
        let lock_timeout = self
            .branch
            .as_ref()
            .map(|branch| branch.remaining().max(limits::MIN_LOCK_TIMEOUT).as_millis());
        let watch = Watch::new(&at, self.xid(), None);
        let begin = self
            .held
            .first(at.plain(), connection_is_lost, |connection, session| {
                let message = match (lock_timeout, session.xa) {
                    (None, _) => "BEGIN".to_owned(),
                    (Some(timeout), XaSession::Known { .. }) => {
                        format!("BEGIN; SET LOCAL lock_timeout = {timeout}")
                    }
                    (Some(timeout), XaSession::Unknown) => format!(
                        "BEGIN; SELECT pg_backend_pid(), EXISTS (SELECT FROM \
                         pg_prepared_statements WHERE name = '{FENCE_STATEMENT}'), \
                         set_config('lock_timeout', '{timeout}', true)"
                    ),
                };
                Box::pin(sqlx::raw_sql(AssertSqlSafe(message)).fetch_all(connection))
            });
        let answer = watch.over(begin).await?;
        let Some(branch) = &mut self.branch else {
            return Ok(());
        };
        branch.begun = Some(clock::now());
        let session = self.held.session();
        if let Some(row) = answer.first() {
            let backend = i64::from(row.try_get::<i32, _>(0)?);
            branch.backend = Some(backend);
            if at.sessions_stay() && !branch.unsure {
                session.xa = XaSession::Known {
                    backend,
                    fence_prepared: row.try_get(1)?,
                };
            }
        } else if let XaSession::Known { backend, .. } = session.xa {
            branch.backend = Some(backend);
        }
        Ok(())
    }
}
