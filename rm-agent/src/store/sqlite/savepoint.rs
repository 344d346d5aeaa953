//! Savepoints inside a branch: SAVEPOINT, ROLLBACK TO and RELEASE as statements.
//!
//! The notes belong to the transaction, so the database takes them back with the rows.

use futures_util::TryStreamExt as _;
use sqlx::{Executor as _, SqliteConnection};

use super::{
    branch::Begun,
    capture::{Capture, LOG, MADE, MET},
    executor::Statement,
    transaction::Step,
};
use crate::at::savepoint::SavepointCommand;

/// Runs such a statement in a branch.
pub(super) async fn run(
    connection: &mut SqliteConnection,
    begun: &mut Begun,
    command: &SavepointCommand,
    statement: Statement,
) -> Result<Vec<Step>, sqlx::Error> {
    let steps = connection.fetch_many(statement).try_collect().await?;
    if matches!(command, SavepointCommand::RollBackTo(_)) {
        // Tables that were watched since then are watched no more.
        begun.session.capture = Capture::read(connection).await?;
        // What was changed and taken back stays in the count; it goes on from what is left.
        let noted = match begun.session.capture.log_root {
            Some(_) => {
                format!(
                    "(SELECT COUNT(*) + COUNT(*) FILTER (WHERE k NOT IN ({MADE}, {MET})) FROM temp.{LOG})"
                )
            }
            None => "0".to_owned(),
        };
        let sql = sqlx::AssertSqlSafe(format!("SELECT total_changes() - {noted}"));
        begun.session.total_changes = sqlx::query_scalar(sql).fetch_one(connection).await?;
    }
    Ok(steps)
}
