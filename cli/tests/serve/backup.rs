//! Stop, copy, start: the backup that docs/operations.md describes.

use std::{fs, path::Path};

use accede_proto::v1::{
    BeginRequest, BranchDone, BranchRequest, CommitRequest, Mode, OpenBranchSession,
    RegisterBranch, RequestId, Resource, RollBackRequest, branch_request::Body,
    branches_client::BranchesClient, transactions_client::TransactionsClient,
};
use rustix::process::Signal;

use crate::{daemon::Daemon, directory};

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("created");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// An open, a rolled-back and a committing transaction; the last one waits for its agent.
async fn transactions(url: String) -> [String; 3] {
    let mut client = TransactionsClient::connect(url.clone())
        .await
        .expect("it listens");
    let mut xids = Vec::new();
    for name in ["open", "back", "forth"] {
        let begin = BeginRequest {
            name: name.to_owned(),
            timeout_ms: 3_600_000,
            parent: 0,
        };
        xids.push(client.begin(begin).await.expect("begun").into_inner().xid);
    }
    let back = RollBackRequest {
        xid: xids[1],
        reason: "the customer left".to_owned(),
    };
    client.roll_back(back).await.expect("rolled back");
    let mut branches = BranchesClient::connect(url).await.expect("it listens");
    // A session names the database; when it ends, no agent is attached.
    let open = BranchRequest {
        tag: 1,
        body: Some(Body::Open(OpenBranchSession {
            agent_name: "stock@test".to_owned(),
            agent: 7,
            resources: vec![Resource {
                name: "stock-db".to_owned(),
                database_id: vec![1; 16].into(),
            }],
            ..Default::default()
        })),
    };
    let (send, receive) = tokio::sync::mpsc::channel(1);
    send.send(open).await.expect("room");
    let requests = tokio_stream::wrappers::ReceiverStream::new(receive);
    let mut events = branches
        .session(requests)
        .await
        .expect("opened")
        .into_inner();
    events.message().await.expect("open").expect("attached");
    let register = RegisterBranch {
        xid: xids[2],
        request: Some(RequestId {
            client: 7,
            sequence: 1,
        }),
        resource: "stock-db".to_owned(),
        mode: Mode::At.into(),
        row_locks: vec!["product 7".into()],
        agent: 7,
        ..Default::default()
    };
    let branch = branches
        .register(register)
        .await
        .expect("registered")
        .into_inner()
        .branch;
    drop((send, events));
    let done = BranchDone {
        xid: xids[2],
        branch,
    };
    branches.done(done).await.expect("logged");
    client
        .commit(CommitRequest { xid: xids[2] })
        .await
        .expect("committed");
    [0, 1, 2].map(|at| format!("{:016x}", xids[at]))
}

fn look(daemon: &Daemon, xids: &[String; 3]) {
    let show = |xid: &str| {
        let (code, detail) = daemon.ask(&["tx", "show", xid]);
        assert_eq!(code, Some(0), "{detail}");
        detail
    };
    let open = show(&xids[0]);
    assert_eq!(
        (&open["status"], &open["name"]),
        (&"active".into(), &"open".into())
    );
    let back = show(&xids[1]);
    assert_eq!(back["status"], "rolled-back");
    assert_eq!(back["roll_back_detail"], "the customer left");
    let forth = show(&xids[2]);
    assert_eq!(
        (&forth["status"], &forth["decision"]),
        (&"committing".into(), &"commit".into())
    );
    assert_eq!(forth["branches"][0]["resource"], "stock-db");
    assert_eq!(forth["branches"][0]["waiting_for_agent"], true, "{forth}");
    let (_, why) = daemon.ask(&["tx", "why", &xids[2]]);
    assert!(
        why.to_string()
            .contains("no process that serves stock-db is attached"),
        "{why}"
    );
    let (_, list) = daemon.ask(&["tx", "list", "--status", "active,committing"]);
    assert_eq!(
        list["transactions"].as_array().map(Vec::len),
        Some(2),
        "{list}"
    );
    let (code, refused) = daemon.ask(&[
        "tx", "repair", &xids[2], "retry", "--by", "ann", "--reason", "a test",
    ]);
    assert_eq!(code, Some(1), "{refused}");
}

#[test]
fn a_copy_of_a_stopped_coordinator_has_everything() {
    let dir = directory();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let daemon = Daemon::start(&first);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let xids = runtime.block_on(transactions(daemon.url()));
    look(&daemon, &xids);
    let (_, status) = daemon.ask(&["status"]);
    let (code, stdout, stderr) = daemon.end(Signal::TERM);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains(r#""undecided":1,"unfinished":1"#),
        "{stdout}"
    );
    copy(&first, &second);
    // The old directory is gone; the copy must not need it.
    fs::remove_dir_all(&first).expect("removed");
    let daemon = Daemon::start(&second);
    look(&daemon, &xids);
    let (_, again) = daemon.ask(&["status"]);
    assert_eq!(status["cluster_id"], again["cluster_id"]);
    assert_eq!(again["resources"][0]["name"], "stock-db");
}
