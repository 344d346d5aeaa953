//! How the local transaction of a branch begins, and ends if it has written nothing.

use accede_proto::Xid;
use sqlx::{AssertSqlSafe, mysql::MySqlRow};

use super::XaName;
use crate::store::mariadb::{
    AtPool,
    connection::Held,
    failure::connection_is_lost,
    session::{self, XA_SETTINGS},
};

/// Opens it by a message that ends in `XA START`; the row that the message shows.
pub(in crate::store::mariadb) async fn begin(
    pool: &AtPool,
    held: &mut Held,
    xid: Xid,
    message: impl Fn(&XaName) -> String + Send + Sync,
) -> Result<Option<MySqlRow>, sqlx::Error> {
    held.session().xa = None;
    let names = pool.xa_known().names(pool).await?;
    let mut name = names.of(xid, 0);
    let begin = held.first(pool.plain(), connection_is_lost, |connection, _| {
        // A connection that was lost may still hold the former one.
        name = names.of(xid, rand::random());
        Box::pin(session::send(connection, message(&name)))
    });
    let row = begin.await?;
    held.session().xa = Some(name);
    Ok(row)
}

/// Ends one that has written nothing.
pub(in crate::store::mariadb) async fn commit_unwritten(
    held: &mut Held,
) -> Result<(), sqlx::Error> {
    let message = match held.session().xa.take() {
        None => "COMMIT".to_owned(),
        Some(name) => format!("XA END {name}; XA COMMIT {name} ONE PHASE; {XA_SETTINGS}"),
    };
    let commit = sqlx::raw_sql(AssertSqlSafe(message)).execute(held.get());
    commit.await.map(drop)
}
