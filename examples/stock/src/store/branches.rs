//! In AT and XA: the same SQL in a local transaction, which is undone from images or prepared.

use shop_api::home::Branches;

use super::{
    Outcome, Store,
    sql::{mariadb, postgres, sqlite},
};

#[tonic::async_trait]
impl Store for Branches {
    async fn take(&self, product: i64, count: i64) -> sqlx::Result<Outcome> {
        match self {
            Self::Postgres(pool) => {
                pool.run(|tx| Box::pin(postgres::take(tx, product, count)))
                    .await
            }
            Self::PostgresXa(pool) => {
                pool.run(|tx| Box::pin(postgres::take(tx, product, count)))
                    .await
            }
            Self::MariaDb(pool) => {
                pool.run(|tx| Box::pin(mariadb::take(tx, product, count)))
                    .await
            }
            Self::MariaDbXa(pool) => {
                pool.run(|tx| Box::pin(mariadb::take(tx, product, count)))
                    .await
            }
            Self::Sqlite(pool) => {
                pool.run(|tx| Box::pin(sqlite::take(tx, product, count)))
                    .await
            }
        }
    }
}
