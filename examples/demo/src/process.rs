//! Child processes that do not outlive the demo.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{InVain, until};

/// How long a process may take to stop when it is asked to.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How much of a log is shown when something failed.
const TAIL_LINES: usize = 25;
const TAIL_BYTES: i64 = 16 * 1024;

/// How a program is run and stopped.
pub(crate) struct Start {
    pub(crate) name: &'static str,
    pub(crate) command: Command,
    /// User and group to run as, if not the demo's own.
    pub(crate) user: Option<(u32, u32)>,
    pub(crate) log: PathBuf,
    /// Asks it to stop in order.
    pub(crate) stop: Signal,
    /// Makes it end at once, with all that it started.
    pub(crate) end: Signal,
    /// Not to end when the demo is killed.
    pub(crate) keep: bool,
}

/// A running process in a process group of its own, so that Ctrl-C reaches only
/// the demo. Dropping it ends it.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    stop: Signal,
    end: Signal,
    left: bool,
}

impl Process {
    pub(crate) fn start(start: Start) -> Result<Self> {
        let Start {
            name,
            command,
            user,
            log,
            stop,
            end,
            keep,
        } = start;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = if keep {
            command
        } else {
            dies_with_us(command, end)
        };
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({:?})", command.get_program()))?;
        Ok(Self {
            name,
            child,
            log,
            stop,
            end,
            left: false,
        })
    }

    /// Dropping it will leave it running.
    pub(crate) fn leave(&mut self) {
        self.left = true;
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stop_signal(&self) -> Signal {
        self.stop
    }

    /// An error that ends all waiting when the process is gone.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => Err(InVain(format!("{} ended by itself: {status}", self.name)).into()),
        }
    }

    pub(crate) fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal, to a process that was not waited for yet: its id is its own.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exited()? {
            bail!("{} ended by itself: {status}", self.name);
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// SIGKILL: what a crash looks like.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// Makes the process end at once, with all that it started.
    pub(crate) fn quit(&mut self) -> Result<()> {
        self.signal(self.end)?;
        self.signal(Signal::CONT)?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to stop and waits until it has.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        self.signal(self.stop)?;
        let name = self.name;
        let status = until(
            format_args!("{name} has stopped"),
            STOP_LIMIT,
            async || match self.exited()? {
                Some(status) => Ok(status),
                None => bail!("it still runs"),
            },
        )
        .await?;
        if !status.success() {
            bail!("{name} did not stop in order: {status}");
        }
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("(cannot be read: {error})"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.left || !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let pid = Pid::from_child(&self.child);
        // A stopped process hears nothing but SIGKILL and this.
        let sent = kill_process(pid, self.end).and_then(|()| kill_process(pid, Signal::CONT));
        if sent.is_ok() {
            // All that can be done about an error is to leave a zombie.
            let _ = self.child.wait();
        }
    }
}

/// Has the kernel end the process when the demo is killed itself. It counts the
/// thread that started it: the demo runs on one only.
fn dies_with_us(command: Command, signal: Signal) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return command;
    }
    let name = if signal == Signal::QUIT {
        "QUIT"
    } else {
        "KILL"
    };
    let mut guarded = Command::new(setpriv);
    guarded
        .args(["--pdeathsig", name])
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => guarded.env(name, value),
            None => guarded.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        guarded.current_dir(folder);
    }
    guarded
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
    file.seek(SeekFrom::End(-length.min(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(folder: &Path, script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(Start {
            name: "script",
            command,
            user: None,
            log: folder.join("script.log"),
            stop: Signal::TERM,
            end: Signal::KILL,
            keep: false,
        })
        .expect("starts")
    }

    async fn logged(process: &Process, text: &str) {
        until("it is logged", Duration::from_secs(20), async || {
            anyhow::ensure!(process.log_tail().contains(text), "not yet");
            Ok(())
        })
        .await
        .expect("logged");
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone_even_when_it_is_stopped() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = start(folder.path(), "echo up; exec sleep 1000");
        logged(&process, "up").await;
        let pid = process.id();
        process.signal(Signal::STOP).expect("stops");
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[tokio::test]
    async fn one_that_ended_by_itself_is_told_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = start(folder.path(), "echo bad luck >&2; exit 3");
        let error = until("never", Duration::from_secs(20), async || {
            process.check_alive()?;
            bail!("alive")
        })
        .await
        .map(|(): ()| ())
        .unwrap_err();
        assert_eq!(error.to_string(), "script ended by itself: exit status: 3");
        assert_eq!(process.log_tail(), "bad luck");
    }

    #[tokio::test]
    async fn stopping_in_order_is_told_from_a_crash() {
        let folder = tempfile::tempdir().expect("a folder");
        let polite = "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done";
        let mut process = start(folder.path(), polite);
        logged(&process, "up").await;
        process.stop().await.expect("in order");
        process.stop().await.expect("twice is once");
        let other = tempfile::tempdir().expect("a folder");
        let mut process = start(other.path(), "echo up; exec sleep 1000");
        logged(&process, "up").await;
        let error = process.stop().await.unwrap_err();
        assert!(error.to_string().contains("signal: 15"), "{error}");
    }
}
