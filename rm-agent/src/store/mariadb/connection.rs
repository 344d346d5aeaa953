//! How connections to MariaDB are given back.

use futures_util::future::BoxFuture;
use sqlx::{AssertSqlSafe, MySql, MySqlConnection};

use super::{
    error_number,
    session::{ROLLBACK, XA_SETTINGS},
    xa::XaName,
};
use crate::store::connection::{self, Lendable};

pub(super) type Held = connection::Held<MySql>;
pub(super) type Lender = connection::Lender<MySql>;

/// What is known of a session in the database.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct SessionState {
    /// The XA transaction that is open there, if there is one.
    pub(super) xa: Option<XaName>,
}

impl Lendable for MySql {
    type Session = SessionState;

    fn roll_back<'c>(
        connection: &'c mut MySqlConnection,
        session: &'c mut SessionState,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let Some(name) = session.xa.take() else {
                return sqlx::raw_sql(ROLLBACK).execute(connection).await.map(drop);
            };
            let roll_back = format!("XA ROLLBACK {name}; {XA_SETTINGS}");
            let whole = format!("XA END {name}; {roll_back}");
            let ended = sqlx::raw_sql(AssertSqlSafe(whole)).execute(&mut *connection);
            match ended.await {
                // It had ended before, by itself or by its last message.
                Err(error) if error_number(&error).is_some() => {
                    let again = sqlx::raw_sql(AssertSqlSafe(roll_back)).execute(connection);
                    again.await.map(drop)
                }
                result => result.map(drop),
            }
        })
    }
}
