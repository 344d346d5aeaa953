//! Throw-away databases with forced writes on, and the tables that are worked on.

mod mariadb;
mod postgres;

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use tempfile::TempDir;

use crate::child::Running;

/// Rows of the table.
pub(super) const ROWS: i64 = 10_000;

/// How long a database may take to come up.
const START: Duration = Duration::from_secs(60);
/// Pause between two looks whether it is up.
const LOOK: Duration = Duration::from_millis(50);

/// Databases that AT branches run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Postgres,
    #[value(name = "mariadb")]
    MariaDb,
}

impl Kind {
    /// As results call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb => "mariadb",
        }
    }
}

/// A running database.
pub(crate) struct Database {
    running: Running,
    pub(super) kind: Kind,
    /// Where it listens, like `127.0.0.1:5432`.
    pub(crate) address: String,
    /// How clients connect: what comes before and after the address.
    around: (&'static str, &'static str),
}

impl Database {
    /// Starts a database in a temporary folder and fills its tables.
    ///
    /// # Errors
    /// When it is not installed or does not come up; the message says what to do.
    pub(crate) async fn start(kind: Kind) -> anyhow::Result<Self> {
        match kind {
            Kind::Postgres => postgres::start().await,
            Kind::MariaDb => mariadb::start().await,
        }
    }

    /// The URL of the database.
    pub(super) fn url(&self) -> String {
        self.url_at(&self.address)
    }

    /// Its URL when it is reached at another address.
    pub(super) fn url_at(&self, address: &str) -> String {
        format!("{}{address}{}", self.around.0, self.around.1)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it does not end.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.running.stop().await
    }
}

/// Databases refuse to run as root. Then one runs as the first of these users that there is, who
/// gets the folder; these words go before a command.
async fn other_user(names: &[&str], folder: &TempDir) -> anyhow::Result<Vec<OsString>> {
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(Vec::new());
    }
    for name in names {
        let ask = async |what: &str| {
            let words = ["id", what, name].map(OsString::from);
            run(&words).await
        };
        let (Ok(user), Ok(group)) = (ask("-u").await, ask("-g").await) else {
            continue;
        };
        let (user, group) = (user.trim().parse()?, group.trim().parse()?);
        std::os::unix::fs::chown(folder.path(), Some(user), Some(group))?;
        let words = format!("setpriv --reuid={user} --regid={group} --clear-groups --");
        return Ok(words.split(' ').map(OsString::from).collect());
    }
    bail!(
        "a database does not run as root and there is no user {}: install it from the system's \
         packages",
        names.join(" nor ")
    )
}

/// The first of these folders, then of those on the path, that has the program.
fn folder_of(program: &str, folders: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders
        .into_iter()
        .chain(std::env::split_paths(&path))
        .find(|folder| folder.join(program).is_file())
}

/// Runs a command to its end; returns what it printed.
async fn run(words: &[OsString]) -> anyhow::Result<String> {
    let shown = words.join(OsStr::new(" "));
    let shown = shown.to_string_lossy();
    let (program, arguments) = words.split_first().context("no program was named")?;
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed: {}", said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
