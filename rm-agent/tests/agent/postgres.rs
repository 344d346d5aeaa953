//! A throw-away PostgreSQL server.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// Where Debian keeps the programs that are not on the path.
const DEBIAN: &str = "/usr/lib/postgresql";

pub(crate) struct Postgres {
    home: TempDir,
    port: u16,
    settings: &'static str,
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// The same with further settings (`-c name=value …`).
    pub(crate) fn start_with(settings: &'static str) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        if is_root() {
            // The server refuses to run as root.
            run(Command::new("chown").arg("postgres").arg(home.path()));
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let postgres = Self {
            home,
            port,
            settings,
        };
        run(postgres
            .program("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "-D"])
            .arg(postgres.data()));
        postgres.up();
        postgres
    }

    /// Starts the server again.
    pub(crate) fn up(&self) {
        self.up_with(self.settings);
    }

    /// Starts the server again with other settings.
    pub(crate) fn up_with(&self, settings: &str) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off \
             {settings}",
            self.port
        );
        run(self
            .program("pg_ctl")
            .args(["start", "--wait", "--silent", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(self.home.path().join("log"))
            .args(["-o", &options]));
    }

    /// Kills the server.
    pub(crate) fn down(&self) {
        run(self
            .program("pg_ctl")
            .args(["stop", "--wait", "--silent", "--mode=immediate", "-D"])
            .arg(self.data()));
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let path = program(name);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(self.home.path());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut stop = self.program("pg_ctl");
        stop.args(["stop", "--wait", "--silent", "--mode=immediate", "-D"])
            .arg(self.data())
            .stderr(Stdio::null());
        // It may be down already.
        drop(stop.status());
    }
}

pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| {
        use std::os::unix::fs::MetadataExt as _;
        me.uid() == 0
    })
}

/// The newest version that is installed, else whatever is on the path.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir(Path::new(DEBIAN)).into_iter().flatten();
    versions
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .max()
        .unwrap_or_else(|| name.into())
}

fn run(command: &mut Command) {
    let status = command
        .stdout(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
