//! What a branch read shared is not changed by others before its own transaction is decided.

use std::collections::BTreeMap;

use accede_core::{Resource, Xid};

use super::Invariant;
use crate::oracle::{Facts, News};

#[derive(Default)]
pub(super) struct ReadsRepeat {
    readers: BTreeMap<(Resource, usize), Vec<Xid>>,
}

impl Invariant for ReadsRepeat {
    fn name(&self) -> &'static str {
        "reads_repeat"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        let News::LocalCommit {
            database,
            xid,
            images,
            read,
            ..
        } = news
        else {
            return Ok(());
        };
        for row in images.iter().map(|image| image.row) {
            let Some(readers) = self.readers.get_mut(&((*database).clone(), row)) else {
                continue;
            };
            readers.retain(|reader| !facts.decisions.contains_key(reader));
            if let Some(reader) = readers.iter().find(|reader| *reader != xid) {
                return Err(format!(
                    "{xid}: changes row {row} of {database}, which {reader} read and relies on"
                ));
            }
        }
        for row in *read {
            let readers = self.readers.entry(((*database).clone(), *row));
            readers.or_default().push(*xid);
        }
        Ok(())
    }
}
