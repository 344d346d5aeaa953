//! A throw-away PostgreSQL cluster.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};

use crate::{
    process::{Process, Start},
    wait::until,
};

/// Where Debian keeps the programs that are not on the path.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The user that the server runs as when the demo is root: it refuses to be root.
const USER: &str = "postgres";
const START_LIMIT: Duration = Duration::from_secs(60);

/// Makes a cluster below `home` and starts it; its data is forced to disk as in
/// production. Only this machine can reach it.
pub(crate) async fn start(home: &Path, port: u16, log: PathBuf, keep: bool) -> Result<Process> {
    let user = server_user()?;
    let data = home.join("postgres");
    fs::create_dir(&data)?;
    if let Some((uid, gid)) = user {
        chown(&data, Some(uid), Some(gid))?;
    }
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
    for database in ["shop_order", "shop_stock", "shop_account"] {
        let sql = format!("CREATE DATABASE {database}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await?;
    }
    connection.close().await?;
    Ok(server)
}

pub(crate) fn url(port: u16, database: &str) -> String {
    format!("postgres://{USER}@127.0.0.1:{port}/{database}")
}

/// Who the server runs as, if it must be somebody else.
fn server_user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let ask = |what: &str| -> Result<u32> {
        let output = Command::new("id").args([what, USER]).output()?;
        check(&output).context(
            "PostgreSQL does not run as root and there is no user \"postgres\"; install \
             PostgreSQL from the system's packages",
        )?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    };
    Ok(Some((ask("-u")?, ask("-g")?)))
}

fn command(program: &str, home: &Path) -> Result<Command> {
    let mut command = Command::new(find(program)?);
    command.current_dir(home).env("LC_ALL", "C");
    Ok(command)
}

/// The newest version that Debian installed, else whatever is on the path.
fn find(program: &str) -> Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin").join(program)))
        })
        .collect();
    versions.sort();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    versions
        .into_iter()
        .rev()
        .map(|(_, path)| path)
        .chain(std::env::split_paths(&paths).map(|folder| folder.join(program)))
        .find(|path| path.exists())
        .with_context(|| {
            format!(
                "PostgreSQL's program {program} was not found; run ./dev setup, or \
                 `apt-get install postgresql`"
            )
        })
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
