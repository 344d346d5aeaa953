//! How a branch begins.

use std::{io, time::Duration};

use sqlx::Row as _;

use super::{
    capture::{Capture, LOG},
    connection::Held,
    is_busy,
    pool::AtPool,
    turns::Turn,
};

/// What the database said when the branch began.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// By the database's clock, in milliseconds since 1970.
    pub(super) began_ms: i64,
    /// The version of the schema, which nobody else can change before the branch ends.
    pub(super) version: i64,
    /// The connection's own setting.
    pub(super) recursive_triggers: bool,
    /// How many rows the connection has changed before.
    pub(super) total_changes: i64,
    /// What the connection notes.
    pub(super) capture: Capture,
}

/// The turn of a transaction did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("other transactions of this process have the database's write lock")]
struct NotMyTurn;

/// Whether somebody else has the database's write lock, in this process or elsewhere.
pub(super) fn is_locked(error: &sqlx::Error) -> bool {
    let turn = match error {
        sqlx::Error::Io(io) => io.get_ref().is_some_and(|inner| inner.is::<NotMyTurn>()),
        _ => false,
    };
    turn || is_busy(error)
}

/// Takes the database's write lock from users of other pools, waiting for it as long as
/// `remaining` says.
pub(super) async fn lock(
    held: &mut Held,
    turn: Option<Turn>,
    remaining: &(dyn Fn() -> Duration + Sync),
) -> Result<(), sqlx::Error> {
    let Some(turn) = turn else {
        let error = io::Error::new(io::ErrorKind::TimedOut, NotMyTurn);
        return Err(sqlx::Error::Io(error));
    };
    held.keep(turn);
    loop {
        held.soil();
        // The connection itself tries for a moment.
        match sqlx::raw_sql("BEGIN IMMEDIATE").execute(held.get()).await {
            Err(error) if is_busy(&error) => {
                if remaining().is_zero() {
                    held.clean();
                    return Err(error);
                }
            }
            result => return result.map(drop),
        }
    }
}

/// Begins a branch. A connection whose notes are about another version of the schema
/// is replaced.
pub(super) async fn begin(
    held: &mut Held,
    pool: &AtPool,
    remaining: &(dyn Fn() -> Duration + Sync),
) -> Result<Session, sqlx::Error> {
    loop {
        let turn = pool.turns().of_branch(remaining()).await;
        lock(held, turn, remaining).await?;
        let capture = Capture::read(held.get()).await?;
        if capture.log_root.is_some() {
            let clear = format!("DELETE FROM temp.{LOG}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(clear))
                .execute(held.get())
                .await?;
        }
        let row = sqlx::query(
            "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER), s.schema_version, \
             r.recursive_triggers, total_changes() \
             FROM pragma_schema_version s, pragma_recursive_triggers r",
        )
        .fetch_one(held.get())
        .await?;
        let session = Session {
            began_ms: row.try_get(0)?,
            version: row.try_get_unchecked(1)?,
            recursive_triggers: row.try_get_unchecked(2)?,
            total_changes: row.try_get(3)?,
            capture,
        };
        match session.capture.version {
            Some(version) if version != session.version => held.renew(pool.branches()).await?,
            _ => return Ok(session),
        }
    }
}
