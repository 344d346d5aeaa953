//! A throw-away MariaDB.

use std::path::PathBuf;

use accede_rm_agent::schema;
use anyhow::{Context as _, bail};
use sqlx::{Connection as _, MySqlConnection};
use tempfile::TempDir;

use super::{Database, Kind, LOOK, ROWS, START, folder_of, other_user, run};
use crate::{
    child::{Running, free_port},
    clock,
};

/// Where its programs are that are not on every user's path.
const FOLDERS: [&str; 3] = ["/usr/bin", "/usr/sbin", "/usr/local/sbin"];

/// Everything that makes a commit durable stays on; without a binary log, as there is no replica.
const SETTINGS: [&str; 7] = [
    "--bind-address=127.0.0.1",
    "--innodb-flush-log-at-trx-commit=1",
    "--max-connections=300",
    "--innodb-buffer-pool-size=512M",
    "--innodb-log-file-size=512M",
    "--skip-name-resolve",
    // Its files go with it.
    "--innodb-fast-shutdown=3",
];

pub(super) async fn start() -> anyhow::Result<Database> {
    let folder = TempDir::with_prefix("accede-bench-")?;
    let as_user = other_user(&["mysql", "nobody"], &folder).await?;
    let path = folder.path().display().to_string();
    let data = format!("--datadir={path}/data");
    let temporary = format!("--tmpdir={path}");
    let mut install = as_user.clone();
    install.push(program("mariadb-install-db")?.into());
    install.extend(["--no-defaults", "--skip-test-db", &data, &temporary].map(Into::into));
    install.push("--auth-root-authentication-method=normal".into());
    run(&install).await?;
    let port = free_port()?;
    let mut words = as_user;
    words.push(program("mariadbd")?.into());
    words.extend(["--no-defaults", &data, &temporary].map(Into::into));
    words.push(format!("--socket={path}/socket").into());
    words.push(format!("--pid-file={path}/pid").into());
    words.push(format!("--port={port}").into());
    words.extend(SETTINGS.map(Into::into));
    let database = Database {
        running: Running::start("MariaDB", "TERM", folder, words)?,
        kind: Kind::MariaDb,
        address: format!("127.0.0.1:{port}"),
        around: ("mysql://root@", "/bench"),
    };
    fill(&database).await?;
    Ok(database)
}

async fn fill(database: &Database) -> anyhow::Result<()> {
    let server = format!("mysql://root@{}/mysql", database.address);
    let until = clock::now() + START;
    let mut connection = loop {
        match MySqlConnection::connect(&server).await {
            Ok(connection) => break connection,
            Err(error) if clock::now() >= until => {
                let tail = database.running.tail();
                bail!("MariaDB does not come up: {error}; {tail}");
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    };
    let fill = format!(
        "CREATE DATABASE bench CHARACTER SET utf8mb4;
         CREATE TABLE bench.stock (
             product BIGINT PRIMARY KEY, name VARCHAR(100) NOT NULL, count BIGINT NOT NULL,
             reserved BIGINT NOT NULL, note VARCHAR(100)) ENGINE = InnoDB;
         CREATE TABLE bench.deliveries (
             id BIGINT PRIMARY KEY, product BIGINT NOT NULL, count BIGINT NOT NULL) ENGINE = InnoDB;
         INSERT INTO bench.stock
             SELECT seq, CONCAT('product ', seq), 1000000, 0, CONCAT('shelf ', seq MOD 100)
             FROM seq_1_to_{ROWS}"
    );
    // The generator of numbers stands in no database, so it is asked for in one that is used.
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill))
        .execute(&mut connection)
        .await
        .context("cannot fill the database")?;
    schema::create(&database.url()).await?;
    Ok(())
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    let folder = folder_of(name, FOLDERS.map(PathBuf::from)).with_context(|| {
        format!(
            "MariaDB's {name} was not found: install it, on Debian with `apt-get install \
             mariadb-server-core mariadb-client-core`"
        )
    })?;
    Ok(folder.join(name))
}
