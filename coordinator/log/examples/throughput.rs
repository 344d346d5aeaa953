//! Durable entries per second: the whole log, and the segment writer alone.
//!
//! `cargo run --release -p accede-log --example throughput -- [DIR] [SECONDS]`
//!
//! N tasks each propose an entry of 200 bytes, await its answer, and go on. Both subjects are
//! measured in turns, because a disk has good and bad moments.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use accede_log::raw::Appender;
use accede_log::{Leadership, Log, LogConfig, StateMachine};
use bytes::Bytes;

const ENTRY: [u8; 200] = [7; 200];

struct Count(u64);

impl StateMachine for Count {
    type Response = u64;
    fn apply(&mut self, _index: u64, _entry: &[u8]) -> u64 {
        self.0 += 1;
        self.0
    }
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.0 = u64::from_le_bytes(snapshot.try_into().map_err(|_| "not a count".to_owned())?);
        Ok(())
    }
}

/// Entries per second and microseconds of latency (half, 99 of 100), with `waiters` tasks.
async fn measure<F, Fut>(waiters: usize, time: Duration, one: F) -> (f64, u128, u128)
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..waiters)
        .map(|_| {
            let (stop, one) = (Arc::clone(&stop), one.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while !stop.load(Relaxed) {
                    let start = now();
                    one().await;
                    took.push(start.elapsed());
                }
                took
            })
        })
        .collect();
    let start = now();
    tokio::time::sleep(time).await;
    stop.store(true, Relaxed);
    let elapsed = start.elapsed();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("a waiter does not panic"));
    }
    all.sort_unstable();
    let at = |part: usize| {
        all.get(all.len() * part / 100)
            .map_or(0, Duration::as_micros)
    };
    (all.len() as f64 / elapsed.as_secs_f64(), at(50), at(99))
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[expect(clippy::print_stdout, reason = "the table is the output")]
fn print(line: &str) {
    println!("{line}");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(
        args.next()
            .unwrap_or_else(|| "target/throughput".to_owned()),
    );
    let seconds: u64 = args.next().map_or(Ok(2), |text| text.parse())?;
    let time = Duration::from_secs(seconds);

    let log = Log::open(LogConfig::new(dir.join("log")), Count(0)).await?;
    log.leadership()
        .wait_for(|now| matches!(now, Leadership::Leader { .. }))
        .await?;
    let raw = Arc::new(Appender::open(&LogConfig::new(dir.join("raw")))?);

    print("waiters  subject  entries/s  p50 us  p99 us  entries/forced write  us/forced write");
    for waiters in [1, 16, 64, 256, 1024] {
        for round in 0..2 {
            let before = if round == 0 { log.stats() } else { raw.stats() };
            let (rate, half, most) = if round == 0 {
                let log = log.clone();
                measure(waiters, time, move || {
                    let log = log.clone();
                    async move {
                        let proposal = log.propose(Bytes::from_static(&ENTRY)).await;
                        proposal.expect("within limits").await.expect("decided");
                    }
                })
                .await
            } else {
                let raw = Arc::clone(&raw);
                let result = measure(waiters, time, {
                    let raw = Arc::clone(&raw);
                    move || {
                        let entry = raw.append(Bytes::from_static(&ENTRY));
                        async move { entry.await.expect("durable") }
                    }
                });
                let result = result.await;
                raw.forget().await?;
                result
            };
            let after = if round == 0 { log.stats() } else { raw.stats() };
            let forced = (after.forced_writes - before.forced_writes).max(1) as f64;
            let entries = (after.entries - before.entries) as f64;
            let flush = (after.flush_time - before.flush_time).as_secs_f64() * 1e6 / forced;
            let subject = if round == 0 { "log" } else { "raw" };
            print(&format!(
                "{waiters:7}  {subject:7}  {rate:9.0}  {half:6}  {most:6}  {:20.1}  {flush:15.0}",
                entries / forced
            ));
        }
    }
    let entries = log.stats().applied_index;
    log.shutdown().await?;
    raw.close();
    drop(log);
    let start = now();
    let log = Log::open(LogConfig::new(dir.join("log")), Count(0)).await?;
    let (took, from) = (start.elapsed(), log.stats().snapshot_index);
    print(&format!(
        "reopened in {took:?}: {} entries applied again",
        entries - from
    ));
    log.shutdown().await?;
    Ok(())
}
