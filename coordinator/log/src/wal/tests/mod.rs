//! The writer and recovery on the simulated file system, driven step by step.

mod crashes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::format::{self, HEADER_BYTES, Kind, Parsed, Salt};
use super::queue::Wal;
use super::recover::{self, Drive};
use super::supply::segment_name;
use super::{LogEntry, Mark, Vote};
use crate::config::{ClusterId, LogConfig};
use crate::error::{LogFailure, OpenError};
use crate::fs::{self, Fs};
use crate::sim::{Faults, SimFs};

const CLUSTER: ClusterId = ClusterId(0xacce_de00);

fn config(fs: &SimFs) -> LogConfig {
    let mut config = LogConfig::new("/data");
    config.segment_bytes = 16 * 1024;
    config.cluster_id = Some(CLUSTER);
    config.cache_bytes = 4096;
    config.fs = Arc::new(fs.clone());
    config
}

fn open(fs: &SimFs) -> Result<Wal, OpenError> {
    recover::open(&config(fs), Drive::Inline).map(|opened| Wal::inline(opened.writer))
}

fn entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    let payload = Bytes::from(vec![(index % 251) as u8; bytes]);
    LogEntry {
        term,
        index,
        kind: Kind::Command,
        payload,
    }
}

/// Appends one batch; `true` if it was acknowledged.
fn append(wal: &Wal, entries: Vec<LogEntry>) -> bool {
    let answer = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&answer);
    let done = Box::new(move |result: std::io::Result<()>| *slot.lock() = Some(result.is_ok()));
    wal.append(entries, done).is_ok() && *answer.lock() == Some(true)
}

/// Runs a future that is ready at once, as all are with the inline drive.
fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn all(wal: &Wal) -> Vec<LogEntry> {
    wal.read(0..u64::MAX).unwrap()
}

fn segment(generation: u64) -> PathBuf {
    Path::new("/data").join(segment_name(generation))
}

/// Entries 0..count in batches of three, on a fresh disk.
fn filled(seed: u64, count: u64, bytes: usize) -> (SimFs, Vec<LogEntry>) {
    let fs = SimFs::new(seed);
    let wal = open(&fs).unwrap();
    let entries: Vec<_> = (0..count).map(|index| entry(1, index, bytes)).collect();
    for batch in entries.chunks(3) {
        assert!(append(&wal, batch.to_vec()));
    }
    assert_eq!(all(&wal), entries);
    drop(wal);
    (fs.kill(), entries)
}

/// Offsets of all records in the first segment, with the batch each belongs to.
fn records(fs: &SimFs) -> Vec<(usize, usize, u32)> {
    let content = fs::read_file(fs, &segment(1)).unwrap();
    let mut found = Vec::new();
    let mut offset = HEADER_BYTES as usize;
    while let Parsed::Record(record) = format::parse(&content, offset, Salt::new(CLUSTER, 1)) {
        found.push((offset, record.next, record.batch));
        offset = record.next;
    }
    found
}

#[test]
fn everything_is_found_again() {
    let (fs, entries) = filled(1, 200, 300);
    let wal = open(&fs).unwrap();
    assert!(wal.shared.counters.read().segments > 3);
    assert_eq!(all(&wal), entries);
    now(wal.save_vote(Vote {
        term: 4,
        node: 1,
        committed: true,
    }))
    .unwrap();
    now(wal.truncate(Some(Mark {
        term: 1,
        index: 150,
    })))
    .unwrap();
    assert!(append(&wal, vec![entry(4, 151, 10)]));
    now(wal.purge(Mark {
        term: 1,
        index: 100,
    }))
    .unwrap();
    drop(wal);
    let fs = fs.crash_losing_all();
    let wal = open(&fs).unwrap();
    let mut expected = entries[101..=150].to_vec();
    expected.push(entry(4, 151, 10));
    assert_eq!(all(&wal), expected);
    let memory = wal.shared.memory.lock();
    assert_eq!(
        memory.vote,
        Some(Vote {
            term: 4,
            node: 1,
            committed: true
        })
    );
    assert_eq!(
        memory.purged,
        Some(Mark {
            term: 1,
            index: 100
        })
    );
    assert_eq!(
        memory.last(),
        Some(Mark {
            term: 4,
            index: 151
        })
    );
}

#[test]
fn a_cut_tail_loses_only_the_cut_records() {
    let (_, entries) = filled(2, 7, 40);
    let (pristine, _) = filled(2, 7, 40);
    let found = records(&pristine);
    let (from, to) = (found[found.len() - 3].0, found[found.len() - 1].1);
    for cut in from..=to {
        let (fs, _) = filled(2, 7, 40);
        fs.damage(&segment(1), |content| content[cut..].fill(0))
            .unwrap();
        // A record whose padding alone was cut is whole.
        let kept = match open(&fs) {
            Ok(wal) => all(&wal),
            Err(e) => panic!("cut at {cut}: {e}"),
        };
        assert_eq!(kept, entries[..kept.len()], "cut at {cut}");
        let whole = found.iter().filter(|(_, next, _)| next - 8 < cut).count();
        assert!(
            kept.len() >= whole.saturating_sub(2),
            "cut at {cut}: {} kept",
            kept.len()
        );
    }
}

#[test]
fn a_flipped_byte_is_cut_in_the_last_write_and_refused_before() {
    let (pristine, entries) = filled(3, 9, 20);
    let found = records(&pristine);
    let last_batch = found.iter().map(|(_, _, batch)| *batch).max().unwrap() as usize;
    let end = found[found.len() - 1].1;
    for at in HEADER_BYTES as usize..end {
        let (fs, _) = filled(3, 9, 20);
        fs.damage(&segment(1), |content| content[at] ^= 0x10)
            .unwrap();
        match open(&fs) {
            Ok(wal) => {
                let kept = all(&wal);
                assert_eq!(kept, entries[..kept.len()], "byte {at}");
                // Padding is not covered by a checksum and changes nothing.
                assert!(at >= last_batch || kept.len() == entries.len(), "byte {at}");
            }
            Err(OpenError::DamagedMiddle { file, offset, .. }) => {
                assert_eq!(file, segment(1));
                assert!(
                    at < last_batch && offset <= at as u64,
                    "byte {at}, offset {offset}"
                );
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
}

#[test]
fn damage_in_an_older_segment_is_refused() {
    let (fs, _) = filled(4, 200, 300);
    fs.damage(&segment(2), |content| content[8000] ^= 1)
        .unwrap();
    let error = open(&fs).err().unwrap();
    assert!(matches!(&error, OpenError::DamagedMiddle { file, .. } if *file == segment(2)));
    let text = error.to_string();
    assert!(
        text.contains("log-0000000000000002.seg") && text.contains("backup"),
        "{text}"
    );
}

#[test]
fn a_missing_segment_is_refused() {
    for gone in [1, 3] {
        let (fs, _) = filled(5, 200, 300);
        fs.remove(&segment(gone)).unwrap();
        let error = open(&fs).err().unwrap();
        assert!(
            matches!(error, OpenError::Missing { .. }),
            "{gone}: {error}"
        );
    }
    let (fs, _) = filled(5, 2, 10);
    fs.remove(&segment(1)).unwrap();
    fs.remove(&segment(2)).unwrap();
    assert!(matches!(
        open(&fs).err().unwrap(),
        OpenError::Missing { .. }
    ));
}

#[test]
fn a_lost_identity_is_refused_once_there_are_entries() {
    let (fs, _) = filled(6, 5, 10);
    fs.remove(Path::new("/data/IDENTITY")).unwrap();
    let error = open(&fs).err().unwrap();
    assert!(error.to_string().contains("IDENTITY"), "{error}");
}

#[test]
fn another_cluster_and_newer_versions_are_refused() {
    let (fs, _) = filled(7, 5, 10);
    let mut other = config(&fs);
    other.cluster_id = Some(ClusterId(9));
    let error = recover::open(&other, Drive::Inline).err().unwrap();
    assert!(matches!(error, OpenError::OtherCluster { .. }), "{error}");

    let (fs, _) = filled(7, 5, 10);
    fs.damage(&segment(1), |content| content[8] = 2).unwrap();
    let error = open(&fs).err().unwrap();
    assert!(
        matches!(
            error,
            OpenError::NewerVersion {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );

    // A record of a newer version, with the checksum its writer would have given it.
    let (fs, _) = filled(7, 5, 10);
    let last = records(&fs)[4].0;
    fs.damage(&segment(1), |content| {
        let mut record = content[last..last + format::RECORD_HEADER + 10].to_vec();
        record[8] = 3;
        let mut salt = crc32fast::Hasher::new();
        salt.update(&CLUSTER.0.to_le_bytes());
        salt.update(&1_u64.to_le_bytes());
        let mut crc = crc32fast::Hasher::new_with_initial(salt.finalize());
        crc.update(&(last as u64).to_le_bytes());
        crc.update(&record[4..]);
        record[..4].copy_from_slice(&crc.finalize().to_le_bytes());
        content[last..last + record.len()].copy_from_slice(&record);
    })
    .unwrap();
    let error = open(&fs).err().unwrap();
    assert!(
        matches!(error, OpenError::NewerVersion { found: 3, .. }),
        "{error}"
    );
}

#[test]
fn whole_records_of_a_torn_write_do_not_come_back() {
    let (fs, entries) = filled(8, 6, 40);
    // The first record of the last write is torn, its second and third are whole.
    let found = records(&fs);
    fs.damage(&segment(1), |content| content[found[3].0 + 5] ^= 0xff)
        .unwrap();
    let wal = open(&fs).unwrap();
    assert_eq!(all(&wal), entries[..3]);
    // A record of the same length takes the place of the torn one.
    let fresh = LogEntry {
        payload: Bytes::from(vec![9; 40]),
        ..entry(2, 3, 40)
    };
    assert!(append(&wal, vec![fresh.clone()]));
    drop(wal);
    let fs = fs.crash_losing_all();
    let wal = open(&fs).unwrap();
    let mut expected = entries[..3].to_vec();
    expected.push(fresh);
    assert_eq!(all(&wal), expected);
}

#[test]
fn recycled_segments_never_give_back_old_records() {
    let mut fs = SimFs::new(9);
    let mut wal = open(&fs).unwrap();
    let mut index = 0;
    for round in 0..30 {
        for _ in 0..20 {
            assert!(append(&wal, vec![entry(1, index, 500)]));
            index += 1;
        }
        now(wal.purge(Mark {
            term: 1,
            index: index - 5,
        }))
        .unwrap();
        let expected: Vec<_> = (index - 4..index)
            .map(|index| entry(1, index, 500))
            .collect();
        assert_eq!(all(&wal), expected, "round {round}");
        drop(wal);
        fs = fs.crash_losing_all();
        wal = open(&fs).unwrap();
        assert_eq!(all(&wal), expected, "round {round} after a crash");
    }
    // In use, prepared, spare: bounded for ever.
    let files = fs.list(Path::new("/data")).unwrap();
    assert!(files.len() <= 8, "{files:?}");
}

#[test]
fn a_failed_forced_write_acknowledges_nothing_and_is_final() {
    let fs = SimFs::new(10);
    let wal = open(&fs).unwrap();
    assert!(append(&wal, vec![entry(1, 0, 10)]));
    fs.set_faults(Faults {
        fail_sync: Some(fs.syncs()),
        ..Faults::default()
    });
    assert!(!append(&wal, vec![entry(1, 1, 10)]));
    fs.set_faults(Faults::default());
    let syncs = fs.syncs();
    assert!(!append(&wal, vec![entry(1, 2, 10)]));
    assert_eq!(fs.syncs(), syncs, "a forced write was tried again");
    let failure = wal.shared.failure.get().unwrap();
    assert!(matches!(failure, LogFailure::Io { .. }), "{failure}");
    assert!(failure.to_string().contains("/data"), "{failure}");
}

#[test]
fn a_full_disk_is_told_by_name_and_found_early() {
    let fs = SimFs::new(11);
    let wal = open(&fs).unwrap();
    fs.set_faults(Faults {
        capacity: Some(2 * 16 * 1024 + 32 + 100),
        ..Faults::default()
    });
    let mut index = 0;
    while append(&wal, vec![entry(1, index, 1000)]) {
        index += 1;
        assert!(index < 1000, "the disk never filled up");
    }
    // The segment after the prepared one could not be made; that was seen a segment earlier.
    assert!(
        index > 12 && wal.shared.counters.read().prepare_failures == 1,
        "{index}"
    );
    let failure = wal.shared.failure.get().unwrap();
    assert!(matches!(failure, LogFailure::DiskFull { .. }), "{failure}");
    let text = failure.to_string();
    assert!(
        text.contains("/data") && text.contains("100 bytes free"),
        "{text}"
    );
    drop(wal);
    let fs = fs.crash();
    let wal = open(&fs).unwrap();
    assert_eq!(all(&wal).len() as u64, index);
}

#[test]
fn a_full_disk_at_the_first_start_is_told() {
    let fs = SimFs::new(12);
    fs.set_faults(Faults {
        capacity: Some(1000),
        ..Faults::default()
    });
    let error = open(&fs).err().unwrap();
    assert!(
        matches!(error, OpenError::DiskFull { needed: 16_384, .. }),
        "{error}"
    );
    fs.set_faults(Faults::default());
    assert!(open(&fs).is_ok());
}

#[test]
fn an_orderly_end_makes_damage_in_the_last_write_visible() {
    let (fs, _) = filled(13, 6, 40);
    let wal = open(&fs).unwrap();
    wal.save_committed(Some(Mark { term: 1, index: 5 }));
    wal.close();
    let found = records(&fs);
    fs.damage(&segment(1), |content| content[found[4].0 + 12] ^= 1)
        .unwrap();
    assert!(matches!(
        open(&fs).err().unwrap(),
        OpenError::DamagedMiddle { .. }
    ));
}

#[test]
fn a_second_user_of_the_directory_is_refused() {
    let fs = SimFs::new(14);
    let wal = open(&fs).unwrap();
    let error = open(&fs).err().unwrap();
    assert!(matches!(error, OpenError::AnotherDaemon { .. }), "{error}");
    drop(wal);
    assert!(open(&fs).is_ok());
}

#[test]
fn segments_of_another_size_go_on_and_are_replaced() {
    let (fs, entries) = filled(15, 6, 40);
    let mut larger = config(&fs);
    larger.segment_bytes = 64 * 1024;
    let wal = Wal::inline(recover::open(&larger, Drive::Inline).unwrap().writer);
    let big = entry(1, 6, larger.max_entry_bytes());
    assert!(append(&wal, vec![big.clone()]));
    drop(wal);
    let fs = fs.crash_losing_all();
    let wal = open(&fs).unwrap();
    assert_eq!(all(&wal)[..6], entries[..]);
    assert_eq!(all(&wal)[6], big);
}

#[test]
fn an_entry_out_of_order_is_refused() {
    let fs = SimFs::new(16);
    let wal = open(&fs).unwrap();
    assert!(append(&wal, vec![entry(1, 0, 1)]));
    assert!(!append(&wal, vec![entry(1, 2, 1)]));
    assert!(append(&wal, vec![entry(1, 1, 1)]));
}
