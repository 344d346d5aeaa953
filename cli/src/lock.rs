//! `accede lock …`.

use accede_proto::v1::ListRowLocksRequest;

use crate::{
    args::{Lock, RowLocks},
    client::Coordinator,
    failure::Failure,
    output::Output,
    view::RowLocksView,
};

/// `accede lock …`.
///
/// # Errors
/// When the coordinator cannot be asked.
pub(crate) async fn run(lock: Lock, from: Coordinator, output: Output) -> Result<(), Failure> {
    match lock {
        Lock::List(what) => list(what, from, output).await,
    }
}

async fn list(what: RowLocks, mut from: Coordinator, output: Output) -> Result<(), Failure> {
    let request = ListRowLocksRequest {
        resource: what.resource.unwrap_or_default(),
        xid: what.xid.map_or(0, |xid| xid.as_u64()),
        waited_for: what.waited_for,
        limit: what.limit,
    };
    let answer = from.operator.list_row_locks(request).await;
    let list = answer.map_err(|status| from.failure(&status))?.into_inner();
    let view = RowLocksView::from(list);
    output.write(&view, &view.to_text(output))
}
