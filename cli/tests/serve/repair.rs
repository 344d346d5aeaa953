//! A stuck branch, from its agent's report to what an operator does about it.

use accede_proto::v1::{
    Action, BeginRequest, BranchDone, BranchEvent, BranchFinished, BranchRequest, Empty, Mode,
    OpenBranchSession, Order, PhaseTwoFailure, RegisterBranch, RequestId, Resource,
    RollBackRequest, branch_event, branch_finished, branch_request::Body,
    branches_client::BranchesClient, transactions_client::TransactionsClient,
};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::{
    daemon::{Daemon, run},
    directory,
};

/// An agent of "stock-db" that does what the test says.
struct Agent {
    requests: mpsc::Sender<BranchRequest>,
    events: Streaming<BranchEvent>,
}

impl Agent {
    async fn attach(url: &str) -> Self {
        let (requests, receive) = mpsc::channel(8);
        let open = Body::Open(OpenBranchSession {
            agent_name: "stock@test".to_owned(),
            agent: 7,
            resources: vec![Resource {
                name: "stock-db".to_owned(),
                database_id: vec![1; 16].into(),
            }],
            ..Default::default()
        });
        let opening = BranchRequest {
            tag: 1,
            body: Some(open),
        };
        requests.send(opening).await.expect("room");
        let mut client = BranchesClient::connect(url.to_owned())
            .await
            .expect("it listens");
        let requests_stream = tokio_stream::wrappers::ReceiverStream::new(receive);
        let session = client.session(requests_stream).await.expect("opened");
        let mut events = session.into_inner();
        events.message().await.expect("open").expect("attached");
        Self { requests, events }
    }

    async fn order(&mut self) -> Order {
        loop {
            let event = self.events.message().await.expect("open").expect("open");
            if let Some(branch_event::Body::Order(order)) = event.body {
                return order;
            }
        }
    }

    /// Answers an order and waits until the answer is in the log.
    async fn answer(&mut self, order: &Order, result: branch_finished::Result) {
        let finished = BranchFinished {
            xid: order.xid,
            branch: order.branch,
            attempt: order.attempt,
            epoch: order.epoch,
            resource: order.resource.clone(),
            result: Some(result),
        };
        let request = BranchRequest {
            tag: 9,
            body: Some(Body::Finished(finished)),
        };
        self.requests.send(request).await.expect("room");
        while self
            .events
            .message()
            .await
            .expect("open")
            .expect("open")
            .tag
            != 9
        {}
    }
}

/// A transaction with one branch that rolls back; its XID.
async fn roll_back(url: &str) -> u64 {
    let mut client = TransactionsClient::connect(url.to_owned())
        .await
        .expect("it listens");
    let begin = BeginRequest {
        name: "place-order".to_owned(),
        timeout_ms: 3_600_000,
        parent: 0,
    };
    let xid = client.begin(begin).await.expect("begun").into_inner().xid;
    let mut branches = BranchesClient::connect(url.to_owned())
        .await
        .expect("it listens");
    let register = RegisterBranch {
        xid,
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
    let registered = branches.register(register).await.expect("registered");
    let branch = registered.into_inner().branch;
    branches
        .done(BranchDone { xid, branch })
        .await
        .expect("logged");
    let reason = "sold out".to_owned();
    client
        .roll_back(RollBackRequest { xid, reason })
        .await
        .expect("decided");
    xid
}

#[test]
fn a_stuck_branch_is_shown_and_repaired() {
    let dir = directory();
    let daemon = Daemon::start(&dir.path().join("data"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut agent, xid) = runtime.block_on(async {
        let mut agent = Agent::attach(&daemon.url()).await;
        let xid = roll_back(&daemon.url()).await;
        let order = agent.order().await;
        assert_eq!((order.xid, order.action()), (xid, Action::RollBack));
        let stuck = branch_finished::Result::Stuck(PhaseTwoFailure {
            reason: "product 7 was changed by somebody else".to_owned(),
            difference: "count: 5 expected, 4 found".to_owned(),
            repair_statement: "UPDATE stock SET count = 6 WHERE product = 7".to_owned(),
        });
        agent.answer(&order, stuck).await;
        (agent, format!("{xid:016x}"))
    });

    let (_, list) = daemon.ask(&["tx", "list", "--status", "stuck"]);
    assert_eq!(list["transactions"][0]["xid"], xid.as_str(), "{list}");
    let (_, why) = daemon.ask(&["tx", "why", &xid]);
    for part in [
        "changed by somebody else",
        "4 found",
        "SET count = 6",
        "tx repair",
    ] {
        assert!(why.to_string().contains(part), "{part}: {why}");
    }

    let row = |args: &[&str]| {
        let (code, list) = daemon.ask(&[&["lock", "list"], args].concat());
        assert_eq!(code, Some(0), "{list}");
        list["row_locks"][0].clone()
    };
    let held = row(&["--xid", &xid, "--resource", "stock-db"]);
    assert_eq!(
        (&held["row"], &held["holders"]),
        (
            &"product 7".into(),
            &serde_json::json!([{ "xid": xid, "mode": "exclusive" }])
        )
    );
    assert!(row(&["--waited-for"]).is_null(), "nobody waits");
    let text = run(&["--coordinator", &daemon.url(), "lock", "list"]).1;
    assert!(
        text.contains("held by") && text.contains("product 7"),
        "{text}"
    );

    let repair = |verb: &str| {
        let about = ["--by", "ann", "--reason", "counted by hand"];
        daemon.ask(&[&["tx", "repair", &xid, verb][..], &about].concat())
    };
    let (code, accepted) = repair("accept");
    assert_eq!(code, Some(0), "{accepted}");
    runtime.block_on(async {
        let order = agent.order().await;
        assert_eq!((order.action(), order.attempt), (Action::Accept, 2));
        let finished = branch_finished::Result::Finished(Empty {});
        agent.answer(&order, finished).await;
    });

    let (_, detail) = daemon.ask(&["tx", "show", &xid]);
    assert_eq!(detail["status"], "rolled-back", "{detail}");
    assert_eq!(detail["branches"][0]["status"], "accepted", "{detail}");
    assert!(row(&[]).is_null(), "an accepted branch holds nothing");
    let text = detail.to_string();
    assert!(
        text.contains("ann") && text.contains("counted by hand"),
        "{text}"
    );
    let (code, refused) = repair("retry");
    assert_eq!(code, Some(1), "nothing is stuck any more: {refused}");
    drop(agent);
    let (code, _, stderr) = daemon.end(Signal::TERM);
    assert_eq!(code, Some(0), "{stderr}");
}
