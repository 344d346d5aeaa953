//! What prepared transactions are called.

use accede_proto::Xid;
use uuid::Uuid;

use crate::{
    error::Error,
    store::finish::{BranchKey, Meta},
};

/// What all names of prepared transactions begin with, whatever the cluster.
const NAMESPACE: &str = "accede";

/// What the names of a cluster's prepared transactions begin with. The cluster's id is in it, so
/// that clusters which share a server never touch each other's.
///
/// # Errors
/// [`Error::Configuration`] as long as no agent has tied the database to its cluster.
pub(in crate::store) fn prefix(resource: &str, meta: &Meta) -> Result<String, Error> {
    let cluster: Uuid = meta.cluster_id.ok_or_else(|| {
        Error::Configuration(format!(
            "the database of {resource} is not tied to a cluster yet, so its prepared \
             transactions would have no name: start an agent for it that reaches the coordinator"
        ))
    })?;
    Ok(format!("{NAMESPACE}:{}:", cluster.simple()))
}

/// A global transaction's part of the name: letters, digits and colons only, 56 bytes.
pub(in crate::store) fn of_transaction(prefix: &str, xid: Xid) -> String {
    format!("{prefix}{:016x}", xid.as_u64())
}

/// Whose part of a name that is.
pub(in crate::store) fn transaction_of(prefix: &str, name: &str) -> Option<Xid> {
    let digits = name.strip_prefix(prefix)?;
    let xid = Xid::from_u64(u64::from_str_radix(digits, 16).ok()?)?;
    (of_transaction(prefix, xid) == name).then_some(xid)
}

/// A branch's name in one piece.
pub(in crate::store) fn of_branch(prefix: &str, key: BranchKey) -> String {
    format!("{}:{}", of_transaction(prefix, key.xid), key.branch)
}

/// Which branch of this cluster has the name.
pub(in crate::store) fn branch_of(prefix: &str, name: &str) -> Option<BranchKey> {
    let (transaction, branch) = name.rsplit_once(':')?;
    let key = BranchKey {
        xid: transaction_of(prefix, transaction)?,
        branch: branch.parse().ok()?,
    };
    (of_branch(prefix, key) == name).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_branch_it_is_and_only_ours_do() {
        let xid = Xid::from_u64(0x1234_5678_9abc).expect("not zero");
        let key = BranchKey { xid, branch: 7 };
        let name = of_branch("accede:00ff:", key);
        assert_eq!(name, "accede:00ff:0000123456789abc:7");
        assert_eq!(branch_of("accede:00ff:", &name), Some(key));
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
            assert_eq!(branch_of("accede:00ff:", other), None, "{other}");
        }
        let name = of_transaction("accede:00ff:", xid);
        assert_eq!(transaction_of("accede:00ff:", &name), Some(xid));
        assert_eq!(transaction_of("accede:00fe:", &name), None);
    }

    #[test]
    fn only_a_tied_database_has_names() {
        let mut meta = Meta {
            database_id: Uuid::nil(),
            cluster_id: None,
        };
        let error = prefix("stock-db", &meta).expect_err("no cluster");
        assert!(
            error.to_string().contains("not tied to a cluster"),
            "{error}"
        );
        meta.cluster_id = Some(Uuid::from_bytes([0xab; 16]));
        let prefix = prefix("stock-db", &meta).expect("tied");
        assert_eq!(prefix, format!("accede:{}:", "ab".repeat(16)));
        // The longest that MariaDB takes for this part.
        let xid = Xid::from_u64(u64::MAX >> 1).expect("not zero");
        assert!(of_transaction(&prefix, xid).len() <= 64);
    }
}
