//! Asks the coordinator about one transaction until it has told or patience ends.

use std::time::Duration;

use accede_link::session::{Call, SessionError};
use accede_proto::{
    Xid,
    v1::{self, refusal::Code, transaction_event, transaction_request},
};
use tokio::time::{Instant, sleep};

use crate::{
    Error, Outcome,
    client::Inner,
    clock,
    limits::{RETRY_PAUSE, RETRY_PAUSE_LONGEST},
    outcome,
};

/// What came of asking.
#[derive(Debug)]
pub(crate) enum Told {
    /// The coordinator's word.
    Outcome(Outcome),
    /// It will not do this, a repeat does not help.
    Refused(v1::Refusal),
    /// Patience ended; the reason of the last attempt.
    Silence(String),
}

impl Inner {
    /// Sends a request that may be repeated. `wants_decision`: an answer that says
    /// "still open" is no answer.
    pub(crate) async fn ask(
        &self,
        xid: Xid,
        body: transaction_request::Body,
        patience: Duration,
        wants_decision: bool,
    ) -> Told {
        let until = clock::now() + patience;
        let told = self.repeat(body, until, |answer| read(xid, answer, wants_decision));
        told.await.unwrap_or_else(Told::Silence)
    }

    /// Sends a request until `read` makes something of an answer, or time is up: then the reason
    /// of the last attempt.
    pub(crate) async fn repeat<T>(
        &self,
        body: transaction_request::Body,
        until: Instant,
        read: impl Fn(Result<transaction_event::Body, SessionError>) -> Result<T, Again>,
    ) -> Result<T, String> {
        let mut pause = RETRY_PAUSE;
        loop {
            let left = until.saturating_duration_since(clock::now());
            let call = self.session.call(body.clone(), Call::idempotent(left));
            let (reason, hint) = match read(call.await) {
                Ok(told) => return Ok(told),
                Err(again) => again,
            };
            let next = pause.max(hint).min(RETRY_PAUSE_LONGEST);
            if closes_before(until, next) {
                return Err(reason);
            }
            sleep(next).await;
            pause = pause.saturating_mul(2);
        }
    }

    pub(crate) async fn ask_outcome(&self, xid: Xid) -> Result<Outcome, Error> {
        let body =
            transaction_request::Body::GetOutcome(v1::GetOutcomeRequest { xid: xid.as_u64() });
        let reason = match self.ask(xid, body, self.patience.outcome, false).await {
            Told::Outcome(outcome) => return Ok(outcome),
            Told::Refused(refusal) => refusal.message,
            Told::Silence(reason) => reason,
        };
        Err(Error::OutcomeUnavailable { xid, reason })
    }
}

fn closes_before(until: Instant, pause: Duration) -> bool {
    until.saturating_duration_since(clock::now()) <= pause
}

/// Ask again: why, and after which time at the earliest.
pub(crate) type Again = (String, Duration);

fn read(
    xid: Xid,
    answer: Result<transaction_event::Body, SessionError>,
    wants_decision: bool,
) -> Result<Told, Again> {
    let refusal = match answer {
        Ok(transaction_event::Body::Outcome(answer)) => {
            return match outcome::from_wire(xid, answer) {
                Ok(Outcome::Active) if wants_decision => {
                    Err(("the coordinator has not decided yet".into(), Duration::ZERO))
                }
                Ok(outcome) => Ok(Told::Outcome(outcome)),
                Err(problem) => Ok(Told::Silence(problem)),
            };
        }
        Ok(other) => {
            return Ok(Told::Silence(format!(
                "the answer is no outcome: {other:?}"
            )));
        }
        Err(SessionError::Refused(refusal)) => refusal,
        Err(error @ (SessionError::Closed | SessionError::TooLarge { .. })) => {
            return Ok(Told::Silence(error.to_string()));
        }
        Err(error) => return Err((error.to_string(), Duration::ZERO)),
    };
    match refusal.code() {
        Code::NotBegun => Ok(Told::Outcome(Outcome::NotBegun)),
        Code::Forgotten => Ok(Told::Outcome(Outcome::Forgotten)),
        _ => match again(&refusal) {
            Some(again) => Err(again),
            None => Ok(Told::Refused(refusal)),
        },
    }
}

/// Whether a refusal passes.
pub(crate) fn again(refusal: &v1::Refusal) -> Option<Again> {
    match refusal.code() {
        Code::Overloaded
        | Code::LimitReached
        | Code::NotLeader
        | Code::ShuttingDown
        | Code::UnknownOutcome => {
            let hint = Duration::from_millis(u64::from(refusal.retry_after_ms));
            Some((refusal.message.clone(), hint))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code) -> Result<transaction_event::Body, SessionError> {
        Err(SessionError::Refused(v1::Refusal {
            code: code.into(),
            message: "m".into(),
            retry_after_ms: 70,
            ..v1::Refusal::default()
        }))
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let xid = Xid::from_u64(9).expect("an id");
        let read = |answer| super::read(xid, answer, true);
        for code in [
            Code::Overloaded,
            Code::LimitReached,
            Code::NotLeader,
            Code::ShuttingDown,
            Code::UnknownOutcome,
        ] {
            let again = read(refused(code)).expect_err("ask again");
            assert_eq!(again, ("m".into(), Duration::from_millis(70)));
        }
        let unknown = SessionError::Unknown { reason: "r".into() };
        assert!(read(Err(unknown)).is_err(), "ask again");
        assert!(matches!(
            read(refused(Code::NotBegun)),
            Ok(Told::Outcome(Outcome::NotBegun))
        ));
        assert!(matches!(
            read(refused(Code::Forgotten)),
            Ok(Told::Outcome(Outcome::Forgotten))
        ));
        assert!(matches!(read(refused(Code::Invalid)), Ok(Told::Refused(_))));
        assert!(matches!(
            read(Err(SessionError::Closed)),
            Ok(Told::Silence(_))
        ));
        let odd = transaction_event::Body::BegunThrough(v1::BegunThrough { xid: 1 });
        let Ok(Told::Silence(reason)) = read(Ok(odd)) else {
            panic!("no outcome");
        };
        assert!(reason.contains("no outcome"), "{reason}");
    }

    #[test]
    fn an_open_transaction_is_an_answer_only_to_a_question() {
        let xid = Xid::from_u64(9).expect("an id");
        let open = || {
            Ok(transaction_event::Body::Outcome(v1::Outcome {
                xid: 9,
                status: v1::Status::Active.into(),
                ..v1::Outcome::default()
            }))
        };
        assert!(read(xid, open(), true).is_err());
        assert!(matches!(
            read(xid, open(), false),
            Ok(Told::Outcome(Outcome::Active))
        ));
    }
}
