//! Making a name an action's. It cannot be a database's too: an agent that serves one would get
//! the other's orders.

use super::size;
use crate::{
    command::NameAction,
    handle::Context,
    limits::MAX_ACTIONS,
    reply::{Rejection, Reply},
};

impl Context<'_> {
    pub(crate) fn name_action(&mut self, command: &NameAction) -> Reply {
        match self.try_name_action(command) {
            Ok(()) => Reply::Ok,
            Err(rejection) => Reply::Refused(rejection),
        }
    }

    fn try_name_action(&mut self, command: &NameAction) -> Result<(), Rejection> {
        size::name("an action's name", &command.action)?;
        if self.state.databases.contains_key(&command.action) {
            return Err(Rejection::ResourceIsDatabase);
        }
        if !self.state.actions.contains(&command.action) {
            let found = self.state.actions.len() + 1;
            size::check("the number of all actions", found, MAX_ACTIONS)?;
            self.state.actions.insert(command.action.clone());
        }
        Ok(())
    }
}
