//! Reads the settings of `serve`; `accede check-config` prints them.

use std::{ffi::OsString, path::PathBuf};

use accede_server::config::{self, ConfigError, Inputs, Settings, VARIABLE_PREFIX};
use serde::Serialize;

use crate::{
    args,
    failure::Failure,
    output::{Output, trimmed},
};

/// What `accede check-config --json` prints.
#[derive(Serialize)]
struct Checked<'a> {
    file: Option<PathBuf>,
    settings: Vec<Effective<'a>>,
}

#[derive(Serialize)]
struct Effective<'a> {
    key: &'static str,
    value: &'a str,
    from: String,
}

/// The settings in effect.
///
/// # Errors
/// A setting that is wrong is wrong use, wherever it stands.
pub(crate) fn load(given: &args::Settings) -> Result<Settings, Failure> {
    let inputs = Inputs {
        file: given.file.clone(),
        variables: ours(std::env::vars_os()),
        flags: given.flags.clone(),
    };
    config::load(&inputs).map_err(|error| match error {
        ConfigError::Unreadable { .. } => Failure::usage(format!("{error}; see --config")),
        _ => Failure::usage(error),
    })
}

/// Variables with our prefix. What is no text cannot be a value and is refused as such.
fn ours(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<(String, String)> {
    let text = |os: OsString| os.to_string_lossy().into_owned();
    let mut ours: Vec<(String, String)> = all
        .map(|(name, value)| (text(name), value))
        .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
        .map(|(name, value)| (name, text(value)))
        .collect();
    ours.sort();
    ours
}

/// `accede check-config`.
///
/// # Errors
/// As [`load`].
pub(crate) fn run(given: &args::Settings, output: Output) -> Result<(), Failure> {
    let settings = load(given)?;
    let mut table = output.table(&["setting", "value", "from"]);
    let mut checked = Checked {
        file: given.file.clone(),
        settings: Vec::new(),
    };
    for (key, value, place) in &settings.effective {
        let from = place.to_string();
        table.add_row([key, value.as_str(), from.as_str()]);
        checked.settings.push(Effective { key, value, from });
    }
    output.write(&checked, &trimmed(&table))
}
