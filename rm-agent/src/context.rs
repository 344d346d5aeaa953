//! Where the transaction that a call belongs to comes from.

use accede_link::context::TransactionContext;

/// The global transaction of the running task, if it belongs to one.
pub(crate) fn current() -> Option<TransactionContext> {
    accede_link::context::current()
}
