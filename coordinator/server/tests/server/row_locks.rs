//! Row locks in their modes, from the wire to what operators see.

use accede_proto::v1::{
    self, ColumnDelta, RowLockMode, branch_event::Body as Event, branch_request::Body as RmBody,
    refusal::Code,
};

use crate::support::{Daemon, Rm, Tm, refusal};

/// Took or put `delta` into a number that may be 0 to 10.
fn escrow(delta: i64, value: i64) -> v1::EscrowRowLock {
    v1::EscrowRowLock {
        row: b"apple"[..].into(),
        columns: vec![ColumnDelta {
            column: "count".into(),
            delta,
            value,
            lower: Some(0),
            upper: Some(10),
        }],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_shared_and_operators_see_how() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect(&daemon, &["stock"]).await;
    let mut holders = Vec::new();
    for delta in [-3, 2] {
        let xid = tm.begin(60_000).await;
        let mut register = rm.registration(xid, "stock", &["order"]);
        register.row_locks.clear();
        register.shared_row_locks = vec![b"price"[..].into()];
        register.escrow_row_locks = vec![escrow(delta, 5)];
        let answer = rm.call(RmBody::Register(register)).await;
        assert!(matches!(answer, Event::Registered(_)), "{answer:?}");
        holders.push(xid);
    }
    let mut operator = daemon.operator().await;
    let listed = operator.list_row_locks(v1::ListRowLocksRequest::default());
    let rows = listed.await.expect("a list").into_inner().row_locks;
    assert_eq!(rows.len(), 2, "each row once: {rows:?}");
    for (row, mode) in rows.iter().zip([RowLockMode::Escrow, RowLockMode::Shared]) {
        let xids: Vec<u64> = row.holders.iter().map(|holder| holder.xid).collect();
        assert_eq!(xids, holders);
        assert!(row.holders.iter().all(|holder| holder.mode() == mode));
    }
    assert_eq!(rows[0].holders[0].columns, escrow(-3, 5).columns);

    // Nobody writes what they rely on, and nothing is taken that may not be there.
    let writer = tm.begin(60_000).await;
    let mut write = rm.registration(writer, "stock", &["price"]);
    write.wait_limit_ms = 0;
    let refused = refusal(rm.call(RmBody::Register(write)).await);
    assert_eq!(refused.code(), Code::LockWaitTimedOut, "{refused:?}");
    let mut take = rm.registration(writer, "stock", &[]);
    take.escrow_row_locks = vec![escrow(-4, 1)];
    take.wait_limit_ms = 0;
    let refused = refusal(rm.call(RmBody::Register(take)).await);
    assert_eq!(refused.code(), Code::LockWaitTimedOut, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modes_without_sense_are_refused() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect(&daemon, &["stock"]).await;
    let xid = tm.begin(60_000).await;
    let mut twice = rm.registration(xid, "stock", &["apple"]);
    twice.shared_row_locks = vec![b"apple"[..].into()];
    let mut outside = rm.registration(xid, "stock", &[]);
    outside.escrow_row_locks = vec![escrow(3, 11)];
    let mut empty = rm.registration(xid, "stock", &[]);
    empty.escrow_row_locks = vec![v1::EscrowRowLock {
        columns: Vec::new(),
        ..escrow(1, 1)
    }];
    for (register, why) in [
        (twice, "in two modes"),
        (outside, "within its bounds"),
        (empty, "must name a column"),
    ] {
        let refused = refusal(rm.call(RmBody::Register(register)).await);
        assert_eq!(refused.code(), Code::Invalid, "{refused:?}");
        assert!(refused.message.contains(why), "{refused:?}");
    }
}
