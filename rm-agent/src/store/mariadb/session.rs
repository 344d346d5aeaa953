//! How a branch begins, and what the session must be like for its images to hold.

use futures_util::TryStreamExt as _;
use sqlx::{Executor as _, MySqlConnection, Row as _, mysql::MySqlRow};

use super::{branch::Branch, xa::XaName};
use crate::error::Error;

/// Settings with which statements or values read otherwise than this library expects.
const UNFIT_MODES: &[&str] = &[
    "ANSI_QUOTES",
    "NO_BACKSLASH_ESCAPES",
    "ORACLE",
    "MSSQL",
    "PAD_CHAR_TO_FULL_LENGTH",
    "EMPTY_STRING_IS_NULL",
];

/// What the database said when the branch began.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// By the database's clock, as a literal.
    pub(super) began: String,
    /// The session's number in the database.
    pub(super) backend: Option<i64>,
    /// The step between generated keys.
    pub(super) increment: u64,
}

/// The variable that carries a before image to RETURNING.
pub(super) const CAPTURED: &str = "@accede_before";

/// Set when a branch begins: gone if the database rolled its local transaction back.
const ANCHOR: &str = "accede_begun";

/// Ends a transaction; what a branch set for itself goes back to the default.
pub(super) const ROLLBACK: &str = "ROLLBACK; \
     SET SESSION innodb_lock_wait_timeout = DEFAULT, autocommit = DEFAULT";

/// Commits what began as a branch and wrote no undo record.
pub(super) const COMMIT: &str = "COMMIT; \
     SET SESSION innodb_lock_wait_timeout = DEFAULT, autocommit = DEFAULT";

/// The same, for a local transaction outside of any that wrote: fails at once if it is not the
/// one that began.
pub(super) const COMMIT_WHOLE: &str = "RELEASE SAVEPOINT accede_begun; COMMIT; \
     SET SESSION innodb_lock_wait_timeout = DEFAULT, autocommit = DEFAULT";

/// What an XA transaction sets for itself goes back to the default.
pub(super) const XA_SETTINGS: &str =
    "SET SESSION innodb_lock_wait_timeout = DEFAULT, wait_timeout = DEFAULT";

/// Commits a branch, whose undo record `insert` writes. Fails at once if the local
/// transaction is not the one that the branch began.
pub(super) fn commit(insert: &str) -> String {
    format!("RELEASE SAVEPOINT {ANCHOR}; {insert}; {COMMIT}")
}

/// How many statements of [`commit`] come before COMMIT.
pub(super) const BEFORE_COMMIT: usize = 2;

/// Empties the variable if an earlier statement, which failed, may have left something there,
/// and expects the next one to leave something.
pub(super) async fn empty_capture(
    connection: &mut MySqlConnection,
    branch: &mut Branch,
) -> Result<(), sqlx::Error> {
    if std::mem::replace(&mut branch.captures, true) {
        let set = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("SET {CAPTURED} = NULL")));
        connection.execute(set).await?;
    }
    Ok(())
}

/// Sends statements as one message; the row that one of them shows.
pub(super) async fn send(
    connection: &mut MySqlConnection,
    message: String,
) -> Result<Option<MySqlRow>, sqlx::Error> {
    let mut steps = connection.fetch_many(sqlx::raw_sql(sqlx::AssertSqlSafe(message)));
    let mut shown = None;
    while let Some(step) = steps.try_next().await? {
        shown = step.right().or(shown);
    }
    Ok(shown)
}

/// Asks what the session is like; [`read`] takes the row.
const LOOK: &str = "SELECT CAST(@@session.sql_mode AS CHAR), \
     CAST(@@session.tx_isolation AS CHAR), \
     CAST(@@session.time_zone AS CHAR), CAST(@@session.foreign_key_checks + 0 AS CHAR), \
     CAST(@@session.unique_checks + 0 AS CHAR), CAST(DATABASE() AS CHAR), \
     CAST(SYSDATE(6) AS CHAR), CAST(@@session.auto_increment_increment AS CHAR), \
     CAST(@@global.innodb_flush_log_at_trx_commit AS CHAR), \
     CAST(CONNECTION_ID() AS CHAR)";

/// Opens the local transaction of a branch: one message, whose row [`read`] takes. Without
/// autocommit, no statement is on its own if the database rolls all back.
pub(super) fn begin(lock_timeout_s: u64) -> String {
    format!(
        "SET SESSION innodb_lock_wait_timeout = {lock_timeout_s}, autocommit = 0, \
         {CAPTURED} = NULL; {LOOK}; START TRANSACTION; SAVEPOINT {ANCHOR}"
    )
}

/// The same for a branch that the database prepares, which takes no statement any more once it has
/// rolled all back.
pub(super) fn begin_beside_at(lock_timeout_s: u64, name: &XaName) -> String {
    format!(
        "SET SESSION innodb_lock_wait_timeout = {lock_timeout_s}, {CAPTURED} = NULL; {LOOK}; \
         XA START {name}"
    )
}

/// What the database said when the branch began, if its images hold in such a session.
pub(super) fn read(row: &MySqlRow, database: &str) -> Result<Session, Error> {
    let value = |index: usize| -> Result<String, Error> {
        let found: Option<String> = row
            .try_get(index)
            .map_err(Error::database("reading the session's settings"))?;
        Ok(found.unwrap_or_default())
    };
    let wrong = |what: String| Err(Error::Configuration(what));
    let modes = value(0)?;
    if let Some(mode) = modes.split(',').find(|mode| UNFIT_MODES.contains(mode)) {
        return wrong(format!(
            "sql_mode has {mode}; AT reads statements and values without it, so take it out for \
             this pool's sessions"
        ));
    }
    let isolation = value(1)?;
    if isolation.eq_ignore_ascii_case("READ-UNCOMMITTED") {
        return wrong(
            "the session's isolation level is READ UNCOMMITTED; use READ COMMITTED or above"
                .to_owned(),
        );
    }
    let zone = value(2)?;
    if zone != "+00:00" && zone != "UTC" {
        return wrong(format!(
            "the session's time zone is {zone}, in which a TIMESTAMP may read like another one; \
             leave it at +00:00, which is the driver's default"
        ));
    }
    for (index, name) in [(3, "foreign_key_checks"), (4, "unique_checks")] {
        if value(index)? != "1" {
            return wrong(format!("{name} is off in this session; switch it on"));
        }
    }
    let current = value(5)?;
    if current != database {
        return wrong(format!(
            "the session has gone over to the database {current:?}; do without USE"
        ));
    }
    check_flush(&value(8)?)?;
    Ok(Session {
        began: value(6)?,
        backend: value(9)?.parse().ok(),
        increment: value(7)?.parse().unwrap_or(1),
    })
}

fn check_flush(setting: &str) -> Result<(), Error> {
    if matches!(setting, "1" | "3") {
        return Ok(());
    }
    Err(Error::Configuration(format!(
        "innodb_flush_log_at_trx_commit is {setting}: a crash would lose commits that were \
         reported as done; set it to 1"
    )))
}

/// Opens the local transaction of a branch of XA: one message, whose row [`read_xa`] takes.
pub(super) fn begin_xa(lock_timeout_s: u64, name: &XaName) -> String {
    format!(
        "SET SESSION innodb_lock_wait_timeout = {lock_timeout_s}; \
         SELECT CAST(@@session.sql_mode AS CHAR), \
         CAST(@@global.innodb_flush_log_at_trx_commit AS CHAR), CAST(SYSDATE(6) AS CHAR), \
         CAST(CONNECTION_ID() AS CHAR); XA START {name}"
    )
}

/// What the database said when the branch began, if its words can be told apart in such a session.
pub(super) fn read_xa(row: &MySqlRow) -> Result<Session, Error> {
    let value = |index: usize| -> Result<String, Error> {
        row.try_get(index)
            .map_err(Error::database("reading the session's settings"))
    };
    let modes = value(0)?;
    let misread = ["ANSI_QUOTES", "NO_BACKSLASH_ESCAPES"];
    if let Some(mode) = modes.split(',').find(|mode| misread.contains(mode)) {
        return Err(Error::Configuration(format!(
            "sql_mode has {mode}; XA tells the words of statements apart without it, so take it \
             out for this pool's sessions"
        )));
    }
    check_flush(&value(1)?)?;
    Ok(Session {
        began: value(2)?,
        backend: value(3)?.parse().ok(),
        increment: 1,
    })
}
