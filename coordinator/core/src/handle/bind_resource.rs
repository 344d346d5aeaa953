//! Tying a resource's name to one database, both ways: two databases under one name would mix
//! their rows, two names for one database would split its row locks.

use super::size;
use crate::{
    command::BindResource,
    handle::Context,
    reply::{Rejection, Reply},
};

impl Context<'_> {
    pub(crate) fn bind_resource(&mut self, command: &BindResource) -> Reply {
        if let Err(rejection) = size::name("a resource's name", &command.resource) {
            return Reply::Refused(rejection);
        }
        if self.state.actions.contains(&command.resource) {
            return Reply::Refused(Rejection::ResourceIsAction);
        }
        let bound =
            self.state.databases.iter().find(|(name, database)| {
                **name == command.resource || **database == command.database
            });
        match bound {
            Some((name, database))
                if *name == command.resource && *database == command.database =>
            {
                Reply::Ok
            }
            Some((resource, database)) => Reply::Refused(Rejection::ResourceMismatch {
                resource: resource.clone(),
                database: *database,
            }),
            None => {
                self.state
                    .databases
                    .insert(command.resource.clone(), command.database);
                Reply::Ok
            }
        }
    }
}
