//! The session against a coordinator over real sockets: nothing is lost, nothing
//! is sent twice that must not be, and an unknown result is never a failure.

mod bounds;
mod ending;
mod opening;
mod sending;
#[path = "../support/mod.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use accede_link::session::{
    Call, ClusterId, ConnectProblem, Session, SessionError, SessionLimits, SessionOptions,
    SessionStatus,
};
use accede_proto::v1::{branch_event::Body, branch_request::Body as Ask, refusal::Code};
use support::{
    CLUSTER, Connection, Coordinator, Recorder, SOON, accepted, attached, connect, done, granted,
    quick, refusal, register, soon, wait_for, xid,
};
use tokio::{net::TcpListener, task::JoinHandle};

type Branches = Session<accede_link::session::BranchFrames>;

fn call(session: &Branches, xid: u64, how: Call) -> JoinHandle<Result<Body, SessionError>> {
    let session = session.clone();
    tokio::spawn(async move { session.call(register(xid), how).await })
}

async fn opened(
    limits: SessionLimits,
    role: Recorder,
) -> (Coordinator, Branches, Connection, Arc<Recorder>) {
    let mut coordinator = Coordinator::start().await;
    let role = Arc::new(role);
    let session = connect(&[coordinator.url()], &role, limits);
    let mut connection = coordinator.session().await;
    connection.open().await;
    wait_for(&session, SessionStatus::is_connected).await;
    (coordinator, session, connection, role)
}
