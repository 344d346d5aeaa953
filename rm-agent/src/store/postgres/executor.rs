//! sqlx's `Executor` for transactions and pools, so that user code stays
//! `sqlx::query("…").bind(…).execute(&mut tx)`.

use std::sync::Arc;

use futures_util::{
    StreamExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Either, Execute, Executor, Postgres, SqlSafeStr as _, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use sqlx_core::describe::Describe;

use crate::at::analysis::split;

use super::{
    pool::AtPool,
    savepoint::AtSavepoint,
    transaction::{AtTransaction, Step},
    xa::XaTransaction,
};

/// A statement taken out of whatever the user built.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) sql: SqlStr,
    arguments: Option<PgArguments>,
    persistent: bool,
}

impl Statement {
    fn take<'q>(mut query: impl Execute<'q, Postgres>) -> Result<Self, sqlx::Error> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        let persistent = query.persistent();
        Ok(Self {
            sql: query.sql(),
            arguments,
            persistent,
        })
    }

    /// Its single statements, if its text has several. Only without parameters: the
    /// database takes one statement with them.
    pub(super) fn pieces(&self) -> Option<Vec<Self>> {
        if self.arguments.is_some() {
            return None;
        }
        let texts = split(self.sql.as_str())?;
        let piece = |text: &str| Self {
            sql: sqlx::AssertSqlSafe(text.to_owned()).into_sql_str(),
            arguments: None,
            persistent: self.persistent,
        };
        Some(texts.into_iter().map(piece).collect())
    }

    /// The same with another text, through the protocol whose values are binary.
    pub(super) fn with_images(self, sql: &Arc<str>) -> Self {
        Self {
            sql: sqlx::AssertSqlSafe(Arc::clone(sql)).into_sql_str(),
            arguments: Some(self.arguments.unwrap_or_default()),
            persistent: self.persistent,
        }
    }
}

impl Execute<'_, Postgres> for Statement {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

/// The first row of a finished or running statement.
async fn first_row(
    mut steps: BoxStream<'_, Result<Step, sqlx::Error>>,
) -> Result<Option<PgRow>, sqlx::Error> {
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
            type Database = Postgres;

            fn fetch_many<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
            where
                'c: 'e,
                E: 'q + Execute<'q, Postgres>,
            {
                let statement = Statement::take(query);
                stream::once(async move { self.start(statement?).await })
                    .try_flatten()
                    .boxed()
            }

            fn fetch_optional<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
            where
                'c: 'e,
                E: 'q + Execute<'q, Postgres>,
            {
                let statement = Statement::take(query);
                Box::pin(async move { first_row(self.start(statement?).await?).await })
            }

            fn prepare_with<'e>(
                self,
                sql: SqlStr,
                parameters: &'e [PgTypeInfo],
            ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
            where
                'c: 'e,
            {
                self.$plain().prepare_with(sql, parameters)
            }

            fn describe<'e>(
                self,
                sql: SqlStr,
            ) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
            where
                'c: 'e,
            {
                self.$plain().describe(sql)
            }
        }
    };
}

executor!(&'c mut AtTransaction, connection);
executor!(&'c mut AtSavepoint<'_>, connection);
executor!(&'c AtPool, plain);
executor!(&'c mut XaTransaction, connection);
