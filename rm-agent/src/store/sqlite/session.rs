//! How a branch begins.

use std::time::Duration;

use sqlx::{Row as _, SqlitePool};

use super::{
    capture::{Capture, LOG},
    connection::Held,
    is_busy,
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

/// Takes the database's write lock, waiting for it as long as `remaining` says.
pub(super) async fn lock(
    held: &mut Held,
    remaining: &(dyn Fn() -> Duration + Sync),
) -> Result<(), sqlx::Error> {
    loop {
        held.soil();
        // The connection itself tries for a moment.
        match sqlx::raw_sql("BEGIN IMMEDIATE").execute(held.get()).await {
            Err(error) if is_busy(&error) => {
                held.clean();
                if remaining().is_zero() {
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
    pool: &SqlitePool,
    remaining: &(dyn Fn() -> Duration + Sync),
) -> Result<Session, sqlx::Error> {
    loop {
        lock(held, remaining).await?;
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
            Some(version) if version != session.version => held.renew(pool).await?,
            _ => return Ok(session),
        }
    }
}
