//! The same over a file system that loses everything after the last completed forced write, or
//! keeps torn pieces of it, before the log is opened again.

use std::{sync::Arc, time::Duration};

use accede_log::sim::{Faults, SimFs};
use accede_server::{Server, ServerConfig};
use accede_tests::{
    agent::Agent,
    eventually,
    load::{Load, Promises, broken_promises, torn_branches},
    setting,
};
use rand::RngExt as _;

const CLIENTS: u64 = 16;

fn config(fs: &SimFs) -> ServerConfig {
    let mut config = ServerConfig::new("/data");
    config.listen.set_port(0);
    // Small, so that segments are changed and recycled and snapshots taken in every life.
    config.segment_bytes = accede_server::limits::MIN_SEGMENT_BYTES;
    config.snapshot_entries = 500;
    config.fs = Arc::new(fs.clone());
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_decision_survives_power_losses() -> anyhow::Result<()> {
    let lives = setting("ACCEDE_TEST_POWER_LOSSES", 50);
    let seed = setting("ACCEDE_TEST_SEED", rand::rng().random());
    println!("ACCEDE_TEST_SEED={seed}");
    let mut fs = SimFs::new(seed);
    let promises = Promises::default();
    let done = accede_tests::agent::Done::default();
    let mut checked = 0;
    for life in 0..lives {
        let server = Server::start(config(&fs)).await?;
        let url = format!("http://{}", server.addr());
        let before = promises.lock().expect("no holder panics").clone();
        let broken = broken_promises(&url, &before[checked..]).await?;
        assert!(
            broken.is_empty(),
            "in life {life}, seed {seed}: {broken:#?}"
        );
        checked = before.len();
        let _agent = Agent::start(url.clone(), Arc::clone(&done));
        let load = Load::start(&url, CLIENTS, Arc::clone(&promises))?;
        eventually(
            "the load gets somewhere",
            Duration::from_secs(30),
            async || (promises.lock().expect("no holder panics").len() > checked).then_some(()),
        )
        .await?;
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..150))).await;
        // From here on nothing reaches the disk, while the coordinator still runs.
        fs.set_faults(Faults {
            power_off_at: Some(fs.operations()),
            ..Faults::default()
        });
        server.failed().await;
        load.abort().await;
        drop(server);
        fs = if life % 2 == 0 {
            fs.crash_losing_all()
        } else {
            fs.crash()
        };
    }
    let server = Server::start(config(&fs)).await?;
    let url = format!("http://{}", server.addr());
    let promises = promises.lock().expect("no holder panics").clone();
    let broken = broken_promises(&url, &promises).await?;
    assert!(broken.is_empty(), "in the end, seed {seed}: {broken:#?}");
    let torn = torn_branches(&promises, &done);
    assert!(torn.is_empty(), "{torn:#?}");
    assert!(
        promises.len() as u64 > lives,
        "the load got somewhere: {}",
        promises.len()
    );
    println!(
        "{lives} power losses, {} promises, all kept",
        promises.len()
    );
    server.shutdown().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_acknowledges_nothing_more_and_says_so() -> anyhow::Result<()> {
    let fs = SimFs::new(1);
    let server = Server::start(config(&fs)).await?;
    let url = format!("http://{}", server.addr());
    let promises = Promises::default();
    let _agent = Agent::start(url.clone(), Default::default());
    let load = Load::start(&url, CLIENTS, Arc::clone(&promises))?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    fs.set_faults(Faults {
        capacity: Some(0),
        ..Faults::default()
    });
    let failure = tokio::time::timeout(Duration::from_secs(30), server.failed()).await?;
    let text = failure.to_string();
    assert!(text.contains("/data") && text.contains("space"), "{text}");
    load.abort().await;
    drop(server);
    let fs = fs.crash_losing_all();
    let server = Server::start(config(&fs)).await?;
    let promises = promises.lock().expect("no holder panics").clone();
    let broken = broken_promises(&format!("http://{}", server.addr()), &promises).await?;
    assert!(broken.is_empty(), "{broken:#?}");
    server.shutdown().await?;
    Ok(())
}
