//! Every bound of the state machine, with its unit and its reason.

/// Bytes of a transaction's, worker's or resource's name: it is shown in tables and logs.
pub const MAX_NAME_BYTES: usize = 128;
/// Bytes of a free text (a reason, a detail): kept with the transaction until it is forgotten.
pub const MAX_TEXT_BYTES: usize = 1_024;
/// Bytes of each part of a [`crate::Problem`]: a difference of a wide row must fit.
pub const MAX_PROBLEM_BYTES: usize = 8_192;
/// Milliseconds a transaction may stay undecided: one day. Locks are held that long.
pub const MAX_TIMEOUT_MS: u32 = 86_400_000;
/// Row locks of one branch: two for each of ten thousand rows. At 50 bytes each they fill
/// [`MAX_LOCK_BYTES_PER_BRANCH`].
pub const MAX_LOCKS_PER_BRANCH: usize = 20_000;
/// Bytes of one lock key: a resource's widest sensible key.
pub const MAX_LOCK_KEY_BYTES: usize = 1_024;
/// Columns of one row that a branch changes in escrow.
pub const MAX_ESCROW_COLUMNS: usize = 16;
/// Bytes of all lock keys of one branch: what one log entry takes with room for others.
pub const MAX_LOCK_BYTES_PER_BRANCH: usize = 1_048_576;
/// Bytes of a branch's payload: the arguments of one call, not a document.
pub const MAX_PAYLOAD_BYTES: usize = 65_536;
/// Bytes of the payloads of all branches that are not over, and of the results of sagas that are
/// known: they are kept in memory. A result is taken even when there is no room: it is done.
pub const MAX_PAYLOAD_BYTES_IN_ALL: u64 = 1_073_741_824;
/// Steps of a saga.
pub const MAX_STEPS: usize = 64;
/// Bytes of the inputs of all steps of a saga: what one log entry takes with room for others.
pub const MAX_PLAN_BYTES: usize = 1_048_576;
/// Bytes of what one step returns: a result goes to all that follow it, so that many of them must
/// fit an order.
pub const MAX_STEP_RESULT_BYTES: usize = 16_384;
/// Bytes of a callback's URL.
pub const MAX_URL_BYTES: usize = 1_024;
/// Attempts after which a step that is retried backward is given up.
pub const MAX_STEP_ATTEMPTS: u32 = 1_000;
/// Milliseconds to which a participant can put off the next attempt.
pub const MAX_RETRY_AFTER_MS: u32 = 600_000;
/// Names of actions: as many as a large application has, and too few to fill memory with.
pub const MAX_ACTIONS: usize = 16_384;
/// Branches of one transaction.
pub const MAX_BRANCHES: usize = 1_024;
/// Requests remembered per transaction, refused and withdrawn ones too.
pub const MAX_REQUESTS: usize = 4_096;
/// Transactions known and not ended. At about 1 KiB each they take 1 GiB.
pub const MAX_OPEN_TRANSACTIONS: usize = 1_048_576;
/// Ended transactions that are still known unless the setting says otherwise, the oldest forgotten
/// first.
pub const RETENTION_TRANSACTIONS: u64 = 100_000;
/// The fewest: those whose clients may still ask again because an answer got lost.
pub const MIN_RETENTION_TRANSACTIONS: u64 = 1_000;
/// The most: at about 1 KiB each they take 1 GiB.
pub const MAX_RETENTION_TRANSACTIONS: u64 = 1_048_576;
/// Milliseconds an ended transaction stays known unless the setting says otherwise.
pub const RETENTION_MS: u64 = 600_000;
/// The shortest, in milliseconds: a client that lost its answer has connected and asked again.
pub const MIN_RETENTION_MS: u64 = 10_000;
/// The longest, in milliseconds: 30 days.
pub const MAX_RETENTION_MS: u64 = 2_592_000_000;
/// Requests that wait in lock queues.
pub const MAX_WAITING_REQUESTS: usize = 65_536;
/// Milliseconds a request may wait in the lock queues.
pub const MAX_LOCK_WAIT_MS: u32 = 600_000;
/// Requests that wait for their transaction's begin to arrive.
pub const MAX_PARKED_REQUESTS: usize = 16_384;
/// Milliseconds such a request waits: a begin that was sent first and takes longer is lost.
pub const PARK_MS: u64 = 2_000;
/// Milliseconds a commit waits for branches whose "done" is under way.
pub const DONE_WAIT_MS: u64 = 3_000;
/// Milliseconds a commit waits until its branches of 3PC have heard of it: one that is away must
/// not hold up the others for longer.
pub const PRE_COMMIT_WAIT_MS: u64 = 3_000;
/// Milliseconds a worker's lease lives without renewal.
pub const LEASE_TTL_MS: u32 = 15_000;
/// Milliseconds of XID time that a lease reaches beyond the present.
pub const LEASE_RANGE_MS: u64 = 60_000;
/// Milliseconds during which a new leader expires nothing: time for clients to reconnect.
pub const GRACE_MS: u64 = 5_000;
/// Failed attempts after which a branch is stuck. With [`BACKOFF_CAP_MS`] about five minutes.
pub const RETRY_BUDGET: u32 = 16;
/// Milliseconds before the first repeated attempt.
pub const BACKOFF_FIRST_MS: u64 = 100;
/// Milliseconds between two attempts at most.
pub const BACKOFF_CAP_MS: u64 = 30_000;
/// Repairs remembered per transaction, the oldest dropped first.
pub const MAX_REPAIRS: usize = 64;
/// Due things that one `Expire` handles, so that none holds up other commands for long.
pub const EXPIRE_BATCH: usize = 256;

const _: () = {
    // A park must be over long before the shortest sensible lock wait's patience.
    assert!(PARK_MS < GRACE_MS);
    // A lease that is renewed in time never runs out of ids.
    assert!(LEASE_RANGE_MS > 2 * LEASE_TTL_MS as u64);
    // A leader's grace is over before a lease that was renewed right before could end.
    assert!(GRACE_MS < LEASE_TTL_MS as u64);
    assert!(MAX_BRANCHES <= MAX_REQUESTS);
    assert!(MAX_PAYLOAD_BYTES as u64 <= MAX_PAYLOAD_BYTES_IN_ALL);
    assert!(MAX_STEPS <= MAX_BRANCHES && MAX_STEPS <= u16::MAX as usize);
    // The results that one order carries, and all that one answer does.
    assert!(MAX_STEPS * MAX_STEP_RESULT_BYTES <= MAX_PLAN_BYTES);
    assert!(MAX_PAYLOAD_BYTES <= MAX_PLAN_BYTES);
    assert!(MIN_RETENTION_MS > GRACE_MS && RETENTION_MS <= MAX_RETENTION_MS);
    assert!(RETENTION_TRANSACTIONS <= MAX_RETENTION_TRANSACTIONS);
    assert!(RETENTION_TRANSACTIONS >= MIN_RETENTION_TRANSACTIONS);
    assert!(BACKOFF_FIRST_MS < BACKOFF_CAP_MS);
};
