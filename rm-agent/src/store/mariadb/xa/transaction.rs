//! A local transaction: plain, or one that the database prepares.

use accede_proto::Xid;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use sqlx::{Either, Executor as _, mysql::MySqlQueryResult};

use super::{
    XaPool,
    begin::{begin, commit_unwritten},
    prepare::prepare,
    statement::{DIALECT, names_one_of},
};
use crate::{
    at::savepoint::SavepointCommand,
    clock,
    context::Kind,
    error::{Error, is_retryable},
    store::{
        mariadb::{
            AtPool,
            branch::Branch,
            connection::Held,
            executor::Statement,
            failure::{connection_is_lost, fails_alone},
            session,
            transaction::{Step, break_by},
        },
        retry::Repeatable,
        state::State,
        watch::Watch,
        xa::{
            Ending,
            statement::{Text, Writes},
        },
    },
};

xa_transaction!(mariadb, MySqlConnection, MySqlQueryResult, "XA START");

fn new_branch(kind: Kind, pool: &AtPool) -> Option<Branch> {
    Branch::new(kind, pool, Ending::Prepared)
}

fn returns_to_savepoint(sql: &str) -> bool {
    matches!(
        SavepointCommand::read_mysql(sql),
        Some(SavepointCommand::RollBackTo(_))
    )
}

/// A statement that fails alone leaves the others as they were.
fn after_error(state: &mut State, retryable: &mut bool, error: sqlx::Error) -> sqlx::Error {
    if fails_alone(&error) {
        *state = State::Open;
        *retryable = false;
        return error;
    }
    break_by(state, retryable, error)
}

impl XaTransaction {
    /// Refuses, in a branch, tables that keep what they were told whatever becomes of it.
    async fn inspect(&mut self, sql: &str) -> Result<Text, Error> {
        let (text, words) = DIALECT.read(sql)?;
        if self.branch.is_some() && text.writes != Writes::No {
            let at = self.pool.at();
            let unfit = self.pool.known().unfit(at.phase_two()).await?;
            if let Some(table) = names_one_of(sql, &words, &unfit) {
                return Err(Error::Table {
                    table: table.clone(),
                    part: "its storage engine has no transactions".to_owned(),
                    advice: "ALTER TABLE … ENGINE = InnoDB, or write it outside".to_owned(),
                });
            }
        }
        Ok(text)
    }

    async fn commit_unwritten(&mut self) -> Result<(), sqlx::Error> {
        commit_unwritten(&mut self.held).await
    }

    /// The database cannot be asked; whatever might have written counts as having done so.
    #[expect(clippy::unused_async, reason = "other databases are asked")]
    async fn has_written_unseen(&mut self) -> Result<bool, sqlx::Error> {
        Ok(false)
    }

    async fn prepare(&mut self, xid: Xid, branch: &Branch) -> Result<(), Error> {
        prepare(self.pool.at(), &mut self.held, xid, branch, Vec::new()).await
    }

    /// The lock time-out, what the session is like and, for a branch, XA START in one message.
    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        let at = self.pool.at().clone();
        let Some(branch) = &mut self.branch else {
            self.held.session().xa = None;
            let begin = self
                .held
                .first(at.plain(), connection_is_lost, |connection, _| {
                    Box::pin(session::send(connection, "BEGIN".to_owned()))
                });
            return begin.await.map(drop);
        };
        let xid = branch
            .xid
            .expect("XA has no branch outside of a transaction");
        // In whole seconds; rather too long than none at all.
        let seconds = branch.remaining().as_secs().max(1);
        let begin = begin(&at, &mut self.held, xid, |name| {
            session::begin_xa(seconds, name)
        });
        let row = Watch::new(&at, Some(xid), None).over(begin).await?;
        let row = row.ok_or(sqlx::Error::RowNotFound)?;
        branch.begun = Some((session::read_xa(&row)?, clock::now()));
        Ok(())
    }
}
