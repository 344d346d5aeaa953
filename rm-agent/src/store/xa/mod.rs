//! XA, as far as it is the same for each database: what a statement does, what prepared
//! transactions are called, what is kept open, and the pool and transaction of the application.

#[macro_use]
mod pool;
#[macro_use]
mod transaction;
pub(super) mod judge;
pub(super) mod kept_open;
pub(super) mod name;
pub(super) mod open;
pub(super) mod orders;
pub(super) mod statement;

use super::fence::Status;

/// `status` of a branch's row in `accede_fence`. The row is written in the local transaction that
/// is prepared, so nobody sees it before that is committed: who sees it knows that it happened.
pub(super) const COMMITTED: i16 = Status::Confirmed.column();
/// `status` of a row that keeps a branch from being prepared late.
pub(super) const BARRED: i16 = Status::Barred.column();

/// How a branch's local transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With an undo record, and for good.
    Recorded,
    /// Prepared by the database: nothing is recorded.
    Prepared,
}
