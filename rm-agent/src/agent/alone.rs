//! What a participant of 3PC does when nobody speaks to it: asks the coordinator about promises
//! that are older than its time-out, and does what the table says about the answer, or about
//! silence.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use accede_core::alone::{Knows, May, Phase, may};
use accede_link::session::{BranchFrames, Call, Session};
use accede_proto::{
    Xid,
    v1::{
        AskStanding, PromisesSeen, branch_event::Body as Answer, branch_request::Body as Ask,
        standing::State,
    },
};
use tokio::{sync::watch, time::sleep};

use super::{
    AgentLimits,
    database::BranchKey,
    limits::{
        ALONE_LOOK_LONGEST, ALONE_LOOK_SHARE, ALONE_LOOK_SHORTEST, ASK_STANDING_LONGEST,
        MAX_ORPHANS,
    },
    participant::Finish,
    phase_two::within,
    resource::{Resource, add},
};
use crate::{clock, store::fence::Promise};

/// Looks after the promises of one action.
pub(super) struct Alone {
    resource: Arc<Resource>,
    finish: Arc<dyn Finish>,
    session: watch::Receiver<Option<Session<BranchFrames>>>,
    limits: AgentLimits,
    /// Branches that cannot be as they are, and were named in the log.
    reported: BTreeSet<BranchKey>,
    /// How long the last look took to read the database.
    read_took: Duration,
    told: Told,
}

/// What the coordinator knows for its metrics.
#[derive(Default)]
struct Told {
    /// It believes that promises wait.
    that_some_wait: bool,
    /// Steps done alone of which it has not heard.
    not_of: u32,
}

/// What the coordinator said of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Knows(Knows),
    /// It does not know it any more, or never did: that tells nothing, and must not be.
    Lost(&'static str),
}

impl Alone {
    pub(super) fn new(
        resource: Arc<Resource>,
        finish: Arc<dyn Finish>,
        session: watch::Receiver<Option<Session<BranchFrames>>>,
        limits: AgentLimits,
    ) -> Self {
        Self {
            resource,
            finish,
            session,
            limits,
            reported: BTreeSet::new(),
            read_took: Duration::ZERO,
            told: Told::default(),
        }
    }

    /// Looks now and then, for ever.
    pub(super) async fn run(mut self) {
        let shortest = self.limits.three_phase_timeout / 4;
        let shortest = shortest.clamp(ALONE_LOOK_SHORTEST, ALONE_LOOK_LONGEST);
        let mut pause = shortest;
        loop {
            // Spread, so that many agents do not ask at the same moment.
            sleep(pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
            let looked = self.look().await;
            // Reading takes a small part of the time, whatever the table holds.
            pause = shortest.max(self.read_took * ALONE_LOOK_SHARE);
            if let Err(reason) = looked {
                tracing::info!(
                    resource = %self.resource.name,
                    %reason,
                    "the look for promises was broken off, it will be tried again"
                );
            }
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let (timeout, limit) = (self.limits.three_phase_timeout, self.limits.sweep_batch);
        let began = clock::now();
        let read = self.finish.promises(timeout, limit);
        let found = within(self.limits.phase_two, read).await;
        self.read_took = clock::now().saturating_duration_since(began);
        let found = found.map_err(|error| error.to_string())?;
        let news = match found.is_empty() {
            true => HashMap::new(),
            false => self.ask(&found).await,
        };
        let mut waiting = 0_u64;
        let mut oldest = Duration::ZERO;
        let mut impossible = BTreeSet::new();
        for promise in &found {
            let silence = News::Knows(Knows::Silence);
            let news = news.get(&promise.key.xid).copied().unwrap_or(silence);
            match self.go_on(promise, news).await {
                Went::On => {
                    self.told.not_of = self.told.not_of.saturating_add(1);
                    add(&self.resource.counters.alone, 1);
                }
                Went::Nowhere => {
                    waiting += 1;
                    oldest = oldest.max(promise.age);
                }
                Went::Wrong(why) => {
                    waiting += 1;
                    oldest = oldest.max(promise.age);
                    self.report(promise, &why);
                    if impossible.len() < MAX_ORPHANS {
                        impossible.insert(promise.key);
                    }
                }
            }
        }
        let counters = &self.resource.counters;
        let oldest = u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX);
        counters.promises.store(waiting, Ordering::Relaxed);
        counters.promises_oldest_ms.store(oldest, Ordering::Relaxed);
        let count = impossible.len() as u64;
        counters.impossible_promises.store(count, Ordering::Relaxed);
        self.reported = impossible;
        self.tell(waiting, oldest, count).await;
        Ok(())
    }

    /// Tells the coordinator what was seen, if that is news.
    async fn tell(&mut self, waiting: u64, oldest_ms: u64, impossible: u64) {
        if waiting == 0 && !self.told.that_some_wait && self.told.not_of == 0 {
            return;
        }
        let session = self.session.borrow().clone();
        let Some(session) = session else {
            // It forgets what an agent said that is gone.
            self.told.that_some_wait = false;
            return;
        };
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let seen = Ask::PromisesSeen(PromisesSeen {
            resource: self.resource.name.as_ref().to_owned(),
            waiting: narrow(waiting),
            oldest_ms,
            impossible: narrow(impossible),
            alone: self.told.not_of,
        });
        match session.send(seen).await {
            Ok(()) => {
                self.told = Told {
                    that_some_wait: waiting > 0,
                    not_of: 0,
                };
            }
            Err(error) => tracing::debug!(%error, "the coordinator does not hear of promises"),
        }
    }

    /// Does what the table says about one promise.
    async fn go_on(&self, promise: &Promise, news: News) -> Went {
        let phase = match promise.is_pre_committed {
            true => Phase::PreCommitted,
            false => Phase::Prepared,
        };
        let (knows, lost) = match news {
            News::Knows(knows) => (knows, None),
            News::Lost(why) => (Knows::Silence, Some(why)),
        };
        // Looked up once more when the row is locked: an order may come at the same time.
        match (may(phase, knows), lost) {
            (May::Ask | May::Choose | May::Rest, None) => return Went::Nowhere,
            (May::Ask | May::Choose | May::Rest, Some(why)) => return Went::Wrong(why.to_owned()),
            (May::PreCommit | May::Commit | May::Abort | May::Never, _) => {}
        }
        let work = self.finish.act_alone(promise.key, knows, &promise.payload);
        match within(self.limits.phase_two, work).await {
            Ok(May::PreCommit | May::Commit | May::Abort) => {
                tracing::info!(
                    xid = %promise.key.xid,
                    branch = promise.key.branch,
                    resource = %self.resource.name,
                    was = phase.text(),
                    knows = knows.text(),
                    "a participant of 3PC went on by itself"
                );
                Went::On
            }
            Ok(May::Ask | May::Choose | May::Rest | May::Never) => Went::Nowhere,
            Err(error) if may(phase, knows) == May::Never => Went::Wrong(error.to_string()),
            Err(error) => {
                tracing::warn!(
                    xid = %promise.key.xid,
                    branch = promise.key.branch,
                    resource = %self.resource.name,
                    %error,
                    "a participant of 3PC could not go on by itself, it will try again"
                );
                Went::Nowhere
            }
        }
    }

    fn report(&self, promise: &Promise, why: &str) {
        if self.reported.contains(&promise.key) {
            return;
        }
        tracing::error!(
            xid = %promise.key.xid,
            branch = promise.key.branch,
            resource = %self.resource.name,
            age = ?promise.age,
            why,
            "ImpossiblePromise: a promise cannot be as it is; the database or the coordinator \
             went back in time. Nothing was changed: find out how the transaction ended, and bring \
             what the promise holds in order by hand"
        );
    }

    /// Asks how the transactions stand. Whatever goes wrong is silence.
    async fn ask(&self, found: &[Promise]) -> HashMap<Xid, News> {
        let session = self.session.borrow().clone();
        let Some(session) = session else {
            return HashMap::new();
        };
        let xids: BTreeSet<Xid> = found.iter().map(|promise| promise.key.xid).collect();
        let body = Ask::AskStanding(AskStanding {
            resource: self.resource.name.as_ref().to_owned(),
            xids: xids.iter().map(|xid| xid.as_u64()).collect(),
        });
        let limit = self.limits.three_phase_timeout.min(ASK_STANDING_LONGEST);
        match session.call(body, Call::idempotent(limit)).await {
            Ok(Answer::Standing(standing)) if standing.states.len() == xids.len() => {
                xids.into_iter().zip(standing.states().map(news)).collect()
            }
            Ok(other) => {
                tracing::warn!(?other, "the coordinator's answer does not fit the question");
                HashMap::new()
            }
            Err(error) => {
                tracing::debug!(%error, "nobody says how promises stand");
                HashMap::new()
            }
        }
    }
}

/// What came of a promise.
enum Went {
    On,
    /// It waits.
    Nowhere,
    /// It cannot be as it is.
    Wrong(String),
}

fn news(state: State) -> News {
    match state {
        State::Unspecified => News::Knows(Knows::Silence),
        State::Undecided => News::Knows(Knows::Undecided),
        State::PreCommitted => News::Knows(Knows::PreCommitted),
        State::Committing => News::Knows(Knows::Committing),
        State::RollingBack => News::Knows(Knows::RollingBack),
        State::NeverBegun => News::Lost("the coordinator has never heard of its transaction"),
        State::Forgotten => News::Lost("its transaction ended so long ago that nobody knows how"),
    }
}
