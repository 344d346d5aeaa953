//! What clients send: every request message of every service.

use accede_proto::v1;
use prost::Message;

/// Reads one message; see [`check_wire`].
type Check = fn(&[u8]);

/// The requests, in an order that the corpus relies on: append only.
pub const MESSAGES: [(&str, Check); 15] = [
    ("branch-request", check::<v1::BranchRequest>),
    ("transaction-request", check::<v1::TransactionRequest>),
    ("register-branch", check::<v1::RegisterBranch>),
    ("check-row-locks", check::<v1::CheckRowLocks>),
    ("branch-done", check::<v1::BranchDone>),
    ("branch-withdrawn", check::<v1::BranchWithdrawn>),
    ("branch-doomed", check::<v1::BranchDoomed>),
    ("begin", check::<v1::BeginRequest>),
    ("commit", check::<v1::CommitRequest>),
    ("roll-back", check::<v1::RollBackRequest>),
    ("get-outcome", check::<v1::GetOutcomeRequest>),
    ("get-status", check::<v1::GetStatusRequest>),
    ("list-transactions", check::<v1::ListTransactionsRequest>),
    ("get-transaction", check::<v1::GetTransactionRequest>),
    ("repair", check::<v1::RepairRequest>),
];

/// The first byte names the message, the rest is its frame. What can be read is written to bytes
/// from which the same is read.
///
/// # Panics
/// If it is not.
pub fn check_wire(input: &[u8]) {
    if let Some((which, frame)) = input.split_first() {
        let (_, check) = MESSAGES[usize::from(*which) % MESSAGES.len()];
        check(frame);
    }
}

fn check<M: Message + Default + PartialEq>(frame: &[u8]) {
    let Ok(message) = M::decode(frame) else {
        return;
    };
    let written = message.encode_to_vec();
    assert_eq!(written.len(), message.encoded_len());
    let again = M::decode(written.as_slice()).expect("it reads what it wrote");
    assert!(again == message, "the message behind its own bytes differs");
}
