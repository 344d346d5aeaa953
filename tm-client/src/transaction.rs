//! The guard of one transaction.

use std::{future::Future, sync::Arc};

use accede_link::context::{Scoped, TransactionContext, scope};
use accede_proto::{
    Xid,
    v1::{self, Decision, refusal::Code, transaction_request},
};
use tokio::time::Instant;

use crate::{
    CommitError, Committed, Ended, HookError, Outcome, PhaseTwo, Refusal, RollBackCause,
    RollBackError, RolledBack, TransactionClient, ask::Told, limits, worker::RefusedCell,
};

/// A transaction that this process began and ends.
///
/// End it with [`commit`](Self::commit) or [`roll_back`](Self::roll_back).
/// Dropping it before, by an early return, a panic or a cancelled future, rolls
/// it back in the background as well as can be: nobody waits for it, and when
/// that fails the transaction's time-out does it. So rows may stay locked a
/// little longer than after an awaited rollback.
#[derive(Debug)]
#[must_use = "dropping the guard rolls the transaction back"]
pub struct GlobalTransaction {
    client: TransactionClient,
    context: TransactionContext,
    /// Set when the coordinator refused its begin.
    refused: RefusedCell,
    /// A decision was asked for: dropping has nothing to do.
    ending: bool,
}

impl GlobalTransaction {
    pub(crate) fn new(
        client: TransactionClient,
        xid: Xid,
        deadline: Instant,
        refused: RefusedCell,
    ) -> Self {
        client.inner.hooks.open(xid);
        Self {
            client,
            context: TransactionContext::new(xid).with_deadline(deadline),
            refused,
            ending: false,
        }
    }

    /// Its id.
    #[must_use]
    pub fn xid(&self) -> Xid {
        self.context.xid()
    }

    /// What [`scope`](Self::scope) sets, for code that carries it by hand.
    #[must_use]
    pub fn context(&self) -> TransactionContext {
        self.context
    }

    /// Runs `future` inside the transaction: the calls it makes through layered
    /// clients and the database work it does belong to it. May be called several
    /// times, also at once.
    pub fn scope<F: Future>(&self, future: F) -> Scoped<F> {
        scope(Some(self.context), future)
    }

    pub(crate) fn client(&self) -> &TransactionClient {
        &self.client
    }

    /// Why the coordinator refused to begin it, if it did.
    pub(crate) fn refused(&self) -> Option<Refusal> {
        self.refused.get().cloned()
    }

    /// From now on dropping it rolls nothing back.
    pub(crate) fn left_to_the_coordinator(mut self) -> Self {
        self.ending = true;
        self
    }

    /// Asks for the decision to commit and waits for it. The request is sent
    /// again after a reconnect, as long as patience lasts; it counts once.
    ///
    /// Dropping the future does not take the request back: the outcome is then
    /// what [`TransactionClient::outcome`] tells.
    ///
    /// # Errors
    /// [`CommitError`]; [`CommitError::Unknown`] is not a failure.
    pub async fn commit(mut self) -> Result<Committed, CommitError> {
        if let Err(error) = self.client.inner.hooks.before_commit(&self).await {
            return Err(self.prevented(error).await);
        }
        self.ending = true;
        let result = self.ask_to_commit().await;
        self.ended(|| Ended::of_commit(&result));
        result
    }

    /// A hook does not want it to commit.
    async fn prevented(self, error: HookError) -> CommitError {
        let xid = self.xid();
        let reason = error.to_string();
        let back = self.roll_back(format!("before its commit: {reason}")).await;
        if let Err(error) = back {
            // Its time-out does it.
            tracing::warn!(%xid, %error, "a hook prevented the commit");
        }
        CommitError::Prevented { xid, reason }
    }

    async fn ask_to_commit(&self) -> Result<Committed, CommitError> {
        let xid = self.xid();
        if let Some(refusal) = self.refused.get() {
            let refusal = refusal.clone();
            return Err(CommitError::NeverBegun { xid, refusal });
        }
        let body = transaction_request::Body::Commit(v1::CommitRequest { xid: xid.as_u64() });
        let inner = &self.client.inner;
        let told = inner.ask(xid, body, inner.patience.decision, true).await;
        self.read_commit(told)
    }

    fn read_commit(&self, told: Told) -> Result<Committed, CommitError> {
        let xid = self.xid();
        let error = match told {
            Told::Outcome(Outcome::Committed(committed)) => return Ok(committed),
            Told::Outcome(Outcome::RolledBack(back)) => CommitError::RolledBack(back),
            Told::Outcome(Outcome::Forgotten) => CommitError::Forgotten { xid },
            Told::Outcome(Outcome::NotBegun) => CommitError::NeverBegun {
                xid,
                refusal: self.why_not_begun(),
            },
            Told::Outcome(Outcome::Active) => CommitError::Unknown {
                xid,
                reason: "the coordinator has not decided yet".into(),
            },
            Told::Silence(reason) => CommitError::Unknown { xid, reason },
            Told::Refused(refusal) => match decided_before(xid, &refusal) {
                Some(Outcome::Committed(committed)) => return Ok(committed),
                Some(Outcome::RolledBack(back)) => CommitError::RolledBack(back),
                _ => CommitError::Refused {
                    xid,
                    refusal: Refusal::from_wire(refusal),
                },
            },
        };
        Err(error)
    }

    /// Asks for the decision to roll back and waits for it; the branches are then
    /// undone by themselves. `reason` is shown to operators.
    ///
    /// # Errors
    /// [`RollBackError`]. Unless it is [`RollBackError::Committed`], the
    /// transaction's time-out rolls it back.
    pub async fn roll_back(
        mut self,
        reason: impl Into<String>,
    ) -> Result<RolledBack, RollBackError> {
        self.ending = true;
        let result = self.ask_to_roll_back(reason.into()).await;
        self.ended(|| Ended::of_roll_back(self.xid(), &result));
        result
    }

    async fn ask_to_roll_back(&self, reason: String) -> Result<RolledBack, RollBackError> {
        let xid = self.xid();
        let reason = shortened(reason);
        if let Some(refusal) = self.refused.get() {
            return Ok(nothing_to_undo(xid, refusal));
        }
        let inner = &self.client.inner;
        let body = roll_back_frame(xid, reason);
        let told = inner.ask(xid, body, inner.patience.roll_back, true).await;
        self.read_roll_back(told)
    }

    fn read_roll_back(&self, told: Told) -> Result<RolledBack, RollBackError> {
        let xid = self.xid();
        let error = match told {
            Told::Outcome(Outcome::RolledBack(back)) => return Ok(back),
            Told::Outcome(Outcome::NotBegun) => {
                return Ok(nothing_to_undo(xid, &self.why_not_begun()));
            }
            Told::Outcome(Outcome::Committed(committed)) => RollBackError::Committed(committed),
            Told::Outcome(Outcome::Forgotten) => RollBackError::Forgotten { xid },
            Told::Outcome(Outcome::Active) => RollBackError::Unknown {
                xid,
                reason: "the coordinator has not decided yet".into(),
            },
            Told::Silence(reason) => RollBackError::Unknown { xid, reason },
            Told::Refused(refusal) => match decided_before(xid, &refusal) {
                Some(Outcome::RolledBack(back)) => return Ok(back),
                Some(Outcome::Committed(committed)) => RollBackError::Committed(committed),
                _ => RollBackError::Refused {
                    xid,
                    refusal: Refusal::from_wire(refusal),
                },
            },
        };
        Err(error)
    }

    fn ended(&self, ended: impl FnOnce() -> Ended) {
        self.client.inner.hooks.ended(ended, self.xid());
    }

    fn why_not_begun(&self) -> Refusal {
        self.refused.get().cloned().unwrap_or_else(|| Refusal {
            code: Code::NotBegun,
            message: "its begin did not reach the coordinator".into(),
        })
    }
}

impl Drop for GlobalTransaction {
    fn drop(&mut self) {
        let xid = self.xid();
        let inner = &self.client.inner;
        inner.worker.forget(xid);
        if self.refused.get().is_some() {
            return self.ended(|| Ended::NeverBegun { xid });
        }
        let unknown = |reason: &str| Ended::Unknown {
            xid,
            reason: reason.to_owned(),
        };
        if self.ending {
            // Nothing is left to run, unless the future that asked was dropped.
            return self.ended(|| unknown("nobody waited for the answer"));
        }
        let Ok(permit) = Arc::clone(&inner.dropped).try_acquire_owned() else {
            tracing::warn!(%xid, "too many dropped transactions, this one is left to its time-out");
            return self.ended(|| unknown("it was dropped and is left to its time-out"));
        };
        let dropped = Self {
            client: self.client.clone(),
            context: self.context,
            refused: Arc::clone(&self.refused),
            ending: true,
        };
        inner.runtime.spawn(async move {
            let _permit = permit;
            let told = dropped
                .roll_back("the transaction was dropped without an end")
                .await;
            tracing::debug!(%xid, ?told, "rolled back a dropped transaction");
        });
    }
}

fn roll_back_frame(xid: Xid, reason: String) -> transaction_request::Body {
    transaction_request::Body::RollBack(v1::RollBackRequest {
        xid: xid.as_u64(),
        reason,
    })
}

/// Cut at a character's border.
fn shortened(mut reason: String) -> String {
    let mut end = limits::MAX_REASON_BYTES.min(reason.len());
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}

fn nothing_to_undo(xid: Xid, refusal: &Refusal) -> RolledBack {
    RolledBack {
        xid,
        cause: RollBackCause::Requested,
        detail: format!("it was never begun: {refusal}"),
        phase_two: PhaseTwo::Finished,
    }
}

/// What a refusal says about a decision that was made before.
fn decided_before(xid: Xid, refusal: &v1::Refusal) -> Option<Outcome> {
    if refusal.code() != Code::AlreadyDecided {
        return None;
    }
    let phase_two = PhaseTwo::Running;
    match refusal.decision() {
        Decision::Commit => Some(Outcome::Committed(Committed { xid, phase_two })),
        Decision::RollBack => Some(Outcome::RolledBack(RolledBack {
            xid,
            cause: RollBackCause::Other,
            detail: refusal.message.clone(),
            phase_two,
        })),
        Decision::Unspecified => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        let cut = shortened("ä".repeat(300));
        assert_eq!(cut.len(), 512);
        assert_eq!(shortened("x".repeat(511) + "ä").len(), 511);
        assert_eq!(shortened("short".into()), "short");
    }

    #[test]
    fn a_decision_made_before_is_told() {
        let xid = Xid::from_u64(5).expect("an id");
        let refusal = |code: Code, decision: Decision| v1::Refusal {
            code: code.into(),
            decision: decision.into(),
            ..v1::Refusal::default()
        };
        let told = |code, decision| decided_before(xid, &refusal(code, decision));
        assert!(matches!(
            told(Code::AlreadyDecided, Decision::Commit),
            Some(Outcome::Committed(_))
        ));
        assert!(matches!(
            told(Code::AlreadyDecided, Decision::RollBack),
            Some(Outcome::RolledBack(_))
        ));
        assert_eq!(told(Code::AlreadyDecided, Decision::Unspecified), None);
        assert_eq!(told(Code::Invalid, Decision::Commit), None);
    }
}
