//! Everything a client can do wrong is refused by name, and nobody else notices.

use accede_proto::v1::{
    self, BranchRequest, TransactionRequest, branch_request::Body as RmBody, refusal::Code,
    transaction_event, transaction_request::Body as TmBody,
};
use accede_server::{Error, REFUSAL_KEY, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    Daemon, Rm, Tm, config, process, refusal, resource, rm_stream, soon, tm_refusal, tm_stream,
};

fn commit(xid: u64) -> TmBody {
    TmBody::Commit(v1::CommitRequest { xid })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_are_none_or_over() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect(&daemon, &["stock"]).await;
    for garbage in [0, u64::MAX] {
        let refused = tm_refusal(tm.call(commit(garbage)).await);
        assert_eq!(refused.code(), Code::Invalid);
        assert!(refused.message.contains("no transaction id"), "{refused:?}");
        let body = rm.registration(garbage, "stock", &["a"]);
        let refused = refusal(rm.call(RmBody::Register(body)).await);
        assert_eq!(refused.code(), Code::Invalid);
    }
    let skipped = tm.make_xid();
    let xid = tm.begun(60_000).await;
    let never = tm.make_xid();
    assert_eq!(
        tm_refusal(tm.call(commit(never)).await).code(),
        Code::NotBegun
    );
    assert_eq!(
        tm_refusal(tm.call(commit(skipped)).await).code(),
        Code::Forgotten
    );
    tm.commit(xid).await;
    let late = rm.registration(xid, "stock", &["a"]);
    let refused = refusal(rm.call(RmBody::Register(late)).await);
    assert_eq!(refused.code(), Code::AlreadyDecided);
    assert_eq!(refused.decision(), v1::Decision::Commit);
    let done = v1::BranchDone { xid, branch: 9 };
    let refused = refusal(rm.call(RmBody::Done(done)).await);
    assert_eq!(refused.code(), Code::BranchState);
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_are_the_same_or_refused() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect(&daemon, &["stock"]).await;
    let xid = tm.begin(60_000).await;
    let request = rm.registration(xid, "stock", &["b", "a", "b"]);
    for _ in 0..2 {
        let answer = rm.call(RmBody::Register(request.clone())).await;
        let v1::branch_event::Body::Registered(registered) = answer else {
            panic!("not registered: {answer:?}");
        };
        assert_eq!(registered.branch, 1);
    }
    let mut other = request.clone();
    other.row_locks.pop();
    other.row_locks.push(b"c"[..].into());
    let refused = refusal(rm.call(RmBody::Register(other)).await);
    assert_eq!(refused.code(), Code::DifferentContent);
    // A request that was never seen can be withdrawn, and is then refused.
    let unseen = rm.registration(xid, "stock", &["z"]);
    let withdrawn = v1::BranchWithdrawn {
        xid,
        request: unseen.request,
        resource: "stock".into(),
    };
    let answer = rm.call(RmBody::Withdrawn(withdrawn)).await;
    assert!(
        matches!(answer, v1::branch_event::Body::Accepted(_)),
        "{answer:?}"
    );
    let refused = refusal(rm.call(RmBody::Register(unseen)).await);
    assert_eq!(refused.code(), Code::Withdrawn);
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversized_parts() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect(&daemon, &["stock"]).await;
    let xid = tm.begun(60_000).await;
    let long = "x".repeat(accede_core::limits::MAX_LOCK_KEY_BYTES + 1);
    let many: Vec<String> = (0..=accede_core::limits::MAX_LOCKS_PER_BRANCH)
        .map(|n| n.to_string())
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let wide: Vec<String> = (0..2000).map(|n| format!("{n:01000}")).collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    for (resource, locks) in [
        ("stock", &[long.as_str()][..]),
        ("stock", &many[..]),
        ("stock", &wide[..]),
        (long.as_str(), &["a"][..]),
    ] {
        let body = rm.registration(xid, resource, locks);
        let refused = refusal(rm.call(RmBody::Register(body)).await);
        assert_eq!(refused.code(), Code::TooLarge, "{refused:?}");
        assert!(refused.message.contains("at most"), "{refused:?}");
    }
    let empty = rm.registration(xid, "stock", &[""]);
    assert_eq!(
        refusal(rm.call(RmBody::Register(empty)).await).code(),
        Code::Invalid
    );
    for (name, timeout_ms, code) in [
        (long, 60_000, Code::TooLarge),
        ("n".into(), 0, Code::Invalid),
        ("n".into(), u32::MAX, Code::TooLarge),
    ] {
        let xid = tm.make_xid();
        let begin = v1::Begin {
            xid,
            name,
            timeout_ms,
            parent: 0,
        };
        tm.send(0, TmBody::Begin(begin)).await;
        let Some(transaction_event::Body::BeginRefused(refused)) = tm.next().await.body else {
            panic!("begun");
        };
        assert_eq!(refused.xid, xid);
        assert_eq!(refused.refusal.expect("why").code(), code);
    }
    // A message above the limit ends its own stream only.
    let huge = rm.registration(xid, "stock", &[&"x".repeat(5 * 1024 * 1024)]);
    rm.send(9, RmBody::Register(huge)).await;
    let over = soon(rm.events.message()).await;
    assert!(!matches!(over, Ok(Some(_))), "{over:?}");
    assert_eq!(tm.outcome(xid).await.status(), v1::Status::Active);
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_do_not_open_properly() {
    let daemon = Daemon::start().await;
    let (requests, mut events) = tm_stream(&daemon).await;
    let early = TransactionRequest {
        tag: 5,
        body: Some(commit(1 << 22)),
    };
    requests.send(early).await.expect("it reads");
    let event = soon(events.message()).await.expect("sound").expect("told");
    assert_eq!(event.tag, 5);
    let refused = tm_refusal(event.body.expect("a body"));
    assert!(refused.message.contains("opening frame"), "{refused:?}");
    assert!(soon(events.message()).await.expect("sound").is_none());

    let (requests, mut events) = rm_stream(&daemon).await;
    drop(requests);
    let ended = soon(events.message()).await.expect_err("refused");
    assert!(
        ended.message().contains("without an opening frame"),
        "{ended}"
    );

    let (requests, mut events) = rm_stream(&daemon).await;
    let empty = BranchRequest { tag: 3, body: None };
    requests.send(empty).await.expect("it reads");
    let event = soon(events.message()).await.expect("sound").expect("told");
    assert_eq!(refusal(event.body.expect("a body")).code(), Code::Invalid);
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openings_that_do_not_fit() {
    let daemon = Daemon::start().await;
    let _rm = Rm::connect(&daemon, &["stock"]).await;
    let mut other = resource("stock");
    other.database_id = [9; 16].to_vec().into();
    let refused = Rm::try_connect(&daemon, process(), vec![other]).await;
    let refused = refused.err().expect("refused");
    assert_eq!(refused.code(), Code::ResourceMismatch);
    assert_eq!(refused.resource, "stock");
    for named in ["09090909", "stock", "73746f63"] {
        assert!(refused.message.contains(named), "{named}: {refused:?}");
    }
    let mut short = resource("x");
    short.database_id = vec![1].into();
    for (resources, code) in [
        (vec![short], Code::Invalid),
        (vec![resource("y"), resource("y")], Code::Invalid),
        (vec![resource("")], Code::Invalid),
        (vec![resource(&"x".repeat(1000))], Code::TooLarge),
        (
            (0..100).map(|n| resource(&n.to_string())).collect(),
            Code::TooLarge,
        ),
    ] {
        let refused = Rm::try_connect(&daemon, process(), resources).await;
        assert_eq!(refused.err().expect("refused").code(), code);
    }
    let refused = Rm::try_connect(&daemon, 0, vec![]).await;
    assert_eq!(refused.err().expect("refused").code(), Code::Invalid);
    let refused = Tm::try_connect(&daemon, process(), Some(4000)).await;
    assert_eq!(refused.err().expect("refused").code(), Code::LeaseEnded);
    let refused = Tm::try_connect(&daemon, process(), Some(1 << 20)).await;
    assert_eq!(refused.err().expect("refused").code(), Code::Invalid);
    let (requests, mut events) = tm_stream(&daemon).await;
    let open = v1::OpenTransactionSession {
        client: 5,
        cluster_id: vec![1; 16].into(),
        ..Default::default()
    };
    let open = TransactionRequest {
        tag: 1,
        body: Some(TmBody::Open(open)),
    };
    requests.send(open).await.expect("it reads");
    let event = soon(events.message()).await.expect("sound").expect("told");
    assert_eq!(
        tm_refusal(event.body.expect("a body")).code(),
        Code::OtherCluster
    );
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_on_the_port() {
    let daemon = Daemon::start().await;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = |count: usize| -> Vec<u8> {
        std::iter::repeat_with(|| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        })
        .take(count)
        .collect()
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for round in 0..60 {
        let mut sent = if round % 2 == 0 {
            preface.clone()
        } else {
            Vec::new()
        };
        sent.extend(bytes(200));
        let address = daemon.server.addr();
        let mut stream = tokio::net::TcpStream::connect(address)
            .await
            .expect("it listens");
        // It may hang up in the middle.
        let _ = stream.write_all(&sent).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
    }
    // Garbage inside a gRPC stream.
    let mut tm = Tm::connect(&daemon).await;
    let xid = tm.begun(60_000).await;
    assert_eq!(tm.outcome(xid).await.status(), v1::Status::Active);
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unary_refusals_carry_their_code() {
    let daemon = Daemon::start().await;
    let mut client = daemon.transactions().await;
    let status = client.commit(v1::CommitRequest { xid: 1 << 23 }).await;
    let status = status.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::NotFound);
    let code = status.metadata().get(REFUSAL_KEY).expect("named");
    assert_eq!(code, "NOT_BEGUN");
    let status = client.get_outcome(v1::GetOutcomeRequest { xid: 0 }).await;
    assert_eq!(
        status.expect_err("refused").code(),
        tonic::Code::InvalidArgument
    );
    let mut operator = daemon.operator().await;
    let status = operator
        .get_transaction(v1::GetTransactionRequest { xid: 1 << 23 })
        .await;
    assert_eq!(status.expect_err("refused").code(), tonic::Code::NotFound);
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_that_cannot_start() {
    let daemon = Daemon::start().await;
    let second = Server::start(config(daemon.dir.path())).await;
    let error = second.expect_err("one directory, one daemon");
    assert!(matches!(error, Error::Open(_)), "{error}");
    assert!(error.to_string().contains("stop that daemon"), "{error}");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let mut taken = config(elsewhere.path());
    taken.listen = daemon.server.addr();
    let error = Server::start(taken).await.expect_err("the port is taken");
    assert!(error.to_string().contains("cannot listen on"), "{error}");
    let mut open = config(elsewhere.path());
    open.listen.set_ip([0, 0, 0, 0].into());
    let error = Server::start(open).await.expect_err("off loopback");
    assert!(error.to_string().contains("--insecure"), "{error}");
    daemon.server.shutdown().await.expect("it ends");
}
