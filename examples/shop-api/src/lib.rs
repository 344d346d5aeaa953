//! What the services of the example shop share: their gRPC interfaces, the kinds of
//! databases they can use, and with the feature `service` the few lines that every
//! one of them needs to run.

pub mod database;
pub mod mode;
#[cfg(feature = "service")]
pub mod service;

/// Version 1 of the interfaces, generated from `proto/shop/v1/shop.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; the .proto file holds the documentation"
)]
pub mod v1 {
    tonic::include_proto!("shop.v1");
}
