//! A throw-away PostgreSQL with forced writes on, and the table that is worked on.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use accede_rm_agent::schema;
use anyhow::{Context as _, bail};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::{
    child::{Running, free_port},
    clock,
};

/// Rows of the table.
pub(super) const ROWS: i64 = 10_000;

/// How long PostgreSQL may take to come up.
const START: Duration = Duration::from_secs(60);
/// Where Debian puts PostgreSQL's programs.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Quiet in the background; everything that makes a commit durable stays on.
const SETTINGS: [&str; 10] = [
    "listen_addresses=127.0.0.1",
    "fsync=on",
    "synchronous_commit=on",
    "max_connections=300",
    "shared_buffers=512MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=1h",
    "autovacuum=off",
    "shared_preload_libraries=pg_stat_statements",
    // On only for the connections that are counted.
    "pg_stat_statements.track=none",
];

/// A running PostgreSQL.
pub(super) struct Database {
    running: Running,
    /// `postgres://bench@127.0.0.1:port/postgres`
    pub(super) url: String,
    /// Where it listens, like `127.0.0.1:5432`.
    pub(super) address: String,
}

impl Database {
    /// Makes a cluster in a temporary folder, starts it and fills the table.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not come up; the message says what to do.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("accede-bench-")?;
        let bin = programs()?;
        let as_user = other_user(&folder).await?;
        let data = folder.path().join("data");
        let mut initdb = as_user.clone();
        initdb.push(bin.join("initdb").into());
        initdb.extend(["-D".into(), data.clone().into()]);
        let plain = "-U bench --auth=trust --encoding=UTF8 --no-locale --no-sync";
        initdb.extend(plain.split(' ').map(OsString::from));
        run(&initdb).await?;
        let port = free_port()?;
        let mut words = as_user;
        words.push(bin.join("postgres").into());
        words.extend([
            "-D".into(),
            data.into(),
            "-p".into(),
            port.to_string().into(),
        ]);
        words.extend(["-k".into(), folder.path().into()]);
        for setting in SETTINGS {
            words.extend(["-c".into(), setting.into()]);
        }
        let running = Running::start("PostgreSQL", "INT", folder, words)?;
        let address = format!("127.0.0.1:{port}");
        let database = Self {
            running,
            url: format!("postgres://bench@{address}/postgres"),
            address,
        };
        database.fill().await?;
        Ok(database)
    }

    async fn fill(&self) -> anyhow::Result<()> {
        let until = clock::now() + START;
        let mut connection = loop {
            match PgConnection::connect(&self.url).await {
                Ok(connection) => break connection,
                Err(error) if clock::now() >= until => {
                    bail!(
                        "PostgreSQL does not come up: {error}; {}",
                        self.running.tail()
                    );
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        schema::create(&self.url).await?;
        let fill = format!(
            "CREATE EXTENSION pg_stat_statements;
             CREATE TABLE stock (
                 product bigint PRIMARY KEY, name text NOT NULL, count bigint NOT NULL,
                 reserved bigint NOT NULL, note text);
             INSERT INTO stock
                 SELECT n, 'product ' || n, 1000000, 0, 'shelf ' || n % 100
                 FROM generate_series(1, {ROWS}) n;
             VACUUM ANALYZE stock"
        );
        for statement in fill.split(';') {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
                .execute(&mut connection)
                .await
                .context("cannot fill the database")?;
        }
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it does not end.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.running.stop().await
    }
}

/// The folder of the newest PostgreSQL's programs.
fn programs() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let debian = versions
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").is_file())
        .max_by_key(|bin| {
            let version = bin.parent().and_then(|version| version.file_name());
            version
                .and_then(|version| version.to_str()?.parse::<u32>().ok())
                .unwrap_or(0)
        });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let elsewhere = || std::env::split_paths(&path).find(|folder| folder.join("initdb").is_file());
    debian.or_else(elsewhere).context(
        "PostgreSQL's initdb was found neither under /usr/lib/postgresql nor on the PATH: install \
         it, on Debian with `apt-get install postgresql`",
    )
}

/// PostgreSQL refuses to run as root: then it runs as `postgres`, who gets the folder.
async fn other_user(folder: &TempDir) -> anyhow::Result<Vec<OsString>> {
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(Vec::new());
    }
    let chown = [
        OsStr::new("chown"),
        OsStr::new("postgres"),
        folder.path().as_os_str(),
    ];
    run(&chown.map(OsString::from)).await?;
    let words = "setpriv --reuid=postgres --regid=postgres --init-groups --";
    Ok(words.split(' ').map(OsString::from).collect())
}

async fn run(words: &[OsString]) -> anyhow::Result<()> {
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
    Ok(())
}
