//! How a transaction travels from one service to the next: as HTTP headers.
//!
//! [`OutgoingXidLayer`] writes the headers of the caller's transaction into each
//! request of a tonic channel or any other tower HTTP client;
//! [`IncomingXidLayer`] reads them in a tonic server or an axum router and runs
//! the handler, and the response body that it streams, inside that transaction.
//! With the feature `reqwest`, `OutgoingXidMiddleware` does the client's part
//! for reqwest.
//!
//! | header | meaning |
//! |---|---|
//! | `x-accede-xid` | the transaction, 16 hex digits |
//! | `tx_xid` | the same under Seata's name; read, never written |
//! | `x-accede-deadline-ms` | milliseconds until the coordinator rolls back, counted from when the request was sent |
//!
//! A request without them is in no transaction. Headers that cannot be read are
//! refused (gRPC `INVALID_ARGUMENT`, HTTP 400): running such a request outside
//! of its transaction would make its writes permanent whatever becomes of the rest.
//!
//! Whoever may send these headers may join a transaction, so put the layer on
//! services that only your own services reach.

mod body;
mod headers;
mod incoming;
mod outgoing;
#[cfg(feature = "reqwest")]
mod reqwest_client;

pub use accede_proto::{XID_HEADER, XID_HEADER_SEATA};
pub use body::IncomingBody;
pub use headers::{DEADLINE_HEADER, InvalidHeader, read, write};
pub use incoming::{IncomingFuture, IncomingXid, IncomingXidLayer};
pub use outgoing::{OutgoingXid, OutgoingXidLayer};
#[cfg(feature = "reqwest")]
pub use reqwest_client::OutgoingXidMiddleware;
