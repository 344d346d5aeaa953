//! The savepoints of a local transaction, and what they take back.

use crate::at::{
    savepoint::SavepointCommand,
    undo::{Changes, Mark},
};

/// The savepoints that are open, with what the branch had changed then.
#[derive(Debug, Default)]
pub(super) struct Savepoints {
    open: Vec<(String, Mark)>,
    /// How many were there when one was dropped without an end: those above go
    /// before anything else happens.
    keep: Option<usize>,
    /// A new one takes the name of an older one away.
    replaces: bool,
}

/// No savepoint has this name.
const NAMELESS: &str = "";

impl Savepoints {
    /// As in MariaDB, where a new one deletes an older one of its name.
    pub(super) fn replacing() -> Self {
        Self {
            replaces: true,
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Those from this depth on were dropped.
    pub(super) fn drop_from(&mut self, depth: usize) {
        self.keep = Some(self.keep.map_or(depth, |keep| keep.min(depth)));
    }

    /// The name of the outermost one that was dropped.
    pub(super) fn dropped(&mut self) -> Option<String> {
        let keep = self.keep.take()?;
        self.open.get(keep).map(|(name, _)| name.clone())
    }

    /// Does to the changes what the database did to the rows.
    pub(super) fn follow(&mut self, command: &SavepointCommand, changes: &mut Changes) {
        let find =
            |open: &[(String, Mark)], name: &str| open.iter().rposition(|(known, _)| known == name);
        match command {
            SavepointCommand::Set(name) => {
                if self.replaces
                    && let Some(older) = find(&self.open, name)
                {
                    // Its place stays, so that the others keep theirs.
                    NAMELESS.clone_into(&mut self.open[older].0);
                }
                self.open.push((name.clone(), changes.mark()));
            }
            SavepointCommand::RollBackTo(name) => {
                if let Some(position) = find(&self.open, name) {
                    changes.take_back(self.open[position].1);
                    changes.release(self.open.len() - position - 1);
                    self.open.truncate(position + 1);
                }
            }
            SavepointCommand::Release(name) => {
                if let Some(position) = find(&self.open, name) {
                    changes.release(self.open.len() - position);
                    self.open.truncate(position);
                }
            }
        }
    }
}
