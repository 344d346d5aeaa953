//! Notices when a branch stands still in the database, and tells the coordinator: whoever holds
//! the lock may itself wait at the coordinator for this transaction.

use std::sync::Arc;

use accede_proto::Xid;
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use tokio::{
    sync::Semaphore,
    time::{interval, sleep, timeout},
};

use crate::{limits, registrar::Registrar};

/// A pool whose branches are watched.
pub(crate) trait Watched: Clone + Send + Sync {
    fn registrar(&self) -> &Arc<dyn Registrar>;
    fn resource(&self) -> &str;
    /// Turns at asking the database whether a statement waits.
    fn questions(&self) -> &Semaphore;
    /// Asks the database whether this session of its waits for a lock. `None`: it did not say.
    fn waits(&self, backend: i64) -> BoxFuture<'_, Option<bool>>;
}

/// Watches over the waits of one branch. Free of cost for what does not take long: no timer runs
/// before the wait begins, no statement is sent before it has taken [`limits::BLOCKED_AFTER`].
#[derive(Clone, Debug)]
pub(crate) struct Watch<P> {
    pool: P,
    /// `None`: a local transaction outside of any. Nobody waits for it at the coordinator, so
    /// nobody is told.
    xid: Option<Xid>,
    /// The process of the branch's connection in the database, once it has begun there.
    backend: Option<i64>,
}

impl<P: Watched> Watch<P> {
    pub(crate) fn new(pool: &P, xid: Option<Xid>, backend: Option<i64>) -> Self {
        Self {
            pool: pool.clone(),
            xid,
            backend,
        }
    }

    /// Runs `work` to its end.
    pub(crate) async fn over<T>(&self, work: impl Future<Output = T>) -> T {
        let Some(xid) = self.xid else {
            return work.await;
        };
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            output = &mut work => return output,
            () = sleep(limits::BLOCKED_AFTER) => {}
        }
        let mut again = interval(limits::BLOCKED_AGAIN);
        loop {
            tokio::select! {
                biased;
                output = &mut work => return output,
                _ = again.tick() => {}
            }
            tokio::select! {
                biased;
                output = &mut work => return output,
                () = self.look(xid) => {}
            }
        }
    }

    /// Hands on the steps of a statement.
    pub(super) fn over_steps<'c, T: Send + 'c>(self, steps: BoxStream<'c, T>) -> BoxStream<'c, T>
    where
        P: 'c,
    {
        let next = |(watch, mut steps): (Self, BoxStream<'c, T>)| async move {
            let step = watch.over(steps.next()).await?;
            Some((step, (watch, steps)))
        };
        stream::unfold((self, steps), next).boxed()
    }

    async fn look(&self, xid: Xid) {
        if self.stands_still().await {
            tracing::debug!(%xid, resource = self.pool.resource(), "stands still");
            self.pool.registrar().blocked(xid);
        }
    }

    /// Whether the branch waits for a lock, and is not just slow. What cannot be found out counts
    /// as a wait: telling the coordinator in vain makes others run again, not telling it may let
    /// both wait until their time-outs.
    async fn stands_still(&self) -> bool {
        let Some(backend) = self.backend else {
            return true;
        };
        let ask = async {
            // One question at a time: the few connections are there to finish branches.
            let _turn = self.pool.questions().acquire().await.ok()?;
            self.pool.waits(backend).await
        };
        !matches!(
            timeout(limits::BLOCKED_QUESTION, ask).await,
            Ok(Some(false))
        )
    }
}
