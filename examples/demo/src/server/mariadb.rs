//! A throw-away MariaDB server.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use sqlx::{Connection as _, MySqlConnection};

use super::{DATABASES, START_LIMIT, check};
use crate::{
    process::{Process, Start},
    wait::until,
};

/// Where the server's programs are that are not on every user's path.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];
/// Who the server runs as when the demo is root; Debian makes the first one only with
/// the package that also starts a service.
const USERS: [&str; 2] = ["mysql", "nobody"];

/// Makes a server's data below `home` and starts it.
pub(super) async fn start(home: &Path, port: u16, log: PathBuf, keep: bool) -> Result<Process> {
    let user = super::other_user(&USERS)?;
    let home = home.join("mariadb");
    super::data_folder(&home, user)?;
    let data = home.join("data");
    let mut install = command("mariadb-install-db", &home)?;
    if let Some((uid, gid)) = user {
        install.uid(uid).gid(gid);
    }
    install
        .args(["--no-defaults", "--skip-test-db"])
        .arg("--auth-root-authentication-method=normal")
        .args([option("datadir", &data), option("tmpdir", &home)]);
    check(&install.output().context("cannot run mariadb-install-db")?)?;
    let mut server = command("mariadbd", &home)?;
    server
        .arg("--no-defaults")
        .args([option("datadir", &data), option("tmpdir", &home)])
        .args([option("socket", &home.join("socket"))])
        .args([option("pid-file", &home.join("pid"))])
        .args(["--bind-address=127.0.0.1", &format!("--port={port}")])
        .args(["--max-connections=200", "--skip-name-resolve"])
        // Its files go with it: there is no use in writing them out at the end.
        .arg("--innodb-fast-shutdown=3");
    let mut server = Process::start(Start {
        name: "mariadb",
        command: server,
        user,
        log,
        stop: Signal::TERM,
        end: Signal::KILL,
        keep,
    })?;
    let url = url(port, "mysql");
    let mut connection = until("MariaDB answers", START_LIMIT, async || {
        server.check_alive()?;
        Ok(MySqlConnection::connect(&url).await?)
    })
    .await?;
    for database in DATABASES {
        let sql = format!("CREATE DATABASE {database} CHARACTER SET utf8mb4");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await?;
    }
    connection.close().await?;
    Ok(server)
}

pub(super) fn url(port: u16, database: &str) -> String {
    format!("mysql://root@127.0.0.1:{port}/{database}")
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

fn command(program: &str, home: &Path) -> Result<Command> {
    let path = super::find(program, FOLDERS.map(PathBuf::from)).with_context(|| {
        format!(
            "MariaDB's program {program} was not found; run ./dev setup, or \
             `apt-get install mariadb-server-core mariadb-client-core`"
        )
    })?;
    let mut command = Command::new(path);
    command.current_dir(home).env("LC_ALL", "C");
    Ok(command)
}
