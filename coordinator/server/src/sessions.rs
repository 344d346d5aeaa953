//! The sessions of transaction and resource managers as the driver sees them: an output, and for
//! each open request what its answer looks like.

use std::sync::Arc;

use accede_core::{Attempt, BranchId, Epoch, ProcessId, Reply, Resource, Xid};
use accede_proto::v1::{
    BeginRefused, BegunThrough, BranchEvent, Empty, TransactionEvent, branch_event,
    transaction_event,
};
use bytes::Bytes;
use tonic::Status;

use crate::{
    convert,
    metrics::Metrics,
    orders::Orders,
    output::Output,
    refusal,
    trouble::{Answer, Trouble},
};

/// A transaction manager's session.
pub(crate) struct TransactionSession {
    pub(crate) process: ProcessId,
    pub(crate) output: Arc<Output<TransactionEvent>>,
    pub(crate) cluster: Bytes,
    pub(crate) metrics: Arc<Metrics>,
}

/// What a transaction manager asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionAsk {
    /// To begin this.
    Begin(Xid),
    /// To decide this, or how it was decided.
    Decide(Xid),
    /// To renew its lease.
    Renew,
    /// To do a saga, or how it ended.
    Saga(Xid),
}

/// An open request of a transaction manager.
pub(crate) struct TransactionCall {
    pub(crate) session: Arc<TransactionSession>,
    pub(crate) tag: u64,
    pub(crate) ask: TransactionAsk,
}

impl TransactionSession {
    pub(crate) fn push(&self, tag: u64, body: transaction_event::Body) {
        self.output.push(TransactionEvent {
            tag,
            body: Some(body),
        });
    }

    pub(crate) fn refuse(&self, tag: u64, refusal: accede_proto::v1::Refusal) {
        self.metrics.refused(refusal.code());
        self.push(tag, transaction_event::Body::Refusal(refusal));
    }

    pub(crate) fn refuse_begin(&self, xid: u64, refusal: accede_proto::v1::Refusal) {
        self.metrics.refused(refusal.code());
        let refused = BeginRefused {
            xid,
            refusal: Some(refusal),
        };
        self.push(0, transaction_event::Body::BeginRefused(refused));
    }
}

impl TransactionCall {
    pub(crate) fn answer(self, answer: Answer) {
        let Self { session, tag, ask } = self;
        match ask {
            TransactionAsk::Begin(xid) => begun(&session, xid, answer),
            TransactionAsk::Decide(xid) => match answer {
                Ok(Reply::Decided(decision, reason)) => {
                    let outcome = convert::decided(xid, decision, reason.as_ref());
                    session.push(tag, transaction_event::Body::Outcome(outcome));
                }
                other => session.refuse(tag, refusal::of_answer(other, Some(xid), None)),
            },
            TransactionAsk::Saga(xid) => {
                let ended = match answer {
                    Ok(reply) => convert::saga::ended(xid, reply).map_err(Ok),
                    trouble => Err(trouble),
                };
                match ended {
                    Ok(ended) => session.push(tag, transaction_event::Body::Saga(ended)),
                    Err(other) => {
                        session.refuse(tag, refusal::of_answer(other, Some(xid), None));
                    }
                }
            }
            TransactionAsk::Renew => match answer {
                Ok(Reply::Leased(lease)) => {
                    let lease = convert::lease(&lease, &session.cluster);
                    session.push(tag, transaction_event::Body::Lease(lease));
                }
                other => session.refuse(tag, refusal::of_answer(other, None, None)),
            },
        }
    }
}

fn begun(session: &TransactionSession, xid: Xid, answer: Answer) {
    match answer {
        Ok(Reply::Ok) => {
            session.metrics.begun.increment(1);
            let begun = BegunThrough { xid: xid.get() };
            session.output.push_newest(TransactionEvent {
                tag: 0,
                body: Some(transaction_event::Body::BegunThrough(begun)),
            });
        }
        // The client announces it again over its next connection: nothing is lost.
        Err(Trouble::Unknown(_) | Trouble::NotLeader(_) | Trouble::ShuttingDown) => {
            session.output.fail(Status::unavailable(
                "the begin could not be logged now; connect again and announce it again",
            ));
        }
        other => session.refuse_begin(xid.get(), refusal::of_answer(other, Some(xid), None)),
    }
}

/// A resource manager's session.
pub(crate) struct BranchSession {
    /// Tells sessions of the same process apart.
    pub(crate) number: u64,
    pub(crate) agent: ProcessId,
    pub(crate) output: Arc<Output<BranchEvent>>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What a resource manager asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BranchAsk {
    /// To register a branch or check locks.
    Join(Xid, Resource),
    /// To take note of how phase one ended.
    Note(Xid),
    /// To take note of what came of an order.
    Finish {
        xid: Xid,
        branch: BranchId,
        attempt: Attempt,
        epoch: Epoch,
        finished: bool,
    },
}

/// An open request of a resource manager.
pub(crate) struct BranchCall {
    pub(crate) session: Arc<BranchSession>,
    pub(crate) tag: u64,
    pub(crate) ask: BranchAsk,
}

impl BranchSession {
    pub(crate) fn push(&self, tag: u64, body: branch_event::Body) {
        self.output.push(BranchEvent {
            tag,
            body: Some(body),
        });
    }

    pub(crate) fn refuse(&self, tag: u64, refusal: accede_proto::v1::Refusal) {
        self.metrics.refused(refusal.code());
        self.push(tag, branch_event::Body::Refusal(refusal));
    }
}

impl BranchCall {
    pub(crate) fn answer(self, answer: Answer) {
        let Self { session, tag, ask } = self;
        let xid = match &ask {
            BranchAsk::Join(xid, _) | BranchAsk::Note(xid) => *xid,
            BranchAsk::Finish {
                xid,
                branch,
                attempt,
                epoch,
                finished,
            } => {
                // Whatever the state machine said, it knows now; a further attempt is a new order.
                if answer.is_ok() {
                    session
                        .orders
                        .answered(*xid, *branch, *attempt, *epoch, *finished);
                }
                *xid
            }
        };
        if tag == 0 {
            return;
        }
        match (ask, answer) {
            (
                BranchAsk::Join(..),
                Ok(Reply::Registered {
                    branch,
                    give_up_ms,
                    keep_open,
                }),
            ) => {
                let registered = convert::registered(branch, give_up_ms, keep_open);
                session.push(tag, branch_event::Body::Registered(registered));
            }
            (BranchAsk::Join(..), Ok(Reply::LocksFree)) => {
                session.push(
                    tag,
                    branch_event::Body::LocksFree(accede_proto::v1::LocksFree {}),
                );
            }
            (BranchAsk::Note(_) | BranchAsk::Finish { .. }, Ok(Reply::Ok)) => {
                session.push(tag, branch_event::Body::Accepted(Empty {}));
            }
            (BranchAsk::Join(_, resource), other) => {
                session.refuse(tag, refusal::of_answer(other, Some(xid), Some(&resource)));
            }
            (_, other) => session.refuse(tag, refusal::of_answer(other, Some(xid), None)),
        }
    }
}
