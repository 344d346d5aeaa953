//! How connections to PostgreSQL are given back.

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Postgres};

use crate::{
    error::sql_state,
    store::connection::{self, Lendable},
};

pub(super) type Held = connection::Held<Postgres>;
pub(super) type Lender = connection::Lender<Postgres>;

/// What is known of a session in the database.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct Session {
    /// Its process.
    pub(super) backend: Option<i64>,
    /// The statement that writes undo records is prepared there.
    pub(super) undo_prepared: bool,
    /// What XA knows of it.
    pub(super) xa: XaSession,
}

/// What XA knows of a session, whose transactions may do more to it than those of AT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) enum XaSession {
    /// Nothing.
    #[default]
    Unknown,
    /// It was asked about.
    Known {
        /// Its process.
        backend: i64,
        /// The statement that writes fences is prepared there.
        fence_prepared: bool,
    },
}

impl Lendable for Postgres {
    type Session = Session;

    fn roll_back<'c>(
        connection: &'c mut PgConnection,
        _: &'c mut Session,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move {
            sqlx::raw_sql("ROLLBACK")
                .execute(connection)
                .await
                .map(drop)
        })
    }
}

/// Whether the connection is gone, so that another one may do better.
pub(super) fn connection_is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => true,
        error => sql_state(error).is_some_and(|state| state.starts_with("57P")),
    }
}
