//! The modes, and how fast each is.

use std::{sync::Arc, time::Duration};

use clap::ValueEnum;
use futures_util::future::BoxFuture;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::{
    branches::Branches,
    hand_written,
    place::{Order, Place, Side},
    plain, saga,
};
use crate::{clock, coordinator::Coordinator};

/// Orders of each task before a measurement.
const WARM_UP: u32 = 20;
/// The longest time to an answer that is told apart.
const MAX_LATENCY_US: u64 = 60_000_000;

/// A mode: what finishes an order's two changes together, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    Plain,
    #[value(name = "hand_written")]
    HandWritten,
    At,
    Xa,
    Tcc,
    Saga,
    #[value(name = "3pc")]
    ThreePhase,
    Mixed,
}

impl Mode {
    pub(super) const ALL: [Self; 8] = [
        Self::Plain,
        Self::HandWritten,
        Self::At,
        Self::Xa,
        Self::Tcc,
        Self::Saga,
        Self::ThreePhase,
        Self::Mixed,
    ];

    /// As options and results call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::HandWritten => "hand_written",
            Self::At => "at",
            Self::Xa => "xa",
            Self::Tcc => "tcc",
            Self::Saga => "saga",
            Self::ThreePhase => "3pc",
            Self::Mixed => "mixed",
        }
    }

    /// Whether the others' figures are given in proportion to its own.
    pub(super) fn is_compared_with(self) -> bool {
        matches!(self, Self::Plain | Self::HandWritten)
    }
}

/// A mode with its connections.
pub(super) trait Way: Send + Sync {
    /// Places an order; resolves with its answer.
    fn place(&self, order: Order) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Ends sessions and closes connections.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// How the databases are reached: the address, and what is set for each session.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) address: String,
    pub(super) options: &'static str,
    /// In each database.
    pub(super) connections: u32,
}

impl Reach {
    pub(super) fn url(&self, side: Side) -> String {
        let url = super::place::url(&self.address, side.name());
        format!("{url}{}", self.options)
    }
}

/// Connects to databases and, where the mode has one, to the coordinator, and has placed an order.
///
/// # Errors
/// When one of them does not answer.
pub(super) async fn open(
    mode: Mode,
    place: &Place,
    coordinator: &Coordinator,
    connections: u32,
) -> anyhow::Result<Arc<dyn Way>> {
    let reach = Reach {
        address: place.address().to_owned(),
        options: "",
        connections,
    };
    open_at(mode, &reach, coordinator).await
}

/// The same, elsewhere.
///
/// # Errors
/// When one of them does not answer.
pub(super) async fn open_at(
    mode: Mode,
    reach: &Reach,
    coordinator: &Coordinator,
) -> anyhow::Result<Arc<dyn Way>> {
    let way: Arc<dyn Way> = match mode {
        Mode::Plain => Arc::new(plain::Plain::open(reach)?),
        Mode::HandWritten => Arc::new(hand_written::HandWritten::open(reach)?),
        Mode::At | Mode::Xa | Mode::Tcc | Mode::ThreePhase => {
            Arc::new(Branches::open(reach, coordinator, [mode; 2]).await?)
        }
        // As the shop does it: goods in AT, money in TCC.
        Mode::Mixed => Arc::new(Branches::open(reach, coordinator, [Mode::At, Mode::Tcc]).await?),
        Mode::Saga => Arc::new(saga::Saga::open(reach, coordinator).await?),
    };
    // Agents attach in the background; a branch waits for that.
    way.place(Order::random()).await?;
    Ok(way)
}

/// What one measurement found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Orders.
    pub(super) per_s: f64,
    /// To the answer, in microseconds.
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Places orders for a while, so many at once.
///
/// # Errors
/// The first that failed.
pub(super) async fn measure(
    way: &Arc<dyn Way>,
    place: &Place,
    tasks: u32,
    time: Duration,
) -> anyhow::Result<Measured> {
    // Dead rows of the round before are not this one's.
    place.all_finished().await?;
    place.tidy().await?;
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let way = Arc::clone(way);
        running.spawn(async move {
            for _ in 0..WARM_UP {
                way.place(Order::random()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    place.all_finished().await?;
    let start = clock::now();
    let until = start + time;
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let way = Arc::clone(way);
        running.spawn(async move {
            let mut latency = Histogram::<u64>::new_with_bounds(1, MAX_LATENCY_US, 3)?;
            loop {
                let begun = clock::now();
                if begun >= until {
                    return anyhow::Ok(latency);
                }
                way.place(Order::random()).await?;
                let micros = (clock::now() - begun).as_micros();
                latency.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
            }
        });
    }
    let mut latency = Histogram::<u64>::new_with_bounds(1, MAX_LATENCY_US, 3)?;
    while let Some(ended) = running.join_next().await {
        latency.add(ended??)?;
    }
    place.all_finished().await?;
    let seconds = (clock::now() - start).as_secs_f64();
    Ok(Measured {
        per_s: latency.len() as f64 / seconds,
        p50_us: latency.value_at_quantile(0.5) as f64,
        p99_us: latency.value_at_quantile(0.99) as f64,
    })
}
