//! The coordinator as its users run it: a process.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use accede_proto::v1::{GetStatusRequest, operator_client::OperatorClient};
use anyhow::{Context as _, bail};

/// How long a start may take on a loaded machine.
const START: Duration = Duration::from_secs(30);

/// A running `accede serve`; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    log: PathBuf,
}

/// The `accede` binary that `ACCEDE_TEST_DAEMON` names, else the one beside this test, built if it
/// is not there or older than its sources.
///
/// # Panics
/// If it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let named = || std::env::var_os("ACCEDE_TEST_DAEMON").map(PathBuf::from);
    BINARY.get_or_init(|| named().unwrap_or_else(|| built("debug")))
}

/// The same with optimizations, for tests that measure.
///
/// # Panics
/// If it cannot be built.
pub fn release_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("release"))
}

fn built(profile: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    let target = test.ancestors().nth(3).expect("tests lie in target/*/deps");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked"]);
    command.args(["-p", "accede-cli", "--bin", "accede"]);
    if profile == "release" {
        command.arg("--release");
    }
    let status = command.arg("--target-dir").arg(target).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "the daemon could not be built"
    );
    target.join(profile).join("accede")
}

/// A loopback port that was free a moment ago; the daemon keeps it across restarts.
///
/// # Panics
/// If no port is free.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port on loopback")
        .port()
}

impl Daemon {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// If it ends or does not serve in time; the error holds what it wrote.
    pub async fn start(data_dir: &Path, port: u16) -> anyhow::Result<Self> {
        Self::spawn(data_dir, port)?.serving(START).await
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub async fn serving(self, limit: Duration) -> anyhow::Result<Self> {
        let mut daemon = self;
        let url = daemon.url();
        // Ends the wait too when the process ends.
        let serving = crate::eventually("the daemon serves", limit, || {
            let runs = matches!(daemon.child.try_wait(), Ok(None));
            let url = url.clone();
            async move {
                if !runs {
                    return Some(false);
                }
                let mut client = OperatorClient::connect(url).await.ok()?;
                let status = client.get_status(GetStatusRequest {}).await.ok()?;
                status.get_ref().leader.then_some(true)
            }
        });
        let serves = serving.await;
        match serves {
            Ok(true) => Ok(daemon),
            other => bail!("{other:?}: {}", daemon.output()),
        }
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// If the process cannot be made.
    pub fn spawn(data_dir: &Path, port: u16) -> anyhow::Result<Self> {
        // Snapshots are taken and segments recycled within seconds.
        let often = ["--snapshot-entries", "2000", "--segment-bytes", "8388608"];
        Self::spawn_as(binary(), data_dir, port, &often)
    }

    /// Starts a binary with further arguments, without waiting.
    ///
    /// # Errors
    /// If the process cannot be made.
    pub fn spawn_as(
        binary: &Path,
        data_dir: &Path,
        port: u16,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let log = data_dir.with_extension("log");
        let output = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)?;
        let mut command = Command::new(binary);
        // Settings of the tests are none of the daemon's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ACCEDE_") {
                command.env_remove(name);
            }
        }
        let child = command
            .arg("serve")
            .args(arguments)
            .args(["--listen", &addr.to_string(), "--data-dir"])
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .context("starting the daemon")?;
        Ok(Self { child, addr, log })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL, as by a power button.
    ///
    /// # Errors
    /// If the process cannot be ended.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it ends by itself; true if it ended in order.
    ///
    /// # Errors
    /// If it still runs after `limit`.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<bool> {
        let child = &mut self.child;
        let status = crate::eventually("the daemon ends", limit, || {
            let ended = child.try_wait().ok().flatten();
            std::future::ready(ended)
        });
        Ok(status.await?.success())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
