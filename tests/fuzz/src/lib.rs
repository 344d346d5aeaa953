//! What is fuzzed, and the properties that must hold for every input. The libFuzzer targets in
//! `fuzz/` and the replay in `tests/replay.rs` call the same functions.

pub mod directory;
mod input;
mod mutate;
mod random;
mod state;
pub mod wire;
pub mod workload;

pub use mutate::mutate;
pub use random::Random;
pub use state::{check_batch, check_state};

/// One thing that reads bytes it did not write.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of the libFuzzer target and of the folder in the corpus.
    pub name: &'static str,
    /// Runs one input; panics where a property does not hold.
    pub check: fn(&[u8]),
    /// Makes an input from a seeded source of chance and two inputs of the corpus.
    pub make: fn(&mut Random, &[u8], &[u8]) -> Vec<u8>,
    /// Bytes of memory that one input may take at once, besides a multiple of its own length.
    pub memory: u64,
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "log",
        check: directory::check_log,
        make: directory::make_program,
        memory: 8 << 20,
    },
    Target {
        name: "snapshot-file",
        check: directory::check_snapshot_file,
        make: directory::make_program,
        memory: 8 << 20,
    },
    Target {
        name: "state",
        check: check_state,
        make: mutate,
        memory: 1 << 20,
    },
    Target {
        name: "batch",
        check: check_batch,
        make: mutate,
        memory: 1 << 16,
    },
    Target {
        name: "wire",
        check: wire::check_wire,
        make: mutate,
        memory: 1 << 16,
    },
];
