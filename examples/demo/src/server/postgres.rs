//! A throw-away PostgreSQL cluster.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};

use super::{DATABASES, START_LIMIT, check};
use crate::{
    process::{Process, Start},
    wait::until,
};

/// Where Debian keeps the programs that are not on the path.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The database's user, and who the server runs as when the demo is root.
const USER: &str = "postgres";

/// Makes a cluster below `home` and starts it.
pub(super) async fn start(home: &Path, port: u16, log: PathBuf, keep: bool) -> Result<Process> {
    let user = super::other_user(&[USER])?;
    let data = home.join("postgres");
    super::data_folder(&data, user)?;
    let mut initdb = command("initdb", home)?;
    if let Some((uid, gid)) = user {
        initdb.uid(uid).gid(gid);
    }
    initdb
        .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"])
        .args(["--username", USER, "-D"])
        .arg(&data);
    check(&initdb.output().context("cannot run initdb")?)?;
    let mut server = command("postgres", home)?;
    server.arg("-D").arg(&data).args(["-p", &port.to_string()]);
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "fsync=on",
        "max_connections=200",
        "max_prepared_transactions=200",
    ] {
        server.args(["-c", setting]);
    }
    let mut server = Process::start(Start {
        name: "postgres",
        command: server,
        user,
        log,
        // Its files go with it: there is no use in writing them out first.
        stop: Signal::QUIT,
        end: Signal::QUIT,
        keep,
    })?;
    let url = url(port, USER);
    let mut connection = until("PostgreSQL answers", START_LIMIT, async || {
        server.check_alive()?;
        Ok(PgConnection::connect(&url).await?)
    })
    .await?;
    for database in DATABASES {
        let sql = format!("CREATE DATABASE {database}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await?;
    }
    connection.close().await?;
    Ok(server)
}

pub(super) fn url(port: u16, database: &str) -> String {
    format!("postgres://{USER}@127.0.0.1:{port}/{database}")
}

fn command(program: &str, home: &Path) -> Result<Command> {
    let path = super::find(program, newest_first()).with_context(|| {
        format!(
            "PostgreSQL's program {program} was not found; run ./dev setup, or \
             `apt-get install postgresql`"
        )
    })?;
    let mut command = Command::new(path);
    command.current_dir(home).env("LC_ALL", "C");
    Ok(command)
}

/// The folders of the versions that Debian installed.
fn newest_first() -> impl Iterator<Item = PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, folder)| folder)
}
