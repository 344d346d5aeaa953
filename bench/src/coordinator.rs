//! The coordinator under measurement: the real daemon, in its own process.

use std::{path::Path, time::Duration};

use accede_proto::v1::{CoordinatorStatus, GetStatusRequest, operator_client::OperatorClient};
use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{
    child::{Running, free_port},
    clock,
};

/// How long it may take to come up.
const START: Duration = Duration::from_secs(30);
/// Pause between two looks whether it is up.
const LOOK: Duration = Duration::from_millis(50);

/// A running coordinator on a data directory of its own.
pub(crate) struct Coordinator {
    running: Running,
    /// Where it listens, like `http://127.0.0.1:7700`.
    pub(crate) address: String,
    operator: OperatorClient<Channel>,
}

impl Coordinator {
    /// Starts `program serve` and waits until it leads.
    ///
    /// # Errors
    /// When it does not come up; the message shows what it wrote.
    pub(crate) async fn start(program: &Path) -> anyhow::Result<Self> {
        if !program.is_file() {
            bail!(
                "there is no {}: build it with `cargo build --release -p accede-cli`, or say \
                 where it is with --accede",
                program.display()
            );
        }
        let folder = TempDir::with_prefix("accede-bench-")?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let data = folder.path().join("data");
        let words = [
            program.as_os_str(),
            "serve".as_ref(),
            "--data-dir".as_ref(),
            data.as_os_str(),
            "--listen".as_ref(),
            listen.as_ref(),
        ];
        let running = Running::start("the coordinator", "TERM", folder, words)?;
        let address = format!("http://{listen}");
        let channel = Endpoint::from_shared(address.clone())?.connect_lazy();
        let mut coordinator = Self {
            running,
            address,
            operator: OperatorClient::new(channel),
        };
        let until = clock::now() + START;
        loop {
            match coordinator.status().await {
                Ok(status) if status.leader => return Ok(coordinator),
                other if clock::now() >= until => {
                    let problem = other.map_or_else(
                        |error| format!("{error:#}"),
                        |_| "it does not lead".to_owned(),
                    );
                    bail!(
                        "the coordinator does not come up: {problem}; {}",
                        coordinator.running.tail()
                    );
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn status(&mut self) -> anyhow::Result<CoordinatorStatus> {
        let status = self.operator.get_status(GetStatusRequest {}).await;
        Ok(status
            .context("the coordinator does not tell its status")?
            .into_inner())
    }

    /// The last lines that it wrote.
    pub(crate) fn tail(&self) -> String {
        self.running.tail()
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it does not end.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.running.stop().await
    }
}
