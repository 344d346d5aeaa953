//! `accede lock list`.

use accede_proto::v1::{ListRowLocksResponse, RowLockStatus, RowLockWaiter};
use accede_rm_agent::describe_row_lock;
use serde::Serialize;

use super::{hex, xid};
use crate::{
    output::{Output, trimmed},
    text,
};

/// Waiters of one row that the table names; more are counted.
const NAMED: usize = 3;

/// What `accede lock list --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct RowLocksView {
    row_locks: Vec<RowLockView>,
    more: bool,
}

#[derive(Debug, Serialize)]
struct RowLockView {
    resource: String,
    row: String,
    key: String,
    holder: Option<String>,
    waiting: Vec<WaiterView>,
}

#[derive(Debug, Serialize)]
struct WaiterView {
    xid: String,
    waiting_for_ms: u64,
    gives_up_in_ms: u64,
    holds_local_locks: bool,
}

impl From<RowLockWaiter> for WaiterView {
    fn from(waiter: RowLockWaiter) -> Self {
        Self {
            xid: xid(waiter.xid),
            waiting_for_ms: waiter.waiting_for_ms,
            gives_up_in_ms: waiter.gives_up_in_ms,
            holds_local_locks: waiter.holds_local_locks,
        }
    }
}

impl From<RowLockStatus> for RowLockView {
    fn from(row: RowLockStatus) -> Self {
        Self {
            resource: row.resource,
            row: describe_row_lock(&row.key),
            key: hex(&row.key),
            holder: (row.holder != 0).then(|| xid(row.holder)),
            waiting: row.waiting.into_iter().map(WaiterView::from).collect(),
        }
    }
}

impl From<ListRowLocksResponse> for RowLocksView {
    fn from(list: ListRowLocksResponse) -> Self {
        Self {
            row_locks: list.row_locks.into_iter().map(RowLockView::from).collect(),
            more: list.more,
        }
    }
}

impl RowLocksView {
    /// The same for people.
    pub(crate) fn to_text(&self, output: Output) -> String {
        if self.row_locks.is_empty() {
            return "No row lock matches.".to_owned();
        }
        let mut table = output.table(&["resource", "row", "held by", "waiting, in this order"]);
        for row in &self.row_locks {
            table.add_row([
                row.resource.as_str(),
                &row.row,
                row.holder.as_deref().unwrap_or("–"),
                &waiting(&row.waiting),
            ]);
        }
        let mut text = trimmed(&table);
        if self.more {
            text.push_str(
                "\n\nMore row locks match: raise --limit, or narrow with --resource, --xid and \
                 --waited-for.",
            );
        }
        text
    }
}

fn waiting(waiters: &[WaiterView]) -> String {
    let mut named: Vec<String> = waiters
        .iter()
        .take(NAMED)
        .map(|waiter| {
            format!(
                "{} for {}",
                waiter.xid,
                text::duration(waiter.waiting_for_ms)
            )
        })
        .collect();
    if waiters.len() > NAMED {
        named.push(format!("{} more", waiters.len() - NAMED));
    }
    named.join(", ")
}
