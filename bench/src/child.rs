//! Processes that end with this one, however it ends.

use std::{ffi::OsStr, fs::File, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::report;

/// Runs the program and waits at its own standard input: when the pipe closes, because this
/// process closes it or is no more, the program is asked to end and its folder is removed.
const WATCH: &str = r#"
signal=$1 folder=$2
shift 2
"$@" </dev/null &
program=$!
read -r _ || true
kill -s "$signal" "$program" 2>/dev/null || true
code=0
wait "$program" || code=$?
rm -rf -- "$folder"
exit $code
"#;

/// How long a program may take to end.
const STOP: Duration = Duration::from_secs(20);
/// How much of a program's output is shown when it fails.
const TAIL_BYTES: usize = 2000;

/// A running program.
pub(crate) struct Running {
    watcher: Child,
    name: &'static str,
    output: PathBuf,
}

impl Running {
    /// Starts a program that owns a folder; its output goes to a file there. `signal` is what
    /// asks it to end.
    ///
    /// # Errors
    /// When there is no shell, or the folder cannot be written.
    pub(crate) fn start(
        name: &'static str,
        signal: &str,
        folder: TempDir,
        words: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Self> {
        let output = folder.path().join("output");
        let file = File::create(&output)
            .with_context(|| format!("cannot write {name}'s output to {}", output.display()))?;
        let mut shell = Command::new("sh");
        // What is measured has its defaults, whatever the user set for a daemon of their own.
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"ACCEDE_") {
                shell.env_remove(variable);
            }
        }
        let watcher = shell
            .args(["-c", WATCH, "sh", signal])
            .arg(folder.path())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C in a terminal reaches this process only; it closes the pipe.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        // From here on the watcher removes it.
        let _ = folder.keep();
        Ok(Self {
            watcher,
            name,
            output,
        })
    }

    /// The last lines that the program wrote, for an error message.
    pub(crate) fn tail(&self) -> String {
        let output = std::fs::read(&self.output).unwrap_or_default();
        let from = output.len().saturating_sub(TAIL_BYTES);
        let tail = String::from_utf8_lossy(&output[from..]);
        format!("{} wrote:\n{}", self.name, tail.trim())
    }

    /// Asks the program to end and waits for it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.watcher.stdin.take());
        match tokio::time::timeout(STOP, self.watcher.wait()).await {
            Ok(Ok(status)) => {
                if !status.success() && status.code().is_some_and(|code| code < 128) {
                    report::progress(format!("{} ended with {status}", self.name));
                }
                Ok(())
            }
            Ok(Err(error)) => Err(error).context("cannot wait for a process"),
            Err(_) => bail!("{} does not end; {}", self.name, self.tail()),
        }
    }
}

/// A port of 127.0.0.1 that is free now.
///
/// # Errors
/// When there is none.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}
