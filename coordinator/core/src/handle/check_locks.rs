//! Waits until no other transaction holds some rows, without taking them. The caller's local locks
//! keep them free from then on. It may be a local transaction outside of any global one, too.

use super::size;
use crate::{
    command::CheckLocks, handle::Context, lock_mode::LockMode, reply::Reply, row_lock::Wanted,
};

impl Context<'_> {
    pub(crate) fn check_locks(&mut self, command: CheckLocks) -> Reply {
        let locks = command.locks.iter();
        let locks = locks.map(|key| (key, &LockMode::Exclusive));
        let checked =
            size::name("a resource's name", &command.resource).and_then(|()| size::locks(locks));
        if let Err(rejection) = checked {
            return Reply::Refused(rejection);
        }
        self.want(Wanted::Check(command))
    }
}
