//! The one table of what can be set.

use std::time::Duration;

use accede_core::limits as core_limits;
use accede_log::MAX_SEGMENT_BYTES;

use super::{Raw, VARIABLE_PREFIX};
use crate::limits;

/// One thing that can be set.
#[derive(Debug)]
#[non_exhaustive]
pub struct Setting {
    /// Its name in the file; as a variable in capitals after `ACCEDE_`.
    pub key: &'static str,
    /// Its flag, without the dashes.
    pub flag: &'static str,
    /// What it takes, for people.
    pub allowed: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Text,
    Switch,
    List,
    Number { min: u64, max: u64 },
    Bytes { min: u64, max: u64 },
    Duration { min: Duration, max: Duration },
}

impl Setting {
    /// Its environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.to_uppercase())
    }

    /// Whether its flag can stand without a value, which means `true`.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Switch)
    }

    /// What the file or the text says, in the form that `Settings` takes.
    pub(super) fn read(&self, raw: &Raw) -> Result<String, String> {
        match (&self.kind, raw) {
            (Kind::Text | Kind::List, Raw::Text(text)) => Ok(text.clone()),
            (Kind::List, Raw::List(items)) => Ok(items.join(" ")),
            (Kind::Switch, Raw::Switch(on)) => Ok(on.to_string()),
            (Kind::Switch, Raw::Text(text)) if matches!(text.as_str(), "true" | "false") => {
                Ok(text.clone())
            }
            (Kind::Number { min, max }, Raw::Number(number)) => in_range(*number, *min, *max),
            (Kind::Number { min, max }, Raw::Text(text)) => {
                let number = text.parse().map_err(|_| "is no whole number".to_owned())?;
                in_range(number, *min, *max)
            }
            (Kind::Bytes { min, max }, Raw::Number(number)) => in_range(*number, *min, *max),
            (Kind::Bytes { min, max }, Raw::Text(text)) => {
                let bytes = parse_bytes(text).ok_or("is no number of bytes")?;
                in_range(bytes, *min, *max)
            }
            (Kind::Duration { min, max }, Raw::Text(text)) => {
                let duration = parse_duration(text).ok_or("is no duration")?;
                if duration < *min || duration > *max {
                    let side = if duration < *min { "below" } else { "above" };
                    let bound = if duration < *min { min } else { max };
                    return Err(format!("is {side} {}", show_duration(*bound)));
                }
                Ok(show_duration(duration))
            }
            (_, Raw::Text(_)) => Err("is of the wrong type: a text".to_owned()),
            (_, Raw::Number(_)) => Err("is of the wrong type: a number".to_owned()),
            (_, Raw::Switch(_)) => Err("is of the wrong type: true or false".to_owned()),
            (_, Raw::List(_)) => Err("is of the wrong type: a list".to_owned()),
            (_, Raw::Other(what)) => Err(format!("is of the wrong type: {what}")),
        }
    }
}

/// Everything that can be set.
pub static SETTINGS: [Setting; 17] = [
    Setting {
        key: "listen",
        flag: "listen",
        allowed: "IP address and port, such as 127.0.0.1:7700 or [::1]:7700; port 0 takes a free one",
        about: "Where the coordinator listens, for everything.",
        kind: Kind::Text,
    },
    Setting {
        key: "insecure",
        flag: "insecure",
        allowed: "true or false",
        about: "Listen off loopback although nothing protects the port.",
        kind: Kind::Switch,
    },
    Setting {
        key: "data_dir",
        flag: "data-dir",
        allowed: "a directory of its own; created if absent",
        about: "Where the log and its snapshots are kept.",
        kind: Kind::Text,
    },
    Setting {
        key: "name",
        flag: "name",
        allowed: "1 to 128 bytes of text",
        about: "How this coordinator is called in logs and to operators.",
        kind: Kind::Text,
    },
    Setting {
        key: "cluster_id",
        flag: "cluster-id",
        allowed: "32 hexadecimal digits; empty: the one in the data directory, or a new one",
        about: "The cluster that the data directory must belong to.",
        kind: Kind::Text,
    },
    Setting {
        key: "segment_bytes",
        flag: "segment-bytes",
        allowed: "8MiB to 1GiB, as a number of bytes or with KiB, MiB, GiB",
        about: "The size of a new log segment.",
        kind: Kind::Bytes {
            min: limits::MIN_SEGMENT_BYTES,
            max: MAX_SEGMENT_BYTES,
        },
    },
    Setting {
        key: "snapshot_entries",
        flag: "snapshot-entries",
        allowed: "a whole number from 1",
        about: "A snapshot is taken after this many log entries, or …",
        kind: Kind::Number {
            min: 1,
            max: i64::MAX as u64,
        },
    },
    Setting {
        key: "snapshot_bytes",
        flag: "snapshot-bytes",
        allowed: "from 1, as a number of bytes or with KiB, MiB, GiB",
        about: "… after this many bytes of log entries.",
        kind: Kind::Bytes {
            min: 1,
            max: i64::MAX as u64,
        },
    },
    Setting {
        key: "retention",
        flag: "retention",
        allowed: "10s to 30d, as a number with ms, s, min, h or d",
        about: "How long an ended transaction stays known, or …",
        kind: Kind::Duration {
            min: Duration::from_millis(core_limits::MIN_RETENTION_MS),
            max: Duration::from_millis(core_limits::MAX_RETENTION_MS),
        },
    },
    Setting {
        key: "retention_transactions",
        flag: "retention-transactions",
        allowed: "1000 to 1048576",
        about: "… until this many ended after it. About 1 KiB of memory each.",
        kind: Kind::Number {
            min: core_limits::MIN_RETENTION_TRANSACTIONS,
            max: core_limits::MAX_RETENTION_TRANSACTIONS,
        },
    },
    Setting {
        key: "archive",
        flag: "archive",
        allowed: "a directory of its own, created if absent; empty: no archive",
        about: "Where every transaction that has ended is written, for history.",
        kind: Kind::Text,
    },
    Setting {
        key: "archive_bytes",
        flag: "archive-bytes",
        allowed: "from 16MiB, as a number of bytes or with KiB, MiB, GiB",
        about: "The size of the archive; its oldest file goes first.",
        kind: Kind::Bytes {
            min: limits::MIN_ARCHIVE_BYTES,
            max: i64::MAX as u64,
        },
    },
    Setting {
        key: "saga_callbacks",
        flag: "saga-callbacks",
        allowed: "prefixes of URLs, https://host:port/path/ or grpcs://host:port, without TLS http:// and grpc://, with spaces between them or as a list in the file; empty: none",
        about: "The URLs that the coordinator may call for steps of sagas: those below one of these.",
        kind: Kind::List,
    },
    Setting {
        key: "saga_callback_ca",
        flag: "saga-callback-ca",
        allowed: "a file of certificates in PEM; empty: none",
        about: "Authorities that sign the certificates of services called by https and grpcs, beside those that the system trusts. Read at the start.",
        kind: Kind::Text,
    },
    Setting {
        key: "worker_threads",
        flag: "worker-threads",
        allowed: "1 to 64",
        about: "Threads that serve connections. One is fastest on few cores: what one message sets off \
                stays on one core.",
        kind: Kind::Number {
            min: 1,
            max: limits::MOST_WORKER_THREADS,
        },
    },
    Setting {
        key: "log_format",
        flag: "log-format",
        allowed: "text or json",
        about: "How the daemon writes its own log to stderr.",
        kind: Kind::Text,
    },
    Setting {
        key: "log_filter",
        flag: "log-filter",
        allowed: "directives such as info or warn,accede_server=debug",
        about: "What the daemon writes to its own log.",
        kind: Kind::Text,
    },
];

fn in_range(number: u64, min: u64, max: u64) -> Result<String, String> {
    match number {
        _ if number < min => Err(format!("is below {min}")),
        _ if number > max => Err(format!("is above {max}")),
        _ => Ok(number.to_string()),
    }
}

/// Units of durations with their milliseconds, the largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads `90s`, `10 min`, `24h`. A number alone would leave the unit to guesswork.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    let ms = number.parse::<u64>().ok()?.checked_mul(*factor)?;
    Some(Duration::from_millis(ms))
}

/// The shortest form that [`parse_duration`] reads back.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let whole = |(_, factor): &&(&str, u64)| ms.is_multiple_of(*factor);
    let (name, factor) = DURATION_UNITS.iter().find(whole).unwrap_or(&("ms", 1));
    format!("{}{name}", ms / factor)
}

/// Reads `67108864`, `64MiB`, `64 MiB`.
fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => 1024 * 1024 * 1024,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
