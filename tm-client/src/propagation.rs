//! Runs a function in a transaction.

use std::future::Future;

use accede_link::context;
use tracing::Instrument as _;

use crate::{
    CommitError, Error, GlobalTransaction, HoldsTransactionError, Options, RollBackError,
    TransactionClient,
};

/// What becomes of the caller's transaction when a transactional function is called.
///
/// | | caller has a transaction | caller has none |
/// |---|---|---|
/// | [`Required`](Self::Required) | joins it | begins one |
/// | [`RequiresNew`](Self::RequiresNew) | suspends it, begins another | begins one |
/// | [`Supports`](Self::Supports) | joins it | runs without |
/// | [`NotSupported`](Self::NotSupported) | suspends it, runs without | runs without |
/// | [`Mandatory`](Self::Mandatory) | joins it | [`Error::Required`] |
/// | [`Never`](Self::Never) | [`Error::Forbidden`] | runs without |
///
/// **Only who begins a transaction ends it.** A function that joined and returns
/// `Err` does not roll anything back: its caller sees the error and decides. If
/// the caller lets the error through, as `?` does, the function that began the
/// transaction returns it and everything rolls back. If the caller handles the
/// error and goes on, the transaction may commit, with whatever branches the
/// failed function had already committed locally; work that must then be undone
/// on its own belongs into `RequiresNew`.
///
/// A suspended transaction resumes when the function returns; it stays open
/// meanwhile, and its time-out keeps running.
///
/// In a step of a saga the saga's transaction counts as suspended: nothing can join it, as the
/// step may be done again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Propagation {
    /// Join, or begin one.
    #[default]
    Required,
    /// Always begin one of its own.
    RequiresNew,
    /// Join if there is one.
    Supports,
    /// Run outside of any transaction.
    NotSupported,
    /// Join, it is an error if there is none.
    Mandatory,
    /// Run outside, it is an error if there is one.
    Never,
}

impl TransactionClient {
    /// Runs `work` in a transaction: `Ok` commits, `Err` rolls back, in a
    /// transaction that was begun here; see [`Propagation`] for the other cases.
    /// This is what `#[global_transaction]` calls.
    ///
    /// `Ok` comes back only when the coordinator decided to commit. When it
    /// decided otherwise or the decision is not known, the value of `work` is
    /// dropped and the error says which; after
    /// [`CommitError::Unknown`] ask [`outcome`](Self::outcome). The error of
    /// `work` comes back as it is, after the rollback.
    ///
    /// If `work` panics or this future is dropped, the transaction is rolled back
    /// in the background.
    ///
    /// # Errors
    /// Those of `work`, and every [`Error`].
    pub async fn run<T, E>(
        &self,
        options: Options,
        propagation: Propagation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        E: HoldsTransactionError,
    {
        self.run_deciding(options, propagation, |_| true, work)
            .await
    }

    /// As [`run`](Self::run), and `rolls_back` says for which errors of `work` the
    /// transaction rolls back; for the others it commits and the error comes back.
    ///
    /// # Errors
    /// Those of `work`, and every [`Error`].
    pub async fn run_deciding<T, E>(
        &self,
        options: Options,
        propagation: Propagation,
        rolls_back: impl FnOnce(&E) -> bool,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        E: HoldsTransactionError,
    {
        let around = context::current();
        let begun = match (propagation, context::joinable()) {
            (Propagation::Required, None) | (Propagation::RequiresNew, _) => match around {
                Some(suspended) => self.begin_within(options, suspended.xid()).await,
                None => self.begin(options).await,
            },
            (Propagation::Required | Propagation::Supports | Propagation::Mandatory, Some(_))
            | (Propagation::Supports | Propagation::Never, None) => return work.await,
            (Propagation::NotSupported, _) => return context::suspend(work).await,
            (Propagation::Mandatory, None) => Err(Error::Required {
                name: options.name().to_owned(),
                source: context::NoTransaction,
            }),
            (Propagation::Never, Some(caller)) => Err(Error::Forbidden {
                name: options.name().to_owned(),
                xid: caller.xid(),
            }),
        };
        let transaction = begun.map_err(E::from_transaction)?;
        let span = tracing::debug_span!("transaction", xid = %transaction.xid());
        let result = transaction.scope(work).instrument(span).await;
        end(transaction, result, rolls_back).await
    }
}

async fn end<T, E: HoldsTransactionError>(
    transaction: GlobalTransaction,
    result: Result<T, E>,
    rolls_back: impl FnOnce(&E) -> bool,
) -> Result<T, E> {
    let xid = transaction.xid();
    let commits = match &result {
        Ok(_) => true,
        Err(error) => !rolls_back(error),
    };
    if commits {
        return match transaction.commit().await {
            Ok(_) => result,
            Err(error) => {
                log_commit(&error);
                Err(E::from_transaction(error.into()))
            }
        };
    }
    match transaction
        .roll_back("the function returned an error")
        .await
    {
        Ok(_) => {}
        Err(error @ RollBackError::Unknown { .. }) => tracing::warn!(%xid, %error),
        Err(error) => tracing::error!(%xid, %error),
    }
    result
}

fn log_commit(error: &CommitError) {
    let xid = error.xid();
    match error {
        CommitError::RolledBack(_)
        | CommitError::Prevented { .. }
        | CommitError::NeverBegun { .. } => {
            tracing::info!(%xid, %error, "not committed");
        }
        _ => tracing::error!(%xid, %error, "not committed"),
    }
}
