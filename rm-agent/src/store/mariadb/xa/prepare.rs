//! The end of phase one, and the message that ends a branch.

use accede_proto::Xid;
use bytes::Bytes;

use super::{XaName, open::Local};
use crate::{
    at::mysql::quote_qualified,
    error::Error,
    limits,
    registrar::LockKey,
    store::{
        finish::BranchKey,
        mariadb::{
            AtPool,
            branch::{Branch, in_time, send_commit, settle},
            connection::Held,
            fence::text,
            session::XA_SETTINGS,
        },
        watch::Watch,
        xa::{
            COMMITTED,
            open::{self, End, Joined},
        },
    },
};

/// Register, write the fence's row, prepare: rule by rule so that a cancelled or failed step
/// leaves the coordinator knowing the truth.
pub(in crate::store::mariadb) async fn prepare(
    pool: &AtPool,
    held: &mut Held,
    xid: Xid,
    branch: &Branch,
    row_locks: Vec<LockKey>,
) -> Result<(), Error> {
    let Some(name) = held.session().xa.clone() else {
        return Err(Error::Broken {
            reason: "it has not begun as a branch".to_owned(),
        });
    };
    let token = Bytes::copy_from_slice(&name.token().to_be_bytes());
    let joined = open::register(pool, xid, row_locks, token, branch.wait_limit());
    let joined = match joined.await {
        Ok(joined) => joined,
        Err(refused) => {
            let _ = held.roll_back().await;
            return Err(refused.into());
        }
    };
    let begun = branch.begun.clone().expect("an open branch has begun");
    if joined.stays_open() {
        let local = Local {
            held: held.take(),
            name,
            begun,
            sent: joined.sent,
            give_up: joined.give_up,
        };
        joined.keep(pool, local);
        return Ok(());
    }
    let Joined {
        key,
        mut outcome,
        sent,
        give_up,
        ..
    } = joined;
    let (session, begun) = begun;
    let last = Last {
        key,
        name: &name,
        backend: session.backend,
        created: in_time(&session, begun, sent, give_up),
    };
    outcome.sent = true;
    match last.send(pool, held, End::Prepare).await {
        Ok(()) => {
            outcome.done();
            Ok(())
        }
        Err(failed) => Err(settle(outcome, held, failed).await),
    }
}

/// The last message of a branch.
pub(super) struct Last<'b> {
    pub(super) key: BranchKey,
    pub(super) name: &'b XaName,
    /// The session's number in the database.
    pub(super) backend: Option<i64>,
    /// The time of the fence's row, which is refused when it is too late.
    pub(super) created: String,
}

impl Last<'_> {
    /// Sends it. On an error: whether the branch certainly did not end so; then it is still to be
    /// rolled back.
    pub(super) async fn send(
        self,
        pool: &AtPool,
        held: &mut Held,
        end: End,
    ) -> Result<(), (sqlx::Error, bool)> {
        let name = self.name;
        // How many statements come before the one that counts.
        let (before, ends) = match end {
            // A session that nobody hears of any more must not keep what it prepared.
            End::Prepare => {
                let silence = limits::XA_SESSION_SILENCE.as_secs().max(1);
                let prepare = format!(
                    "SET SESSION wait_timeout = {silence}; XA END {name}; XA PREPARE {name}"
                );
                (3, prepare)
            }
            End::CommitOnePhase => {
                let commit = format!("XA END {name}; XA COMMIT {name} ONE PHASE; {XA_SETTINGS}");
                (2, commit)
            }
        };
        let message = format!(
            "INSERT INTO {} (xid, branch_id, status, resource, created) \
             VALUES ({}, {}, {COMMITTED}, {}, {}); {ends}",
            quote_qualified(pool.database(), "accede_fence"),
            self.key.xid_column(),
            self.key.branch_column(),
            text(pool.resource()),
            self.created,
        );
        let sent = send_commit(held.get(), message, before);
        let watch = Watch::new(pool, Some(self.key.xid), self.backend);
        watch.over(sent).await?;
        match end {
            // Before anybody is told, for the order may come at once.
            End::Prepare => pool.parked().park(self.key, held.take()),
            End::CommitOnePhase => {
                held.session().xa = None;
                held.clean();
            }
        }
        Ok(())
    }
}
