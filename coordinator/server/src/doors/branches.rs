//! The service of resource managers.

use std::sync::Arc;

use accede_core::{Command, Reply, Xid};
use accede_proto::v1::{
    BranchBlocked, BranchDone, BranchDoomed, BranchEvent, BranchRequest, BranchWithdrawn,
    CheckRowLocks, Empty, LocksFree, RegisterBranch, Registered, branches_server::Branches,
};
use tonic::{Request, Response, Status, Streaming};

use super::{branches_session, refused, transactions_session::shutting_down};
use crate::{
    convert,
    hub::Hub,
    output::{Output, OutputStream},
};

/// The `Branches` service.
pub(crate) struct BranchesDoor {
    hub: Arc<Hub>,
}

impl BranchesDoor {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    async fn note(&self, xid: Xid, command: Command) -> Result<Response<Empty>, Status> {
        let take = |reply| match reply {
            Reply::Ok => Ok(Empty {}),
            other => Err(other),
        };
        let noted = self.hub.ask_for(command, (Some(xid), None), take).await;
        noted.map(Response::new).map_err(refused)
    }
}

#[tonic::async_trait]
impl Branches for BranchesDoor {
    type SessionStream = OutputStream<BranchEvent>;

    async fn session(
        &self,
        request: Request<Streaming<BranchRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if self.hub.end_sessions.is_cancelled() {
            return Err(shutting_down());
        }
        let output = Output::new();
        let stream = OutputStream::new(Arc::clone(&output));
        let hub = Arc::clone(&self.hub);
        tokio::spawn(branches_session::run(hub, request.into_inner(), output));
        Ok(Response::new(stream))
    }

    async fn register(
        &self,
        request: Request<RegisterBranch>,
    ) -> Result<Response<Registered>, Status> {
        let wire = request.into_inner();
        let resource = convert::resource(&wire.resource).map_err(refused)?;
        let agent = convert::process(wire.agent).map_err(refused)?;
        let join = convert::register(&wire, agent, resource).map_err(refused)?;
        let take = |reply| match reply {
            Reply::Registered {
                branch,
                give_up_ms,
                keep_open,
            } => Ok(convert::registered(branch, give_up_ms, keep_open)),
            other => Err(other),
        };
        let about = (Some(join.xid), Some(wire.resource.as_str()));
        let command = Command::RegisterBranch(join);
        let joined = self.hub.ask_for(command, about, take).await;
        joined.map(Response::new).map_err(refused)
    }

    async fn check_locks(
        &self,
        request: Request<CheckRowLocks>,
    ) -> Result<Response<LocksFree>, Status> {
        let wire = request.into_inner();
        let resource = convert::resource(&wire.resource).map_err(refused)?;
        let check = convert::check_locks(&wire, resource).map_err(refused)?;
        let take = |reply| match reply {
            Reply::LocksFree => Ok(LocksFree {}),
            other => Err(other),
        };
        let about = (Some(check.xid), Some(wire.resource.as_str()));
        let free = self
            .hub
            .ask_for(Command::CheckLocks(check), about, take)
            .await;
        free.map(Response::new).map_err(refused)
    }

    async fn done(&self, request: Request<BranchDone>) -> Result<Response<Empty>, Status> {
        let done = convert::done(request.into_inner()).map_err(refused)?;
        self.note(done.xid, Command::BranchDone(done)).await
    }

    async fn withdraw(&self, request: Request<BranchWithdrawn>) -> Result<Response<Empty>, Status> {
        let withdraw = convert::withdrawn(&request.into_inner()).map_err(refused)?;
        self.note(withdraw.xid, Command::WithdrawBranch(withdraw))
            .await
    }

    async fn blocked(&self, request: Request<BranchBlocked>) -> Result<Response<Empty>, Status> {
        let blocked = convert::blocked(request.into_inner()).map_err(refused)?;
        // Whoever does not lead cannot tell who waits.
        if self.hub.office().is_some() && !self.hub.concerns_anyone(blocked) {
            return Ok(Response::new(Empty {}));
        }
        self.note(blocked.xid, Command::Blocked(blocked)).await
    }

    async fn doom(&self, request: Request<BranchDoomed>) -> Result<Response<Empty>, Status> {
        let doom = convert::doomed(request.into_inner()).map_err(refused)?;
        self.note(doom.xid, Command::DoomBranch(doom)).await
    }
}
