//! Leaves the shop running, and stops it later.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::{shop::Shop, wait::until};

/// Which processes a folder belongs to.
const FILE: &str = "processes.json";
/// How long one may take to stop in order before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    name: String,
    pid: i32,
    /// Tells it from another process that got the same id since, with its id.
    started: u64,
    signal: i32,
}

/// Writes down what runs and leaves it; returns the folder.
pub(crate) fn leave(shop: Shop) -> Result<PathBuf> {
    let mut all = Vec::new();
    for process in shop.running() {
        let pid = i32::try_from(process.id())?;
        all.push(Kept {
            name: process.name().to_owned(),
            pid,
            started: started(pid).with_context(|| format!("{} is gone", process.name()))?,
            signal: process.stop_signal().as_raw(),
        });
    }
    fs::write(shop.home().join(FILE), serde_json::to_vec_pretty(&all)?)?;
    Ok(shop.leave())
}

/// Stops what was left running there and removes the folder.
pub(crate) async fn stop(folder: &Path) -> Result<()> {
    let file = folder.join(FILE);
    let text = fs::read(&file).with_context(|| {
        format!(
            "{} cannot be read: is this the folder that --keep named?",
            file.display()
        )
    })?;
    let kept: Vec<Kept> =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
    // In the order in which they were written: the services before what they need.
    for process in &kept {
        process.stop().await?;
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

impl Kept {
    fn runs(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    fn send(&self, signal: Signal) -> Result<()> {
        if !self.runs() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid).context("a process id of 0")?;
        kill_process(pid, signal).with_context(|| format!("cannot stop {}", self.name))
    }

    async fn gone(&self) -> Result<()> {
        until(
            format_args!("{} has stopped", self.name),
            STOP_LIMIT,
            async || {
                if self.runs() {
                    bail!("it still runs");
                }
                Ok(())
            },
        )
        .await
    }

    async fn stop(&self) -> Result<()> {
        let signal = Signal::from_named_raw(self.signal);
        ensure!(signal.is_some(), "signal {} is unknown", self.signal);
        self.send(signal.unwrap_or(Signal::TERM))?;
        if self.gone().await.is_err() {
            self.send(Signal::KILL)?;
            self.gone().await?;
        }
        Ok(())
    }
}

/// When a process started, in the kernel's ticks; nothing if it runs no more.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_apart() {
        let own = i32::try_from(std::process::id()).expect("small");
        assert_eq!(started(own), started(own));
        assert!(started(own).is_some());
        assert_eq!(started(i32::MAX), None);
        let other = Kept {
            name: "other".into(),
            pid: own,
            started: 1,
            signal: Signal::KILL.as_raw(),
        };
        assert!(!other.runs());
        other.send(Signal::KILL).expect("does nothing");
    }

    #[tokio::test]
    async fn other_folders_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = stop(folder.path()).await.unwrap_err();
        assert!(
            format!("{error:#}").contains("is this the folder"),
            "{error:#}"
        );
        assert!(folder.path().exists());
    }
}
