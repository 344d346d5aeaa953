//! What a daemon is started with.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use accede_core::{Retention, limits as core_limits};

use accede_log::{ClusterId, LogConfig, SnapshotEvery, fs::Fs};

use crate::{
    Error,
    archive::ArchiveConfig,
    callbacks::{Allowed, Trust},
    limits,
};

/// The port unless configured.
pub const DEFAULT_PORT: u16 = 7700;

/// Everything that can be set. Start from [`ServerConfig::new`] and change what must differ.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The directory that holds the log; created if absent.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Listen also off loopback, where nothing protects the port.
    pub insecure: bool,
    /// Shown to operators, for example the host's name.
    pub name: String,
    /// The cluster the directory must belong to; `None`: the one on disk, or a new one.
    pub cluster_id: Option<ClusterId>,
    /// Bytes of one log segment; at least [`limits::MIN_SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// A snapshot is taken after this many log entries …
    pub snapshot_entries: u64,
    /// … or this many bytes of them.
    pub snapshot_bytes: u64,
    /// How long an ended transaction stays known …
    pub retention: Duration,
    /// … and how many are known at most, the oldest forgotten first.
    pub retention_transactions: u64,
    /// The directory of the archive of ended transactions; `None`: there is none.
    pub archive: Option<PathBuf>,
    /// Bytes of the archive at most; its oldest file goes first.
    pub archive_bytes: u64,
    /// Prefixes of the URLs that the coordinator may call for steps of sagas; none: it calls none.
    pub saga_callbacks: Vec<String>,
    /// A file with certificates, in PEM, of authorities that are trusted beside the system's when
    /// URLs are called by TLS.
    pub saga_callback_ca: Option<PathBuf>,
    /// The file system below the log; crash tests put a simulated one here.
    pub fs: Arc<dyn Fs>,
}

impl ServerConfig {
    /// The defaults: loopback, port 7700.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let log = LogConfig::new("");
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            insecure: false,
            name: "accede".to_owned(),
            cluster_id: None,
            segment_bytes: log.segment_bytes,
            snapshot_entries: log.snapshot_every.entries,
            snapshot_bytes: log.snapshot_every.bytes,
            retention: Duration::from_millis(core_limits::RETENTION_MS),
            retention_transactions: core_limits::RETENTION_TRANSACTIONS,
            archive: None,
            archive_bytes: limits::ARCHIVE_BYTES,
            saga_callbacks: Vec::new(),
            saga_callback_ca: None,
            fs: log.fs,
        }
    }

    /// Refuses what cannot work, before anything is touched.
    ///
    /// # Errors
    /// [`Error::OffLoopback`] and [`Error::Setting`].
    pub fn check(&self) -> Result<(), Error> {
        if !self.insecure && !self.listen.ip().is_loopback() {
            return Err(Error::OffLoopback {
                address: self.listen,
            });
        }
        let range = limits::MIN_SEGMENT_BYTES..=accede_log::MAX_SEGMENT_BYTES;
        if !range.contains(&self.segment_bytes) {
            return Err(setting(
                "segment_bytes",
                &self.segment_bytes,
                format!("it must lie between {} and {}", range.start(), range.end()),
            ));
        }
        for (name, value) in [
            ("snapshot_entries", self.snapshot_entries),
            ("snapshot_bytes", self.snapshot_bytes),
        ] {
            if value == 0 {
                return Err(setting(name, &value, "it must be at least 1".into()));
            }
        }
        let most = Duration::from_millis(core_limits::MAX_RETENTION_MS);
        let range = Duration::from_millis(core_limits::MIN_RETENTION_MS)..=most;
        if !range.contains(&self.retention) {
            let reason = format!("it must lie between {:?} and {most:?}", range.start());
            return Err(setting(
                "retention",
                &format!("{:?}", self.retention),
                reason,
            ));
        }
        let range =
            core_limits::MIN_RETENTION_TRANSACTIONS..=core_limits::MAX_RETENTION_TRANSACTIONS;
        if !range.contains(&self.retention_transactions) {
            return Err(setting(
                "retention_transactions",
                &self.retention_transactions,
                format!("it must lie between {} and {}", range.start(), range.end()),
            ));
        }
        if self.archive_bytes < limits::MIN_ARCHIVE_BYTES {
            let reason = format!("it must be at least {}", limits::MIN_ARCHIVE_BYTES);
            return Err(setting("archive_bytes", &self.archive_bytes, reason));
        }
        if let Some(archive) = &self.archive
            && archive.starts_with(&self.data_dir)
        {
            let reason = "it must have a directory of its own, outside of data_dir".to_owned();
            return Err(setting("archive", &archive.display(), reason));
        }
        self.trust()?;
        if self.name.is_empty() || self.name.len() > accede_core::limits::MAX_NAME_BYTES {
            let most = accede_core::limits::MAX_NAME_BYTES;
            let reason = format!("it must have 1 to {most} bytes");
            return Err(setting("name", &format!("{:?}", self.name), reason));
        }
        Ok(())
    }

    /// The URLs that may be called.
    pub(crate) fn callbacks(&self) -> Result<Allowed, Error> {
        let prefixes = &self.saga_callbacks;
        if prefixes.len() > limits::CALLBACK_PREFIXES {
            let reason = format!("at most {} are allowed", limits::CALLBACK_PREFIXES);
            let value = format!("{} prefixes", prefixes.len());
            return Err(setting("saga_callbacks", &value, reason));
        }
        Allowed::read(prefixes.iter().map(String::as_str))
            .map_err(|why| setting("saga_callbacks", &prefixes.join(" "), why))
    }

    /// Who is believed to be the service behind a URL.
    pub(crate) fn trust(&self) -> Result<Trust, Error> {
        let uses_tls = self.callbacks()?.uses_tls();
        let file = self.saga_callback_ca.as_deref();
        Trust::read(uses_tls, file).map_err(|reason| {
            let value = file.map_or("none".to_owned(), |file| file.display().to_string());
            setting("saga_callback_ca", &value, reason)
        })
    }

    pub(crate) fn archive(&self) -> Option<ArchiveConfig> {
        Some(ArchiveConfig {
            directory: self.archive.clone()?,
            bytes: self.archive_bytes,
        })
    }

    pub(crate) fn retention(&self) -> Retention {
        Retention {
            ms: u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX),
            transactions: self.retention_transactions,
        }
    }

    pub(crate) fn log(&self) -> LogConfig {
        let mut log = LogConfig::new(&self.data_dir);
        log.cluster_id = self.cluster_id;
        log.segment_bytes = self.segment_bytes;
        log.fs = Arc::clone(&self.fs);
        log.snapshot_every = SnapshotEvery {
            entries: self.snapshot_entries,
            bytes: self.snapshot_bytes,
        };
        log
    }
}

fn setting(setting: &'static str, value: &dyn ToString, reason: String) -> Error {
    Error::Setting {
        setting,
        value: value.to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut ServerConfig)) -> String {
        let mut config = ServerConfig::new("/d");
        change(&mut config);
        config.check().expect_err("refused").to_string()
    }

    #[test]
    fn defaults_can_work() {
        ServerConfig::new("/d").check().expect("sound");
        let mut open = ServerConfig::new("/d");
        open.listen.set_ip([0, 0, 0, 0].into());
        open.insecure = true;
        open.check().expect("the operator said so");
    }

    #[test]
    fn what_cannot_work_is_named() {
        let text = refused(|config| config.listen.set_ip([0, 0, 0, 0].into()));
        assert!(text.contains("0.0.0.0:7700") && text.contains("--insecure"));
        assert!(refused(|config| config.segment_bytes = 1).contains("segment_bytes"));
        assert!(refused(|config| config.snapshot_entries = 0).contains("snapshot_entries"));
        assert!(refused(|config| config.snapshot_bytes = 0).contains("snapshot_bytes"));
        let short = refused(|config| config.retention = Duration::from_millis(9_999));
        assert!(
            short.contains("retention") && short.contains("10s"),
            "{short}"
        );
        assert!(refused(|config| config.retention = Duration::MAX).contains("retention"));
        for count in [999, 1_048_577] {
            let text = refused(|config| config.retention_transactions = count);
            assert!(text.contains("retention_transactions"), "{text}");
        }
        assert!(refused(|config| config.archive_bytes = 1).contains("archive_bytes"));
        let same = refused(|config| config.archive = Some("/d/history".into()));
        assert!(
            same.contains("archive") && same.contains("data_dir"),
            "{same}"
        );
        let none = refused(|config| config.saga_callback_ca = Some("/nowhere/ca.pem".into()));
        assert!(
            none.contains("saga_callback_ca cannot be /nowhere/ca.pem"),
            "{none}"
        );
        assert!(refused(|config| config.name.clear()).contains("name"));
        assert!(refused(|config| config.name = "x".repeat(1000)).contains("name"));
    }
}
