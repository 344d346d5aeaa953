//! In TCC: an order freezes goods, and they are taken or given back when it is decided.
//! The same handlers make a participant of 3PC.

use std::sync::Arc;

use accede_rm_agent::{
    Error, RmAgent, RmAgentBuilder, tcc,
    tcc::{HandlerError, Tcc},
    three_phase,
};
use serde::{Deserialize, Serialize};
use shop_api::database::DatabaseKind;

use super::{Outcome, RESOURCE, Store};

/// What an order wants.
#[derive(Serialize, Deserialize)]
pub(super) struct Wanted {
    pub(super) product: i64,
    pub(super) count: i64,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FreezeError {
    #[error("{0:?}")]
    No(Outcome),
    #[error(transparent)]
    Accede(#[from] Error),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

type Freeze = Tcc<Wanted, FreezeError, Outcome>;

/// The three handlers, on one kind of database: they differ in how parameters are written.
macro_rules! handlers {
    (
        $module:ident, $transaction:ty,
        freeze: $freeze:literal, look: $look:literal, settle: $settle:literal,
        release: $release:literal
    ) => {
        pub(super) mod $module {
            use super::*;

            pub(in super::super) struct Goods;

            impl Goods {
                #[tcc(resource = "stock.freeze", confirm = settle, cancel = release)]
                #[three_phase(
                                    resource = "stock.promise", do_commit = settle, abort = release
                                )]
                pub(in super::super) async fn freeze(
                    &self,
                    tx: &mut $transaction,
                    wanted: Wanted,
                ) -> Result<Outcome, FreezeError> {
                    let frozen = sqlx::query($freeze)
                        .bind(wanted.count)
                        .bind(wanted.count)
                        .bind(wanted.product)
                        .bind(wanted.count)
                        .execute(&mut *tx)
                        .await?;
                    let row: Option<(i64, i64)> = sqlx::query_as($look)
                        .bind(wanted.product)
                        .fetch_optional(&mut *tx)
                        .await?;
                    match row {
                        None => Err(FreezeError::No(Outcome::UnknownProduct)),
                        Some(_) if frozen.rows_affected() == 0 => {
                            Err(FreezeError::No(Outcome::SoldOut))
                        }
                        Some((unit_price, left)) => Ok(Outcome::Taken { unit_price, left }),
                    }
                }

                async fn settle(
                    &self,
                    tx: &mut $transaction,
                    wanted: Wanted,
                ) -> Result<(), HandlerError> {
                    sqlx::query($settle)
                        .bind(wanted.count)
                        .bind(wanted.product)
                        .execute(&mut *tx)
                        .await?;
                    Ok(())
                }

                async fn release(
                    &self,
                    tx: &mut $transaction,
                    wanted: Wanted,
                ) -> Result<(), HandlerError> {
                    sqlx::query($release)
                        .bind(wanted.count)
                        .bind(wanted.count)
                        .bind(wanted.product)
                        .execute(&mut *tx)
                        .await?;
                    Ok(())
                }
            }
        }
    };
}

handlers!(
    postgres, accede_rm_agent::FencedTransaction,
    freeze: "UPDATE stock SET count = count - $1, frozen = frozen + $2 WHERE product = $3 AND count >= $4",
    look: "SELECT unit_price, count FROM stock WHERE product = $1",
    settle: "UPDATE stock SET frozen = frozen - $1 WHERE product = $2",
    release: "UPDATE stock SET count = count + $1, frozen = frozen - $2 WHERE product = $3"
);
handlers!(
    mariadb, accede_rm_agent::mariadb::FencedTransaction,
    freeze: "UPDATE stock SET count = count - ?, frozen = frozen + ? WHERE product = ? AND count >= ?",
    look: "SELECT unit_price, count FROM stock WHERE product = ?",
    settle: "UPDATE stock SET frozen = frozen - ? WHERE product = ?",
    release: "UPDATE stock SET count = count + ?, frozen = frozen - ? WHERE product = ?"
);
handlers!(
    sqlite, accede_rm_agent::sqlite::FencedTransaction,
    freeze: "UPDATE stock SET count = count - ?1, frozen = frozen + ?2 WHERE product = ?3 AND count >= ?4",
    look: "SELECT unit_price, count FROM stock WHERE product = ?1",
    settle: "UPDATE stock SET frozen = frozen - ?1 WHERE product = ?2",
    release: "UPDATE stock SET count = count + ?1, frozen = frozen - ?2 WHERE product = ?3"
);

struct Frozen {
    freeze: Freeze,
}

pub(super) async fn open(
    agent: RmAgentBuilder,
    kind: DatabaseKind,
) -> anyhow::Result<(RmAgent, Box<dyn Store>)> {
    let freeze = match kind {
        DatabaseKind::Postgres => postgres::Goods::freeze_tcc(&Arc::new(postgres::Goods)),
        DatabaseKind::MariaDb => mariadb::Goods::freeze_tcc(&Arc::new(mariadb::Goods)),
        DatabaseKind::Sqlite => sqlite::Goods::freeze_tcc(&Arc::new(sqlite::Goods)),
    };
    let agent = agent.tcc(RESOURCE, &freeze).start().await?;
    Ok((agent, Box::new(Frozen { freeze })))
}

impl FreezeError {
    /// What became of it, if that is an answer.
    pub(super) fn outcome(self) -> sqlx::Result<Outcome> {
        match self {
            Self::No(outcome) => Ok(outcome),
            Self::Accede(error) => Err(error.into()),
            Self::Database(error) => Err(error),
        }
    }
}

#[tonic::async_trait]
impl Store for Frozen {
    async fn take(&self, product: i64, count: i64) -> sqlx::Result<Outcome> {
        let taken = self.freeze.call(Wanted { product, count }).await;
        taken.or_else(FreezeError::outcome)
    }
}
