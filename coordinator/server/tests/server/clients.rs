//! The transaction client of this project against the daemon, and clients that behave badly.

use accede_proto::v1::{self, branch_request::Body as RmBody};
use accede_server::{Error, Server};
use accede_tm_client::{Options, Outcome, PhaseTwo, TransactionClient};
use tokio_stream::wrappers::ReceiverStream;

use crate::support::{Daemon, Rm, SOON, Tm, config, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_transaction_client_commits_two_branches() {
    let daemon = Daemon::start().await;
    let address = format!("http://{}", daemon.server.addr());
    let client = soon(TransactionClient::connect(address))
        .await
        .expect("connected");
    let mut stock = Rm::connect(&daemon, &["stock"]).await;
    let mut account = Rm::connect(&daemon, &["account"]).await;
    for round in 0..20 {
        let transaction = client.begin(Options::new("order")).await.expect("begun");
        let xid = transaction.xid();
        for (rm, resource) in [(&mut stock, "stock"), (&mut account, "account")] {
            let branch = rm.register(xid.as_u64(), resource, &["row"]).await;
            rm.done(xid.as_u64(), branch).await;
        }
        if round % 2 == 0 {
            transaction.commit().await.expect("committed");
        } else {
            transaction.roll_back("no").await.expect("rolled back");
        }
        for rm in [&mut stock, &mut account] {
            let order = rm.order().await;
            assert_eq!(order.xid, xid.as_u64());
            rm.finished(&order).await;
        }
        soon(async {
            loop {
                let phase_two = match client.outcome(xid).await.expect("known") {
                    Outcome::Committed(committed) => committed.phase_two,
                    Outcome::RolledBack(back) => back.phase_two,
                    other => panic!("not decided: {other:?}"),
                };
                if phase_two == PhaseTwo::Finished {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    client.shutdown().await;
    daemon.server.shutdown().await.expect("it ends");
}

/// Asks for more than the daemon keeps and never reads an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_ended_and_nobody_else_notices() {
    let daemon = Daemon::start().await;
    let (requests, stream) = tokio::sync::mpsc::channel(1024);
    let mut client = daemon.branches().await;
    let _unread = soon(client.session(ReceiverStream::new(stream)))
        .await
        .expect("a stream");
    let send = |tag, body| {
        let requests = requests.clone();
        async move {
            let request = v1::BranchRequest {
                tag,
                body: Some(body),
            };
            requests.send(request).await
        }
    };
    let open = v1::OpenBranchSession {
        agent: 99,
        ..Default::default()
    };
    send(1, RmBody::Open(open)).await.expect("open");
    let is_open = async |open: &str| {
        let line = format!("accede_sessions{{kind=\"branches\"}} {open}");
        daemon
            .page("/metrics")
            .await
            .lines()
            .any(|have| have == line)
    };
    // Small requests with small answers fill the queue.
    let flood = async {
        while send(4, RmBody::Withdrawn(Default::default())).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let ended = async {
        while !is_open("1").await {}
        while !is_open("0").await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = flood => {}
        ended = tokio::time::timeout(SOON, ended) => ended.expect("it is cut off"),
    }
    let mut tm = Tm::connect(&daemon).await;
    tm.begun(60_000).await;
    drop(requests);
    daemon.server.shutdown().await.expect("it ends");
}

/// Entries of a version to come, as after a downgrade.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_read_is_never_skipped() {
    struct Writer;
    impl accede_log::StateMachine for Writer {
        type Response = ();
        fn apply(&mut self, _: u64, _: &[u8]) {}
        fn snapshot(&self) -> Vec<u8> {
            Vec::new()
        }
        fn restore(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut log_config = accede_log::LogConfig::new(dir.path());
    log_config.segment_bytes = accede_server::limits::MIN_SEGMENT_BYTES;
    let log = accede_log::Log::open(log_config, Writer)
        .await
        .expect("open");
    let leader =
        |now: &accede_log::Leadership| matches!(now, accede_log::Leadership::Leader { .. });
    soon(log.leadership().wait_for(leader))
        .await
        .expect("leads");
    let entry = bytes::Bytes::from_static(&[250; 64]);
    log.propose(entry)
        .await
        .expect("queued")
        .await
        .expect("logged");
    log.shutdown().await.expect("ended");
    drop(log);
    let error = Server::start(config(dir.path()))
        .await
        .expect_err("refused");
    assert!(matches!(error, Error::Entry(_)), "{error}");
    assert!(error.to_string().contains("cannot be read"), "{error}");
}
