//! One transaction manager's session.

use std::sync::Arc;

use accede_core::{Command, Commit, EndLease, LeaseWorker, ProcessId, Reply, WorkerId};
use accede_proto::v1::{
    OpenTransactionSession, TransactionEvent, TransactionRequest, transaction_event,
    transaction_request::Body,
};
use tonic::{Status, Streaming};

use super::{Found, first, read_chunk};
use crate::{
    convert,
    hub::Hub,
    intake::Job,
    output::Output,
    refusal,
    reply_to::ReplyTo,
    sessions::{TransactionAsk, TransactionCall, TransactionSession},
};

/// Reads a session until it ends.
pub(super) async fn run(
    hub: Arc<Hub>,
    mut requests: Streaming<TransactionRequest>,
    output: Arc<Output<TransactionEvent>>,
) {
    let opening = match first(&hub, &mut requests).await {
        Ok(opening) => opening,
        Err(status) => return output.fail(status),
    };
    hub.metrics.transaction_sessions.increment(1);
    if let Some((session, worker)) = open(&hub, opening, &output).await {
        read(&hub, &mut requests, &session, worker).await;
        tracing::debug!(
            process = session.process.0,
            worker = worker.0,
            "a transaction manager went away"
        );
    }
    hub.metrics.transaction_sessions.decrement(1);
    output.finish();
}

async fn open(
    hub: &Hub,
    opening: TransactionRequest,
    output: &Arc<Output<TransactionEvent>>,
) -> Option<(Arc<TransactionSession>, WorkerId)> {
    let tag = opening.tag;
    let mut session = TransactionSession {
        process: ProcessId(0),
        output: Arc::clone(output),
        cluster: hub.cluster.clone(),
        metrics: Arc::clone(&hub.metrics),
    };
    let Some(Body::Open(open)) = opening.body else {
        let text = "the first request of a session must be its opening frame";
        session.refuse(tag, refusal::invalid(text));
        return None;
    };
    let command = match lease(hub, open) {
        Ok(command) => command,
        Err(refusal) => {
            session.refuse(tag, *refusal);
            return None;
        }
    };
    session.process = command.process;
    let client = command.name.clone();
    match hub.ask(Command::LeaseWorker(command)).await {
        Ok(Reply::Leased(lease)) => {
            let worker = lease.worker;
            tracing::debug!(
                client,
                process = session.process.0,
                worker = worker.0,
                "a transaction manager connected"
            );
            let lease = convert::lease(&lease, &hub.cluster);
            session.push(tag, transaction_event::Body::Lease(lease));
            Some((Arc::new(session), worker))
        }
        other => {
            session.refuse(tag, refusal::of_answer(other, None, None));
            None
        }
    }
}

fn lease(
    hub: &Hub,
    open: OpenTransactionSession,
) -> Result<LeaseWorker, Box<accede_proto::v1::Refusal>> {
    convert::cluster(&open.cluster_id, &hub.cluster)?;
    Ok(LeaseWorker {
        process: convert::process(open.client)?,
        name: convert::name("client's name", open.client_name)?,
        worker: if open.has_worker {
            Some(worker(open.worker)?)
        } else {
            None
        },
    })
}

fn worker(number: u32) -> Result<WorkerId, Box<accede_proto::v1::Refusal>> {
    u16::try_from(number)
        .ok()
        .filter(|number| *number <= WorkerId::MAX.0)
        .map(WorkerId)
        .ok_or_else(|| {
            Box::new(refusal::invalid(format!(
                "{number} is no worker id: the largest is {}",
                WorkerId::MAX.0
            )))
        })
}

async fn read(
    hub: &Hub,
    requests: &mut Streaming<TransactionRequest>,
    session: &Arc<TransactionSession>,
    worker: WorkerId,
) {
    let mut buffer = Vec::new();
    let mut jobs = Vec::new();
    loop {
        hub.intake.room().await;
        let Found::Requests(mut chunk) =
            read_chunk(hub, requests, &session.output, std::mem::take(&mut buffer)).await
        else {
            return;
        };
        let mut closing = None;
        for request in chunk.drain(..) {
            if let Some(Body::Close(_)) = request.body {
                closing = Some(());
                break;
            }
            jobs.extend(job(hub, session, request));
        }
        hub.intake.submit(jobs.drain(..));
        if closing.is_some() {
            return close(hub, session.process, worker).await;
        }
        buffer = chunk;
    }
}

/// The client says goodbye: its lease ends. That its undecided transactions roll back follows.
async fn close(hub: &Hub, process: ProcessId, worker: WorkerId) {
    let ended = hub
        .ask(Command::EndLease(EndLease { process, worker }))
        .await;
    if !matches!(ended, Ok(Reply::Ok)) {
        tracing::debug!(
            process = process.0,
            ?ended,
            "a lease was not ended, it ends by itself"
        );
    }
}

/// What the driver has to do for a request; `None` if it is answered already.
fn job(hub: &Hub, session: &Arc<TransactionSession>, request: TransactionRequest) -> Option<Job> {
    let tag = request.tag;
    let call = |ask| {
        ReplyTo::Transactions(TransactionCall {
            session: Arc::clone(session),
            tag,
            ask,
        })
    };
    let checked = match request.body {
        Some(Body::Begin(begin)) => {
            let bits = begin.xid;
            return match convert::begin(begin, session.process) {
                Ok(begin) => {
                    let ask = call(TransactionAsk::Begin(begin.xid));
                    Some(hub.job(Command::Begin(begin), ask))
                }
                Err(refusal) => {
                    session.refuse_begin(bits, *refusal);
                    None
                }
            };
        }
        Some(Body::Commit(commit)) => convert::xid(commit.xid).map(|xid| {
            let command = Command::Commit(Commit { xid });
            Job::Command(command, call(TransactionAsk::Decide(xid)))
        }),
        Some(Body::RollBack(roll_back)) => convert::roll_back(roll_back).map(|command| {
            let ask = call(TransactionAsk::Decide(command.xid));
            Job::Command(Command::RollBack(command), ask)
        }),
        Some(Body::StartSaga(start)) => hub.saga(start).map(|command| {
            let ask = call(TransactionAsk::Saga(command.xid));
            Job::Command(Command::StartSaga(command), ask)
        }),
        Some(Body::Renew(renew)) => worker(renew.worker).map(|worker| {
            let command = LeaseWorker {
                process: session.process,
                name: String::new(),
                worker: Some(worker),
            };
            Job::Command(Command::LeaseWorker(command), call(TransactionAsk::Renew))
        }),
        Some(Body::GetOutcome(get)) => convert::xid(get.xid).map(|xid| {
            let session = Arc::clone(session);
            Job::Read(Box::new(move |state| {
                let outcome = state
                    .map_err(|trouble| refusal::of_trouble(&trouble))
                    .and_then(|state| convert::outcome(state, xid));
                match outcome {
                    Ok(outcome) => session.push(tag, transaction_event::Body::Outcome(outcome)),
                    Err(refusal) => session.refuse(tag, refusal),
                }
            }))
        }),
        Some(Body::Open(_)) => Err(Box::new(refusal::invalid(
            "the session is open already; open another stream for another session",
        ))),
        Some(Body::Close(_)) => return None,
        None => Err(Box::new(refusal::invalid(
            "the request is empty or of a kind that this coordinator does not know",
        ))),
    };
    checked
        .map_err(|refusal| session.refuse(tag, *refusal))
        .ok()
}

/// The status of a stream that cannot be opened at all.
pub(super) fn shutting_down() -> Status {
    refusal::status(&refusal::of_trouble(&crate::trouble::Trouble::ShuttingDown))
}
