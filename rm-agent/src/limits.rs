//! Every default time-out and limit of the AT engine: its unit and its reason.

use std::time::Duration;

/// The longest SQL text that is analysed, in bytes. The parser's cost and its
/// recursion grow with the text; longer statements are generated ones that a
/// loop of small statements replaces.
pub const MAX_SQL_BYTES: usize = 256 * 1024;

/// The longest SQL text of an XA transaction, in bytes. It is only split into words, but they
/// are held in memory meanwhile.
pub const MAX_XA_SQL_BYTES: usize = 8 * 1024 * 1024;

/// How many statements' analyses a pool remembers. Above it the memory is
/// emptied: an application with more distinct texts than this builds them
/// dynamically, and remembering them would not pay.
pub const MAX_REMEMBERED_STATEMENTS: usize = 2_000;

/// How many tables' metadata a pool remembers before it starts afresh.
pub const MAX_REMEMBERED_TABLES: usize = 2_000;

/// How many function names' volatility a pool remembers before it starts afresh.
pub const MAX_REMEMBERED_FUNCTIONS: usize = 2_000;

/// How old a table's metadata may grow before it is read again. Columns are
/// compared with every statement; this is how soon a new trigger, unique index
/// or foreign key is noticed.
pub const METADATA_RECHECK: Duration = Duration::from_secs(5);

/// The most rows that one branch may change or lock. Beyond it the undo record
/// and the lock list stop being small; split the work into several branches.
pub const MAX_ROWS_PER_BRANCH: usize = 10_000;

/// The most row locks of one branch, as the coordinator accepts them.
pub const MAX_ROW_LOCKS: usize = 20_000;

/// The longest value of one key column inside a row lock, in bytes. A longer
/// one is replaced by its hash: equal values still meet in the same lock.
pub const MAX_LOCK_VALUE_BYTES: usize = 128;

/// The largest undo record of one branch in bytes. It travels as one SQL
/// literal of twice the size and is held in memory.
pub const MAX_UNDO_BYTES: usize = 8 * 1024 * 1024;

/// The largest arguments of an action in bytes, as JSON: what the coordinator keeps for a branch.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

/// The largest result of a saga's step in bytes, as JSON: what the coordinator keeps of it.
pub const MAX_STEP_RESULT_BYTES: usize = 16 * 1024;

/// How many columns a written table may have. PostgreSQL's own limit is 1,600;
/// a decoder never allocates for more than this.
pub const MAX_COLUMNS: usize = 1_600;

/// How long a branch waits for a lock: for the database's own locks
/// (`lock_timeout`) and for other transactions' row locks at the coordinator.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The coordinator's wait limit is this much below what is left of the
/// branch's patience, so that its answer arrives before the branch gives up.
pub const LOCK_WAIT_MARGIN: Duration = Duration::from_millis(500);

/// The shortest `lock_timeout` that is set; 0 would mean no limit at all.
pub const MIN_LOCK_TIMEOUT: Duration = Duration::from_millis(10);

/// How often one INSERT of MariaDB may meet the same row (ON DUPLICATE KEY UPDATE), unless
/// it has RETURNING: each time costs a statement that counts it.
pub const MAX_MEETINGS: usize = 64;

/// Bytes of an undo record from which it is compressed: below, it costs more than it saves.
pub const COMPRESS_UNDO_FROM: usize = 4 * 1024;

/// How long a statement of a branch runs, or its transaction waits for a pooled connection, before
/// the agent looks whether it stands still and tells the coordinator. Nearly every statement has
/// ended by then.
pub const BLOCKED_AFTER: Duration = Duration::from_millis(100);

/// How often the agent looks and tells again while it lasts: the coordinator keeps nothing of it,
/// and who begins to wait meanwhile waits no longer than this.
pub const BLOCKED_AGAIN: Duration = Duration::from_millis(100);

/// How long the database may take to say whether a statement waits for a lock, on a connection
/// that finishes branches. Without an answer it counts as waiting.
pub const BLOCKED_QUESTION: Duration = Duration::from_millis(50);

/// How often [`AtPool::run`](crate::AtPool::run) and lone statements run a
/// local transaction that was refused for a passing reason.
pub const LOCAL_ATTEMPTS: u32 = 8;

/// The pause before the second attempt of a local transaction; it doubles.
pub const LOCAL_BACKOFF: Duration = Duration::from_millis(10);

/// The longest pause between two attempts of a local transaction.
pub const LOCAL_BACKOFF_CAP: Duration = Duration::from_millis(500);

/// Connections of a pool for the application's work unless the builder says otherwise.
pub const POOL_CONNECTIONS: u32 = 10;

/// How long `begin` waits for a free connection.
pub const POOL_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a `begin` that got no connection takes to find out why.
pub const CONNECT_PROBE: Duration = Duration::from_secs(2);

/// A pooled connection that was idle for longer is tested before it is used. A
/// busy pool so saves a round trip per transaction.
pub const POOL_TEST_AFTER: Duration = Duration::from_secs(1);

/// How many transactions in a row may have a connection before it visits its pool,
/// which tests it and serves whoever waits there. After a visit its session is asked what it
/// has prepared, which costs the database as much as a statement or two.
pub const LOANS: u32 = 64;

/// How long a connection is kept at hand for the next transaction; unused for longer,
/// it goes back to its pool.
pub const AT_HAND: Duration = Duration::from_millis(50);

/// How long a connection attempt or the check at start may take.
pub const START_CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections of the separate pool that finishes branches. Apart from the
/// application's pool, so that a rollback never waits for a connection that
/// is held by a branch which waits for that rollback.
pub const PHASE_TWO_CONNECTIONS: u32 = 8;

/// Connections of the separate pool on which steps of sagas are done. Apart from the application's
/// pool, all of which branches may hold that wait for a row which only the step's transaction gives
/// up; and apart from those that finish branches, as a step may take long.
pub const STEP_CONNECTIONS: u32 = 8;

/// `lock_timeout` of phase two. Short: the order is repeated, and a rollback
/// that waits keeps one of few connections.
pub const PHASE_TWO_LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// `statement_timeout` of phase two, against a database that hangs.
pub const PHASE_TWO_STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a branch of XA is kept open for an order: longer than most transactions take from their
/// first branch to the end, short enough that its connection is not missed. Then it is prepared.
pub const XA_KEPT_OPEN: Duration = Duration::from_secs(2);

/// How often it is looked whether one is open for too long, or somebody waits for its connection.
pub const XA_OPEN_LOOK: Duration = Duration::from_millis(50);

/// Percent of a pool's connections on which branches may be kept open.
pub const XA_OPEN_PERCENT: usize = 75;

/// How long an order waits for its branch, whose registration is being answered at this moment.
pub const XA_CLAIM_WAIT: Duration = Duration::from_secs(5);

/// How long after it is sent a commit in one phase may happen in the database. Much shorter than
/// what bars a branch is kept there.
pub const XA_ONE_PHASE_WITHIN: Duration = Duration::from_secs(60);

/// How often a rollback of an XA branch looks for its prepared transaction and, where there is
/// none, bars it: the two cross with an agent that prepares it at this moment.
pub const XA_BAR_ATTEMPTS: u32 = 10;

/// How long each time it waits for that agent, before it looks again.
pub const XA_BAR_LOCK_TIMEOUT: Duration = Duration::from_millis(200);

/// How long a rollback or commit of an XA branch waits on MariaDB before it looks again for what
/// another session may still hold.
pub const XA_LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a connection on which a branch was prepared on MariaDB is kept for the branch's order.
/// Then it is closed, and any agent can end the branch.
pub const XA_PARKED: Duration = Duration::from_secs(2);

/// How long a transaction waits for a connection before one of those is closed to make room.
pub const XA_PARKED_YIELD: Duration = Duration::from_millis(50);

/// After which silence MariaDB ends a session on which a branch is prepared: of an agent that
/// hangs, or whose machine is gone.
pub const XA_SESSION_SILENCE: Duration = Duration::from_secs(10);

/// Prepared transactions on MariaDB whose age is remembered: the database does not know it.
pub const MAX_PREPARED_SEEN: usize = 10_000;

/// From how many percent of `max_prepared_transactions` on the agent warns.
pub const PREPARED_WARN_PERCENT: u64 = 80;

/// How long phase two waits for one of its own connections before it reports
/// the database as unavailable.
pub const PHASE_TWO_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The most undo rows that one statement deletes or one sweep reads.
pub const PHASE_TWO_BATCH: usize = 1_000;

/// The most rows that one local transaction undoes for several branches.
pub const TOGETHER_ROWS: usize = 256;

/// The most of them that one statement locks or writes.
pub const TOGETHER_STATEMENT_ROWS: usize = 64;

/// The longest undo record that is undone together with others, in bytes.
pub const TOGETHER_UNDO_BYTES: i32 = 16 * 1024;

/// How long a local transaction that undoes several branches waits for a lock. It asks for none that
/// is taken; but a trigger may, or a unique value that another transaction writes.
pub const TOGETHER_LOCK_TIMEOUT: Duration = Duration::from_millis(50);

/// How long one of its statements may take: other rollbacks wait for it. Alone, a branch has
/// [`PHASE_TWO_STATEMENT_TIMEOUT`].
pub const TOGETHER_STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long SQLite itself waits for the database's write lock before it is asked again. Meanwhile
/// nothing can end the wait; above it, a branch or a rollback waits in steps of this.
pub const BUSY_STEP: Duration = Duration::from_millis(50);

/// The longest difference or repair statement that is reported, in bytes.
pub const MAX_REPORT_BYTES: usize = 16 * 1024;

/// How long a dropped transaction's `ROLLBACK` may take before its connection is closed.
pub const DROP_ROLLBACK_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = {
    assert!(LOCK_WAIT.as_millis() > LOCK_WAIT_MARGIN.as_millis());
    assert!(MAX_ROW_LOCKS >= MAX_ROWS_PER_BRANCH);
    assert!(PHASE_TWO_LOCK_TIMEOUT.as_millis() < PHASE_TWO_STATEMENT_TIMEOUT.as_millis());
    assert!(TOGETHER_LOCK_TIMEOUT.as_millis() < PHASE_TWO_LOCK_TIMEOUT.as_millis());
    assert!(TOGETHER_STATEMENT_TIMEOUT.as_millis() < PHASE_TWO_STATEMENT_TIMEOUT.as_millis());
    // One question is over before the next one is due.
    assert!(BLOCKED_QUESTION.as_millis() < BLOCKED_AGAIN.as_millis());
    assert!(XA_PARKED.as_millis() < XA_SESSION_SILENCE.as_millis());
    assert!(BLOCKED_AFTER.as_millis() < LOCK_WAIT.as_millis());
    assert!(BUSY_STEP.as_millis() < BLOCKED_AFTER.as_millis());
    assert!(LOCAL_ATTEMPTS >= 2 && PHASE_TWO_CONNECTIONS >= 1 && STEP_CONNECTIONS >= 1);
};
