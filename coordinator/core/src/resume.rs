//! What a new leader owes, rebuilt from the state alone.

#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    effect::{Effect, Effects},
    state::State,
};

impl State {
    /// Every order that is out according to the state. To be carried out after the leader's own
    /// `TakeOffice` is applied; agents answer a repeated order like the first.
    ///
    /// Those who wait for locks or for a commit ask again by themselves when their stream breaks.
    #[must_use]
    pub fn resume(&self) -> Effects {
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::OrdersLostInRestart) {
            return Effects::new();
        }
        self.transactions
            .after(None)
            .filter(|t| !t.status.has_ended())
            .flat_map(|t| {
                t.branches
                    .iter()
                    .filter(|b| b.is_ordered())
                    .map(|b| Effect::Order(t.order(b, self.epoch)))
            })
            .collect()
    }
}
