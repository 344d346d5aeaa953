//! The arguments of an action on their way: JSON with the version of its form.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Action;
use crate::{error::Error, limits::MAX_PAYLOAD_BYTES, store::finish::PhaseTwoError};

#[derive(Serialize)]
struct Outgoing<'a, A> {
    version: u32,
    arguments: &'a A,
}

#[derive(Deserialize)]
struct Incoming<A> {
    arguments: A,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The bytes that are registered.
pub(super) fn encode<A: Serialize>(
    version: u32,
    arguments: &A,
    resource: &str,
) -> Result<Bytes, Error> {
    let bytes = serde_json::to_vec(&Outgoing { version, arguments }).map_err(|error| {
        Error::Configuration(format!(
            "the arguments of {resource:?} cannot be written as JSON: {error}"
        ))
    })?;
    if bytes.len() > MAX_PAYLOAD_BYTES {
        return Err(Error::TooLarge {
            what: format!("the arguments of {resource:?} of {} bytes", bytes.len()),
            limit: MAX_PAYLOAD_BYTES,
        });
    }
    Ok(bytes.into())
}

/// The arguments that come back with an order.
pub(super) fn decode<A: Action>(action: &A, payload: &[u8]) -> Result<A::Arguments, PhaseTwoError> {
    let resource = action.resource();
    let unreadable = |why: String| {
        PhaseTwoError::stuck(format!(
            "the arguments of {resource:?} cannot be read: {why}; run a service that can, then \
             repair with retry"
        ))
    };
    let Versioned { version } =
        serde_json::from_slice(payload).map_err(|error| unreadable(error.to_string()))?;
    if version > A::VERSION {
        // Another process may know it, or this one soon: services are not replaced all at once.
        return Err(PhaseTwoError::Failed {
            reason: format!(
                "the arguments of {resource:?} have version {version}, this service knows {}: \
                 update it",
                A::VERSION
            ),
        });
    }
    if version == A::VERSION {
        let incoming: Incoming<A::Arguments> =
            serde_json::from_slice(payload).map_err(|error| unreadable(error.to_string()))?;
        return Ok(incoming.arguments);
    }
    let incoming: Incoming<serde_json::Value> =
        serde_json::from_slice(payload).map_err(|error| unreadable(error.to_string()))?;
    let upgraded = action.upgrade(version, incoming.arguments);
    upgraded.map_err(|why| unreadable(format!("they have version {version}: {why}")))
}
