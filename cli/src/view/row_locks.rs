//! `accede lock list`.

use accede_proto::v1::{
    ColumnDelta, ListRowLocksResponse, RowLockHolder, RowLockMode, RowLockStatus, RowLockWaiter,
};
use accede_rm_agent::describe_row_lock;
use serde::Serialize;

use super::{hex, xid};
use crate::{
    output::{Output, trimmed},
    text,
};

/// Holders and waiters of one row that the table names; more are counted.
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
    holders: Vec<HolderView>,
    waiting: Vec<WaiterView>,
}

#[derive(Debug, Serialize)]
struct HolderView {
    xid: String,
    #[serde(flatten)]
    mode: ModeView,
}

#[derive(Debug, Serialize)]
struct ModeView {
    mode: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    columns: Vec<ColumnView>,
}

#[derive(Debug, Serialize)]
struct ColumnView {
    column: String,
    delta: i64,
    value: i64,
    lower: Option<i64>,
    upper: Option<i64>,
}

#[derive(Debug, Serialize)]
struct WaiterView {
    xid: String,
    waiting_for_ms: u64,
    gives_up_in_ms: u64,
    holds_local_locks: bool,
    #[serde(flatten)]
    mode: ModeView,
}

impl ModeView {
    fn new(mode: RowLockMode, columns: Vec<ColumnDelta>) -> Self {
        let mode = match mode {
            RowLockMode::Exclusive | RowLockMode::Unspecified => "exclusive",
            RowLockMode::Shared => "shared",
            RowLockMode::Escrow => "escrow",
        };
        let columns = columns.into_iter().map(|change| ColumnView {
            column: change.column,
            delta: change.delta,
            value: change.value,
            lower: change.lower,
            upper: change.upper,
        });
        Self {
            mode,
            columns: columns.collect(),
        }
    }

    /// What is to be said beside the XID: nothing of the exclusive mode, which is the usual one.
    fn note(&self) -> String {
        let columns = self.columns.iter();
        let columns = columns.map(|change| format!(" {} {:+}", change.column, change.delta));
        match self.mode {
            "exclusive" => String::new(),
            mode => format!(" ({mode}{})", columns.collect::<Vec<_>>().join(",")),
        }
    }
}

impl From<RowLockHolder> for HolderView {
    fn from(holder: RowLockHolder) -> Self {
        Self {
            xid: xid(holder.xid),
            mode: ModeView::new(holder.mode(), holder.columns),
        }
    }
}

impl From<RowLockWaiter> for WaiterView {
    fn from(waiter: RowLockWaiter) -> Self {
        Self {
            xid: super::waiter(waiter.xid),
            waiting_for_ms: waiter.waiting_for_ms,
            gives_up_in_ms: waiter.gives_up_in_ms,
            holds_local_locks: waiter.holds_local_locks,
            mode: ModeView::new(waiter.mode(), waiter.columns),
        }
    }
}

impl From<RowLockStatus> for RowLockView {
    fn from(row: RowLockStatus) -> Self {
        Self {
            resource: row.resource,
            row: describe_row_lock(&row.key),
            key: hex(&row.key),
            holders: row.holders.into_iter().map(HolderView::from).collect(),
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
                &holders(&row.holders),
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

fn holders(holders: &[HolderView]) -> String {
    if holders.is_empty() {
        return "–".to_owned();
    }
    let named = holders.iter();
    some(named.map(|holder| format!("{}{}", holder.xid, holder.mode.note())))
}

fn waiting(waiters: &[WaiterView]) -> String {
    some(waiters.iter().map(|waiter| {
        let WaiterView { xid, mode, .. } = waiter;
        let since = text::duration(waiter.waiting_for_ms);
        format!("{xid}{} for {since}", mode.note())
    }))
}

fn some(mut all: impl ExactSizeIterator<Item = String>) -> String {
    let mut named: Vec<String> = all.by_ref().take(NAMED).collect();
    if all.len() > 0 {
        named.push(format!("{} more", all.len()));
    }
    named.join(", ")
}
