//! The session's task: connects, opens, reads, and starts again.

use std::{
    error::Error as _,
    mem::{Discriminant, discriminant},
    sync::Arc,
    time::Duration,
};

use accede_proto::v1::{Refusal, refusal::Code};
use futures_util::stream::{self, StreamExt as _};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tonic::{Status, Streaming, transport::Channel};

use super::{
    ClusterId, ConnectProblem, Frames, Outbound, QueuedFrames, Role, SessionStatus,
    address::Address,
    limits,
    shared::{Next, Shared, Taken},
};
use crate::clock;

/// While there is no connection, the log is reminded of it this often.
const REMINDER: Duration = Duration::from_secs(60);

pub(super) struct Runner<F: Frames> {
    shared: Arc<Shared<F>>,
    role: Arc<dyn Role<F>>,
    addresses: Vec<Address>,
    at: usize,
    cluster: Option<ClusterId>,
    generation: u64,
    /// Counts connections whose opening answer came and that have not ended.
    opened_at: Option<Instant>,
    failures: u32,
    since: Instant,
    logged: Vec<Discriminant<ConnectProblem>>,
    logged_at: Instant,
    reopen: watch::Receiver<u64>,
}

type Events<F> = Streaming<<F as Frames>::Event>;

impl<F: Frames> Runner<F> {
    pub(super) fn new(
        shared: Arc<Shared<F>>,
        role: Arc<dyn Role<F>>,
        addresses: Vec<Address>,
        cluster: Option<ClusterId>,
    ) -> Self {
        let now = clock::now();
        let reopen = shared.reopen.subscribe();
        Self {
            shared,
            role,
            addresses,
            at: 0,
            cluster,
            generation: 0,
            opened_at: None,
            failures: 0,
            since: now,
            logged: Vec::new(),
            logged_at: now,
            reopen,
        }
    }

    /// Runs until the session is closed.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            () = shared.cancel.cancelled() => {}
            () = self.keep_connected() => {}
        }
        shared.status.send_replace(SessionStatus::Closed);
        shared.cancel.cancel();
        shared.end();
        if self.opened_at.take().is_some() {
            self.role.disconnected();
        }
    }

    async fn keep_connected(&mut self) {
        loop {
            let (problem, elsewhere) = self.connection().await;
            let lived = self.opened_at.take().map(|opened_at| {
                self.shared.connection_lost(&problem.to_string());
                self.role.disconnected();
                clock::now().saturating_duration_since(opened_at)
            });
            if self.shared.is_closing() && self.shared.is_drained() {
                return;
            }
            if matches!(problem, ConnectProblem::OpenedAnew { .. }) {
                continue;
            }
            self.report(&problem, lived.is_some());
            if lived.is_some_and(|lived| lived >= self.shared.limits.stable_after) {
                self.failures = 0;
            } else {
                self.failures = self.failures.saturating_add(1);
            }
            if lived.is_none() || elsewhere {
                self.at = (self.at + 1) % self.addresses.len();
            }
            sleep(self.pause()).await;
        }
    }

    /// Every address is tried once without a pause, then the round has failed.
    fn pause(&self) -> Duration {
        let count = u32::try_from(self.addresses.len()).unwrap_or(u32::MAX);
        let rounds = self.failures / count;
        if self.failures > 0 && !self.failures.is_multiple_of(count) {
            return Duration::ZERO;
        }
        limits::backoff(&self.shared.limits, rounds, rand::random())
    }

    /// Tells status and log about a failure; the log once per outage and kind.
    fn report(&mut self, problem: &ConnectProblem, was_open: bool) {
        let now = clock::now();
        if was_open {
            self.since = now;
            self.logged.clear();
        }
        self.shared.status.send_replace(SessionStatus::Connecting {
            problem: Some(problem.clone()),
            since: self.since,
        });
        let kind = discriminant(problem);
        let reminder = now.saturating_duration_since(self.logged_at) >= REMINDER;
        if self.logged.contains(&kind) && !reminder {
            tracing::debug!(service = F::SERVICE, %problem, "still not connected");
            return;
        }
        if !self.logged.contains(&kind) {
            self.logged.push(kind);
        }
        self.logged_at = now;
        let needs_a_person = matches!(
            problem,
            ConnectProblem::OtherCluster { .. } | ConnectProblem::NotAccepted { .. }
        );
        if needs_a_person {
            tracing::error!(service = F::SERVICE, %problem, "cannot work with this coordinator");
        } else if was_open {
            tracing::warn!(service = F::SERVICE, %problem, "lost the coordinator, connecting again");
        } else {
            tracing::warn!(
                service = F::SERVICE,
                %problem,
                since_ms = now.saturating_duration_since(self.since).as_millis() as u64,
                "not connected to a coordinator, keeps trying"
            );
        }
    }

    /// One connection from its first packet to its end. Answers why it ended and
    /// whether the coordinator said that another one should be tried.
    async fn connection(&mut self) -> (ConnectProblem, bool) {
        let address = self.addresses[self.at].clone();
        self.generation += 1;
        let writer = Writer(Arc::new(Notify::new()));
        let events = match self.open(&address, &writer.0).await {
            Ok(events) => events,
            Err(problem) => return (problem, true),
        };
        self.read(&address, events).await
    }

    /// Connects, sends the opening frame and judges its answer.
    async fn open(
        &mut self,
        address: &Address,
        writable: &Arc<Notify>,
    ) -> Result<Events<F>, ConnectProblem> {
        let unreachable = |reason: String| ConnectProblem::Unreachable {
            address: address.text.clone(),
            reason,
        };
        let limits = self.shared.limits;
        let channel = timeout(limits.connect, address.endpoint.connect())
            .await
            .map_err(|_| unreachable(format!("no connection within {:?}", limits.connect)))?
            .map_err(|error| unreachable(root_cause(&error)))?;
        let tag = self.shared.next_tag();
        self.reopen.mark_unchanged();
        let opening = F::request(tag, self.role.opening(self.cluster));
        let outbound = outbound(&self.shared, self.generation, writable, opening);
        let (first, events) = timeout(limits.opening, first_event::<F>(channel, outbound))
            .await
            .map_err(|_| ConnectProblem::NotACoordinator {
                address: address.text.clone(),
                reason: format!("no answer to the opening frame within {:?}", limits.opening),
            })?
            .map_err(|status| unreachable(explain(&status)))?;
        let (cluster, again) = self.judge_opening(address, tag, first)?;
        self.cluster = Some(cluster);
        // Only now may the queue flow: the role's frames are first in it.
        self.shared.go_live(self.generation, writable, again);
        self.start(address, cluster);
        Ok(events)
    }

    fn judge_opening(
        &mut self,
        address: &Address,
        tag: u64,
        first: Option<F::Event>,
    ) -> Result<(ClusterId, Vec<F::Ask>), ConnectProblem> {
        let garbage = |reason: &str| ConnectProblem::NotACoordinator {
            address: address.text.clone(),
            reason: reason.to_owned(),
        };
        let event = first.ok_or_else(|| garbage("it ended the stream without an answer"))?;
        let (answered, body) = F::event(event);
        if answered != tag && answered != 0 {
            return Err(garbage(
                "its first event answers a request that was not sent",
            ));
        }
        let body = body.ok_or_else(|| garbage("its first event is empty or of an unknown kind"))?;
        let body = match F::refusal(body) {
            Ok(refusal) => return Err(self.opening_refused(address, refusal)),
            Err(body) => body,
        };
        let theirs = F::cluster_id(&body)
            .ok_or_else(|| garbage("its first event is no answer to the opening frame"))?;
        let theirs = ClusterId::from_wire(theirs).ok_or_else(|| {
            garbage(&format!(
                "its cluster id has {} bytes instead of 16",
                theirs.len()
            ))
        })?;
        if let Some(ours) = self.cluster.filter(|ours| *ours != theirs) {
            return Err(ConnectProblem::OtherCluster {
                address: address.text.clone(),
                ours: ours.to_string(),
                theirs: theirs.to_string(),
            });
        }
        let again = self
            .role
            .opened(body, theirs, &QueuedFrames(&self.shared))
            .map_err(|reason| ConnectProblem::NotAccepted {
                address: address.text.clone(),
                reason,
            })?;
        Ok((theirs, again))
    }

    fn opening_refused(&self, address: &Address, refusal: Refusal) -> ConnectProblem {
        self.role.opening_refused(&refusal);
        if refusal.code() == Code::OtherCluster {
            return ConnectProblem::OtherCluster {
                address: address.text.clone(),
                ours: self
                    .cluster
                    .map_or_else(|| "unknown".to_owned(), |ours| ours.to_string()),
                theirs: refusal.message,
            };
        }
        ConnectProblem::Refused {
            address: address.text.clone(),
            refusal: Box::new(refusal),
        }
    }

    fn start(&mut self, address: &Address, cluster: ClusterId) {
        let now = clock::now();
        self.opened_at = Some(now);
        self.logged.clear();
        tracing::info!(
            service = F::SERVICE,
            address = %address.text,
            %cluster,
            after_ms = now.saturating_duration_since(self.since).as_millis() as u64,
            "connected to the coordinator"
        );
        self.shared.status.send_replace(SessionStatus::Connected {
            address: address.text.clone(),
            cluster,
        });
    }

    /// Hands out events until the connection ends.
    async fn read(&mut self, address: &Address, events: Events<F>) -> (ConnectProblem, bool) {
        let mut events = events.ready_chunks(limits::READ_CHUNK);
        loop {
            let chunk = tokio::select! {
                chunk = events.next() => chunk,
                Ok(()) = self.reopen.changed() => {
                    let problem = ConnectProblem::OpenedAnew {
                        address: address.text.clone(),
                    };
                    return (problem, false);
                }
            };
            let Some(chunk) = chunk else {
                break;
            };
            for event in chunk {
                let event = match event {
                    Ok(event) => event,
                    Err(status) => {
                        let problem = ConnectProblem::Unreachable {
                            address: address.text.clone(),
                            reason: explain(&status),
                        };
                        return (problem, false);
                    }
                };
                if let Next::Elsewhere(refusal) = self.hand_out(event) {
                    let problem = ConnectProblem::Refused {
                        address: address.text.clone(),
                        refusal: Box::new(refusal),
                    };
                    return (problem, true);
                }
            }
        }
        let problem = ConnectProblem::Unreachable {
            address: address.text.clone(),
            reason: "the coordinator ended the stream".into(),
        };
        (problem, false)
    }

    fn hand_out(&self, event: F::Event) -> Next {
        match F::event(event) {
            (tag, Some(body)) if tag != 0 => self.shared.answer(&*self.role, tag, body),
            (0, Some(body)) => {
                self.role.news(body);
                Next::Continue
            }
            (tag, _) => {
                tracing::debug!(tag, "ignored an event of an unknown kind");
                Next::Continue
            }
        }
    }
}

/// Wakes the writer of a connection that has ended, whatever the reason, so that
/// it ends too: the transport lives as long as its writer does.
struct Writer(Arc<Notify>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn first_event<F: Frames>(
    channel: Channel,
    outbound: Outbound<F::Request>,
) -> Result<(Option<F::Event>, Events<F>), Status> {
    let mut events = F::open(channel, outbound).await?;
    let first = events.next().await.transpose()?;
    Ok((first, events))
}

/// The opening frame, then chunks of the queue for as long as the connection is live.
fn outbound<F: Frames>(
    shared: &Arc<Shared<F>>,
    generation: u64,
    writable: &Arc<Notify>,
    opening: F::Request,
) -> Outbound<F::Request> {
    let first = stream::once(std::future::ready(opening));
    let state = (Arc::clone(shared), Arc::clone(writable), false);
    let rest = stream::unfold(state, move |(shared, writable, mut live)| async move {
        loop {
            if !live {
                // Told when the opening answer has come.
                writable.notified().await;
                live = true;
            }
            // Whoever else is ready may queue its frames, so that they share the write.
            tokio::task::yield_now().await;
            match shared.take(generation) {
                Taken::Frames(frames) => {
                    return Some((stream::iter(frames), (shared, writable, live)));
                }
                Taken::Nothing => writable.notified().await,
                Taken::Gone => return None,
            }
        }
    });
    Outbound::new(first.chain(rest.flatten()))
}

fn explain(status: &Status) -> String {
    match status.source() {
        Some(source) => format!("{}: {}", status.message(), root_cause(source)),
        None if status.message().is_empty() => status.code().to_string(),
        None => status.message().to_owned(),
    }
}

/// The innermost error: the outer ones only say "transport error".
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
