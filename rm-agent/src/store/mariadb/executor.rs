//! sqlx's `Executor` for transactions and pools, so that user code stays
//! `sqlx::query("…").bind(…).execute(&mut tx)`.

use futures_util::{
    StreamExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Either, Execute, Executor, MySql, SqlSafeStr as _, SqlStr,
    error::BoxDynError,
    mysql::{MySqlArguments, MySqlQueryResult, MySqlRow, MySqlStatement, MySqlTypeInfo},
};
use sqlx_core::describe::Describe;

use super::{
    pool::AtPool,
    savepoint::AtSavepoint,
    transaction::{AtTransaction, Step},
    xa::XaTransaction,
};
use crate::at::mysql::analysis::split;

/// A statement taken out of whatever the user built.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) sql: SqlStr,
    arguments: Option<MySqlArguments>,
    persistent: bool,
}

impl Statement {
    fn take<'q>(mut query: impl Execute<'q, MySql>) -> Result<Self, sqlx::Error> {
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

    /// A statement of this library's own.
    pub(super) fn own(sql: String, arguments: MySqlArguments) -> Self {
        Self {
            sql: sqlx::AssertSqlSafe(sql).into_sql_str(),
            arguments: Some(arguments),
            persistent: true,
        }
    }

    /// The user's parameters.
    pub(super) fn arguments(&self) -> MySqlArguments {
        self.arguments.clone().unwrap_or_default()
    }

    /// The same with another text, through the protocol whose values are binary.
    pub(super) fn with_text(&self, sql: String, arguments: MySqlArguments) -> Self {
        Self {
            persistent: self.persistent,
            ..Self::own(sql, arguments)
        }
    }
}

impl Execute<'_, MySql> for Statement {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&MySqlStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<MySqlArguments>, BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

/// The first row of a finished or running statement.
async fn first_row(
    mut steps: BoxStream<'_, Result<Step, sqlx::Error>>,
) -> Result<Option<MySqlRow>, sqlx::Error> {
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
            type Database = MySql;

            fn fetch_many<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxStream<'e, Result<Either<MySqlQueryResult, MySqlRow>, sqlx::Error>>
            where
                'c: 'e,
                E: 'q + Execute<'q, MySql>,
            {
                let statement = Statement::take(query);
                stream::once(async move { self.start(statement?).await })
                    .try_flatten()
                    .boxed()
            }

            fn fetch_optional<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxFuture<'e, Result<Option<MySqlRow>, sqlx::Error>>
            where
                'c: 'e,
                E: 'q + Execute<'q, MySql>,
            {
                let statement = Statement::take(query);
                Box::pin(async move { first_row(self.start(statement?).await?).await })
            }

            fn prepare_with<'e>(
                self,
                sql: SqlStr,
                parameters: &'e [MySqlTypeInfo],
            ) -> BoxFuture<'e, Result<MySqlStatement, sqlx::Error>>
            where
                'c: 'e,
            {
                self.$plain().prepare_with(sql, parameters)
            }

            fn describe<'e>(
                self,
                sql: SqlStr,
            ) -> BoxFuture<'e, Result<Describe<MySql>, sqlx::Error>>
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
executor!(&'c mut XaTransaction, connection);
executor!(&'c AtPool, plain);
