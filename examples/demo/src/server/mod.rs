//! Throw-away databases.

mod mariadb;
mod postgres;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use shop_api::database::DatabaseKind;

use crate::{args::DatabaseUrls, process::Process};

/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The databases in it.
const DATABASES: [&str; 3] = ["shop_order", "shop_stock", "shop_account"];

/// Three empty databases of this kind below `home`, and the server that holds them if
/// the kind has one; its data is forced to disk as in production. Only this machine
/// can reach it.
pub(crate) async fn start(
    kind: DatabaseKind,
    home: &Path,
    port: u16,
    keep: bool,
) -> Result<(Option<Process>, DatabaseUrls)> {
    let log = home.join(format!("{}.log", kind.name()));
    let server = match kind {
        DatabaseKind::Postgres => Some(postgres::start(home, port, log, keep).await?),
        DatabaseKind::MariaDb => Some(mariadb::start(home, port, log, keep).await?),
        DatabaseKind::Sqlite => None,
    };
    let [order, stock, account] = DATABASES.map(|database| match kind {
        DatabaseKind::Postgres => postgres::url(port, database),
        DatabaseKind::MariaDb => mariadb::url(port, database),
        DatabaseKind::Sqlite => format!("sqlite://{}/{database}.db", home.display()),
    });
    let urls = DatabaseUrls {
        order,
        stock,
        account,
    };
    Ok((server, urls))
}

/// User and group to run as when the demo is root, which a server refuses to be:
/// the first of these users that there is.
fn other_user(names: &[&str]) -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let ask = |what: &str, name: &str| -> Result<u32> {
        let output = Command::new("id").args([what, name]).output()?;
        check(&output)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    };
    let mut error = None;
    for name in names {
        match ask("-u", name).and_then(|user| Ok((user, ask("-g", name)?))) {
            Ok(ids) => return Ok(Some(ids)),
            Err(missing) => error = Some(missing),
        }
    }
    let names = names.join(" nor ");
    Err(error.unwrap_or_else(|| anyhow::anyhow!("no user was named"))).with_context(|| {
        format!(
            "the database does not run as root and there is no user {names}; install it from \
             the system's packages"
        )
    })
}

/// Makes the folder of the server's data, owned by who it runs as.
fn data_folder(path: &Path, user: Option<(u32, u32)>) -> Result<()> {
    fs::create_dir(path)?;
    if let Some((uid, gid)) = user {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// The first of these folders, then of those on the path, that has the program.
fn find(program: &str, folders: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    folders
        .into_iter()
        .chain(std::env::split_paths(&paths))
        .map(|folder| folder.join(program))
        .find(|path| path.exists())
}

fn check(output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )
}
