//! sqlx's `Executor` for transactions and pools, so that user code stays
//! `sqlx::query("…").bind(…).execute(&mut tx)`.

use futures_util::{
    StreamExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Either, Execute, Executor, SqlStr, Sqlite,
    error::BoxDynError,
    sqlite::{SqliteArguments, SqliteQueryResult, SqliteRow, SqliteStatement, SqliteTypeInfo},
};
use sqlx_core::describe::Describe;

use super::{
    pool::AtPool,
    transaction::{AtTransaction, Step},
};

/// A statement taken out of whatever the user built.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) sql: SqlStr,
    arguments: Option<SqliteArguments>,
    persistent: bool,
}

impl Statement {
    fn take<'q>(mut query: impl Execute<'q, Sqlite>) -> Result<Self, sqlx::Error> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        let persistent = query.persistent();
        Ok(Self {
            sql: query.sql(),
            arguments,
            persistent,
        })
    }
}

impl Execute<'_, Sqlite> for Statement {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&SqliteStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<SqliteArguments>, BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

/// The first row of a finished or running statement.
async fn first_row(
    mut steps: BoxStream<'_, Result<Step, sqlx::Error>>,
) -> Result<Option<SqliteRow>, sqlx::Error> {
    let mut first = None;
    // Read to the end: an error may follow the row.
    while let Some(step) = steps.try_next().await? {
        if let (Either::Right(row), None) = (step, &first) {
            first = Some(row);
        }
    }
    Ok(first)
}

/// Statements go through `start`; what neither writes nor locks goes to the connection or pool
/// itself, which `plain` names.
macro_rules! executor {
    ($type:ty, $plain:ident) => {
        impl<'c> Executor<'c> for $type {
            type Database = Sqlite;

            fn fetch_many<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxStream<'e, Result<Either<SqliteQueryResult, SqliteRow>, sqlx::Error>>
            where
                'c: 'e,
                E: 'q + Execute<'q, Sqlite>,
            {
                let statement = Statement::take(query);
                stream::once(async move { self.start(statement?).await })
                    .try_flatten()
                    .boxed()
            }

            fn fetch_optional<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxFuture<'e, Result<Option<SqliteRow>, sqlx::Error>>
            where
                'c: 'e,
                E: 'q + Execute<'q, Sqlite>,
            {
                let statement = Statement::take(query);
                Box::pin(async move { first_row(self.start(statement?).await?).await })
            }

            fn prepare_with<'e>(
                self,
                sql: SqlStr,
                parameters: &'e [SqliteTypeInfo],
            ) -> BoxFuture<'e, Result<SqliteStatement, sqlx::Error>>
            where
                'c: 'e,
            {
                self.$plain().prepare_with(sql, parameters)
            }

            fn describe<'e>(
                self,
                sql: SqlStr,
            ) -> BoxFuture<'e, Result<Describe<Sqlite>, sqlx::Error>>
            where
                'c: 'e,
            {
                self.$plain().describe(sql)
            }
        }
    };
}

executor!(&'c mut AtTransaction, connection);
executor!(&'c AtPool, plain);
