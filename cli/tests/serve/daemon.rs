//! A real `accede serve` process, and the command line against it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_accede");
/// A start or an end that takes longer than this is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program with these arguments and none of the caller's settings.
pub(crate) fn accede(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("ACCEDE_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = accede(args).output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    stderr: BufReader<ChildStderr>,
    pub(crate) addr: String,
}

impl Daemon {
    /// Starts it on a free port and waits until it says that it serves.
    pub(crate) fn start(data_dir: &Path) -> Self {
        let data_dir = data_dir.to_str().expect("a plain path");
        let mut child = accede(&[
            "--json",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
        ])
        .args(["--segment-bytes", "8MiB", "--data-dir", data_dir])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut seen = String::new();
        let addr = loop {
            let mut line = String::new();
            let read = stderr.read_line(&mut line).expect("stderr is text");
            assert_ne!(read, 0, "it ended before it served:\n{seen}");
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            if event["fields"]["message"] == "serving" {
                break event["fields"]["addr"]
                    .as_str()
                    .expect("an address")
                    .to_owned();
            }
            seen.push_str(&line);
        };
        Self {
            child,
            stderr,
            addr,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// `accede --coordinator … --json ARGS`: exit code and the last line of stdout.
    pub(crate) fn ask(&self, args: &[&str]) -> (Option<i32>, Value) {
        let url = self.url();
        let (code, stdout, stderr) = run(&[&["--coordinator", &url, "--json"], args].concat());
        let last = stdout
            .lines()
            .last()
            .unwrap_or_else(|| panic!("no JSON; stderr: {stderr}"));
        (code, serde_json::from_str(last).expect("JSON"))
    }

    /// GET over plain HTTP/1.1: status line and body.
    pub(crate) fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.addr).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
        (
            head.lines().next().unwrap_or_default().to_owned(),
            body.to_owned(),
        )
    }

    /// Sends a signal and waits for the end: exit code, stdout, rest of stderr.
    pub(crate) fn end(mut self, signal: Signal) -> (Option<i32>, String, String) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stderr.read_to_string(&mut stderr).expect("text");
        let mut out = self.child.stdout.take().expect("piped");
        out.read_to_string(&mut stdout).expect("text");
        (self.child.wait().expect("it ends").code(), stdout, stderr)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Nothing to kill when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
