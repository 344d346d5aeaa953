//! A transaction stands still in a database. If the one that holds what it needs there waits here
//! for it, nobody sees the whole circle: whoever waits here and may be that one lets go.

#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    command::Blocked,
    handle::Context,
    reply::{Rejection, Reply},
};

impl Context<'_> {
    /// Has nothing to refuse: news of a transaction that is decided, forgotten or not begun comes
    /// too late or too early to matter.
    pub(crate) fn blocked(&mut self, command: Blocked) -> Reply {
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::BlockedIgnored) {
            return Reply::Ok;
        }
        // The first that is found is refused for sure, so this ends.
        loop {
            let held_up = self.state.held_up_by(command.xid);
            if held_up.is_empty() {
                return Reply::Ok;
            }
            for (ticket, holder) in held_up {
                // One that left may have cleared the way for the next, which may still wait for
                // another of those who stand still.
                if self.state.locks.waits_for(ticket, holder) {
                    self.refuse_ticket(ticket, Rejection::HolderBlocked { holder });
                }
            }
        }
    }
}
