//! What one order takes, phase two included: counted, not estimated.

use super::{
    place::{Order, Place},
    way::{self, Mode, Reach},
};
use crate::{at::proxy::Proxy, coordinator::Coordinator};

/// Orders before trips and statements are counted: connections open, statements are prepared.
const WARM_UP: u64 = 20;
/// Orders that are counted.
const COUNTED: u64 = 200;

/// What one order takes that is alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// How often its clients wait for a database.
    pub(super) round_trips: f64,
    /// How often the databases' log and the coordinator's are forced to disk.
    pub(super) forced_writes: f64,
    /// Statements that the databases ran.
    pub(super) statements: f64,
}

/// Places orders one after the other, through a proxy that counts trips, with PostgreSQL's own
/// counts of statements and forced writes.
///
/// # Errors
/// When an order fails.
pub(super) async fn count(
    mode: Mode,
    place: &Place,
    coordinator: &mut Coordinator,
) -> anyhow::Result<Counts> {
    place.all_gone().await?;
    place.tidy().await?;
    let proxy = Proxy::start(place.address().to_owned()).await?;
    let forced = |status: u64, wal: u64| status + wal;
    let before = forced(
        coordinator.status().await?.forced_writes,
        place.forced_writes().await?,
    );
    let reach = Reach {
        address: format!("127.0.0.1:{}", proxy.port),
        options: "?options[pg_stat_statements.track]=top",
        connections: 1,
    };
    // It has placed one.
    let way = way::open_at(mode, &reach, coordinator).await?;
    for _ in 1..WARM_UP {
        way.place(Order::random()).await?;
    }
    place.all_finished().await?;
    let (trips, statements) = (proxy.trips(), place.statements().await?);
    for _ in 0..COUNTED {
        way.place(Order::random()).await?;
        // What shares its work with others shall not.
        place.all_finished().await?;
    }
    let (trips, statements) = (
        proxy.trips() - trips,
        place.statements().await?.saturating_sub(statements),
    );
    way.close().await;
    drop(way);
    // A session's forced writes are counted when it has ended.
    place.all_gone().await?;
    let after = forced(
        coordinator.status().await?.forced_writes,
        place.forced_writes().await?,
    );
    Ok(Counts {
        round_trips: trips as f64 / COUNTED as f64,
        forced_writes: after.saturating_sub(before) as f64 / (WARM_UP + COUNTED) as f64,
        statements: statements as f64 / COUNTED as f64,
    })
}
