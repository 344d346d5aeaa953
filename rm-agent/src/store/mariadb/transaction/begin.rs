//! How a local transaction begins, on a connection that may have died since it was last used.

use std::sync::Arc;

use sqlx::mysql::MySqlRow;

use super::{
    super::{executor::Statement, failure::connection_is_lost, plan::Plan, session, xa},
    AtTransaction, State,
};
use crate::{clock, error::Error, store::xa::Ending};

impl AtTransaction {
    /// Plans the statement. `idle`: nothing has happened on the connection.
    pub(super) async fn plan(
        &mut self,
        statement: &Statement,
        idle: bool,
    ) -> Result<Arc<Plan>, Error> {
        let pool = self.pool.clone();
        let mut renewals = if idle { pool.plain().size() } else { 0 };
        loop {
            let sql = statement.sql.as_str();
            match pool.planner().plan(sql, self.held.get()).await {
                Err(Error::Database { source, doing }) => {
                    let renewed = self.renewed(&source, &mut renewals).await;
                    if !renewed.map_err(Error::database("connecting to the database"))? {
                        return Err(Error::Database { source, doing });
                    }
                }
                result => return result,
            }
        }
    }

    pub(super) async fn begin_plainly(&mut self) -> Result<(), sqlx::Error> {
        match self.state {
            State::Open => return Ok(()),
            State::Idle => {}
            State::Busy | State::Broken(_) => {
                return Err(self.stay_broken("its BEGIN was cancelled or failed"));
            }
        }
        self.state = State::Busy;
        self.first_message("BEGIN".to_owned()).await?;
        self.state = State::Open;
        Ok(())
    }

    /// Everything that a branch begins with, in one message.
    pub(super) async fn begin_branch(&mut self) -> Result<(), sqlx::Error> {
        let branch = self.branch.as_ref().expect("only called for a branch");
        // In whole seconds; rather too long than none at all.
        let seconds = branch.remaining().as_secs().max(1);
        let row = match (branch.ending, branch.xid) {
            (Ending::Prepared, Some(xid)) => {
                let message = |name: &_| session::begin_beside_at(seconds, name);
                xa::begin(&self.pool, &mut self.held, xid, message).await?
            }
            _ => self.first_message(session::begin(seconds)).await?,
        };
        let row = row.ok_or(sqlx::Error::RowNotFound)?;
        let session = session::read(&row, self.pool.database())?;
        let branch = self.branch.as_mut().expect("only called for a branch");
        branch.begun = Some((session, clock::now()));
        Ok(())
    }

    /// Sends the message that opens the local transaction; the row that it shows.
    async fn first_message(&mut self, message: String) -> Result<Option<MySqlRow>, sqlx::Error> {
        let pool = self.pool.plain();
        let send = self.held.first(pool, connection_is_lost, |connection, _| {
            Box::pin(session::send(connection, message.clone()))
        });
        send.await
    }

    /// If the connection was lost, on which nothing has happened yet, another one takes its
    /// place, so many times.
    async fn renewed(
        &mut self,
        error: &sqlx::Error,
        renewals: &mut u32,
    ) -> Result<bool, sqlx::Error> {
        if *renewals == 0 || !connection_is_lost(error) {
            return Ok(false);
        }
        *renewals -= 1;
        self.held.renew(self.pool.plain()).await?;
        Ok(true)
    }
}
