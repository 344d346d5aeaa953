//! XA on PostgreSQL: a branch's local transaction is prepared by the database and committed or
//! rolled back there, by whoever gets the order. Its statements run untouched.

mod pool;
mod prepare;
mod statement;
mod transaction;

use accede_proto::Xid;
use sqlx::{PgPool, Row as _};
use tokio::sync::OnceCell;

pub use pool::XaPool;
pub use transaction::XaTransaction;

pub(super) use prepare::{has_written, prepare};

use super::{phase_two::read_meta, start_check};
use crate::{
    at::table::quote,
    error::Error,
    store::{fence::Status, finish::BranchKey},
};

/// What all names of prepared transactions begin with, whatever the cluster.
const NAMESPACE: &str = "accede";

/// `status` of a branch's row in `accede_fence`. The row is written in the local transaction that
/// is prepared, so nobody sees it before `COMMIT PREPARED`: who sees it knows that it happened.
pub(super) const COMMITTED: i16 = Status::Confirmed.column();
/// `status` of a row that keeps a branch from being prepared late.
pub(super) const BARRED: i16 = Status::Barred.column();

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
    /// [`Error::PreparedOff`], [`Error::Schema`], [`Error::Configuration`] for missing privileges,
    /// [`Error::Database`] when the database cannot be asked.
    pub(super) async fn fence(&self, resource: &str, pool: &PgPool) -> Result<&str, Error> {
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
                return Err(prepared_off(resource));
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

    /// What the names of this cluster's prepared transactions begin with. The cluster's id is in
    /// it, so that clusters which share a server never touch each other's.
    ///
    /// # Errors
    /// [`Error::Configuration`] as long as no agent has tied the database to its cluster;
    /// [`Error::Schema`] and [`Error::Database`] when that cannot be read.
    pub(super) async fn prefix(&self, resource: &str, pool: &PgPool) -> Result<&str, Error> {
        let read = async {
            let cluster = read_meta(pool).await?.cluster_id.ok_or_else(|| {
                Error::Configuration(format!(
                    "the database of {resource} is not tied to a cluster yet, so its prepared \
                     transactions would have no name: start an agent for it that reaches the \
                     coordinator"
                ))
            })?;
            Ok::<_, Error>(format!("{NAMESPACE}:{}:", cluster.simple()))
        };
        let prefix = self.prefix.get_or_try_init(|| read).await?;
        Ok(prefix)
    }
}

/// The database's name for a prepared transaction: letters, digits and colons only, far below
/// PostgreSQL's 200 bytes.
pub(super) fn gid(prefix: &str, key: BranchKey) -> String {
    format!("{prefix}{:016x}:{}", key.xid.as_u64(), key.branch)
}

/// Which branch a prepared transaction of this cluster is.
pub(super) fn key_of(prefix: &str, gid: &str) -> Option<BranchKey> {
    let (xid, branch) = gid.strip_prefix(prefix)?.split_once(':')?;
    let key = BranchKey {
        xid: Xid::from_u64(u64::from_str_radix(xid, 16).ok()?)?,
        branch: branch.parse().ok()?,
    };
    (self::gid(prefix, key) == gid).then_some(key)
}

fn prepared_off(resource: &str) -> Error {
    Error::PreparedOff {
        resource: resource.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_branch_it_is_and_only_ours_do() {
        let xid = Xid::from_u64(0x1234_5678_9abc).expect("not zero");
        let key = BranchKey { xid, branch: 7 };
        let name = gid("accede:00ff:", key);
        assert_eq!(name, "accede:00ff:0000123456789abc:7");
        assert_eq!(key_of("accede:00ff:", &name), Some(key));
        for other in [
            "accede:00fe:0000123456789abc:7",
            "accede:00ff:123456789abc:7",
            "accede:00ff:0000123456789ABC:7",
            "accede:00ff:0000123456789abc:+7",
            "accede:00ff:0000123456789abc:07",
            "accede:00ff:0000123456789abc",
            "accede:00ff:0000000000000000:1",
            "accede:00ff:x:1",
            "",
        ] {
            assert_eq!(key_of("accede:00ff:", other), None, "{other}");
        }
    }
}
