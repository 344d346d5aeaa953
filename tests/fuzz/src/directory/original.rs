//! Directories as the log leaves them.

use std::sync::{Arc, OnceLock};

use accede_log::{
    fs::{Fs as _, Mode},
    sim::{Faults, SimFs},
};

use super::{DIR, Files, NEW, open, path};
use crate::Random;

/// What a run left behind.
#[derive(Debug, Default)]
pub(super) struct Original {
    pub(super) files: Files,
    /// Everything that was proposed and may be found, in order.
    pub(super) written: Vec<Vec<u8>>,
    /// It ended in order; else it was killed or lost its power.
    pub(super) closed: bool,
}

impl Original {
    /// The run that a byte stands for.
    pub(super) fn of(recipe: u8) -> Arc<Self> {
        static MADE: [OnceLock<Arc<Original>>; 256] = [const { OnceLock::new() }; 256];
        let made = MADE[usize::from(recipe)].get_or_init(|| Arc::new(Self::run(recipe)));
        Arc::clone(made)
    }

    fn run(recipe: u8) -> Self {
        let mut random = Random::new(recipe.into());
        let mut fs = SimFs::new(recipe.into());
        let mut original = Self::default();
        let snapshots = random.below(4) != 0;
        for _ in 0..=random.below(3) {
            fs = original.life(&mut random, &fs, snapshots);
        }
        original.files = read(&fs);
        original
    }

    /// From one start of the log to its end.
    fn life(&mut self, random: &mut Random, fs: &SimFs, snapshots: bool) -> SimFs {
        let mut log = open(fs).expect("nothing was damaged yet");
        // What a power loss took was never acknowledged; the next entry is another one.
        self.written.clone_from(&log.machine().0);
        let ends_in_write = random.below(3) == 0;
        for _ in 0..random.below(30) {
            let entry = entry(random);
            self.written.push(entry.clone());
            log.propose(entry.into()).expect("the disk works");
            if snapshots && log.snapshot_wanted() {
                log.snapshot().expect("the disk works");
            }
        }
        if ends_in_write {
            let at = fs.operations() + random.below(3) as u64;
            fs.set_faults(Faults {
                power_off_at: Some(at),
                ..Faults::default()
            });
            let entry = entry(random);
            self.written.push(entry.clone());
            // Whether it will be found is what nobody knows.
            let _ = log.propose(entry.into());
        }
        self.closed = !ends_in_write && random.below(2) == 0;
        if self.closed {
            log.close();
            return fs.kill();
        }
        drop(log);
        match random.below(2) {
            0 if !ends_in_write => fs.kill(),
            _ => fs.crash(),
        }
    }
}

/// No two alike, and none like [`NEW`].
fn entry(random: &mut Random) -> Vec<u8> {
    let length = match random.below(8) {
        0 => random.below(4000),
        1 => 0,
        _ => random.below(300),
    };
    random.bytes(NEW.len() + 1 + length)
}

/// All files of a disk.
fn read(fs: &SimFs) -> Files {
    let names = fs.list(DIR.as_ref()).expect("the disk works");
    let content = |name: &String| {
        let file = fs.open(&path(name), Mode::Read).expect("it was listed");
        let size = file.size().expect("the disk works") as usize;
        let mut content = vec![0; size];
        let read = file.read_at(&mut content, 0).expect("the disk works");
        assert_eq!(read, size);
        content
    };
    names.iter().map(|n| (n.clone(), content(n))).collect()
}
