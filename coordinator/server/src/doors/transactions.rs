//! The service of transaction managers.

use std::sync::Arc;

use accede_core::{Command, Commit, Reply, Xid};
use accede_proto::v1::{
    BeginRequest, BeginResponse, CommitRequest, GetOutcomeRequest, Outcome, RollBackRequest,
    SagaOutcome, StartSagaRequest, TransactionEvent, TransactionRequest,
    transactions_server::Transactions,
};
use tonic::{Request, Response, Status, Streaming};

use super::{own_worker::OwnWorker, refused, transactions_session};
use crate::{
    convert,
    hub::Hub,
    output::{Output, OutputStream},
    refusal,
};

/// The `Transactions` service.
pub(crate) struct TransactionsDoor {
    hub: Arc<Hub>,
    own_worker: Arc<OwnWorker>,
}

impl TransactionsDoor {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        let own_worker = OwnWorker::new(Arc::clone(&hub));
        Self { hub, own_worker }
    }

    async fn decide(&self, xid: Xid, command: Command) -> Result<Response<Outcome>, Status> {
        let take = |reply| match reply {
            Reply::Decided(decision, reason) => {
                Ok(convert::decided(xid, decision, reason.as_ref()))
            }
            other => Err(other),
        };
        let decided = self.hub.ask_for(command, (Some(xid), None), take).await;
        decided.map(Response::new).map_err(refused)
    }
}

#[tonic::async_trait]
impl Transactions for TransactionsDoor {
    type SessionStream = OutputStream<TransactionEvent>;

    async fn session(
        &self,
        request: Request<Streaming<TransactionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if self.hub.end_sessions.is_cancelled() {
            return Err(transactions_session::shutting_down());
        }
        let output = Output::new();
        let stream = OutputStream::new(Arc::clone(&output));
        let hub = Arc::clone(&self.hub);
        tokio::spawn(transactions_session::run(hub, request.into_inner(), output));
        Ok(Response::new(stream))
    }

    async fn begin(
        &self,
        request: Request<BeginRequest>,
    ) -> Result<Response<BeginResponse>, Status> {
        let xid = self.own_worker.begin(request.into_inner()).await;
        let xid = xid.map_err(refused)?.get();
        Ok(Response::new(BeginResponse { xid }))
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<Outcome>, Status> {
        let xid = convert::xid(request.into_inner().xid).map_err(refused)?;
        self.decide(xid, Command::Commit(Commit { xid })).await
    }

    async fn roll_back(
        &self,
        request: Request<RollBackRequest>,
    ) -> Result<Response<Outcome>, Status> {
        let command = convert::roll_back(request.into_inner()).map_err(refused)?;
        self.decide(command.xid, Command::RollBack(command)).await
    }

    async fn start_saga(
        &self,
        request: Request<StartSagaRequest>,
    ) -> Result<Response<SagaOutcome>, Status> {
        let command = self.hub.saga(request.into_inner()).map_err(refused)?;
        let xid = command.xid;
        let take = |reply| convert::saga::ended(xid, reply);
        let command = Command::StartSaga(command);
        let ended = self.hub.ask_for(command, (Some(xid), None), take).await;
        ended.map(Response::new).map_err(refused)
    }

    async fn get_outcome(
        &self,
        request: Request<GetOutcomeRequest>,
    ) -> Result<Response<Outcome>, Status> {
        let xid = convert::xid(request.into_inner().xid).map_err(refused)?;
        let outcome = self
            .hub
            .read(move |state| convert::outcome(state, xid))
            .await;
        outcome
            .unwrap_or_else(|trouble| Err(refusal::of_trouble(&trouble)))
            .map(Response::new)
            .map_err(|refusal| refusal::status(&refusal))
    }
}
