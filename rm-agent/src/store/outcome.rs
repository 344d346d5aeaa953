//! Tells the coordinator the truth about a branch's end.

use std::sync::Arc;

use accede_proto::Xid;

use crate::registrar::Registrar;

/// Tells the coordinator how a registered branch ended, also when the future
/// that commits it is dropped half-way.
pub(crate) struct Outcome {
    registrar: Arc<dyn Registrar>,
    xid: Xid,
    branch: u32,
    /// The message that commits may have left.
    pub(crate) sent: bool,
    told: bool,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcome")
            .field("xid", &self.xid)
            .field("branch", &self.branch)
            .finish_non_exhaustive()
    }
}

impl Outcome {
    pub(crate) fn new(registrar: Arc<dyn Registrar>, xid: Xid, branch: u32) -> Self {
        Self {
            registrar,
            xid,
            branch,
            sent: false,
            told: false,
        }
    }

    pub(super) fn xid(&self) -> Xid {
        self.xid
    }

    pub(crate) fn done(mut self) {
        self.told = true;
        self.registrar.done(self.xid, self.branch);
    }

    pub(crate) fn withdrawn(mut self) {
        self.told = true;
        self.registrar.withdrawn(self.xid, self.branch);
    }

    /// An order's answer tells it.
    pub(crate) fn told_by_order(mut self) {
        self.told = true;
        self.registrar.over(self.xid, self.branch);
    }

    pub(crate) fn doomed(mut self, detail: String) {
        self.told = true;
        self.registrar.doomed(self.xid, self.branch, detail);
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        match (self.told, self.sent) {
            (true, _) => {}
            // Its connection is rolled back or closed; it can never commit.
            (false, false) => self.registrar.withdrawn(self.xid, self.branch),
            (false, true) => {
                let detail = "the future that committed the branch was dropped".to_owned();
                self.registrar.doomed(self.xid, self.branch, detail);
            }
        }
    }
}
