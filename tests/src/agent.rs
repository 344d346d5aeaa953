//! An agent without a database: it answers every order and remembers which.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use accede_proto::v1::{
    Action, BranchFinished, BranchRequest, Empty, OpenBranchSession, Order, Resource, branch_event,
    branch_finished, branch_request, branches_client::BranchesClient,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;

/// What was done to each branch, by XID and number.
pub type Done = Arc<Mutex<HashMap<(u64, u32), Action>>>;

/// The resources that the agent serves.
pub const RESOURCES: [&str; 2] = ["a", "b"];

/// The process number under which the agent attaches.
pub const AGENT: u64 = 77;

/// An agent that attaches again whenever its stream breaks; ends when dropped.
#[derive(Debug)]
pub struct Agent {
    task: JoinHandle<()>,
    /// What it did.
    pub done: Done,
}

impl Agent {
    /// Starts it.
    #[must_use]
    pub fn start(url: String, done: Done) -> Self {
        let carried = Arc::clone(&done);
        let task = tokio::spawn(async move {
            loop {
                // A broken stream is what these tests are about.
                let _ = serve(&url, &carried).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { task, done }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(url: &str, done: &Done) -> anyhow::Result<()> {
    let mut client = BranchesClient::connect(url.to_owned()).await?;
    let (requests, stream) = mpsc::channel(1024);
    let resources = RESOURCES.iter().enumerate().map(|(i, name)| Resource {
        name: (*name).to_owned(),
        database_id: vec![i as u8 + 1; 16].into(),
    });
    let open = OpenBranchSession {
        agent_name: "test".into(),
        agent: AGENT,
        resources: resources.collect(),
        cluster_id: Default::default(),
    };
    requests
        .send(request(1, branch_request::Body::Open(open)))
        .await?;
    let mut events = client
        .session(ReceiverStream::new(stream))
        .await?
        .into_inner();
    while let Some(event) = events.message().await? {
        if let Some(branch_event::Body::Order(order)) = event.body {
            let finished = carry_out(&order, done);
            requests
                .send(request(0, branch_request::Body::Finished(finished)))
                .await?;
        }
    }
    Ok(())
}

fn request(tag: u64, body: branch_request::Body) -> BranchRequest {
    BranchRequest {
        tag,
        body: Some(body),
    }
}

fn carry_out(order: &Order, done: &Done) -> BranchFinished {
    let before = done
        .lock()
        .expect("no holder panics")
        .insert((order.xid, order.branch), order.action());
    // A repeat is fine, another action never is.
    assert!(
        before.is_none_or(|action| action == order.action()),
        "branch {} of {:016x} was told {before:?} and then {:?}",
        order.branch,
        order.xid,
        order.action()
    );
    BranchFinished {
        xid: order.xid,
        branch: order.branch,
        attempt: order.attempt,
        epoch: order.epoch,
        resource: order.resource.clone(),
        result: Some(branch_finished::Result::Finished(Empty {})),
    }
}
