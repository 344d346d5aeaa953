//! Replays the kept corpus and seeded mutations of it, without a fuzzer.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use accede_fuzz_replay::{Random, TARGETS, Target};

/// Mutations of each target, with the seeds from 0 on.
const MUTATIONS: u64 = 10_000;
/// Bytes that one input may make the program hold for each of its own: a list of empty items.
const MEMORY_PER_BYTE: u64 = 256;
/// Bytes of all inputs that are kept.
const CORPUS_BYTES: usize = 300_000;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target)
}

/// The kept inputs by name.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(corpus(target))
        .unwrap_or_else(|error| panic!("the corpus of {target}: {error}"))
        .map(|file| {
            let path = file.expect("the folder can be read").path();
            let name = path
                .file_name()
                .expect("files have names")
                .to_string_lossy()
                .into_owned();
            (name, fs::read(path).expect("it was listed"))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "nothing is kept for {target}");
    found
}

/// One input; on failure it is written down where `./dev fuzz` can repeat it.
fn run(target: &Target, name: &str, input: &[u8]) {
    let check = || allocation_counter::measure(|| (target.check)(input));
    let Ok(taken) = catch_unwind(AssertUnwindSafe(check)) else {
        let file = std::env::temp_dir().join(format!("accede-{}-{name}", target.name));
        fs::write(&file, input).expect("the input can be kept");
        panic!(
            "target {0}, input {name}, see above; ./dev fuzz {0} {1} repeats it",
            target.name,
            file.display()
        );
    };
    let allowed = target.memory + MEMORY_PER_BYTE * input.len() as u64;
    assert!(
        taken.bytes_max <= allowed,
        "target {}, input {name}: {} bytes at once, {allowed} allowed",
        target.name,
        taken.bytes_max
    );
}

fn replay(name: &str) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("the target is in the table");
    let kept = kept(name);
    for (name, input) in &kept {
        run(target, name, input);
    }
    for seed in 0..MUTATIONS {
        let mut random = Random::new(seed);
        let one = &kept[random.below(kept.len())].1;
        let other = &kept[random.below(kept.len())].1;
        let input = (target.make)(&mut random, one, other);
        run(target, &format!("seed-{seed}"), &input);
    }
}

#[test]
fn log() {
    replay("log");
}

#[test]
fn snapshot_file() {
    replay("snapshot-file");
}

#[test]
fn state() {
    replay("state");
}

#[test]
fn batch() {
    replay("batch");
}

#[test]
fn wire() {
    replay("wire");
}

#[test]
fn the_corpus_stays_small() {
    let all = TARGETS.iter().flat_map(|target| kept(target.name));
    let bytes: usize = all.map(|(_, input)| input.len()).sum();
    assert!(bytes < CORPUS_BYTES, "{bytes} bytes");
}
