//! A branch joins with all its row locks, or not at all.

use super::size;
use crate::{
    command::RegisterBranch,
    handle::Context,
    limits::MAX_PAYLOAD_BYTES,
    mode::Mode,
    reply::{Rejection, Reply},
    row_lock::Wanted,
};

impl Context<'_> {
    pub(crate) fn register_branch(&mut self, command: RegisterBranch) -> Reply {
        if let Err(rejection) = check(&command) {
            return Reply::Refused(rejection);
        }
        self.want(Wanted::Register(command))
    }
}

fn check(command: &RegisterBranch) -> Result<(), Rejection> {
    size::name("a resource's name", &command.resource)?;
    let locks = command.locks.iter();
    size::locks(locks.map(|lock| (&lock.key, &lock.mode)))?;
    let payload = command.payload.len();
    size::check("a branch's payload", payload, MAX_PAYLOAD_BYTES)?;
    if !command.locks.is_empty() && !command.mode.takes_row_locks() {
        return Err(Rejection::Malformed(
            "only branches of AT and XA take row locks",
        ));
    }
    if !command.payload.is_empty() && !command.mode.takes_payload() {
        return Err(Rejection::Malformed("branches of AT carry no payload"));
    }
    if command.can_keep_open && command.mode != Mode::Xa {
        return Err(Rejection::Malformed("only branches of XA are kept open"));
    }
    Ok(())
}
