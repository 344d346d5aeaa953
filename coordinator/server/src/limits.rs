//! Every bound and time of the daemon in one place: its unit and its reason.

use std::time::Duration;

/// Commands in one log entry: bounds how long one entry is applied, and how long an answer waits
/// for the others of its entry.
pub const BATCH_COMMANDS: usize = 4096;
/// Bytes of commands after which an entry takes no further one.
pub const BATCH_BYTES: usize = 1024 * 1024;
/// Entries that are proposed and not applied. One is being written while the next one is queued
/// behind it; everything else waits, so that it shares an entry.
pub const ENTRIES_IN_FLIGHT: usize = 2;
/// How long a command that nobody waits for stays in the queue at most, for the company of one that
/// somebody waits for. As long as few forced writes take: that many fewer are made for it alone.
pub const ANNOUNCED_WAIT: Duration = Duration::from_millis(2);
/// Queued commands from which begins and registrations are refused. The rest of the queue is
/// reserved for what finishes transactions.
pub const QUEUE_FOR_NEW_WORK: usize = 16_384;
/// Queued commands from which sessions are no longer read.
pub const QUEUE_FOR_ALL: usize = 32_768;
/// Milliseconds after which a shed request may be tried again.
pub const RETRY_AFTER_MS: u32 = 100;
/// Milliseconds after which a request may be tried again that met a full table.
pub const RETRY_AFTER_LIMIT_MS: u32 = 1000;

/// Callers that may wait for the same answer; a newer one takes the place of the oldest.
pub const CALLERS_PER_WAITER: usize = 16;

/// Events that may wait for one session to read them. Twice what a well-behaved client can have
/// open at once, so only one that does not read gets there; its session is ended.
pub const SESSION_EVENTS: usize = 65_536;
/// Events from which a session gets no more orders for the moment; the rest is for answers.
pub const SESSION_ORDERS: usize = 32_768;
/// Requests of one session that are handled at once.
pub const READ_CHUNK: usize = 256;
/// Bytes of one message that is received. Clients keep below 4 MiB.
pub const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// How long a new stream may take to send its opening frame.
pub const OPENING: Duration = Duration::from_secs(10);

/// Bytes of the text that says why a transaction rolls back or is doomed; more is cut off.
pub const DETAIL_BYTES: usize = 1024;
/// Resources of one agent.
pub const RESOURCES_PER_AGENT: usize = 64;
/// Transactions in one question of a sweeper.
pub const ASK_ENDED: usize = 10_000;
/// Transactions in one answer to an operator unless told otherwise.
pub const LIST_DEFAULT: usize = 100;
/// Transactions in one answer to an operator, at most.
pub const LIST_MOST: usize = 10_000;
/// Transactions that are looked at before others get their turn with the state.
pub const SCAN_CHUNK: usize = 4096;

/// An attached agent that says nothing about an order for this long gets it again. Longer than
/// the agent gives one step of phase two.
pub const ORDER_SILENCE: Duration = Duration::from_secs(60);
/// How long an order about what an agent keeps open waits for that agent to come back, before it
/// goes to another one, which rolls it back: longer than a connection is away after a restart.
pub const OWN_AGENT_WAIT: Duration = Duration::from_secs(2);
/// How often orders that could not be sent are looked at again.
pub const ORDER_TICK: Duration = Duration::from_millis(500);
/// Ticks between two looks for silent agents and for waiters that went away.
pub const SWEEP_TICKS: u32 = 10;

/// Threads that run the daemon's tasks, unless configured. Decisions are made one after the other
/// anyway, and a message that changes threads on its way waits for each to wake up: with one thread
/// the daemon was 1.4 to 1.7 times as fast as with two on two cores. Writing the log and snapshots
/// has threads of its own.
pub const WORKER_THREADS: usize = 1;
/// The most that can be configured.
pub const MOST_WORKER_THREADS: u64 = 64;

/// Connections at once.
pub const CONNECTIONS: usize = 8192;
/// Streams of one connection at once; hyper's default of 200 is too few for unary clients.
pub const STREAMS: u32 = 16_384;
/// HTTP/2 flow-control window of a stream, in bytes.
pub const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// HTTP/2 flow-control window of a connection, in bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// A silent connection is probed this often.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// A probe without an answer ends the connection after this time.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a new connection may take for its first byte and for an HTTP/1 head.
pub const FIRST_BYTES: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted, when the process is out of files for example.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a start waits until this daemon leads.
pub const TAKE_OFFICE: Duration = Duration::from_secs(30);
/// How long a shutdown waits for what is under way, before it ends the sessions and again before
/// it cuts the connections.
pub const DRAIN: Duration = Duration::from_secs(3);

/// Ended transactions that may wait to be written to the archive; more are left out of it. As ids
/// they take half a megabyte.
pub const ARCHIVE_QUEUE: usize = 65_536;
/// Ended transactions that are looked up at once for the archive, so that others get at the state.
pub const ARCHIVE_BATCH: usize = 128;
/// Bytes of lines that are written to the archive at once.
pub const ARCHIVE_BATCH_BYTES: usize = 256 * 1024;
/// Bytes of a line of the archive from which problems and repairs are left out of it.
pub const ARCHIVE_LINE_BYTES: usize = 512 * 1024;
/// Files among which the archive's bytes are divided: the oldest of them goes at once.
pub const ARCHIVE_FILES: u64 = 8;
/// Bytes of the archive unless configured.
pub const ARCHIVE_BYTES: u64 = 1024 * 1024 * 1024;
/// The fewest bytes of the archive: each file holds what is written at once.
pub const MIN_ARCHIVE_BYTES: u64 = 16 * 1024 * 1024;

/// Prefixes of URLs that may be called for steps of sagas.
pub const CALLBACK_PREFIXES: usize = 256;
/// Calls of URLs at once. Those beyond wait, within the time of their attempt.
pub const CALLBACKS_AT_ONCE: usize = 256;
/// The same of one host, so that one that is slow leaves room for the others.
pub const CALLBACKS_PER_HOST: usize = 64;
/// How long connecting to a host may take.
pub const CALLBACK_CONNECT: Duration = Duration::from_secs(5);
/// Idle connections that are kept to one host.
pub const CALLBACK_IDLE_PER_HOST: usize = 8;
/// Pause before an outcome that could not be logged is told again.
pub const TELL_AGAIN: Duration = Duration::from_millis(200);

/// Smallest segment that holds every entry: a full entry and one message on top.
pub const MIN_SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

const _: () = assert!(QUEUE_FOR_NEW_WORK < QUEUE_FOR_ALL);
const _: () = assert!(CALLBACKS_PER_HOST < CALLBACKS_AT_ONCE);
const _: () = assert!(SESSION_ORDERS < SESSION_EVENTS);
const _: () = assert!((BATCH_BYTES + 2 * MESSAGE_BYTES) as u64 <= 2 * MIN_SEGMENT_BYTES);
const _: () = assert!(LIST_DEFAULT <= LIST_MOST);
const _: () = assert!(
    (ARCHIVE_BATCH_BYTES + 2 * ARCHIVE_LINE_BYTES) as u64 <= MIN_ARCHIVE_BYTES / ARCHIVE_FILES
);
const _: () = assert!(MIN_ARCHIVE_BYTES <= ARCHIVE_BYTES);
