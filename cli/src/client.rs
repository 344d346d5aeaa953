//! Asks a coordinator, and turns what goes wrong into one sentence.

use std::{error::Error as _, time::Duration};

use accede_link::session::normalize_address;
use accede_proto::v1::operator_client::OperatorClient;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::failure::Failure;

/// How long an attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// The largest answer: a full list of transactions.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A connection to one coordinator.
#[derive(Debug)]
pub(crate) struct Coordinator {
    address: String,
    /// What it can be asked.
    pub(crate) operator: OperatorClient<Channel>,
}

impl Coordinator {
    /// Connects.
    ///
    /// # Errors
    /// When the address is none, or nothing answers there.
    pub(crate) async fn connect(address: &str) -> Result<Self, Failure> {
        let address = normalize_address(address).map_err(Failure::usage)?;
        let endpoint = Endpoint::from_shared(address.clone()).map_err(Failure::usage)?;
        let endpoint = endpoint.connect_timeout(CONNECT).timeout(ANSWER);
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| unreachable(&address, &innermost(&error)))?;
        let operator = OperatorClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Self { address, operator })
    }

    /// What a failed call means.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        let address = &self.address;
        let message = status.message().trim();
        match status.code() {
            Code::Unimplemented => Failure::failed(format!(
                "{address} does not know this question: it is no coordinator, or one of another \
                 version"
            )),
            Code::Unavailable if status.source().is_some() => unreachable(
                address,
                &status.source().map_or_else(String::new, innermost),
            ),
            Code::Cancelled | Code::DeadlineExceeded => Failure::failed(format!(
                "{address} did not answer within {} s",
                ANSWER.as_secs()
            )),
            _ if message.is_empty() => Failure::failed(format!(
                "{address} refused without a reason ({:?})",
                status.code()
            )),
            _ => Failure::failed(message),
        }
    }
}

fn unreachable(address: &str, reason: &str) -> Failure {
    Failure::failed(format!(
        "cannot reach a coordinator at {address}: {reason}; start one with `accede serve`, or \
         name another address with --coordinator or ACCEDE_COORDINATOR"
    ))
}

/// The error at the bottom, which says what happened.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let text = last.to_string();
    // The operating system's number helps nobody.
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_without_a_listener_is_one_sentence() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("bound").to_string();
        drop(free);
        let failure = Coordinator::connect(&address)
            .await
            .expect_err("nobody listens");
        let text = failure.to_string();
        assert!(
            text.contains("connection refused; start one with"),
            "{text}"
        );
        assert_eq!(failure.code(), 1);
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_wrong_use() {
        for bad in [
            "https://127.0.0.1:7700",
            "http://127.0.0.1",
            "http://:1",
            "a b",
        ] {
            let failure = Coordinator::connect(bad).await.expect_err(bad);
            assert_eq!(failure.code(), 2, "{failure}");
            assert!(
                failure.to_string().contains("http://127.0.0.1:7700"),
                "{failure}"
            );
        }
    }

    #[tokio::test]
    async fn refusals_are_told_as_they_are() {
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let coordinator = Coordinator {
            address: "http://127.0.0.1:1".to_owned(),
            operator: OperatorClient::new(channel),
        };
        for (status, expected) in [
            (
                Status::not_found("transaction 1 was never begun"),
                "transaction 1 was never begun",
            ),
            (Status::internal(""), "refused without a reason (Internal)"),
            (Status::unimplemented(""), "no coordinator"),
            (Status::deadline_exceeded(""), "did not answer within 30 s"),
            (Status::unavailable("shutting down"), "shutting down"),
        ] {
            let text = coordinator.failure(&status).to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
