//! The byte forms of the state machine: batches of commands and snapshots of the state.

use accede_core::{
    State,
    codec::{decode_batch, encode_batch},
};

/// Reads a batch. What is accepted is written to bytes from which the same is read; they need not be
/// the same bytes, as older forms are read and no longer written.
///
/// # Panics
/// If it is not.
pub fn check_batch(input: &[u8]) {
    match decode_batch(input) {
        Ok(batch) => {
            let written = encode_batch(batch.at, batch.wall, &batch.commands);
            let again = decode_batch(&written).expect("it reads what it wrote");
            assert_eq!(again, batch, "the batch behind the bytes differs");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Reads the snapshot of a state. What is accepted can be looked at, and writes a snapshot from
/// which the same state is read.
///
/// # Panics
/// If it does not.
pub fn check_state(input: &[u8]) {
    let state = match State::from_snapshot(input) {
        Ok(state) => state,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let written = state.to_snapshot();
    let again = State::from_snapshot(&written).expect("it reads what it wrote");
    assert_eq!(
        again.to_snapshot(),
        written,
        "a snapshot of a snapshot differs"
    );
    assert!(again == state, "the state behind a snapshot differs");
    look_at(&state);
}

/// Everything that looks without changing.
fn look_at(state: &State) {
    let counts = state.counts();
    let known: u64 = [
        counts.active,
        counts.delegated,
        counts.pre_committed,
        counts.committing,
        counts.committed,
        counts.rolling_back,
        counts.rolled_back,
        counts.stuck,
    ]
    .iter()
    .sum();
    let mut seen = 0;
    for transaction in state.transactions_after(None) {
        seen += 1;
        let _ = state.waiting(transaction.xid());
    }
    assert_eq!(seen, known, "the counts are not those of the transactions");
    let _ = (state.next_deadline(), state.resume(), state.epoch());
}
