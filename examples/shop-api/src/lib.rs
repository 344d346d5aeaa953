//! What the services of the example shop share: their gRPC interfaces, the kinds of
//! databases they can use, and with the feature `service` what every one of them
//! does in the same way.

pub mod database;
#[cfg(feature = "service")]
pub mod home;
pub mod mode;
#[cfg(feature = "service")]
pub mod service;
pub mod steps;

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
