//! What a two-branch transaction costs, counted at a real coordinator with a real log.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use accede_proto::v1::{
    BranchDone, BranchFinished, BranchRequest, CoordinatorStatus, Empty, GetStatusRequest, Mode,
    OpenBranchSession, RegisterBranch, RequestId, Resource, branch_event, branch_finished,
    branch_request::{self, Body},
    branches_client::BranchesClient,
    operator_client::OperatorClient,
};
use accede_server::{Server, ServerConfig};
use accede_tests::agent::{AGENT, RESOURCES};
use accede_tm_client::{Options, TransactionClient};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;

type Answers = Arc<Mutex<HashMap<u64, oneshot::Sender<branch_event::Body>>>>;

/// One branch session: counts the answers it waits for, finishes every order.
#[derive(Clone)]
struct Agent {
    requests: mpsc::Sender<BranchRequest>,
    answers: Answers,
    tags: Arc<AtomicU64>,
    round_trips: Arc<AtomicU64>,
}

impl Agent {
    async fn start(url: &str) -> anyhow::Result<Self> {
        let mut client = BranchesClient::connect(url.to_owned()).await?;
        let (requests, stream) = mpsc::channel(1024);
        let agent = Self {
            requests,
            answers: Answers::default(),
            tags: Arc::default(),
            round_trips: Arc::default(),
        };
        let resources = (1..).zip(RESOURCES).map(|(id, name)| Resource {
            name: name.to_owned(),
            database_id: vec![id; 16].into(),
        });
        let open = Body::Open(OpenBranchSession {
            agent_name: "cost".into(),
            agent: AGENT,
            resources: resources.collect(),
            cluster_id: Default::default(),
        });
        agent.send(0, open).await;
        let mut events = client
            .session(ReceiverStream::new(stream))
            .await?
            .into_inner();
        events.message().await?;
        let reader = agent.clone();
        tokio::spawn(async move {
            while let Ok(Some(event)) = events.message().await {
                let Some(body) = event.body else { continue };
                if let branch_event::Body::Order(order) = &body {
                    let finished = BranchFinished {
                        xid: order.xid,
                        branch: order.branch,
                        attempt: order.attempt,
                        epoch: order.epoch,
                        resource: order.resource.clone(),
                        result: Some(branch_finished::Result::Finished(Empty {})),
                    };
                    reader.send(0, Body::Finished(finished)).await;
                } else if let Some(waiter) =
                    reader.answers.lock().expect("sound").remove(&event.tag)
                {
                    let _ = waiter.send(body);
                }
            }
        });
        Ok(agent)
    }

    async fn send(&self, tag: u64, body: branch_request::Body) {
        let request = BranchRequest {
            tag,
            body: Some(body),
        };
        self.requests
            .send(request)
            .await
            .expect("the session lives as long as the test");
    }

    async fn branch(&self, xid: u64, resource: &str) {
        let tag = self.tags.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answered) = oneshot::channel();
        self.answers.lock().expect("sound").insert(tag, answer);
        let register = RegisterBranch {
            xid,
            request: Some(RequestId {
                client: AGENT,
                sequence: tag,
            }),
            resource: resource.to_owned(),
            mode: Mode::At.into(),
            row_locks: vec![tag.to_be_bytes().to_vec().into()],
            wait_limit_ms: 1_000,
            holds_local_locks: true,
            agent: AGENT,
            ..Default::default()
        };
        self.send(tag, Body::Register(register)).await;
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        let branch_event::Body::Registered(registered) = answered.await.expect("an answer") else {
            panic!("expected to be registered");
        };
        let branch = registered.branch;
        self.send(0, Body::Done(BranchDone { xid, branch })).await;
    }
}

async fn transaction(transactions: TransactionClient, agent: Agent) -> anyhow::Result<()> {
    let transaction = transactions.begin(Options::new("cost")).await?;
    for resource in RESOURCES {
        agent.branch(transaction.xid().as_u64(), resource).await;
    }
    transaction.commit().await?;
    Ok(())
}

/// Its counts once everything is finished.
async fn settled(url: &str) -> anyhow::Result<CoordinatorStatus> {
    accede_tests::eventually(
        "everything ends",
        std::time::Duration::from_secs(20),
        async || {
            let mut client = OperatorClient::connect(url.to_owned()).await.ok()?;
            let status = client
                .get_status(GetStatusRequest {})
                .await
                .ok()?
                .into_inner();
            let open = ["active", "committing"]
                .iter()
                .filter_map(|s| status.transactions.get(*s));
            (open.sum::<u64>() == 0).then_some(status)
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_two_branch_transaction_costs_what_the_architecture_says() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut config = ServerConfig::new(folder.path().join("data"));
    config.listen.set_port(0);
    config.segment_bytes = accede_server::limits::MIN_SEGMENT_BYTES;
    let server = Server::start(config).await?;
    let url = format!("http://{}", server.addr());
    let agent = Agent::start(&url).await?;
    let transactions = TransactionClient::connect(url.clone()).await?;
    transaction(transactions.clone(), agent.clone()).await?;

    // One after the other: nobody shares a forced write.
    const ALONE: u64 = 40;
    let before = settled(&url).await?;
    let trips = agent.round_trips.load(Ordering::Relaxed);
    for _ in 0..ALONE {
        transaction(transactions.clone(), agent.clone()).await?;
    }
    let after = settled(&url).await?;
    let trips = agent.round_trips.load(Ordering::Relaxed) - trips;
    assert_eq!(
        trips,
        2 * ALONE,
        "one round trip for each register, none for done"
    );
    let forced = after.forced_writes - before.forced_writes;
    // Two registers and the commit are waited for; begin and done ride along, the finishes do so
    // with what the next transaction waits for. The worker's lease is renewed meanwhile.
    assert!(
        (3 * ALONE..=4 * ALONE + 5).contains(&forced),
        "{forced} for {ALONE}"
    );

    // Many at once share them.
    const TOGETHER: u64 = 256;
    let mut all = JoinSet::new();
    for _ in 0..TOGETHER {
        all.spawn(transaction(transactions.clone(), agent.clone()));
    }
    for done in all.join_all().await {
        done?;
    }
    let shared = settled(&url).await?.forced_writes - after.forced_writes;
    assert!(
        shared < TOGETHER,
        "{shared} forced writes for {TOGETHER} transactions at once"
    );
    println!("forced writes: {forced} for {ALONE} alone, {shared} for {TOGETHER} together");
    server.shutdown().await?;
    Ok(())
}
