//! The client against a scripted coordinator that speaks the real protocol over
//! loopback.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failed unwrap fails the test; the modules share helpers"
)]

mod begins;
mod ends;
mod fake;
mod hooks;
mod leases;
mod macros;
mod propagation;
mod sagas;

use std::time::Duration;

use accede_tm_client::{Options, SessionLimits, TransactionClient, TransactionClientBuilder};
use fake::Fake;

/// A client that comes back fast.
fn builder(url: String) -> TransactionClientBuilder {
    TransactionClient::builder(url)
        .name("test")
        .session_limits(SessionLimits {
            backoff_first: Duration::from_millis(5),
            backoff_longest: Duration::from_millis(20),
            ..SessionLimits::default()
        })
}

async fn client(fake: &Fake) -> TransactionClient {
    let client = builder(fake.url()).build().unwrap();
    client.ready().await.unwrap();
    client
}

fn options() -> Options {
    Options::new("test")
}
