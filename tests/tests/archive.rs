//! The archive of ended transactions beside a real daemon that is killed.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path, time::Duration};

use accede_tests::{
    agent::{Agent, Done},
    bulk::{Bulk, Until},
    daemon::{Daemon, binary, free_port},
    eventually,
};

const SOON: Duration = Duration::from_secs(40);
const PART: u64 = 1_200;

async fn start(folder: &Path, port: u16) -> anyhow::Result<Daemon> {
    let archive = folder.join("history").display().to_string();
    let arguments = ["--archive", &archive, "--archive-bytes", "16MiB"];
    let daemon = Daemon::spawn_as(binary(), &folder.join("data"), port, &arguments)?;
    daemon.serving(SOON).await
}

/// How often each XID stands in the archive; a torn last line counts for nothing.
fn archived(folder: &Path) -> anyhow::Result<BTreeMap<String, u32>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder.join("history"))? {
        let text = fs::read_to_string(entry?.path())?;
        for line in text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            let (_, rest) = line
                .split_once("{\"xid\":\"")
                .unwrap_or_else(|| panic!("no transaction: {line}"));
            assert!(line.contains("\"outcome\":\"committed\""), "{line}");
            *found.entry(rest[..16].to_owned()).or_default() += 1;
        }
    }
    Ok(found)
}

async fn all_archived(folder: &Path, count: u64) -> anyhow::Result<BTreeMap<String, u32>> {
    let what = format!("{count} transactions are in the archive");
    eventually(&what, SOON, async || {
        archived(folder)
            .ok()
            .filter(|found| found.len() as u64 == count)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_transaction_stands_there_after_kills() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let port = free_port();
    for part in 1..=3 {
        let daemon = start(folder.path(), port).await?;
        let mut bulk = Bulk::connect(&daemon.url()).await?;
        bulk.run(PART, Until::Finished).await?;
        drop(bulk);
        // At once: some of them are not written yet.
        daemon.kill()?;
        if part == 2 {
            // As if it had been killed in the middle of a line.
            let newest = fs::read_dir(folder.path().join("history"))?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .filter(|path| path.extension().is_some_and(|suffix| suffix == "jsonl"))
                .max()
                .expect("there is one");
            let mut file = fs::OpenOptions::new().append(true).open(newest)?;
            file.write_all(b"{\"xid\":\"0000")?;
        }
    }
    let daemon = start(folder.path(), port).await?;
    // Finishes what the kills left.
    let _agent = Agent::start(daemon.url(), Done::default());
    let found = all_archived(folder.path(), 3 * PART).await?;
    let twice = found.values().filter(|times| **times > 1).count();
    println!("{} archived, {twice} of them more than once", found.len());
    // Only those of the last instant before each kill, which may be all of one large batch.
    assert!((twice as u64) < 3 * PART / 2, "{twice} twice");
    drop(daemon);
    Ok(())
}
