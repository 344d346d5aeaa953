//! A throw-away MariaDB server that can be killed.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use sqlx::{Connection as _, MySqlConnection};
use tempfile::TempDir;

use super::postgres::is_root;

/// Where Debian keeps the server, which is not on every path.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

pub(crate) struct MariaDb {
    home: TempDir,
    port: u16,
    server: Child,
}

impl MariaDb {
    /// Makes its files and starts it.
    pub(crate) async fn start() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let own = |command: &mut Command| {
            let status = command.stdout(Stdio::null()).status();
            let status = status.unwrap_or_else(|error| panic!("{command:?}: {error}"));
            assert!(status.success(), "{command:?}: {status}");
        };
        if is_root() {
            own(Command::new("chown").arg("nobody").arg(home.path()));
        }
        own(command("mariadb-install-db")
            .args(["--no-defaults", "--skip-test-db"])
            .arg("--auth-root-authentication-method=normal")
            .arg(option("datadir", &home.path().join("data"))));
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let server = spawn(&home, port);
        let mariadb = Self { home, port, server };
        mariadb.answers().await;
        mariadb
    }

    /// Kills the server, as a crash would.
    pub(crate) fn down(&mut self) {
        self.server.kill().expect("killed");
        self.server.wait().expect("ended");
    }

    /// Starts the server again.
    pub(crate) async fn up(&mut self) {
        self.server = spawn(&self.home, self.port);
        self.answers().await;
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{database}", self.port)
    }

    async fn answers(&self) {
        let connect = async {
            while MySqlConnection::connect(&self.url("mysql")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), connect)
            .await
            .expect("MariaDB answers within a minute");
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        // It may be down already; its files go with it.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn spawn(home: &TempDir, port: u16) -> Child {
    command("mariadbd")
        .arg("--no-defaults")
        .arg(option("datadir", &home.path().join("data")))
        .arg(option("socket", &home.path().join("socket")))
        .arg(option("pid-file", &home.path().join("pid")))
        .arg(option("tmpdir", home.path()))
        .args(["--bind-address=127.0.0.1", "--skip-name-resolve"])
        .args([
            format!("--port={port}"),
            "--innodb-buffer-pool-size=64M".to_owned(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mariadbd is installed")
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// The server never runs as root.
fn command(program: &str) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
            program,
        ]);
        command
    } else {
        Command::new(program)
    };
    command.env("PATH", PATH).current_dir("/tmp");
    command
}
