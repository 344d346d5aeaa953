use std::{collections::BTreeSet, fs, path::Path};

use accede_core::{
    Begin, BindResource, BranchDone, Command, Commit, Effects, Entry, Lease, LeaseWorker, Mode,
    Payload, ProcessId, RegisterBranch, Reply, RequestId, RollBack, State, TakeOffice, WallTime,
};
use parking_lot::RwLock;

use super::*;
use crate::limits::{ARCHIVE_FILES, MIN_ARCHIVE_BYTES};

const SOON: Duration = Duration::from_secs(20);

/// A state with ended transactions.
struct World {
    state: SharedState,
    index: u64,
    at: u64,
    begun: u64,
    lease: Option<Lease>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: Arc::new(RwLock::new(State::new())),
            index: 0,
            at: 1_000,
            begun: 0,
            lease: None,
        };
        world.apply(Command::TakeOffice(TakeOffice::default()));
        world.apply(Command::BindResource(BindResource {
            resource: "stock".into(),
            database: [1; 16],
        }));
        let lease = world.apply(Command::LeaseWorker(LeaseWorker {
            process: ProcessId(1),
            name: "front".into(),
            worker: None,
        }));
        if let Reply::Leased(lease) = lease {
            world.lease = Some(lease);
        }
        world
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let entry = Entry {
            index: self.index,
            at: Timestamp(self.at),
            wall: WallTime(WallTime::XID_EPOCH.0 + self.at),
            command,
        };
        self.state.write().apply(entry, &mut Effects::new())
    }

    fn begin(&mut self) -> Xid {
        self.at += 1;
        self.begun += 1;
        let floor = self.lease.as_ref().expect("it is leased").floor_ms;
        let (time, sequence) = (floor + (self.begun >> 9), self.begun & 511);
        let xid = Xid::new((time << 22) | (sequence << 13)).expect("above zero");
        let begun = self.apply(Command::Begin(Begin {
            process: ProcessId(1),
            xid,
            name: "order".into(),
            timeout_ms: 60_000,
            parent: None,
        }));
        assert_eq!(begun, Reply::Ok);
        xid
    }

    fn committed(&mut self) -> Xid {
        let xid = self.begin();
        self.apply(Command::Commit(Commit { xid }));
        xid
    }

    fn start(&self, directory: &Path) -> (Archive, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        let config = ArchiveConfig {
            directory: directory.to_owned(),
            bytes: MIN_ARCHIVE_BYTES,
        };
        let archive = Archive::start(&config, Arc::clone(&self.state), Arc::clone(&metrics));
        (archive.expect("a directory"), metrics)
    }
}

/// The files' lines, in order.
fn lines(directory: &Path) -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "jsonl"))
        .collect();
    files.sort();
    let text = files
        .iter()
        .map(|path| fs::read_to_string(path).expect("UTF-8"));
    let text: String = text.collect();
    text.lines().map(ToOwned::to_owned).collect()
}

fn xids(directory: &Path) -> Vec<String> {
    let xid = |line: &String| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        line["xid"].as_str().expect("a text").to_owned()
    };
    lines(directory).iter().map(xid).collect()
}

fn counted(metrics: &Metrics, line: &str) -> bool {
    metrics
        .render(&crate::metrics::Reading::default())
        .lines()
        .any(|have| have == line)
}

#[test]
fn a_line_says_all_that_is_known() {
    let mut world = World::new();
    let xid = world.begin();
    let registered = world.apply(Command::RegisterBranch(RegisterBranch {
        xid,
        request: RequestId {
            process: ProcessId(2),
            sequence: 1,
        },
        agent: ProcessId(2),
        resource: "stock".into(),
        mode: Mode::At,
        locks: Vec::new(),
        payload: Payload::default(),
        wait_limit_ms: 0,
        holds_local_locks: true,
        can_keep_open: false,
    }));
    let Reply::Registered { branch, .. } = registered else {
        panic!("{registered:?}");
    };
    world.apply(Command::BranchDone(BranchDone { xid, branch }));
    world.at += 25;
    world.apply(Command::RollBack(RollBack {
        xid,
        detail: "sold \"out\"".into(),
    }));
    let state = world.state.read();
    let transaction = state.transaction(xid).expect("known");
    let text = String::from_utf8(line(transaction)).expect("UTF-8");
    assert_eq!(
        text,
        format!(
            "{{\"xid\":\"{xid}\",\"name\":\"order\",\"outcome\":\"rolled_back\",\
             \"reason\":{{\"code\":\"requested\",\"detail\":\"sold \\\"out\\\"\"}},\
             \"began_wall_ms\":1767225601001,\"ended_wall_ms\":1767225601001,\"ended_at\":1001,\
             \"branches\":[{{\"branch\":1,\"resource\":\"stock\",\"mode\":\"AT\",\
             \"status\":\"finishing\",\"attempts\":1}}]}}\n"
        )
    );
    assert_eq!(record::ended_at(text.as_bytes()), Some(Timestamp(1001)));
    assert_eq!(record::ended_at(b"{\"xid\":\"77\"}"), None);
}

#[tokio::test]
async fn what_ended_is_written_in_order_and_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("history");
    let mut world = World::new();
    let (archive, metrics) = world.start(&directory);
    let mut expected = Vec::new();
    for _ in 0..1_000 {
        let xid = world.committed();
        archive.ended(xid);
        expected.push(xid.to_string());
    }
    archive.close(SOON).await;
    assert_eq!(xids(&directory), expected);
    assert!(counted(&metrics, "accede_archived_total 1000"));
    archive.ended(world.committed());
    archive.close(SOON).await;
    assert_eq!(lines(&directory).len(), 1_000, "it is closed");
}

#[tokio::test]
async fn a_crash_loses_nothing_that_is_still_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::new();
    let (archive, _) = world.start(folder.path());
    for _ in 0..10 {
        archive.ended(world.committed());
    }
    archive.close(SOON).await;
    drop(archive);
    // These ended while nobody wrote, and the last line was torn.
    let missed: Vec<Xid> = (0..500).map(|_| world.committed()).collect();
    let file = folder.path().join("transactions-0000000001.jsonl");
    let whole = fs::metadata(&file).expect("it is there").len();
    fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .and_then(|file| file.set_len(whole - 7))
        .expect("torn");

    let (archive, _) = world.start(folder.path());
    archive.catch_up();
    let later = world.committed();
    archive.ended(later);
    archive.close(SOON).await;
    let found: BTreeSet<String> = xids(folder.path()).into_iter().collect();
    assert_eq!(found.len(), 511);
    assert!(missed.iter().all(|xid| found.contains(&xid.to_string())));
    drop(archive);

    // Again: only what ended at the very last instant stands there twice.
    let before = lines(folder.path()).len();
    let (archive, _) = world.start(folder.path());
    archive.catch_up();
    archive.close(SOON).await;
    assert_eq!(lines(folder.path()).len(), before + 1);
}

#[tokio::test]
async fn a_closed_archive_can_be_opened_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::new();
    for _ in 0..300 {
        let (archive, _) = world.start(folder.path());
        archive.close(SOON).await;
    }
}

#[tokio::test]
async fn an_archive_that_is_behind_leaves_out_and_delays_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::new();
    let xid = world.committed();
    let (archive, metrics) = world.start(folder.path());
    {
        // The thread waits for this lock at the latest with its first batch.
        let state = Arc::clone(&world.state);
        let _nobody_reads = state.write();
        for _ in 0..ARCHIVE_QUEUE + ARCHIVE_BATCH + 7 {
            archive.ended(xid);
        }
        let rendered = metrics.render(&crate::metrics::Reading::default());
        let dropped = rendered
            .lines()
            .find_map(|line| line.strip_prefix("accede_archive_dropped_total{reason=\"behind\"} "))
            .and_then(|count| count.parse::<usize>().ok())
            .expect("counted");
        assert!((7..=ARCHIVE_BATCH + 7).contains(&dropped), "{dropped}");
    }
    archive.close(SOON).await;
}

#[tokio::test]
async fn what_was_forgotten_before_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::new();
    let never = world.begin();
    let unknown = Xid::new(never.get() + (1 << 13)).expect("above zero");
    let (archive, metrics) = world.start(folder.path());
    archive.ended(unknown);
    archive.close(SOON).await;
    assert!(counted(
        &metrics,
        "accede_archive_dropped_total{reason=\"forgotten\"} 1"
    ));
}

#[tokio::test]
async fn what_cannot_be_written_is_counted_until_it_can_be_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("history");
    let mut world = World::new();
    let (archive, metrics) = world.start(&directory);
    fs::remove_dir_all(&directory).expect("removed");
    archive.ended(world.committed());
    while !counted(
        &metrics,
        "accede_archive_dropped_total{reason=\"failed\"} 1",
    ) {
        tokio::task::yield_now().await;
    }
    fs::create_dir(&directory).expect("made");
    archive.ended(world.committed());
    archive.close(SOON).await;
    assert_eq!(lines(&directory).len(), 1);
}

#[test]
fn files_stay_within_their_bound_and_the_oldest_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let most = MIN_ARCHIVE_BYTES;
    let mut line = vec![b'x'; ARCHIVE_BATCH_BYTES - 1];
    line.push(b'\n');
    let (mut files, last) = Files::open(folder.path(), most).expect("opened");
    assert_eq!(last, None);
    let size = || -> u64 {
        let entries = fs::read_dir(folder.path()).expect("readable");
        let sizes = entries.map(|entry| entry.expect("there").metadata().expect("there").len());
        sizes.sum()
    };
    let mut removed = 0;
    for _ in 0..3 * most / line.len() as u64 {
        removed += files.write(&line).expect("written");
        assert!(size() <= most, "{} bytes", size());
    }
    assert!(removed >= ARCHIVE_FILES, "{removed} files");
    assert!(size() > most - 2 * most / ARCHIVE_FILES);
    let oldest = folder.path().join("transactions-0000000001.jsonl");
    assert!(!oldest.exists());
    let other = Files::open(folder.path(), most).err().expect("locked");
    assert!(other.to_string().contains("another daemon"), "{other}");
    drop(files);
    let (mut files, last) = Files::open(folder.path(), most).expect("free again");
    assert_eq!(last, None, "these are no transactions");
    files.write(&line).expect("goes on");
    files.sync().expect("forced");
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    let config = ArchiveConfig {
        directory: file.clone(),
        bytes: MIN_ARCHIVE_BYTES,
    };
    let world = World::new();
    let failed = Archive::start(&config, Arc::clone(&world.state), Arc::new(Metrics::new()));
    let text = failed.err().expect("no directory").to_string();
    assert!(text.contains(&file.display().to_string()), "{text}");
}
