//! In TCC: an order freezes money, and it is taken or given back when it is decided. The same
//! handlers make a participant of 3PC.

use std::sync::Arc;

use accede_rm_agent::{
    Error, RmAgent, RmAgentBuilder, tcc,
    tcc::{HandlerError, Tcc},
    three_phase,
};
use serde::{Deserialize, Serialize};
use shop_api::database::DatabaseKind;

use super::{Outcome, RESOURCE, Store};

/// What an order costs.
#[derive(Serialize, Deserialize)]
pub(super) struct Payment {
    pub(super) user: i64,
    pub(super) cents: i64,
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

type Freeze = Tcc<Payment, FreezeError, Outcome>;

/// The three handlers, on one kind of database: they differ in how parameters are written.
macro_rules! handlers {
    (
        $module:ident, $transaction:ty,
        freeze: $freeze:literal, look: $look:literal, settle: $settle:literal,
        release: $release:literal
    ) => {
        pub(super) mod $module {
            use super::*;

            pub(in super::super) struct Accounts;

            impl Accounts {
                #[tcc(resource = "account.freeze", confirm = settle, cancel = release)]
                #[three_phase(
                            resource = "account.promise", do_commit = settle, abort = release
                        )]
                pub(in super::super) async fn freeze(
                    &self,
                    tx: &mut $transaction,
                    wanted: Payment,
                ) -> Result<Outcome, FreezeError> {
                    let frozen = sqlx::query($freeze)
                        .bind(wanted.cents)
                        .bind(wanted.cents)
                        .bind(wanted.user)
                        .bind(wanted.cents)
                        .execute(&mut *tx)
                        .await?;
                    let row: Option<i64> = sqlx::query_scalar($look)
                        .bind(wanted.user)
                        .fetch_optional(&mut *tx)
                        .await?;
                    match row {
                        None => Err(FreezeError::No(Outcome::UnknownUser)),
                        Some(balance) if frozen.rows_affected() == 0 => {
                            Err(FreezeError::No(Outcome::NotEnough { balance }))
                        }
                        Some(left) => Ok(Outcome::Taken { left }),
                    }
                }

                async fn settle(
                    &self,
                    tx: &mut $transaction,
                    wanted: Payment,
                ) -> Result<(), HandlerError> {
                    sqlx::query($settle)
                        .bind(wanted.cents)
                        .bind(wanted.user)
                        .execute(&mut *tx)
                        .await?;
                    Ok(())
                }

                async fn release(
                    &self,
                    tx: &mut $transaction,
                    wanted: Payment,
                ) -> Result<(), HandlerError> {
                    sqlx::query($release)
                        .bind(wanted.cents)
                        .bind(wanted.cents)
                        .bind(wanted.user)
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
    freeze: "UPDATE accounts SET balance = balance - $1, frozen = frozen + $2 WHERE user_id = $3 AND balance >= $4",
    look: "SELECT balance FROM accounts WHERE user_id = $1",
    settle: "UPDATE accounts SET frozen = frozen - $1 WHERE user_id = $2",
    release: "UPDATE accounts SET balance = balance + $1, frozen = frozen - $2 WHERE user_id = $3"
);
handlers!(
    mariadb, accede_rm_agent::mariadb::FencedTransaction,
    freeze: "UPDATE accounts SET balance = balance - ?, frozen = frozen + ? WHERE user_id = ? AND balance >= ?",
    look: "SELECT balance FROM accounts WHERE user_id = ?",
    settle: "UPDATE accounts SET frozen = frozen - ? WHERE user_id = ?",
    release: "UPDATE accounts SET balance = balance + ?, frozen = frozen - ? WHERE user_id = ?"
);
handlers!(
    sqlite, accede_rm_agent::sqlite::FencedTransaction,
    freeze: "UPDATE accounts SET balance = balance - ?1, frozen = frozen + ?2 WHERE user_id = ?3 AND balance >= ?4",
    look: "SELECT balance FROM accounts WHERE user_id = ?1",
    settle: "UPDATE accounts SET frozen = frozen - ?1 WHERE user_id = ?2",
    release: "UPDATE accounts SET balance = balance + ?1, frozen = frozen - ?2 WHERE user_id = ?3"
);

struct Frozen {
    freeze: Freeze,
}

pub(super) async fn open(
    agent: RmAgentBuilder,
    kind: DatabaseKind,
) -> anyhow::Result<(RmAgent, Box<dyn Store>)> {
    let freeze = match kind {
        DatabaseKind::Postgres => postgres::Accounts::freeze_tcc(&Arc::new(postgres::Accounts)),
        DatabaseKind::MariaDb => mariadb::Accounts::freeze_tcc(&Arc::new(mariadb::Accounts)),
        DatabaseKind::Sqlite => sqlite::Accounts::freeze_tcc(&Arc::new(sqlite::Accounts)),
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
    async fn take(&self, user: i64, cents: i64) -> sqlx::Result<Outcome> {
        let taken = self.freeze.call(Payment { user, cents }).await;
        taken.or_else(FreezeError::outcome)
    }
}
