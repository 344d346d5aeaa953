//! Looks for what a finished transaction should not have left behind.
//!
//! Markers of finished branches have done their duty once their transaction
//! has ended and nothing of it can arrive any more; they are deleted. An undo
//! record whose transaction has ended or was never begun must not exist: the
//! record implies a durable registration, so the database or the coordinator
//! went back in time. It is reported and never touched.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    sync::atomic::Ordering,
    time::Duration,
};

use accede_link::session::{BranchFrames, Call, Session};
use accede_proto::{
    Xid,
    v1::{AskEnded, branch_event::Body as Answer, branch_request::Body as Ask, ended::State},
};
use tokio::{sync::watch, time::sleep};

use super::{
    AgentLimits,
    database::{BranchKey, Database, Ledger, Leftover, LeftoverKind},
    hunter::Hunter,
    limits::{ASK_ENDED, MAX_ORPHANS},
    phase_two::within,
    resource::{Resource, ResourceState, add},
};

pub(super) struct Sweeper {
    resource: Arc<Resource>,
    database: Arc<dyn Database>,
    ledger: Ledger,
    session: watch::Receiver<Option<Session<BranchFrames>>>,
    limits: AgentLimits,
    /// Orphans of the round before. The branch of an undo record that was just
    /// read may be finished before the coordinator is asked, so one round is no proof.
    suspects: BTreeSet<(Xid, u32)>,
    /// Orphans that were named in the log.
    reported: BTreeSet<(Xid, u32)>,
    hunter: Hunter,
}

/// What one round has found.
#[derive(Default)]
struct Round {
    suspects: BTreeSet<(Xid, u32)>,
    confirmed: BTreeSet<(Xid, u32)>,
}

impl Sweeper {
    pub(super) fn new(
        resource: Arc<Resource>,
        database: Arc<dyn Database>,
        ledger: Ledger,
        session: watch::Receiver<Option<Session<BranchFrames>>>,
        limits: AgentLimits,
    ) -> Self {
        Self {
            resource,
            database,
            ledger,
            session,
            limits,
            suspects: BTreeSet::new(),
            reported: BTreeSet::new(),
            hunter: Hunter::default(),
        }
    }

    /// Sweeps now and then, for ever.
    pub(super) async fn run(mut self) {
        let mut state = self.resource.state();
        loop {
            // Spread, so that many agents do not sweep at the same moment.
            let spread = 0.75 + rand::random::<f64>() / 2.0;
            sleep(self.limits.sweep_interval.mul_f64(spread)).await;
            let attached = state.wait_for(|state| matches!(state, ResourceState::Attached));
            if attached.await.is_err() {
                return;
            }
            let session = self.session.borrow().clone();
            let Some(session) = session else { continue };
            match self.sweep(&session).await {
                Ok(()) => add(&self.resource.counters.sweeps, 1),
                Err(reason) => tracing::info!(
                    resource = %self.resource.name,
                    %reason,
                    "the sweep for leftovers was broken off, it will be tried again"
                ),
            }
        }
    }

    /// One round over all leftovers.
    async fn sweep(&mut self, session: &Session<BranchFrames>) -> Result<(), String> {
        let mut round = Round::default();
        let mut after = None;
        loop {
            let read = self.database.leftovers(
                self.ledger,
                self.limits.leftover_age.min(self.limits.marker_age),
                after,
                self.limits.sweep_batch,
            );
            let found = within(self.limits.phase_two, read)
                .await
                .map_err(|error| error.to_string())?;
            let Some(last) = found.last() else { break };
            after = Some(last.key);
            self.judge(session, &found, &mut round).await?;
        }
        self.conclude(round);
        match self.ledger {
            // Those are looked for in one place, once a round.
            Ledger::UNDO => self.hunt(session).await,
            _ => Ok(()),
        }
    }

    /// Looks after prepared transactions.
    async fn hunt(&mut self, session: &Session<BranchFrames>) -> Result<(), String> {
        let (age, batch) = (self.limits.leftover_age, self.limits.sweep_batch);
        let read = self.database.prepared(age, batch);
        let found = within(self.limits.phase_two, read)
            .await
            .map_err(|error| error.to_string())?;
        let states = if found.old.is_empty() {
            HashMap::new()
        } else {
            let xids = found.old.iter().map(|one| one.xid).collect();
            self.ask(session, xids).await?
        };
        self.hunter.conclude(&self.resource, &found, &states);
        Ok(())
    }

    async fn judge(
        &self,
        session: &Session<BranchFrames>,
        found: &[Leftover],
        round: &mut Round,
    ) -> Result<(), String> {
        let old_enough = |age: Duration, kind: &LeftoverKind| match kind {
            LeftoverKind::Undo => age >= self.limits.leftover_age,
            LeftoverKind::Marker => age >= self.limits.marker_age,
        };
        let found: Vec<&Leftover> = found
            .iter()
            .filter(|leftover| old_enough(leftover.age, &leftover.kind))
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        let xids = found.iter().map(|leftover| leftover.key.xid).collect();
        let states = self.ask(session, xids).await?;
        let mut markers: Vec<BranchKey> = Vec::new();
        for leftover in found {
            let state = states.get(&leftover.key.xid).copied();
            match (&leftover.kind, state) {
                (LeftoverKind::Marker, Some(State::Ended)) => markers.push(leftover.key),
                (LeftoverKind::Undo, Some(State::Ended | State::NeverBegun)) => {
                    self.suspect((leftover.key.xid, leftover.key.branch), round);
                }
                _ => {}
            }
        }
        if !markers.is_empty() {
            let purge = self.database.purge_markers(self.ledger, &markers);
            within(self.limits.phase_two, purge)
                .await
                .map_err(|error| error.to_string())?;
            add(&self.resource.counters.markers_purged, markers.len());
        }
        Ok(())
    }

    fn suspect(&self, branch: (Xid, u32), round: &mut Round) {
        if round.suspects.len() >= MAX_ORPHANS {
            return;
        }
        round.suspects.insert(branch);
        if self.suspects.contains(&branch) {
            round.confirmed.insert(branch);
        }
    }

    /// Asks the coordinator which of the transactions have ended.
    async fn ask(
        &self,
        session: &Session<BranchFrames>,
        xids: BTreeSet<Xid>,
    ) -> Result<HashMap<Xid, State>, String> {
        let body = Ask::AskEnded(AskEnded {
            resource: self.resource.name.as_ref().to_owned(),
            xids: xids.iter().map(|xid| xid.as_u64()).collect(),
        });
        let answer = session
            .call(body, Call::idempotent(ASK_ENDED))
            .await
            .map_err(|error| error.to_string())?;
        match answer {
            Answer::Ended(ended) if ended.states.len() == xids.len() => {
                Ok(xids.into_iter().zip(ended.states()).collect())
            }
            other => Err(format!(
                "the coordinator's answer does not fit the question: {other:?}"
            )),
        }
    }

    fn conclude(&mut self, round: Round) {
        let counters = &self.resource.counters;
        let (counter, what) = match self.ledger {
            Ledger::FENCES => (&counters.orphan_fences, "OrphanFence: a try"),
            _ => (&counters.orphan_undo, "OrphanUndo: an undo record"),
        };
        counter.store(round.confirmed.len() as u64, Ordering::Relaxed);
        for (xid, branch) in round.confirmed.difference(&self.reported) {
            tracing::warn!(
                %xid,
                branch,
                resource = %self.resource.name,
                "{what} whose transaction has ended or was never begun; the database or the \
                 coordinator went back in time. Nothing is undone; compare the rows and delete \
                 the record by hand"
            );
        }
        self.reported = round.confirmed;
        self.suspects = round.suspects;
    }
}
