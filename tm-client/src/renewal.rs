//! Keeps the worker's lease alive.

use std::{sync::Arc, time::Duration};

use accede_link::session::{Call, Session, SessionError, SessionStatus, TransactionFrames};
use accede_proto::v1::{self, refusal::Code, transaction_event, transaction_request};
use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};

use crate::{clock, limits, worker::Worker};

/// How long one renewal may take. The next attempt asks anew.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(3);

/// Renews for ever; ends when the session does.
///
/// The first lease, and one after each reconnect, comes with the opening answer
/// of the session. This renews it in time, and opens the session anew when the
/// coordinator says that the lease is over: only the opening frame can ask for one.
pub(crate) async fn keep_lease(worker: Arc<Worker>, session: Session<TransactionFrames>) {
    let mut status = session.status();
    loop {
        if wait_connected(&mut status).await.is_none() {
            return;
        }
        if let Some((_, _, renew_at)) = worker.lease() {
            tokio::select! {
                () = sleep_until(renew_at) => {}
                () = worker.wants_renewal().notified() => {}
                changed = status.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
        }
        renew(&worker, &session).await;
        // Also after a success: a lease that is too short must not make a busy loop.
        sleep(limits::RENEW_PAUSE).await;
    }
}

/// `None` when the session is closed.
async fn wait_connected(status: &mut watch::Receiver<SessionStatus>) -> Option<()> {
    let reached = status
        .wait_for(|status| status.is_connected() || matches!(status, SessionStatus::Closed))
        .await;
    reached.ok()?.is_connected().then_some(())
}

async fn renew(worker: &Worker, session: &Session<TransactionFrames>) {
    let Some((number, _, _)) = worker.lease() else {
        session.reopen();
        return;
    };
    let ask = transaction_request::Body::Renew(v1::RenewLease {
        worker: u32::from(number),
    });
    // Before it is sent, so that the lease ends here before it ends there.
    let sent = clock::now();
    match session.call(ask, Call::once(RENEWAL_PATIENCE)).await {
        Ok(transaction_event::Body::Lease(lease)) => {
            if let Err(problem) = worker.granted(&lease, sent) {
                tracing::error!(
                    problem,
                    "the coordinator renewed a lease in a senseless way"
                );
            }
        }
        Ok(other) => tracing::error!(?other, "the answer to a renewal is no lease"),
        Err(SessionError::Refused(refusal)) if refusal.code() == Code::LeaseEnded => {
            worker.lease_over(&refusal);
            session.reopen();
        }
        Err(error) => tracing::warn!(%error, "could not renew the lease, trying again"),
    }
}
