//! The wire types of Accede: what transaction managers, resource managers,
//! operators and the coordinator say to each other.
//!
//! The messages are generated from `proto/accede/v1/*.proto`; those files hold
//! their documentation. This is the only crate where they are generated.

pub mod callback;
mod xid;

pub use xid::{ParseXidError, XID_HEADER, XID_HEADER_SEATA, Xid, XidParts};

/// Version 1 of the protocol.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; the .proto files hold the documentation"
)]
pub mod v1 {
    tonic::include_proto!("accede.v1");

    /// The compiled descriptors of all services, for server reflection.
    pub const FILE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/accede.bin"));
}
