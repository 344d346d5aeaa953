//! A coordinator's transaction service with a script, over real sockets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use accede_proto::v1::{
    BeginRefused, BeginRequest, BeginResponse, BegunThrough, CommitRequest, Decision,
    GetOutcomeRequest, Lease, Outcome, Refusal, RollBackReason, RollBackRequest, SagaOutcome,
    StartSagaRequest, Status as Standing, StepOutput, TransactionEvent, TransactionRequest,
    refusal::Code,
    roll_back_reason,
    transaction_event::Body as Event,
    transaction_request::Body as Ask,
    transactions_server::{Transactions, TransactionsServer},
};
use futures_util::Stream;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::AbortHandle,
};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// What the coordinator does.
#[derive(Clone, Debug)]
pub struct Script {
    pub ttl_ms: u32,
    /// Begins are logged; otherwise nothing is said about them.
    pub logs_begins: bool,
    /// Begins of transactions with this name are refused.
    pub refuses: &'static str,
    pub commit: OnCommit,
    pub renewal: OnRenewal,
    pub answers_questions: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCommit {
    Decides,
    /// Decides, and the connection breaks before the answer.
    BreaksOnce,
    Silent,
    TimedOut,
    OverloadedOnce,
    Invalid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRenewal {
    Renews,
    Silent,
    /// The lease is over, once.
    EndedOnce,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            ttl_ms: 60_000,
            logs_begins: true,
            refuses: "",
            commit: OnCommit::Decides,
            renewal: OnRenewal::Renews,
            answers_questions: true,
        }
    }
}

/// A frame and the session, counted from 1, that it came on.
pub type Frame = (usize, Ask);

#[derive(Debug, Default)]
struct State {
    script: Script,
    frames: Vec<Frame>,
    sessions: usize,
    next_worker: u32,
    begun: BTreeSet<u64>,
    decided: BTreeMap<u64, Outcome>,
}

/// The running service.
#[derive(Debug)]
pub struct Fake {
    pub address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    breaks: Arc<watch::Sender<usize>>,
    server: AbortHandle,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub async fn start() -> Self {
        Self::start_with(Script::default()).await
    }

    pub async fn start_with(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, script)
    }

    pub fn start_on(listener: TcpListener, script: Script) -> Self {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new(State {
            script,
            next_worker: 7,
            ..State::default()
        }));
        let breaks = Arc::new(watch::Sender::new(0));
        let service = Service {
            state: Arc::clone(&state),
            breaks: Arc::clone(&breaks),
        };
        let server = tokio::spawn(async move {
            Server::builder()
                .add_service(TransactionsServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
        });
        Self {
            address,
            state,
            breaks,
            server: server.abort_handle(),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what it does from now on.
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        self.state.send_modify(|state| change(&mut state.script));
    }

    /// Ends every open session with an error.
    pub fn break_connections(&self) {
        self.breaks.send_modify(|count| *count += 1);
    }

    /// Says that the begins up to this one are logged, on no session: only the
    /// next lease tells.
    pub fn log_quietly(&self, xid: u64) {
        self.state.send_modify(|state| {
            state.begun.insert(xid);
        });
    }

    /// Decides to commit, whoever asked for it.
    pub fn decide_commit(&self, xid: u64) {
        self.state.send_modify(|state| {
            state.decide(xid, Decision::Commit, |_| {});
        });
    }

    pub fn frames(&self) -> Vec<Frame> {
        self.state.borrow().frames.clone()
    }

    /// All begins in order of arrival, all sessions.
    pub fn begins(&self) -> Vec<u64> {
        let frames = self.frames();
        let begins = frames.iter().filter_map(|(_, ask)| match ask {
            Ask::Begin(begin) => Some(begin.xid),
            _ => None,
        });
        begins.collect()
    }

    pub fn is_decided(&self, xid: u64) -> Option<Decision> {
        let state = self.state.borrow();
        state.decided.get(&xid).map(Outcome::decision)
    }

    /// Waits until the frames that came are such.
    pub async fn until(&self, what: &str, such: impl Fn(&[Frame]) -> bool) -> Vec<Frame> {
        let mut state = self.state.subscribe();
        let reached = state.wait_for(|state| such(&state.frames));
        match tokio::time::timeout(Duration::from_secs(10), reached).await {
            Ok(state) => state.unwrap().frames.clone(),
            Err(_) => panic!("never came: {what}; frames: {:#?}", self.frames()),
        }
    }
}

struct Service {
    state: Arc<watch::Sender<State>>,
    breaks: Arc<watch::Sender<usize>>,
}

type Events = Pin<Box<dyn Stream<Item = Result<TransactionEvent, Status>> + Send>>;
type Out = mpsc::UnboundedSender<Result<TransactionEvent, Status>>;

#[tonic::async_trait]
impl Transactions for Service {
    type SessionStream = Events;

    async fn session(
        &self,
        request: Request<Streaming<TransactionRequest>>,
    ) -> Result<Response<Events>, Status> {
        let mut requests = request.into_inner();
        let (out, events) = mpsc::unbounded_channel();
        let state = Arc::clone(&self.state);
        let mut breaks = self.breaks.subscribe();
        let mut session = 0;
        state.send_modify(|state| {
            state.sessions += 1;
            session = state.sessions;
        });
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    request = requests.message() => request,
                    _ = breaks.changed() => {
                        let _ = out.send(Err(Status::unavailable("broken by the test")));
                        return;
                    }
                };
                let Ok(Some(TransactionRequest {
                    tag,
                    body: Some(ask),
                })) = request
                else {
                    return;
                };
                let mut goes_on = true;
                state.send_modify(|state| {
                    state.frames.push((session, ask.clone()));
                    goes_on = state.handle(tag, ask, &out);
                });
                if !goes_on {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            events,
        ))))
    }

    async fn begin(&self, _: Request<BeginRequest>) -> Result<Response<BeginResponse>, Status> {
        Err(Status::unimplemented("only the session is spoken"))
    }

    async fn start_saga(
        &self,
        _: Request<StartSagaRequest>,
    ) -> Result<Response<SagaOutcome>, Status> {
        Err(Status::unimplemented("only the session is spoken"))
    }

    async fn commit(&self, _: Request<CommitRequest>) -> Result<Response<Outcome>, Status> {
        Err(Status::unimplemented("only the session is spoken"))
    }

    async fn roll_back(&self, _: Request<RollBackRequest>) -> Result<Response<Outcome>, Status> {
        Err(Status::unimplemented("only the session is spoken"))
    }

    async fn get_outcome(
        &self,
        _: Request<GetOutcomeRequest>,
    ) -> Result<Response<Outcome>, Status> {
        Err(Status::unimplemented("only the session is spoken"))
    }
}

/// Each step returns its input; one that is called "never" cannot be done.
fn saga(start: &StartSagaRequest) -> Event {
    let steps = || start.steps.iter();
    let (mut decision, mut reason) = (Decision::Unspecified, None);
    if steps().any(|step| step.name == "never") {
        decision = Decision::RollBack;
        reason = Some(RollBackReason {
            code: roll_back_reason::Code::StepFailed.into(),
            detail: "never: sold out".into(),
        });
    } else if start.commit_when_done {
        decision = Decision::Commit;
    }
    let results = steps().map(|step| StepOutput {
        step: step.name.clone(),
        result: step.input.clone(),
    });
    Event::Saga(SagaOutcome {
        xid: start.xid,
        results: results.collect(),
        decision: decision.into(),
        reason,
    })
}

fn refusal(code: Code, message: &str) -> Refusal {
    Refusal {
        code: code.into(),
        message: message.into(),
        ..Refusal::default()
    }
}

impl State {
    /// False ends the session.
    fn handle(&mut self, tag: u64, ask: Ask, out: &Out) -> bool {
        let answer = match ask {
            Ask::Open(open) => {
                let worker = if open.has_worker {
                    open.worker
                } else {
                    self.next_worker += 1;
                    self.next_worker
                };
                Some(self.lease(worker))
            }
            Ask::Renew(renew) => match self.script.renewal {
                OnRenewal::Renews => Some(self.lease(renew.worker)),
                OnRenewal::Silent => None,
                OnRenewal::EndedOnce => {
                    self.script.renewal = OnRenewal::Renews;
                    Some(Event::Refusal(refusal(Code::LeaseEnded, "too late")))
                }
            },
            Ask::Begin(begin) => {
                let news = self.begin(begin.xid, &begin.name);
                return news.is_none_or(|news| say(out, 0, news));
            }
            Ask::Commit(commit) => {
                let Some(answer) = self.commit(commit.xid) else {
                    return false;
                };
                answer
            }
            Ask::RollBack(ask) => {
                let outcome = self.decide(ask.xid, Decision::RollBack, |outcome| {
                    outcome.reason = Some(RollBackReason {
                        code: roll_back_reason::Code::Requested.into(),
                        detail: ask.reason,
                    });
                });
                Some(Event::Outcome(outcome))
            }
            Ask::GetOutcome(ask) => self.script.answers_questions.then(|| self.tell(ask.xid)),
            Ask::StartSaga(start) => {
                let asked = |(_, ask): &&Frame| matches!(ask, Ask::StartSaga(_));
                // The first time the answer is lost.
                if self.frames.iter().filter(asked).count() == 1 {
                    return false;
                }
                let is_other = |(_, ask): &Frame| matches!(ask, Ask::StartSaga(before) if before.xid == start.xid && before.request != start.request);
                match self.frames.iter().any(is_other) {
                    true => Some(Event::Refusal(refusal(Code::OtherSaga, "it has one"))),
                    false => Some(saga(&start)),
                }
            }
            Ask::Close(_) => return false,
        };
        answer.is_none_or(|answer| say(out, tag, answer))
    }

    fn lease(&self, worker: u32) -> Event {
        let of_worker = |xid: &&u64| **xid & 0x1fff == u64::from(worker);
        Event::Lease(Lease {
            worker,
            floor_ms: 1_000_000,
            ceiling_ms: 2_000_000,
            ttl_ms: self.script.ttl_ms,
            cluster_id: vec![3; 16].into(),
            begun_through: self
                .begun
                .iter()
                .filter(of_worker)
                .max()
                .copied()
                .unwrap_or(0),
        })
    }

    fn begin(&mut self, xid: u64, name: &str) -> Option<Event> {
        if !self.script.refuses.is_empty() && name == self.script.refuses {
            return Some(Event::BeginRefused(BeginRefused {
                xid,
                refusal: Some(refusal(Code::LimitReached, "too many open transactions")),
            }));
        }
        self.script.logs_begins.then(|| {
            self.begun.insert(xid);
            Event::BegunThrough(BegunThrough { xid })
        })
    }

    /// `Some(None)`: no answer. `None`: the connection breaks.
    fn commit(&mut self, xid: u64) -> Option<Option<Event>> {
        let decided = |state: &mut Self| {
            if !state.begun.contains(&xid) && state.script.logs_begins {
                return Event::Refusal(refusal(Code::NotBegun, "not begun"));
            }
            Event::Outcome(state.decide(xid, Decision::Commit, |_| {}))
        };
        Some(match self.script.commit {
            OnCommit::Decides => Some(decided(self)),
            OnCommit::BreaksOnce => {
                self.script.commit = OnCommit::Decides;
                decided(self);
                return None;
            }
            OnCommit::Silent => None,
            OnCommit::TimedOut => Some(Event::Outcome(self.decide(
                xid,
                Decision::RollBack,
                |outcome| {
                    outcome.reason = Some(RollBackReason {
                        code: roll_back_reason::Code::TimedOut.into(),
                        detail: String::new(),
                    });
                },
            ))),
            OnCommit::OverloadedOnce => {
                self.script.commit = OnCommit::Decides;
                Some(Event::Refusal(refusal(Code::Overloaded, "busy")))
            }
            OnCommit::Invalid => Some(Event::Refusal(refusal(Code::Invalid, "no such thing"))),
        })
    }

    fn decide(&mut self, xid: u64, decision: Decision, more: impl FnOnce(&mut Outcome)) -> Outcome {
        let outcome = self.decided.entry(xid).or_insert_with(|| {
            let status = match decision {
                Decision::Commit => Standing::Committing,
                _ => Standing::RollingBack,
            };
            let mut outcome = Outcome {
                xid,
                status: status.into(),
                decision: decision.into(),
                reason: None,
            };
            more(&mut outcome);
            outcome
        });
        outcome.clone()
    }

    fn tell(&self, xid: u64) -> Event {
        match self.decided.get(&xid) {
            Some(outcome) => Event::Outcome(outcome.clone()),
            None if self.begun.contains(&xid) => Event::Outcome(Outcome {
                xid,
                status: Standing::Active.into(),
                ..Outcome::default()
            }),
            None if self.begun.iter().any(|begun| *begun > xid) => {
                Event::Refusal(refusal(Code::Forgotten, "ended long ago"))
            }
            None => Event::Refusal(refusal(Code::NotBegun, "not begun")),
        }
    }
}

fn say(out: &Out, tag: u64, event: Event) -> bool {
    let event = TransactionEvent {
        tag,
        body: Some(event),
    };
    out.send(Ok(event)).is_ok()
}
