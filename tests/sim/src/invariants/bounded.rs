//! Nothing grows without end: the files of the data directory, and the tables that processes keep
//! in memory for what is open.

use super::Invariant;
use crate::oracle::{Facts, News};

/// Files of a data directory right after a snapshot: IDENTITY and LOCK, two snapshots, two spare
/// segments, the one that is written, the one made ready, and those back to the older snapshot.
const FILES: usize = 40;

pub(super) struct Bounded;

impl Invariant for Bounded {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn check(&mut self, _: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::Snapshot { files } if *files > FILES => Err(format!(
                "the data directory holds {files} files after a snapshot"
            )),
            News::Memory { what, count, limit } if count > limit => {
                Err(format!("{what}: there are {count}, the bound is {limit}"))
            }
            _ => Ok(()),
        }
    }
}
