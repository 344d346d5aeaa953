//! A branch joins with all its row locks, or not at all.

use super::size;
use crate::{
    command::RegisterBranch,
    handle::Context,
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
    size::locks(locks.map(|lock| (&lock.key, &lock.mode)))
}
