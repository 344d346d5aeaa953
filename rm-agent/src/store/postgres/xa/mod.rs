//! XA on PostgreSQL: a branch's local transaction is prepared by the database and committed or
//! rolled back there, by whoever gets the order. Its statements run untouched.

mod open;
mod pool;
mod prepare;
mod statement;
mod transaction;

use sqlx::Row as _;
use tokio::sync::OnceCell;

pub use pool::XaPool;
pub use transaction::XaTransaction;

pub(in crate::store) use open::Local;
pub(super) use prepare::{has_written, prepare};

use super::{phase_two::read_meta, pool::AtPool, start_check};
use crate::{at::table::quote, error::Error, store::xa::name};

/// What a pool has found out about XA in its database.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The table `accede_fence` with its schema, once it is known that XA can be used: a statement
    /// of the application may change the search path.
    fence: OnceCell<String>,
    /// What the names of this cluster's prepared transactions begin with.
    prefix: OnceCell<String>,
}

impl Known {
    /// Looks, the first time, whether XA can be used here.
    ///
    /// # Errors
    /// Those of [`fence`](Self::fence).
    pub(super) async fn check(&self, at: &AtPool) -> Result<(), Error> {
        self.fence(at).await.map(drop)
    }

    /// Looks, the first time, whether XA can be used here.
    ///
    /// # Errors
    /// [`Error::PreparedOff`], [`Error::Schema`], [`Error::Configuration`] for missing privileges,
    /// [`Error::Database`] when the database cannot be asked.
    pub(super) async fn fence(&self, at: &AtPool) -> Result<&str, Error> {
        let pool = at.phase_two();
        let look = async {
            let row = sqlx::query(
                "SELECT current_setting('max_prepared_transactions')::bigint,
                        (SELECT n.nspname::text FROM pg_catalog.pg_class c
                         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                         WHERE c.oid = to_regclass('accede_fence'))",
            )
            .fetch_one(pool)
            .await
            .map_err(Error::database("asking whether XA can be used"))?;
            let failed = || Error::database("asking whether XA can be used");
            let most: i64 = row.try_get(0).map_err(failed())?;
            if most == 0 {
                return Err(prepared_off(at.resource()));
            }
            start_check::check_fences(pool).await?;
            let schema: Option<String> = row.try_get(1).map_err(failed())?;
            Ok(match schema {
                Some(schema) => format!("{}.accede_fence", quote(&schema)),
                None => "accede_fence".to_owned(),
            })
        };
        let fence = self.fence.get_or_try_init(|| look).await?;
        Ok(fence)
    }

    /// What the names of this cluster's prepared transactions begin with.
    ///
    /// # Errors
    /// [`Error::Configuration`] as long as no agent has tied the database to its cluster;
    /// [`Error::Schema`] and [`Error::Database`] when that cannot be read.
    pub(super) async fn prefix(&self, at: &AtPool) -> Result<&str, Error> {
        let read = async { name::prefix(at.resource(), &read_meta(at.phase_two()).await?) };
        let prefix = self.prefix.get_or_try_init(|| read).await?;
        Ok(prefix)
    }
}

fn prepared_off(resource: &str) -> Error {
    Error::PreparedOff {
        resource: resource.into(),
    }
}
