//! Keeps a noisy disk out of a measurement.
//!
//! Forced writes of one shared disk come in two kinds, quick and forty times slower, in stretches
//! of seconds. Before each round a short burst of forced writes is timed; the round waits, but
//! not for ever, until they are about as quick as they were at best.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tempfile::NamedTempFile;

use crate::{clock, report};

/// How long one burst takes.
const BURST: Duration = Duration::from_millis(150);
/// Bursts at the start, to learn what the disk can do.
const FIRST_BURSTS: u32 = 5;
/// A disk is quiet when a burst reaches this part of the best one.
const QUIET_SHARE: f64 = 0.5;
/// Bytes of one write.
const WRITE_BYTES: usize = 4096;
/// Writes before the file starts over.
const WRITES_PER_FILE: u64 = 1024;

/// Tells whether the disk is quiet.
pub(crate) struct Gate {
    file: NamedTempFile,
    best: f64,
    patience: Duration,
    noisy: u32,
    waits: u32,
}

impl Gate {
    /// Learns what the disk under `folder` can do. `patience` is how long one round may wait.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) async fn new(folder: &Path, patience: Duration) -> anyhow::Result<Self> {
        let file = NamedTempFile::new_in(folder)
            .with_context(|| format!("cannot write to {}", folder.display()))?;
        // Zeros first: a write that grows the file costs a different price.
        let zeros = vec![0; WRITE_BYTES * WRITES_PER_FILE as usize];
        file.as_file().write_all_at(&zeros, 0)?;
        file.as_file().sync_all()?;
        let mut gate = Self {
            file,
            best: 0.0,
            patience,
            noisy: 0,
            waits: 0,
        };
        for _ in 0..FIRST_BURSTS {
            gate.burst().await?;
        }
        report::progress(format!("disk: {:.0} forced writes/s at best", gate.best));
        Ok(gate)
    }

    /// Waits for a quiet disk. Answers whether it stayed noisy.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<bool> {
        let until = clock::now() + self.patience;
        self.waits += 1;
        loop {
            let rate = self.burst().await?;
            if rate >= QUIET_SHARE * self.best {
                return Ok(false);
            }
            if clock::now() >= until {
                self.noisy += 1;
                report::progress(format!(
                    "noisy disk: {rate:.0} forced writes/s, {:.0} at best; measuring all the same",
                    self.best
                ));
                return Ok(true);
            }
        }
    }

    /// Says in the end how far the figures can be trusted.
    pub(crate) fn summary(&self) {
        if self.noisy > 0 {
            report::progress(format!(
                "the disk was noisy before {} of {} measurements; their rounds count only where no \
                 quiet one exists",
                self.noisy, self.waits
            ));
        }
    }

    async fn burst(&mut self) -> anyhow::Result<f64> {
        let file = self.file.reopen()?;
        let rate = tokio::task::spawn_blocking(move || burst(&file, clock::now() + BURST))
            .await
            .context("the probe of the disk panicked")??;
        self.best = self.best.max(rate);
        Ok(rate)
    }
}

/// Forced writes per second until `until`.
fn burst(file: &File, until: Instant) -> std::io::Result<f64> {
    let bytes = [7; WRITE_BYTES];
    let start = clock::now();
    let mut writes = 0_u64;
    loop {
        file.write_all_at(&bytes, writes % WRITES_PER_FILE * WRITE_BYTES as u64)?;
        file.sync_data()?;
        writes += 1;
        let now = clock::now();
        if now >= until {
            return Ok(writes as f64 / (now - start).as_secs_f64());
        }
    }
}
