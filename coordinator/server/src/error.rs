//! Why the daemon did not start, or ended.

use std::{io, net::SocketAddr, path::PathBuf};

use accede_log::{LogFailure, OpenError};

/// Why the daemon cannot start or go on. Each says what to do; none is helped by a retry alone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is reachable by others, and nothing protects it.
    #[error(
        "refusing to listen on {address}: it is not a loopback address, and this version has no \
         TLS and no authentication, so everybody who reaches it could decide transactions; \
         listen on 127.0.0.1, or start with --insecure if the network itself is closed"
    )]
    OffLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// Another program has the port, or the address is not this machine's.
    #[error(
        "cannot listen on {address}: {source}; is another coordinator running? Choose another \
         address with --listen"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// A setting that cannot work.
    #[error("the setting {setting} cannot be {value}: {reason}")]
    Setting {
        /// Its name in the configuration.
        setting: &'static str,
        /// What was given.
        value: String,
        /// Why it cannot work and what can.
        reason: String,
    },
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The archive's directory cannot be used.
    #[error(
        "the archive {} cannot be used: {source}; name another directory with --archive, or none",
        directory.display()
    )]
    Archive {
        /// The directory.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The log holds an entry that this version cannot read.
    #[error(
        "cannot go on: {0}. Nothing was skipped; start the version that wrote the entry, or \
         restore the data directory from a backup"
    )]
    Entry(String),
    /// The log has failed; what was not acknowledged may or may not be in it.
    #[error(transparent)]
    Log(#[from] LogFailure),
    /// This daemon did not become the leader of its cluster.
    #[error(
        "this daemon did not become the leader within {seconds} s; look at its log for the reason"
    )]
    NoOffice {
        /// How long it waited.
        seconds: u64,
    },
    /// A part of the daemon ended by itself: a bug.
    #[error("the {part} ended by itself, which is a bug; start again and report it")]
    Ended {
        /// Which part.
        part: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_says_what_to_do() {
        let address = SocketAddr::from(([10, 0, 0, 1], 7700));
        let cases = [
            (Error::OffLoopback { address }, "--insecure"),
            (
                Error::Bind {
                    address,
                    source: io::Error::other("in use"),
                },
                "another coordinator running",
            ),
            (
                Error::Setting {
                    setting: "segment_bytes",
                    value: "1".into(),
                    reason: "at least 8 MiB".into(),
                },
                "segment_bytes cannot be 1: at least 8 MiB",
            ),
            (
                Error::Archive {
                    directory: "/a".into(),
                    source: io::Error::other("denied"),
                },
                "archive /a cannot be used: denied",
            ),
            (Error::Entry("entry 7: version 9".into()), "entry 7"),
            (Error::NoOffice { seconds: 30 }, "30 s"),
            (Error::Ended { part: "driver" }, "driver"),
        ];
        for (error, expected) in cases {
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
