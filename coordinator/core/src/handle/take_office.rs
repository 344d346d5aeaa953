//! A new leader begins: its epoch fences the orders of all earlier ones.

use crate::{command::TakeOffice, handle::Context, id::Epoch, limits::GRACE_MS, reply::Reply};

impl Context<'_> {
    pub(crate) fn take_office(&mut self, command: &TakeOffice, index: u64) -> Reply {
        assert!(index > self.state.epoch.0, "epochs grow with the log");
        self.state.epoch = Epoch(index);
        // Clients need time to find the new leader before anything of theirs expires.
        self.state.grace_until = self.state.now.plus(GRACE_MS);
        self.state.retention = command.retention.allowed();
        Reply::InOffice(self.state.epoch)
    }
}
