//! Callers whose answer comes later.

use std::collections::{HashMap, VecDeque};

use accede_core::{Reply, Waiter};

use crate::{limits::CALLERS_PER_WAITER, reply_to::ReplyTo, trouble::Trouble};

/// Who waits for what. The state machine bounds how many waiters there are, and ends each.
#[derive(Default)]
pub(super) struct Waiters(HashMap<Waiter, VecDeque<ReplyTo>>);

impl Waiters {
    /// Adds a caller; one that asked the same before may have gone away.
    pub(super) fn park(&mut self, waiter: Waiter, to: ReplyTo) {
        let callers = self.0.entry(waiter).or_default();
        callers.retain(|caller| !caller.is_gone());
        if callers.len() >= CALLERS_PER_WAITER {
            callers.pop_front();
        }
        callers.push_back(to);
    }

    /// Answers all callers of one waiter.
    pub(super) fn answer(&mut self, waiter: Waiter, reply: &Reply) {
        for caller in self.0.remove(&waiter).into_iter().flatten() {
            caller.answer(Ok(reply.clone()));
        }
    }

    /// Tells everybody that their answer will not come from here.
    pub(super) fn give_up(&mut self, why: &Trouble) {
        for caller in std::mem::take(&mut self.0).into_values().flatten() {
            caller.answer(Err(why.clone()));
        }
    }

    /// Forgets callers that went away.
    pub(super) fn sweep(&mut self) {
        self.0.retain(|_, callers| {
            callers.retain(|caller| !caller.is_gone());
            !callers.is_empty()
        });
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.values().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use accede_core::Xid;
    use tokio::sync::oneshot;

    fn waiter(n: u64) -> Waiter {
        Waiter::Commit(Xid::new(n).expect("an id"))
    }

    #[test]
    fn all_callers_are_answered_and_gone_ones_forgotten() {
        let mut waiters = Waiters::default();
        let (first, mut first_answer) = oneshot::channel();
        let (second, mut second_answer) = oneshot::channel();
        let (third, third_answer) = oneshot::channel();
        waiters.park(waiter(1), ReplyTo::Once(first));
        waiters.park(waiter(1), ReplyTo::Once(second));
        waiters.park(waiter(2), ReplyTo::Once(third));
        waiters.answer(waiter(1), &Reply::LocksFree);
        waiters.answer(waiter(9), &Reply::LocksFree);
        assert_eq!(first_answer.try_recv(), Ok(Ok(Reply::LocksFree)));
        assert_eq!(second_answer.try_recv(), Ok(Ok(Reply::LocksFree)));
        assert_eq!(waiters.len(), 1);
        drop(third_answer);
        waiters.sweep();
        assert_eq!(waiters.len(), 0);
    }

    #[test]
    fn one_waiter_has_a_bounded_number_of_callers() {
        let mut waiters = Waiters::default();
        let mut answers = Vec::new();
        for _ in 0..CALLERS_PER_WAITER + 3 {
            let (once, answer) = oneshot::channel();
            waiters.park(waiter(1), ReplyTo::Once(once));
            answers.push(answer);
        }
        assert_eq!(waiters.len(), CALLERS_PER_WAITER);
        waiters.give_up(&Trouble::NotLeader(None));
        let told = answers
            .iter_mut()
            .filter_map(|answer| answer.try_recv().ok());
        assert_eq!(told.count(), CALLERS_PER_WAITER);
    }
}
