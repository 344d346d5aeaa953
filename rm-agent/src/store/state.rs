//! How far a local transaction is.

/// What became of a local transaction so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing was sent yet.
    Idle,
    /// A message is under way. Staying here means that it was cancelled.
    Busy,
    /// The database has an open transaction.
    Open,
    /// Only a rollback is possible.
    Broken(String),
}
