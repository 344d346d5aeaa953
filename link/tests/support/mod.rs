//! What the tests of the session share.

mod coordinator;

use std::{sync::Arc, time::Duration};

use accede_link::session::{
    BranchFrames, ClusterId, QueuedFrames, Role, Session, SessionLimits, SessionOptions,
    SessionStatus,
};
use accede_proto::v1::{
    BranchDone, BranchRequest, Empty, OpenBranchSession, Refusal, RegisterBranch, Registered,
    branch_event::Body, branch_request::Body as Ask, refusal::Code,
};
use parking_lot::Mutex;

pub(crate) use coordinator::{CLUSTER, Connection, Coordinator, SOON, attached, refusal, soon};

pub(crate) fn register(xid: u64) -> Ask {
    Ask::Register(RegisterBranch {
        xid,
        ..RegisterBranch::default()
    })
}

pub(crate) fn done(xid: u64) -> Ask {
    Ask::Done(BranchDone { xid, branch: 1 })
}

pub(crate) fn granted(branch: u32) -> Body {
    Body::Registered(Registered {
        branch,
        give_up_ms: 1000,
        keep_open: false,
    })
}

pub(crate) fn accepted() -> Body {
    Body::Accepted(Empty {})
}

/// The XID inside a request of these tests.
pub(crate) fn xid(request: &BranchRequest) -> u64 {
    match request.body.as_ref().expect("a body") {
        Ask::Register(register) => register.xid,
        Ask::Done(done) => done.xid,
        other => panic!("unexpected {other:?}"),
    }
}

/// A role that writes down what it is told.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) news: Mutex<Vec<Body>>,
    pub(crate) refused: Mutex<Vec<String>>,
    pub(crate) opening_refused: Mutex<Vec<Code>>,
    pub(crate) again: Mutex<Vec<Ask>>,
    pub(crate) discard: bool,
    pub(crate) rejects: Option<String>,
    pub(crate) disconnects: Mutex<u32>,
}

impl Role<BranchFrames> for Recorder {
    fn opening(&self, cluster: Option<ClusterId>) -> Ask {
        Ask::Open(OpenBranchSession {
            agent_name: "tester".into(),
            agent: 42,
            resources: Vec::new(),
            cluster_id: cluster
                .map_or_else(Vec::new, |id| id.as_bytes().to_vec())
                .into(),
        })
    }

    fn opened(
        &self,
        _: Body,
        _: ClusterId,
        queue: &QueuedFrames<'_, BranchFrames>,
    ) -> Result<Vec<Ask>, String> {
        if let Some(reason) = &self.rejects {
            return Err(reason.clone());
        }
        if self.discard {
            queue.discard();
        }
        Ok(self.again.lock().clone())
    }

    fn opening_refused(&self, refusal: &Refusal) {
        self.opening_refused.lock().push(refusal.code());
    }

    fn news(&self, news: Body) {
        self.news.lock().push(news);
    }

    fn delivery_refused(&self, _: &Ask, refusal: &Refusal) {
        self.refused.lock().push(refusal.message.clone());
    }

    fn disconnected(&self) {
        *self.disconnects.lock() += 1;
    }
}

/// Limits that do not keep a test waiting.
pub(crate) fn quick() -> SessionLimits {
    SessionLimits {
        backoff_first: Duration::from_millis(5),
        backoff_longest: Duration::from_millis(40),
        ..SessionLimits::default()
    }
}

pub(crate) fn connect(
    addresses: &[String],
    role: &Arc<Recorder>,
    limits: SessionLimits,
) -> Session<BranchFrames> {
    let options = SessionOptions {
        addresses: addresses.to_vec(),
        cluster: None,
        limits,
    };
    let role: Arc<Recorder> = Arc::clone(role);
    Session::start(&options, role).expect("sound options")
}

/// Waits until the status is as wanted.
pub(crate) async fn wait_for(
    session: &Session<BranchFrames>,
    wanted: impl FnMut(&SessionStatus) -> bool,
) -> SessionStatus {
    let mut status = session.status();
    soon(status.wait_for(wanted))
        .await
        .expect("the session lives")
        .clone()
}
