//! The agent's connection to the coordinator, and its sweeper.

use super::{Agent, AgentEvent};
use crate::{database::BranchKey, message::Ask, outside::Outside};

/// Markers younger than this stay: longer than any give-up time.
pub(crate) const MARKER_AGE_MS: u64 = 40_000;

impl Agent {
    pub(super) fn connection_lost(&mut self, out: &mut Outside, session: u64) {
        if !self.alive || session < self.session {
            return;
        }
        // An answer to an earlier attempt says nothing about the next one.
        self.attach_tag = None;
        if !self.connected {
            return;
        }
        out.note(self.me().address, None, || {
            "loses its connection".to_owned()
        });
        self.connected = false;
        self.connect(out);
    }

    /// Opens a connection, for as long as it takes.
    pub(super) fn connect(&mut self, out: &mut Outside) {
        if !self.alive || self.connected {
            return;
        }
        self.session += 1;
        let databases = self.databases.iter().map(|number| &out.databases[*number]);
        let shown = databases.flat_map(|database| {
            [
                (database.resource.clone(), Some(database.id)),
                (database.action.clone(), None),
            ]
        });
        let shown = shown.collect();
        let tag = self.next_number();
        self.attach_tag = Some(tag);
        out.ask(self.me(), tag, Ask::Attach(shown));
        let ms = out.random.between(300, 1_200);
        out.agent_later(ms, self.me(), AgentEvent::Connect);
    }

    /// What must arrive and what waits for an answer is sent again.
    pub(super) fn attached(&mut self, out: &mut Outside, tag: u64) {
        if self.connected || self.attach_tag != Some(tag) {
            return;
        }
        self.connected = true;
        out.note(self.me().address, None, || "is connected".to_owned());
        for tag in self.deliveries.keys().copied().collect::<Vec<_>>() {
            self.deliver_again(out, tag);
        }
        for job in self.jobs.keys().copied().collect::<Vec<_>>() {
            if let Some(request) = self.jobs.get(&job).and_then(|job| job.asking()) {
                self.request(out, job, request);
            }
        }
    }

    /// Asks about the transactions of old markers in one database.
    pub(super) fn sweep(&mut self, out: &mut Outside) {
        let ms = out.random.between(7_000, 12_000);
        out.agent_later(ms, self.me(), AgentEvent::Sweep);
        // One after the other.
        self.sweeps += 1;
        let Some(database) = self
            .databases
            .get(self.sweeps % self.databases.len().max(1))
            .copied()
        else {
            return;
        };
        let made_before = out.now.saturating_sub(MARKER_AGE_MS);
        if !out.databases[database].up || !self.connected {
            return;
        }
        let markers = out.databases[database].old_markers(made_before);
        if markers.is_empty() {
            return;
        }
        let tag = self.next_number();
        let (name, count) = (out.databases[database].resource.clone(), markers.len());
        out.note(self.me().address, None, || {
            format!("asks about {count} old markers in {name}")
        });
        self.sweep = Some((tag, database));
        let mut xids: Vec<_> = markers.into_iter().map(|(xid, _)| xid).collect();
        xids.dedup();
        out.ask(self.me(), tag, Ask::Ended(xids));
    }

    /// Deletes the markers of transactions that have ended.
    pub(super) fn swept(&mut self, out: &mut Outside, tag: u64, ended: &[accede_core::Xid]) {
        let Some((_, database)) = self.sweep.take_if(|(asked, _)| *asked == tag) else {
            return;
        };
        let made_before = out.now.saturating_sub(MARKER_AGE_MS);
        let database = &mut out.databases[database];
        if !database.up {
            return;
        }
        let old: Vec<BranchKey> = database.old_markers(made_before);
        for key in old.into_iter().filter(|(xid, _)| ended.contains(xid)) {
            database.drop_marker(key);
        }
    }
}
