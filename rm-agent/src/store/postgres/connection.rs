//! How connections to PostgreSQL are given back.

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Postgres};

use crate::store::connection::{self, Lendable};

pub(super) type Held = connection::Held<Postgres>;
pub(super) type Lender = connection::Lender<Postgres>;

impl Lendable for Postgres {
    fn roll_back(connection: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(async move {
            sqlx::raw_sql("ROLLBACK")
                .execute(connection)
                .await
                .map(drop)
        })
    }
}
