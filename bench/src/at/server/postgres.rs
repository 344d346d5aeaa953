//! A throw-away PostgreSQL.

use std::{ffi::OsString, path::PathBuf};

use accede_rm_agent::schema;
use anyhow::{Context as _, bail};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use super::{Database, Kind, LOOK, ROWS, START, folder_of, other_user, run};
use crate::{
    child::{Running, free_port},
    clock,
};

/// Where Debian puts PostgreSQL's programs.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Quiet in the background; everything that makes a commit durable stays on.
const SETTINGS: [&str; 11] = [
    "listen_addresses=127.0.0.1",
    "fsync=on",
    "synchronous_commit=on",
    "max_connections=300",
    "max_prepared_transactions=300",
    "shared_buffers=512MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=1h",
    "autovacuum=off",
    "shared_preload_libraries=pg_stat_statements",
    // On only for the connections that are counted.
    "pg_stat_statements.track=none",
];

pub(super) async fn start() -> anyhow::Result<Database> {
    let folder = TempDir::with_prefix("accede-bench-")?;
    let bin = programs()?;
    let as_user = other_user(&["postgres"], &folder).await?;
    let data = folder.path().join("data");
    let mut initdb = as_user.clone();
    initdb.push(bin.join("initdb").into());
    initdb.extend(["-D".into(), data.clone().into()]);
    let plain = "-U bench --auth=trust --encoding=UTF8 --no-locale --no-sync";
    initdb.extend(plain.split(' ').map(OsString::from));
    run(&initdb).await?;
    let port = free_port()?.to_string();
    let mut words = as_user;
    words.push(bin.join("postgres").into());
    words.extend(["-D".into(), data.into(), "-p".into(), (&port).into()]);
    words.extend(["-k".into(), folder.path().into()]);
    for setting in SETTINGS {
        words.extend(["-c".into(), setting.into()]);
    }
    let database = Database {
        running: Running::start("PostgreSQL", "INT", folder, words)?,
        kind: Kind::Postgres,
        address: format!("127.0.0.1:{port}"),
        around: ("postgres://bench@", "/postgres"),
    };
    fill(&database).await?;
    Ok(database)
}

async fn fill(database: &Database) -> anyhow::Result<()> {
    let url = database.url();
    let until = clock::now() + START;
    let mut connection = loop {
        match PgConnection::connect(&url).await {
            Ok(connection) => break connection,
            Err(error) if clock::now() >= until => {
                let tail = database.running.tail();
                bail!("PostgreSQL does not come up: {error}; {tail}");
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    };
    schema::create(&url).await?;
    let fill = format!(
        "CREATE EXTENSION pg_stat_statements;
         CREATE TABLE stock (
             product bigint PRIMARY KEY, name text NOT NULL, count bigint NOT NULL,
             reserved bigint NOT NULL, note text);
         CREATE TABLE deliveries (
             id bigint PRIMARY KEY, product bigint NOT NULL, count bigint NOT NULL);
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

/// The folder of the newest PostgreSQL's programs.
fn programs() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let newest = versions
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").is_file())
        .max_by_key(|bin| {
            let version = bin.parent().and_then(|version| version.file_name());
            version
                .and_then(|version| version.to_str()?.parse::<u32>().ok())
                .unwrap_or(0)
        });
    folder_of("initdb", newest).context(
        "PostgreSQL's initdb was found neither under /usr/lib/postgresql nor on the PATH: install \
         it, on Debian with `apt-get install postgresql`",
    )
}
