//! What the resources' names stand for, and the memory that payloads take.

use crate::{
    id::Resource,
    limits::MAX_PAYLOAD_BYTES_IN_ALL,
    mode::Place,
    reply::Rejection,
    row_lock::Wanted,
    state::{Parked, State},
};

impl State {
    /// Whether a request's resource is known and is what the request is for.
    pub(crate) fn fits(&self, wanted: &Wanted) -> Result<(), Rejection> {
        let resource = wanted.resource();
        let is_database = self.databases.contains_key(resource);
        match wanted.place() {
            Place::Database if is_database => Ok(()),
            Place::Action if is_database => Err(Rejection::ResourceIsDatabase),
            Place::Action if self.actions.contains(resource) => Ok(()),
            Place::Database if self.actions.contains(resource) => Err(Rejection::ResourceIsAction),
            Place::Database | Place::Action => Err(Rejection::ResourceUnknown),
        }
    }

    /// The kept copy of a resource's name.
    pub(crate) fn name_of(&self, resource: Resource) -> Resource {
        let database = self.databases.get_key_value(&resource);
        let kept = database.map(|(name, _)| name);
        let kept = kept.or_else(|| self.actions.get(&resource)).cloned();
        kept.unwrap_or(resource)
    }

    /// Whether there is memory left for a payload.
    pub(crate) fn has_room_for(&self, payload_bytes: u64) -> Result<(), Rejection> {
        let limit = MAX_PAYLOAD_BYTES_IN_ALL;
        // Without a payload nothing is refused, however full it is.
        if payload_bytes > 0 && self.payload_bytes + payload_bytes > limit {
            return Err(Rejection::PayloadsFull { limit });
        }
        Ok(())
    }
}

impl Parked {
    /// Bytes of the payloads in it.
    pub(crate) fn payload_bytes(&self) -> u64 {
        let bytes = self.commands.iter().map(|command| command.payload_bytes());
        bytes.sum()
    }
}
