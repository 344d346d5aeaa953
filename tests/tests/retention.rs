//! How long ended transactions stay known is the leader's setting, and a restart can change it.

use std::{path::Path, time::Duration};

use accede_proto::v1::{GetStatusRequest, operator_client::OperatorClient};
use accede_tests::{
    bulk::{Bulk, Until},
    daemon::{Daemon, binary, free_port},
    eventually,
};

const SOON: Duration = Duration::from_secs(40);
const FINISHED: u64 = 1_500;

async fn start(data: &Path, port: u16, arguments: &[&str]) -> anyhow::Result<Daemon> {
    let daemon = Daemon::spawn_as(binary(), data, port, arguments)?;
    daemon.serving(SOON).await
}

/// Waits until so many committed transactions are known.
async fn known(daemon: &Daemon, count: u64) -> anyhow::Result<()> {
    let what = format!("{count} are known");
    let url = daemon.url();
    eventually(&what, SOON, async || {
        let mut client = OperatorClient::connect(url.clone()).await.ok()?;
        let status = client.get_status(GetStatusRequest {}).await.ok()?;
        let committed = *status.into_inner().transactions.get("committed")?;
        (committed == count).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_other_settings_forgets_more() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, port) = (folder.path().join("data"), free_port());
    let daemon = start(&data, port, &[]).await?;
    let mut bulk = Bulk::connect(&daemon.url()).await?;
    bulk.run(FINISHED, Until::Finished).await?;
    known(&daemon, FINISHED).await?;
    drop(bulk);
    daemon.kill()?;

    let daemon = start(&data, port, &["--retention-transactions", "1000"]).await?;
    known(&daemon, 1_000).await?;
    daemon.kill()?;

    // The larger bound does not bring back what is forgotten; the shorter time forgets the rest.
    let daemon = start(&data, port, &["--retention", "10s"]).await?;
    known(&daemon, 0).await?;
    Ok(())
}
