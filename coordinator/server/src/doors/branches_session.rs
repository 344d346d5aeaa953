//! One resource manager's session.

use std::sync::Arc;

use accede_core::{
    BindResource, Command, DatabaseId, NameAction, ProcessId, Reply, Resource, State, Xid,
};
use accede_proto::v1::{
    Attached, BranchEvent, BranchRequest, Empty, OpenBranchSession, Refusal, branch_event,
    branch_request::Body,
};
use tonic::Streaming;

use super::{Found, first, read_chunk};
use crate::{
    convert,
    hub::Hub,
    intake::Job,
    limits::{ASK_ENDED, RESOURCES_PER_AGENT},
    orders::Promises,
    output::Output,
    refusal,
    reply_to::ReplyTo,
    sessions::{BranchAsk, BranchCall, BranchSession},
    trouble::Trouble,
};

/// Reads a session until it ends.
pub(super) async fn run(
    hub: Arc<Hub>,
    mut requests: Streaming<BranchRequest>,
    output: Arc<Output<BranchEvent>>,
) {
    let opening = match first(&hub, &mut requests).await {
        Ok(opening) => opening,
        Err(status) => return output.fail(status),
    };
    hub.metrics.branch_sessions.increment(1);
    if let Some((session, resources)) = open(&hub, opening, &output).await {
        let mut reader = Reader {
            session: Arc::clone(&session),
            resources,
        };
        reader.read(&hub, &mut requests).await;
        hub.orders.detach(&session);
        tracing::info!(agent = session.agent.0, "an agent went away");
    }
    hub.metrics.branch_sessions.decrement(1);
    output.finish();
}

async fn open(
    hub: &Hub,
    opening: BranchRequest,
    output: &Arc<Output<BranchEvent>>,
) -> Option<(Arc<BranchSession>, Vec<Resource>)> {
    let tag = opening.tag;
    let mut session = BranchSession {
        number: hub.next_session(),
        agent: ProcessId(0),
        output: Arc::clone(output),
        orders: Arc::clone(&hub.orders),
        metrics: Arc::clone(&hub.metrics),
    };
    let Some(Body::Open(open)) = opening.body else {
        let text = "the first request of a session must be its opening frame";
        session.refuse(tag, refusal::invalid(text));
        return None;
    };
    let (agent, name, resources) = match attach(hub, open).await {
        Ok(attached) => attached,
        Err(refusal) => {
            tracing::warn!(reason = %refusal.message, "an agent was refused");
            session.refuse(tag, *refusal);
            return None;
        }
    };
    session.agent = agent;
    let Some(epoch) = hub.office() else {
        session.refuse(tag, refusal::of_trouble(&Trouble::NotLeader(None)));
        return None;
    };
    let attached = Attached {
        cluster_id: hub.cluster.clone(),
        epoch: epoch.0,
    };
    session.push(tag, branch_event::Body::Attached(attached));
    let session = Arc::new(session);
    let names: Vec<&str> = resources.iter().map(|resource| &**resource).collect();
    tracing::info!(name, agent = agent.0, resources = ?names, "an agent attached");
    // After the answer is queued: what waits for the agent comes behind it.
    hub.orders.attach(&session, name, &resources);
    Some((session, resources))
}

/// Checks what the agent shows, ties databases to their names and makes the other names actions.
async fn attach(
    hub: &Hub,
    open: OpenBranchSession,
) -> Result<(ProcessId, String, Vec<Resource>), Box<Refusal>> {
    convert::cluster(&open.cluster_id, &hub.cluster)?;
    let agent = convert::process(open.agent)?;
    let name = convert::name("agent's name", open.agent_name)?;
    if open.resources.len() > RESOURCES_PER_AGENT {
        let found = open.resources.len();
        return Err(Box::new(refusal::too_large(
            "the list of resources",
            found,
            RESOURCES_PER_AGENT,
        )));
    }
    let mut resources: Vec<Resource> = Vec::new();
    for shown in open.resources {
        let resource = convert::resource(&shown.name)?;
        let database = convert::database_id(&shown.database_id, &resource)?;
        if resources.contains(&resource) {
            return Err(Box::new(refusal::invalid(format!(
                "resource {resource:?} is shown twice"
            ))));
        }
        know(hub, &resource, database).await?;
        resources.push(resource);
    }
    Ok((agent, name, resources))
}

/// Makes a name known as what the agent shows: a database's, or an action's.
async fn know(
    hub: &Hub,
    resource: &Resource,
    database: Option<DatabaseId>,
) -> Result<(), Box<Refusal>> {
    // What a name stands for never changes: what stands needs no entry.
    let stands = {
        let state = hub.state.read();
        match database {
            Some(shown) => {
                let mut known = state.resources();
                known.any(|(name, bound)| name == resource && *bound == shown)
            }
            None => state.is_action(resource),
        }
    };
    if stands {
        return Ok(());
    }
    let take = |reply| match reply {
        Reply::Ok => Ok(()),
        other => Err(other),
    };
    let resource = Arc::clone(resource);
    let about = (None, Some(&*Arc::clone(&resource)));
    match database {
        Some(database) => {
            let command = Command::BindResource(BindResource {
                resource: Arc::clone(&resource),
                database,
            });
            let bound = hub.ask_for(command, about, take).await;
            bound.map_err(|refusal| {
                let shown = uuid::Uuid::from_bytes(database);
                blame(refusal, &resource, &format!("database {shown}"))
            })
        }
        None => {
            let command = Command::NameAction(NameAction {
                action: Arc::clone(&resource),
            });
            let named = hub.ask_for(command, about, take).await;
            named.map_err(|refusal| blame(refusal, &resource, "an action"))
        }
    }
}

/// The refusal names what stands behind the name; this adds what the agent shows there.
fn blame(mut refusal: Box<Refusal>, resource: &str, shown: &str) -> Box<Refusal> {
    if refusal.code() == accede_proto::v1::refusal::Code::ResourceMismatch {
        refusal.resource = resource.to_owned();
        refusal.message = format!(
            "the agent shows {shown} as resource {resource:?}: {}",
            refusal.message
        );
    }
    refusal
}

struct Reader {
    session: Arc<BranchSession>,
    /// The agent's resources: requests share these names.
    resources: Vec<Resource>,
}

impl Reader {
    async fn read(&mut self, hub: &Hub, requests: &mut Streaming<BranchRequest>) {
        let mut buffer = Vec::new();
        let mut jobs = Vec::new();
        loop {
            hub.intake.room().await;
            let output = &self.session.output;
            let Found::Requests(mut chunk) =
                read_chunk(hub, requests, output, std::mem::take(&mut buffer)).await
            else {
                return;
            };
            for request in chunk.drain(..) {
                let tag = request.tag;
                match self.job(hub, request) {
                    Ok(job) => jobs.extend(job),
                    Err(refusal) if tag == 0 => {
                        tracing::warn!(
                            agent = self.session.agent.0,
                            reason = %refusal.message,
                            "an agent's message was ignored"
                        );
                        self.session.metrics.refused(refusal.code());
                    }
                    Err(refusal) => self.session.refuse(tag, *refusal),
                }
            }
            hub.intake.submit(jobs.drain(..));
            buffer = chunk;
        }
    }

    fn resource(&self, name: &str) -> Result<Resource, Box<Refusal>> {
        match self.resources.iter().find(|known| &***known == name) {
            Some(known) => Ok(Arc::clone(known)),
            None => convert::resource(name),
        }
    }

    /// What the driver has to do for a request; `None` if there is nothing.
    fn job(&self, hub: &Hub, request: BranchRequest) -> Result<Option<Job>, Box<Refusal>> {
        let tag = request.tag;
        let job = |command, ask| {
            let call = BranchCall {
                session: Arc::clone(&self.session),
                tag,
                ask,
            };
            Ok(Some(hub.job(command, ReplyTo::Branches(call))))
        };
        match request.body {
            Some(Body::Register(wire)) => {
                let resource = self.resource(&wire.resource)?;
                let join = convert::register(&wire, self.session.agent, Arc::clone(&resource))?;
                let ask = BranchAsk::Join(join.xid, resource);
                job(Command::RegisterBranch(join), ask)
            }
            Some(Body::CheckLocks(wire)) => {
                let resource = self.resource(&wire.resource)?;
                let check = convert::check_locks(&wire, Arc::clone(&resource))?;
                let ask = BranchAsk::Join(check.xid, resource);
                job(Command::CheckLocks(check), ask)
            }
            Some(Body::Done(wire)) => {
                let done = convert::done(wire)?;
                let ask = BranchAsk::Note(done.xid);
                job(Command::BranchDone(done), ask)
            }
            Some(Body::Withdrawn(wire)) => {
                let withdraw = convert::withdrawn(&wire)?;
                let ask = BranchAsk::Note(withdraw.xid);
                job(Command::WithdrawBranch(withdraw), ask)
            }
            Some(Body::Doomed(wire)) => {
                let doom = convert::doomed(wire)?;
                let ask = BranchAsk::Note(doom.xid);
                job(Command::DoomBranch(doom), ask)
            }
            Some(Body::Finished(wire)) => {
                let (finish, in_progress) = convert::finished(wire)?;
                if in_progress {
                    let agent = self.session.agent;
                    self.session
                        .orders
                        .in_progress(agent, finish.xid, finish.branch);
                    return Ok(None);
                }
                let ask = BranchAsk::Finish {
                    xid: finish.xid,
                    branch: finish.branch,
                    attempt: finish.attempt,
                    epoch: finish.epoch,
                    finished: finish.outcome == accede_core::Outcome::Finished,
                };
                job(Command::FinishBranch(finish), ask)
            }
            Some(Body::Blocked(wire)) => {
                let blocked = convert::blocked(wire)?;
                if !hub.concerns_anyone(blocked) {
                    if tag != 0 {
                        self.session
                            .push(tag, branch_event::Body::Accepted(Empty {}));
                    }
                    return Ok(None);
                }
                let ask = BranchAsk::Note(blocked.xid);
                job(Command::Blocked(blocked), ask)
            }
            Some(Body::AskEnded(wire)) => {
                let ended = |state: &State, xids: &[Xid]| {
                    branch_event::Body::Ended(convert::ended(state, xids))
                };
                self.ask_about(tag, &wire.xids, ended).map(Some)
            }
            Some(Body::AskStanding(wire)) => {
                let standing = |state: &State, xids: &[Xid]| {
                    branch_event::Body::Standing(convert::standing(state, xids))
                };
                self.ask_about(tag, &wire.xids, standing).map(Some)
            }
            Some(Body::PromisesSeen(wire)) => {
                let resource = self.resource(&wire.resource)?;
                let seen = Promises {
                    waiting: wire.waiting.into(),
                    oldest_ms: wire.oldest_ms,
                    impossible: wire.impossible.into(),
                };
                let agent = self.session.agent;
                self.session.orders.promises_seen(agent, &resource, seen);
                self.session.metrics.went_alone(wire.alone.into());
                Ok(None)
            }
            Some(Body::Open(_)) => Err(Box::new(refusal::invalid(
                "the session is open already; open another stream to show other resources",
            ))),
            None => Err(Box::new(refusal::invalid(
                "the request is empty or of a kind that this coordinator does not know",
            ))),
        }
    }

    /// A question about transactions, answered once the state is known to be current: by a leader
    /// that a majority has confirmed, after its own first entry.
    fn ask_about(
        &self,
        tag: u64,
        xids: &[u64],
        answer: fn(&State, &[Xid]) -> branch_event::Body,
    ) -> Result<Job, Box<Refusal>> {
        if xids.len() > ASK_ENDED {
            let what = "the list of transactions";
            return Err(Box::new(refusal::too_large(what, xids.len(), ASK_ENDED)));
        }
        let xids: Result<Vec<_>, _> = xids.iter().map(|bits| convert::xid(*bits)).collect();
        let xids = xids?;
        let session = Arc::clone(&self.session);
        Ok(Job::Read(Box::new(move |state| match state {
            Ok(state) => session.push(tag, answer(state, &xids)),
            Err(trouble) => session.refuse(tag, refusal::of_trouble(&trouble)),
        })))
    }
}
