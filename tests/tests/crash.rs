//! The daemon is killed again and again at random moments under load; whatever it acknowledged is
//! found again, and no branch ends against its transaction.

use std::time::Duration;

use accede_proto::v1::{GetStatusRequest, operator_client::OperatorClient};
use accede_tests::{
    agent::Agent,
    daemon::{Daemon, free_port},
    eventually,
    load::{Load, broken_promises, torn_branches},
    setting,
};
use rand::RngExt as _;

/// Clients at work while the daemon dies.
const CLIENTS: u64 = 24;
/// Promises that are looked up after each kill: those of about its last second.
const NEWEST: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_decision_survives_any_number_of_kills() -> anyhow::Result<()> {
    let kills = setting("ACCEDE_TEST_KILLS", 50);
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let port = free_port();
    let mut daemon = Daemon::start(&data, port).await?;
    let url = daemon.url();
    let agent = Agent::start(url.clone(), Default::default());
    let load = Load::start(&url, CLIENTS, Default::default())?;
    for kill in 0..kills {
        let uptime = rand::rng().random_range(5..250);
        tokio::time::sleep(Duration::from_millis(uptime)).await;
        let before = load.promises.lock().expect("no holder panics").clone();
        daemon.kill()?;
        daemon = Daemon::start(&data, port).await?;
        // The newest are in most danger; all are looked up in the end.
        let newest = &before[before.len().saturating_sub(NEWEST)..];
        let broken = broken_promises(&url, newest).await?;
        assert!(broken.is_empty(), "after kill {kill}: {broken:#?}");
    }
    let promises = std::sync::Arc::clone(&load.promises);
    load.finish().await;
    let open = eventually("everything ends", Duration::from_secs(60), async || {
        let mut client = OperatorClient::connect(url.clone()).await.ok()?;
        let status = client
            .get_status(GetStatusRequest {})
            .await
            .ok()?
            .into_inner();
        let open = ["active", "committing", "rolling_back", "stuck"];
        let open: u64 = open
            .iter()
            .filter_map(|s| status.transactions.get(*s))
            .sum();
        (open == 0 && status.row_locks == 0).then_some(open)
    });
    open.await?;
    let promises = promises.lock().expect("no holder panics").clone();
    let broken = broken_promises(&url, &promises).await?;
    assert!(broken.is_empty(), "in the end: {broken:#?}");
    let torn = torn_branches(&promises, &agent.done);
    assert!(torn.is_empty(), "{torn:#?}");
    assert!(
        promises.len() as u64 > kills,
        "the load got somewhere: {}",
        promises.len()
    );
    println!("{kills} kills, {} promises, all kept", promises.len());
    Ok(())
}
