//! Data directories of the log: a real one is made, damaged, and opened.
//!
//! An input is a small program: its first byte chooses one of 256 directories, each written by
//! the log itself in a run that follows from that byte; the rest is a list of edits to its files.
//! Thus it is known what was written, and everything that comes back can be held against it.

mod edit;
mod original;
mod signed;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use accede_log::{
    ClusterId, LogConfig, MIN_SEGMENT_BYTES, OpenError, StateMachine,
    fs::{Fs as _, Mode},
    inline::InlineLog,
    sim::SimFs,
};

use self::original::Original;
use crate::{Random, input::Input};

/// Whose directories they are.
const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978);
/// Where they are.
const DIR: &str = "/data";
/// What is proposed after the damage: never written before it.
const NEW: &[u8] = b"after the damage";

/// The files of a directory by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Remembers every entry.
#[derive(Debug, Default)]
struct Recorder(Vec<Vec<u8>>);

impl StateMachine for Recorder {
    type Response = ();

    fn apply(&mut self, _index: u64, entry: &[u8]) {
        self.0.push(entry.to_vec());
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in &self.0 {
            out.extend_from_slice(&(entry.len() as u32).to_le_bytes());
            out.extend_from_slice(entry);
        }
        out
    }

    fn restore(&mut self, mut snapshot: &[u8]) -> Result<(), String> {
        self.0.clear();
        while let Some((length, rest)) = snapshot.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let (entry, rest) = rest.split_at_checked(length).ok_or("it ends in an entry")?;
            self.0.push(entry.to_vec());
            snapshot = rest;
        }
        match snapshot {
            [] => Ok(()),
            _ => Err("it ends in a length".to_owned()),
        }
    }
}

fn config(fs: &SimFs) -> LogConfig {
    let mut config = LogConfig::new(DIR);
    config.segment_bytes = MIN_SEGMENT_BYTES;
    config.cluster_id = Some(CLUSTER);
    config.snapshot_every.entries = 12;
    config.fs = Arc::new(fs.clone());
    config
}

fn open(fs: &SimFs) -> Result<InlineLog<Recorder>, OpenError> {
    InlineLog::open(&config(fs), Recorder::default())
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A disk that holds these files.
fn disk(files: &Files) -> SimFs {
    let fs = SimFs::new(0);
    for (name, content) in files {
        let file = fs.open(&path(name), Mode::CreateNew).expect("a new name");
        let written = file.write_at(content, 0).expect("the disk works");
        assert_eq!(written, content.len());
        file.sync_data().expect("the disk works");
    }
    fs.sync_dir(DIR.as_ref()).expect("the disk works");
    fs
}

/// Damages any file of a log directory, and opens it.
pub fn check_log(input: &[u8]) {
    check(input, |_| true);
}

/// Damages snapshot files only, and opens the directory.
pub fn check_snapshot_file(input: &[u8]) {
    check(input, |name| name.ends_with(".snap"));
}

/// Opens a damaged directory. Either it is refused, with the same answer when tried again; or
/// what comes back is the beginning of what was written, byte for byte, and goes on from there:
/// an entry proposed now is found behind it after the next power loss.
///
/// The damage may carry a right checksum (see [`signed`]). Then no reader could tell, and only
/// panics, endless loops and memory are looked for.
fn check(input: &[u8], damageable: fn(&str) -> bool) {
    let mut input = Input(input);
    let original = Original::of(input.u8());
    let mut files = original.files.clone();
    let edits = edit::apply(&mut input, &mut files, damageable);
    let told = Told {
        original: &original,
        files: &files,
        edits: &edits,
    };
    let fs = disk(&files);
    let before = match open(&fs) {
        Ok(mut log) => {
            let found = std::mem::take(&mut log.machine().0);
            told.expect(original.written.starts_with(&found), || {
                format!(
                    "{} entries are not the beginning of what was written",
                    found.len()
                )
            });
            let whole = found.len() == original.written.len();
            let small = matches!(edits[..], [edit::Edit::Flip]);
            told.expect(whole || !small || !original.closed, || {
                format!(
                    "one bit made {} entries of {}",
                    found.len(),
                    original.written.len()
                )
            });
            log.machine().0.clone_from(&found);
            let proposed = log.propose(NEW.into());
            told.expect(proposed.is_ok(), || format!("it opened, then {proposed:?}"));
            found
        }
        Err(error) => return refused_again(&told, &fs, &error),
    };
    goes_on(&told, &fs.crash_losing_all(), before);
}

fn refused_again(told: &Told<'_>, fs: &SimFs, error: &OpenError) {
    assert!(!error.to_string().is_empty());
    // Only the damage can be the reason: this disk works and nobody else uses it.
    let fits = !matches!(
        error,
        OpenError::AnotherDaemon { .. } | OpenError::DiskFull { .. } | OpenError::Config { .. }
    );
    told.expect(fits, || format!("refused as {error}"));
    match open(&fs.kill()) {
        Err(again) if again.to_string() == error.to_string() => {}
        again => told.expect(false, || format!("refused as {error}, then {again:?}")),
    }
}

fn goes_on(told: &Told<'_>, fs: &SimFs, mut expected: Vec<Vec<u8>>) {
    expected.push(NEW.to_vec());
    match open(fs) {
        Ok(mut log) => {
            let found = &log.machine().0;
            let same = *found == expected;
            told.expect(same, || {
                format!(
                    "{} entries after {} were acknowledged",
                    found.len(),
                    expected.len()
                )
            });
        }
        Err(error) => told.expect(false, || format!("it opened, then: {error}")),
    }
}

/// What the damage was, for the verdict.
struct Told<'a> {
    original: &'a Original,
    files: &'a Files,
    edits: &'a [edit::Edit],
}

impl Told<'_> {
    fn expect(&self, holds: bool, what: impl FnOnce() -> String) {
        if holds || signed::is_forged(&self.original.files, self.files) {
            return;
        }
        let names: Vec<_> = self.files.iter().map(|(n, c)| (n, c.len())).collect();
        panic!("{}; {:?} in {names:?}", what(), self.edits);
    }
}

/// A program of one to four edits; sometimes one of the corpus, changed a little.
#[must_use]
pub fn make_program(random: &mut Random, kept: &[u8], other: &[u8]) -> Vec<u8> {
    if random.below(4) == 0 {
        return crate::mutate(random, kept, other);
    }
    let mut program = random.bytes(1);
    for _ in 0..=random.below(4) {
        let length = edit::OPERANDS + random.below(16);
        program.extend(random.bytes(length));
    }
    program
}
