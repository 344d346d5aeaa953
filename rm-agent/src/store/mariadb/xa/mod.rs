//! XA on MariaDB: a branch's local transaction is prepared by the database and committed or rolled
//! back there, by whoever gets the order. Its statements run untouched.
//!
//! The database wants a transaction's name at its start, when the branch has no number yet. So the
//! name ends in a token, which comes back with the branch's orders as its payload.

mod begin;
mod open;
mod parked;
mod pool;
mod prepare;
mod statement;
mod transaction;

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use accede_proto::Xid;
use parking_lot::Mutex;
use sqlx::{MySqlPool, Row as _};
use tokio::sync::OnceCell;

pub(super) use begin::{begin, commit_unwritten};
pub(in crate::store) use open::Local;
pub(super) use parked::Parked;
pub use pool::XaPool;
pub(super) use prepare::prepare;
pub use transaction::XaTransaction;

use super::{phase_two::read_meta, pool::AtPool, start_check};
use crate::{clock, error::Error, limits, store::xa::name};

/// The database's name for a prepared transaction, as its statements take it: letters, digits,
/// colons and the quotes around its two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct XaName {
    text: String,
    token: u64,
}

impl fmt::Display for XaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl XaName {
    /// What tells it from other branches of its transaction.
    pub(super) fn token(&self) -> u64 {
        self.token
    }
}

/// What makes names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// What those of this cluster begin with.
    cluster: String,
    /// What their second part begins with: which of the server's databases it is.
    database: String,
}

impl Names {
    pub(super) fn of(&self, xid: Xid, token: u64) -> XaName {
        let transaction = name::of_transaction(&self.cluster, xid);
        XaName {
            text: format!("'{transaction}','{}{token:016x}'", self.database),
            token,
        }
    }

    /// Whose prepared transaction of this database has these two parts in its name.
    pub(super) fn read(&self, transaction: &[u8], branch: &[u8]) -> Option<(Xid, XaName)> {
        let text = |part| std::str::from_utf8(part).ok();
        let xid = name::transaction_of(&self.cluster, text(transaction)?)?;
        let token = text(branch)?.strip_prefix(&self.database)?;
        let name = self.of(xid, u64::from_str_radix(token, 16).ok()?);
        let same = format!("'{}','{}'", text(transaction)?, text(branch)?) == name.text;
        same.then_some((xid, name))
    }
}

/// What a pool has found out about XA in its database.
#[derive(Debug, Default)]
pub(super) struct Known {
    usable: OnceCell<()>,
    names: OnceCell<Names>,
    /// Tables that no transaction holds back, in small letters, and when that was read.
    unfit: Mutex<Option<(Instant, Arc<[String]>)>>,
    /// When a sweep saw a prepared transaction first: the database does not know its age.
    seen: Mutex<HashMap<String, Instant>>,
}

impl Known {
    /// Looks, the first time, whether XA can be used here.
    ///
    /// # Errors
    /// [`Error::Schema`], [`Error::Configuration`] for settings, [`Error::Database`] when the
    /// database cannot be asked.
    pub(super) async fn check(&self, at: &AtPool) -> Result<(), Error> {
        let look = async {
            let pool = at.phase_two();
            let cluster: Option<String> = sqlx::query_scalar(
                "SELECT CAST(MAX(VARIABLE_VALUE) AS CHAR)
                 FROM information_schema.GLOBAL_VARIABLES WHERE VARIABLE_NAME = 'WSREP_ON'",
            )
            .fetch_one(pool)
            .await
            .map_err(Error::database("asking whether XA can be used"))?;
            check_replication(at.resource(), cluster.as_deref())?;
            start_check::check_fences(pool).await
        };
        self.usable.get_or_try_init(|| look).await?;
        Ok(())
    }

    /// What makes names of prepared transactions.
    ///
    /// # Errors
    /// [`Error::Configuration`] as long as no agent has tied the database to its cluster;
    /// [`Error::Schema`] and [`Error::Database`] when that cannot be read.
    pub(super) async fn names(&self, at: &AtPool) -> Result<&Names, Error> {
        let read = async {
            let meta = read_meta(at.phase_two()).await?;
            Ok::<_, Error>(Names {
                cluster: name::prefix(at.resource(), &meta)?,
                database: format!("{}:", meta.database_id.simple()),
            })
        };
        self.names.get_or_try_init(|| read).await
    }

    /// The tables whose rows a rollback leaves as they are.
    ///
    /// # Errors
    /// [`Error::Database`] when the database cannot be asked.
    pub(super) async fn unfit(&self, pool: &MySqlPool) -> Result<Arc<[String]>, Error> {
        let now = clock::now();
        if let Some((read, tables)) = &*self.unfit.lock()
            && now.duration_since(*read) < limits::METADATA_RECHECK
        {
            return Ok(Arc::clone(tables));
        }
        let rows = sqlx::query(
            "SELECT CAST(LOWER(t.TABLE_NAME) AS CHAR) FROM information_schema.TABLES t
             JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE
             WHERE t.TABLE_TYPE = 'BASE TABLE' AND e.XA <> 'YES'
               AND t.TABLE_SCHEMA NOT IN
                   ('mysql', 'sys', 'information_schema', 'performance_schema')",
        )
        .fetch_all(pool)
        .await
        .map_err(Error::database("reading which tables have no transactions"))?;
        let names: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let tables: Arc<[String]> = names
            .map_err(Error::database("reading which tables have no transactions"))?
            .into();
        *self.unfit.lock() = Some((now, Arc::clone(&tables)));
        Ok(tables)
    }

    /// How long ago each of these was seen first. What is not among them any more is forgotten.
    pub(super) fn ages(&self, names: &[String]) -> Vec<Duration> {
        let now = clock::now();
        let mut seen = self.seen.lock();
        let mut still = HashMap::with_capacity(names.len());
        let ages = names.iter().map(|name| {
            let since = seen.get(name).copied().unwrap_or(now);
            if still.len() < limits::MAX_PREPARED_SEEN {
                still.insert(name.clone(), since);
            }
            now.duration_since(since)
        });
        let ages = ages.collect();
        *seen = still;
        ages
    }
}

/// Galera certifies a transaction when it commits, too late for one that is prepared.
fn check_replication(resource: &str, wsrep: Option<&str>) -> Result<(), Error> {
    match wsrep {
        Some("ON" | "1") => Err(Error::Configuration(format!(
            "the database of {resource} is a node of a Galera cluster (wsrep_on), which knows no \
             XA: use AT or TCC there"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            cluster: format!("accede:{}:", "ab".repeat(16)),
            database: format!("{}:", "cd".repeat(16)),
        }
    }

    #[test]
    fn a_name_has_two_parts_that_fit_and_is_told_from_foreign_ones() {
        let xid = Xid::from_u64(u64::MAX >> 1).expect("not zero");
        let name = names().of(xid, u64::MAX);
        let text = name.to_string();
        let parts: Vec<&str> = text
            .split(',')
            .map(|part| part.trim_matches('\''))
            .collect();
        let [transaction, branch] = parts.as_slice() else {
            panic!("two parts: {text}");
        };
        assert!(transaction.len() <= 64 && branch.len() <= 64, "{text}");
        let read = |transaction: &str, branch: &str| {
            names().read(transaction.as_bytes(), branch.as_bytes())
        };
        assert_eq!(read(transaction, branch), Some((xid, name)));
        let other = "cd".repeat(15) + "ce:0000000000000001";
        for (transaction, branch) in [
            (*transaction, "1"),
            ("mine", *branch),
            (*transaction, other.as_str()),
            (*transaction, &branch.to_uppercase()),
        ] {
            assert_eq!(read(transaction, branch), None, "{transaction} {branch}");
        }
        assert_eq!(names().read(b"\xff", b""), None);
    }

    #[test]
    fn a_galera_node_is_refused() {
        for fine in [None, Some("OFF"), Some("0")] {
            check_replication("stock-db", fine).expect("no Galera");
        }
        let error = check_replication("stock-db", Some("ON")).expect_err("Galera");
        assert!(error.to_string().contains("Galera"), "{error}");
    }

    #[test]
    fn an_age_begins_when_it_is_seen_first() {
        let known = Known::default();
        let age = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            known.ages(&names)
        };
        assert_eq!(age(&["a"]), [Duration::ZERO]);
        assert_eq!(age(&["a", "b"]).len(), 2);
        // Gone and back: it begins again.
        age(&["b"]);
        assert!(known.seen.lock().contains_key("b"));
        assert!(!known.seen.lock().contains_key("a"));
    }
}
