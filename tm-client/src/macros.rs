//! What the attribute macros expand to. Not for direct use.
//!
//! The empty argument tells the compiler the function's return type before it
//! looks at the rule and the body, so that its errors name the right one.

use std::{future::Future, marker::PhantomData};

use crate::{HoldsTransactionError, Options, Propagation, TransactionClient};

/// The client that the attribute names; cloned, as the body may take the place
/// that holds it.
#[must_use]
pub fn client(client: &TransactionClient) -> TransactionClient {
    client.clone()
}

/// Every error rolls back.
///
/// # Errors
/// As [`TransactionClient::run`].
pub async fn run<T, E: HoldsTransactionError>(
    client: &TransactionClient,
    options: Options,
    propagation: Propagation,
    _returned: PhantomData<Result<T, E>>,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    client.run(options, propagation, work).await
}

/// The errors that the rule names roll back.
///
/// # Errors
/// As [`TransactionClient::run_deciding`].
pub async fn run_rolling_back_on<T, E: HoldsTransactionError>(
    client: &TransactionClient,
    options: Options,
    propagation: Propagation,
    _returned: PhantomData<Result<T, E>>,
    rolls_back: impl FnOnce(&E) -> bool,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    client
        .run_deciding(options, propagation, rolls_back, work)
        .await
}

/// The errors that the rule names commit.
///
/// # Errors
/// As [`TransactionClient::run_deciding`].
pub async fn run_committing_on<T, E: HoldsTransactionError>(
    client: &TransactionClient,
    options: Options,
    propagation: Propagation,
    _returned: PhantomData<Result<T, E>>,
    commits: impl FnOnce(&E) -> bool,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    client
        .run_deciding(options, propagation, |error| !commits(error), work)
        .await
}
