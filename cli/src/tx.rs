//! `accede status` and `accede tx …`.

use accede_proto::{
    Xid,
    v1::{
        GetStatusRequest, GetTransactionRequest, ListTransactionsRequest, RepairRequest,
        RepairVerb, TransactionDetail,
    },
};
use serde::Serialize;

use crate::{
    args::{List, Repair, Tx},
    client::Coordinator,
    failure::Failure,
    output::Output,
    text,
    view::{self, DetailView, ListView, StatusView},
    why::why,
};

/// What `accede tx repair --json` prints.
#[derive(Serialize)]
struct Repaired {
    xid: String,
    verb: &'static str,
    branches: Vec<u32>,
}

/// `accede status`.
///
/// # Errors
/// When the coordinator cannot be asked.
pub(crate) async fn status(mut from: Coordinator, output: Output) -> Result<(), Failure> {
    let answer = from.operator.get_status(GetStatusRequest {}).await;
    let status = answer.map_err(|status| from.failure(&status))?.into_inner();
    let view = StatusView::from(status);
    output.write(&view, &view.to_text(output))
}

/// `accede tx …`.
///
/// # Errors
/// When the coordinator cannot be asked, or refuses.
pub(crate) async fn run(tx: Tx, mut from: Coordinator, output: Output) -> Result<(), Failure> {
    match tx {
        Tx::List(what) => list(&what, from, output).await,
        Tx::Show { xid } => {
            let view = DetailView::from(detail(xid, &mut from).await?);
            output.write(&view, &view.to_text(output))
        }
        Tx::Why { xid } => {
            let answer = why(&detail(xid, &mut from).await?);
            output.write(&answer, &answer.to_text())
        }
        Tx::Repair(what) => repair(what, from, output).await,
    }
}

async fn list(what: &List, mut from: Coordinator, output: Output) -> Result<(), Failure> {
    let older_than = what.older_than.unwrap_or_default();
    let request = ListTransactionsRequest {
        statuses: what.status.iter().map(|status| status.0.into()).collect(),
        older_than_ms: u64::try_from(older_than.as_millis()).unwrap_or(u64::MAX),
        limit: what.limit,
        after: 0,
    };
    let answer = from.operator.list_transactions(request).await;
    let view = ListView::from(answer.map_err(|status| from.failure(&status))?.into_inner());
    output.write(&view, &view.to_text(output))
}

async fn detail(xid: Xid, from: &mut Coordinator) -> Result<TransactionDetail, Failure> {
    let request = GetTransactionRequest { xid: xid.as_u64() };
    let answer = from.operator.get_transaction(request).await;
    Ok(answer.map_err(|status| from.failure(&status))?.into_inner())
}

async fn repair(what: Repair, mut from: Coordinator, output: Output) -> Result<(), Failure> {
    let verb = RepairVerb::from(what.verb);
    let request = RepairRequest {
        xid: what.xid.as_u64(),
        branch: what.branch.unwrap_or(0),
        verb: verb.into(),
        by: what.by,
        reason: what.reason,
    };
    let answer = from.operator.repair(request).await;
    let branches = answer
        .map_err(|status| from.failure(&status))?
        .into_inner()
        .branches;
    let names: Vec<String> = branches.iter().map(|n| format!("branch {n}")).collect();
    let word = view::verb_word(verb);
    let text = format!(
        "{word}: {} of transaction {}. `accede tx why {}` tells how it goes on.",
        text::list(&names),
        what.xid,
        what.xid
    );
    let repaired = Repaired {
        xid: what.xid.to_string(),
        verb: word,
        branches,
    };
    output.write(&repaired, &text)
}
