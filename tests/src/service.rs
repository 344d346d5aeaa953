//! A service in a process of its own: it does what it is told over its standard input, and can be
//! killed.
//!
//! The process is the test's own binary once more, with one test alone, which must be named
//! `service_process`: it asks whether it was [`asked`], and [`serve`]s.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use accede_tm_client::Xid;
use anyhow::{Context as _, bail};
use tokio::{runtime::Runtime, sync::oneshot};

/// What the service was started with, in words; without them a process is none.
const ASKED: &str = "ACCEDE_TEST_SERVICE";
/// How a line of the service begins; whoever runs it writes lines of its own.
const DID: &str = "did ";
/// What it says of work that went well.
const ALL: &str = "all";

/// The words that this process was started with, if it is a service.
#[must_use]
pub fn asked() -> Option<Vec<String>> {
    let words = std::env::var(ASKED).ok()?;
    Some(words.split(' ').map(str::to_owned).collect())
}

/// Does the work that is ordered, each for a transaction and a number, until the standard input
/// ends.
///
/// # Panics
/// If an order cannot be read.
#[expect(
    clippy::print_stdout,
    reason = "what was done goes to whoever started this process"
)]
pub fn serve<F>(runtime: &Runtime, work: impl Fn(Xid, i64) -> F)
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        let mut words = line.split(' ');
        let mut word = || {
            words
                .next()
                .expect("an order's id, its transaction, its number")
        };
        let (id, xid) = (word().to_owned(), word().parse::<Xid>().expect("an XID"));
        let working = work(xid, word().parse().expect("a number"));
        runtime.spawn(async move {
            let told = match working.await {
                Ok(()) => ALL.to_owned(),
                Err(error) => error.replace('\n', " "),
            };
            println!("{DID}{id} {told}");
        });
    }
}

type Waiting = Mutex<HashMap<u64, oneshot::Sender<String>>>;

/// The running process; killed when dropped.
#[derive(Debug)]
pub struct Service {
    child: Mutex<Child>,
    orders: Mutex<ChildStdin>,
    waiting: Arc<Waiting>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// Starts it with these words, none of which has a space.
    ///
    /// # Errors
    /// If the process cannot be made.
    pub fn start(words: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "service_process", "--nocapture"])
            .env(ASKED, words.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().context("its input")?;
        let told = BufReader::new(child.stdout.take().context("its output")?);
        let waiting = Arc::new(Waiting::default());
        let heard = Arc::clone(&waiting);
        thread::spawn(move || {
            for line in told.lines().map_while(Result::ok) {
                // The first line of all shares it with what the test harness says.
                let did = line.split_once(DID).map(|(_, did)| did);
                if let Some((id, told)) = did.and_then(|did| did.split_once(' '))
                    && let Some(waits) = id.parse().ok().and_then(|id| locked(&heard).remove(&id))
                {
                    // Whoever asked may be gone.
                    let _ = waits.send(told.to_owned());
                }
            }
            // It is dead: nobody waits for it any longer.
            locked(&heard).clear();
        });
        Ok(Self {
            child: Mutex::new(child),
            orders: Mutex::new(orders),
            waiting,
        })
    }

    /// Has it do what this number stands for, in a transaction.
    ///
    /// # Errors
    /// If it died, or what it says went wrong.
    pub async fn work(&self, xid: Xid, number: i64) -> anyhow::Result<()> {
        let (sender, told) = oneshot::channel();
        let id = number.unsigned_abs();
        locked(&self.waiting).insert(id, sender);
        if let Err(error) = writeln!(locked(&self.orders), "{id} {xid} {number}") {
            locked(&self.waiting).remove(&id);
            return Err(error.into());
        }
        let told = told.await.context("the service was killed")?;
        if told != ALL {
            bail!("the service says {told:?}");
        }
        Ok(())
    }

    /// SIGKILL, whatever it is doing.
    ///
    /// # Errors
    /// If the process cannot be ended.
    pub fn kill(&self) -> anyhow::Result<()> {
        let mut child = locked(&self.child);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Waits until it is dead by its own hand.
    ///
    /// # Errors
    /// If it still lives after `limit`.
    pub async fn died(&self, limit: Duration) -> anyhow::Result<()> {
        crate::eventually("the service dies", limit, async || {
            locked(&self.child).try_wait().ok()?.map(drop)
        })
        .await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}

/// SIGKILL for this very process.
///
/// # Panics
/// If there is no program `kill`.
pub fn die() -> ! {
    let itself = std::process::id().to_string();
    let killed = Command::new("kill").args(["-KILL", &itself]).status();
    killed.expect("a system has the program kill");
    loop {
        thread::park();
    }
}
