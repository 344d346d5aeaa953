//! Settings from a file, the environment and flags, in rising precedence.
//!
//! [`SETTINGS`] is the one table of what can be set; flags, variables, checks and the
//! documentation come from it. Whatever is not in it is refused, so that a misspelt setting
//! cannot be silently without effect.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use accede_log::ClusterId;
use config::{File, FileFormat, Source as _, Value, ValueKind};
use tracing_subscriber::EnvFilter;

use crate::{Error, limits, settings::ServerConfig};

mod table;
#[cfg(test)]
mod tests;

pub use table::{SETTINGS, Setting};

/// The data directory unless configured, below the working directory.
pub const DEFAULT_DATA_DIR: &str = "accede-data";
/// What is logged unless configured. openraft's own news concern nobody while all is well.
pub const DEFAULT_LOG_FILTER: &str = "info,openraft=warn";
/// All variables of this program begin so.
pub const VARIABLE_PREFIX: &str = "ACCEDE_";
/// Variables with the prefix that are no settings of the daemon.
const OTHER_VARIABLES: [&str; 2] = ["ACCEDE_COORDINATOR", "ACCEDE_CONFIG"];
/// A configuration file has a handful of lines; a larger one is some other file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// A misspelt name is at most this many edits away from the right one.
const NEAR: usize = 3;

/// How the daemon writes its own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable, by name.
    Variable(String),
    /// A flag, by its name without the dashes.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// What is read, before it is checked.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The configuration file, if one is named.
    pub file: Option<PathBuf>,
    /// Environment variables; those without the prefix are ignored.
    pub variables: Vec<(String, String)>,
    /// Flags by name, without the dashes.
    pub flags: Vec<(String, String)>,
}

/// The settings in effect.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// What the daemon is started with.
    pub server: ServerConfig,
    /// Threads that the program gives the daemon.
    pub worker_threads: usize,
    /// How it writes its own log.
    pub log_format: LogFormat,
    /// What it writes to its own log, as directives of `EnvFilter`.
    pub log_filter: String,
    /// Each key with its value and where it comes from, in the order of [`SETTINGS`].
    pub effective: Vec<(&'static str, String, Place)>,
}

/// Why a configuration is refused. The operator corrects the place that is named.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// The file is no TOML.
    #[error("the configuration file {} is no valid TOML: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// Nothing of this name can be set.
    #[error("{place}: there is no setting {key}; {hint}")]
    Unknown {
        /// Where it stands.
        place: Place,
        /// The name there.
        key: String,
        /// The nearest one, or all there are.
        hint: String,
    },
    /// A value that cannot be taken.
    #[error("{place}: {key} = {value:?} {reason}; allowed: {allowed}")]
    Value {
        /// Where it stands.
        place: Place,
        /// The setting.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
        /// What can be given.
        allowed: &'static str,
    },
    /// Values that do not go together or cannot work.
    #[error("{place}: {reason}")]
    Refused {
        /// Where the value in the way comes from.
        place: Place,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// A value as its source wrote it.
#[derive(Clone, Debug)]
enum Raw {
    Text(String),
    Number(u64),
    Switch(bool),
    /// Of texts.
    List(Vec<String>),
    Other(String),
}

impl From<Value> for Raw {
    fn from(value: Value) -> Self {
        match value.kind {
            ValueKind::String(text) => Self::Text(text),
            ValueKind::Boolean(on) => Self::Switch(on),
            ValueKind::I64(n) => u64::try_from(n)
                .map_or_else(|_| Self::Other(format!("{n}, below zero")), Self::Number),
            ValueKind::Table(_) => Self::Other("a table".to_owned()),
            ValueKind::Array(items) => {
                let texts = items.into_iter().map(|item| match item.kind {
                    ValueKind::String(text) => Some(text),
                    _ => None,
                });
                let texts: Option<Vec<String>> = texts.collect();
                texts.map_or_else(|| Self::Other("a list".to_owned()), Self::List)
            }
            other => Self::Other(other.to_string()),
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Other(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Switch(on) => write!(f, "{on}"),
            Self::List(items) => f.write_str(&items.join(" ")),
        }
    }
}

/// Reads all sources and checks every value.
///
/// # Errors
/// [`ConfigError`] names the file, variable or flag, the reason and what is allowed.
pub fn load(inputs: &Inputs) -> Result<Settings, ConfigError> {
    let server = ServerConfig::new(DEFAULT_DATA_DIR);
    let mut settings = Settings {
        worker_threads: limits::WORKER_THREADS,
        log_format: LogFormat::Text,
        log_filter: DEFAULT_LOG_FILTER.to_owned(),
        effective: SETTINGS
            .iter()
            .map(|setting| {
                (
                    setting.key,
                    default_of(setting.key, &server),
                    Place::Default,
                )
            })
            .collect(),
        server,
    };
    for (place, name, raw) in collect(inputs)? {
        settings.take(&place, &name, &raw)?;
    }
    settings
        .server
        .check()
        .map_err(|error| ConfigError::Refused {
            place: settings.place_of(match &error {
                Error::Setting { setting, .. } => setting,
                _ => "listen",
            }),
            reason: error.to_string(),
        })?;
    Ok(settings)
}

/// All values in rising precedence, under the names that their sources use.
fn collect(inputs: &Inputs) -> Result<Vec<(Place, String, Raw)>, ConfigError> {
    let mut values = Vec::new();
    if let Some(path) = &inputs.file {
        let from_file = read_file(path)?;
        values.extend(
            from_file
                .into_iter()
                .map(|(key, raw)| (Place::File(path.clone()), key, raw)),
        );
    }
    for (name, text) in &inputs.variables {
        let ours = name.starts_with(VARIABLE_PREFIX)
            && !OTHER_VARIABLES.contains(&name.as_str())
            && !is_service_link(name, text);
        if ours {
            values.push((
                Place::Variable(name.clone()),
                name.clone(),
                Raw::Text(text.clone()),
            ));
        }
    }
    for (name, text) in &inputs.flags {
        values.push((
            Place::Flag(name.clone()),
            name.clone(),
            Raw::Text(text.clone()),
        ));
    }
    Ok(values)
}

fn read_file(path: &Path) -> Result<Vec<(String, Raw)>, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable {
        path: path.to_path_buf(),
        reason,
    };
    let length = std::fs::metadata(path)
        .map_err(|e| unreadable(e.to_string()))?
        .len();
    if length > MAX_FILE_BYTES {
        return Err(unreadable(format!(
            "it has {length} bytes, at most {MAX_FILE_BYTES} are allowed"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
    let table = File::from_str(&text, FileFormat::Toml)
        .collect()
        .map_err(|error| ConfigError::Syntax {
            path: path.to_path_buf(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
    let mut values: Vec<_> = table
        .into_iter()
        .map(|(key, value)| (key, Raw::from(value)))
        .collect();
    // The table has no order of its own; the first error reported must not depend on chance.
    values.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(values)
}

/// Kubernetes sets such variables for a service called "accede" or "accede-…".
fn is_service_link(name: &str, value: &str) -> bool {
    let numbered =
        |at: usize| name[at + "_PORT_".len()..].starts_with(|c: char| c.is_ascii_digit());
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.find("_PORT_").is_some_and(numbered)
}

impl Settings {
    fn take(&mut self, place: &Place, name: &str, raw: &Raw) -> Result<(), ConfigError> {
        let setting = SETTINGS
            .iter()
            .find(|setting| name_in(setting, place) == name)
            .ok_or_else(|| unknown(place, name))?;
        let value = setting
            .read(raw)
            .and_then(|value| self.assign(setting.key, &value).map(|()| value));
        let value = value.map_err(|reason| ConfigError::Value {
            place: place.clone(),
            key: setting.key,
            value: raw.to_string(),
            reason,
            allowed: setting.allowed,
        })?;
        for slot in self
            .effective
            .iter_mut()
            .filter(|slot| slot.0 == setting.key)
        {
            (slot.1, slot.2) = (value.clone(), place.clone());
        }
        Ok(())
    }

    fn assign(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<u64>().map_err(|e| e.to_string());
        let server = &mut self.server;
        match key {
            "listen" => {
                server.listen = value
                    .parse()
                    .map_err(|_| "is no IP address and port".to_owned())?;
            }
            "insecure" => server.insecure = value == "true",
            "data_dir" if value.is_empty() => return Err("is empty".to_owned()),
            "data_dir" => server.data_dir = value.into(),
            "name" => server.name = value.to_owned(),
            "cluster_id" if value.is_empty() => server.cluster_id = None,
            "cluster_id" => {
                let id = ClusterId::from_str(value).map_err(|_| "is no cluster id".to_owned())?;
                server.cluster_id = Some(id);
            }
            "segment_bytes" => server.segment_bytes = number()?,
            "snapshot_entries" => server.snapshot_entries = number()?,
            "snapshot_bytes" => server.snapshot_bytes = number()?,
            "retention" => {
                server.retention = table::parse_duration(value).ok_or("is no duration")?;
            }
            "retention_transactions" => server.retention_transactions = number()?,
            "archive" => server.archive = (!value.is_empty()).then(|| value.into()),
            "archive_bytes" => server.archive_bytes = number()?,
            "saga_callbacks" => {
                server.saga_callbacks = value.split_whitespace().map(str::to_owned).collect();
            }
            "saga_callback_ca" => {
                server.saga_callback_ca = (!value.is_empty()).then(|| value.into());
            }
            "worker_threads" => self.worker_threads = number()? as usize,
            "log_format" => {
                self.log_format = match value {
                    "text" => LogFormat::Text,
                    "json" => LogFormat::Json,
                    _ => return Err("is no log format".to_owned()),
                }
            }
            "log_filter" => {
                EnvFilter::try_new(value).map_err(|error| format!("cannot be read ({error})"))?;
                value.clone_into(&mut self.log_filter);
            }
            other => return Err(format!("is of the setting {other}, which has no effect")),
        }
        Ok(())
    }

    fn place_of(&self, key: &str) -> Place {
        let found = self.effective.iter().find(|(name, ..)| *name == key);
        found.map_or(Place::Default, |(_, _, place)| place.clone())
    }
}

fn default_of(key: &str, server: &ServerConfig) -> String {
    match key {
        "listen" => server.listen.to_string(),
        "insecure" => server.insecure.to_string(),
        "data_dir" => server.data_dir.display().to_string(),
        "name" => server.name.clone(),
        "segment_bytes" => server.segment_bytes.to_string(),
        "snapshot_entries" => server.snapshot_entries.to_string(),
        "snapshot_bytes" => server.snapshot_bytes.to_string(),
        "retention" => table::show_duration(server.retention),
        "retention_transactions" => server.retention_transactions.to_string(),
        "archive_bytes" => server.archive_bytes.to_string(),
        "worker_threads" => limits::WORKER_THREADS.to_string(),
        "log_format" => "text".to_owned(),
        "log_filter" => DEFAULT_LOG_FILTER.to_owned(),
        _ => String::new(),
    }
}

/// How a source calls a setting.
fn name_in(setting: &Setting, place: &Place) -> String {
    match place {
        Place::Variable(_) => setting.variable(),
        Place::Flag(_) => setting.flag.to_owned(),
        Place::File(_) | Place::Default => setting.key.to_owned(),
    }
}

fn unknown(place: &Place, name: &str) -> ConfigError {
    let mut names: Vec<String> = SETTINGS
        .iter()
        .map(|setting| name_in(setting, place))
        .collect();
    names.sort_by_key(|known| strsim::damerau_levenshtein(known, name));
    let hint = match names.first() {
        Some(near) if strsim::damerau_levenshtein(near, name) <= NEAR => {
            format!("did you mean {near}?")
        }
        _ => {
            names.sort();
            format!("there are: {}", names.join(", "))
        }
    };
    ConfigError::Unknown {
        place: place.clone(),
        key: name.to_owned(),
        hint,
    }
}
