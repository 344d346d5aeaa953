//! Unary calls, leases, pages: the doors without a session.

use accede_proto::v1::{self, Decision, Status, transaction_request::Body as TmBody};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{Daemon, Rm, Tm, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_by_unary_calls() {
    let daemon = Daemon::start().await;
    let mut agent = Rm::connect(&daemon, &["stock"]).await;
    let mut transactions = daemon.transactions().await;
    let mut branches = daemon.branches().await;
    let mut last = 0;
    for decide in [Decision::Commit, Decision::RollBack] {
        let begin = v1::BeginRequest {
            name: "unary".into(),
            timeout_ms: 60_000,
            parent: 0,
        };
        let xid = transactions
            .begin(begin)
            .await
            .expect("begun")
            .into_inner()
            .xid;
        assert!(xid > last);
        last = xid;
        let request = agent.registration(xid, "stock", &["a"]);
        let check = v1::CheckRowLocks {
            xid,
            request: Some(v1::RequestId {
                client: 77,
                sequence: xid,
            }),
            resource: "stock".into(),
            row_locks: request.row_locks.clone(),
            ..Default::default()
        };
        // A local transaction outside of any asks about the same rows.
        let outside = v1::CheckRowLocks {
            xid: 0,
            holds_local_locks: true,
            ..check.clone()
        };
        branches.check_locks(outside.clone()).await.expect("free");
        branches.check_locks(check).await.expect("free");
        let branch = branches
            .register(request)
            .await
            .expect("joined")
            .into_inner()
            .branch;
        let held = branches.check_locks(outside.clone()).await;
        let held = held.expect_err("another transaction's");
        assert_eq!(held.code(), tonic::Code::Aborted);
        let withdrawal = v1::BranchWithdrawn {
            xid: 0,
            request: outside.request,
            resource: outside.resource,
        };
        branches.withdraw(withdrawal).await.expect("noted");
        branches
            .done(v1::BranchDone { xid, branch })
            .await
            .expect("noted");
        let outcome = if decide == Decision::Commit {
            transactions.commit(v1::CommitRequest { xid }).await
        } else {
            let reason = "no".into();
            transactions
                .roll_back(v1::RollBackRequest { xid, reason })
                .await
        };
        assert_eq!(outcome.expect("decided").into_inner().decision(), decide);
        let order = agent.order().await;
        agent.finished(&order).await;
        soon(async {
            loop {
                let get = v1::GetOutcomeRequest { xid };
                let outcome = transactions.get_outcome(get).await.expect("known");
                if matches!(
                    outcome.into_inner().status(),
                    Status::Committed | Status::RolledBack
                ) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_renewed_and_given_back() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let worker = tm.lease.worker;
    let renewed = tm.call(TmBody::Renew(v1::RenewLease { worker })).await;
    let v1::transaction_event::Body::Lease(lease) = renewed else {
        panic!("not renewed: {renewed:?}");
    };
    assert_eq!((lease.worker, lease.floor_ms), (worker, tm.lease.floor_ms));
    let other = v1::RenewLease { worker: worker + 1 };
    let refused = crate::support::tm_refusal(tm.call(TmBody::Renew(other)).await);
    assert_eq!(refused.code(), v1::refusal::Code::LeaseEnded);
    let process = tm.process;
    tm.send(0, TmBody::Close(v1::CloseTransactionSession {}))
        .await;
    // The daemon ends the stream.
    while soon(tm.events.message())
        .await
        .expect("a sound stream")
        .is_some()
    {}
    let gone = Tm::try_connect(&daemon, process, Some(worker)).await;
    assert_eq!(
        gone.err().expect("given back").code(),
        v1::refusal::Code::LeaseEnded
    );
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_health_and_status() {
    let daemon = Daemon::start().await;
    assert!(daemon.page("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(daemon.page("/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = daemon.page("/metrics").await;
    for metric in accede_server::METRICS {
        assert!(
            metrics.contains(metric.name) || !metric.label.is_empty(),
            "{}",
            metric.name
        );
    }
    let mut health = HealthClient::new(daemon.channel().await);
    let service = "accede.v1.Transactions".to_owned();
    let answer = health
        .check(HealthCheckRequest { service })
        .await
        .expect("known");
    assert_eq!(answer.into_inner().status, 1);
    let _rm = Rm::connect_as(&daemon, 4711, &["stock"]).await;
    let mut operator = daemon.operator().await;
    let status = operator
        .get_status(v1::GetStatusRequest {})
        .await
        .expect("a status");
    let status = status.into_inner();
    assert!(status.leader && status.epoch > 0 && status.cluster_id.len() == 16);
    assert_eq!(status.agents[0].agent, 4711);
    assert_eq!(status.resources[0].attached_agents, 1);
    assert_eq!(status.transactions["stuck"], 0);
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_tells_what_it_leaves() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    tm.begun(60_000).await;
    let left = daemon.server.shutdown().await.expect("it ends");
    assert_eq!((left.undecided, left.unfinished, left.stuck), (1, 0, 0));
}
