//! Two orders that each hold what the other one wants.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use shop_api::{database::DatabaseKind, mode::ShopMode};
use tonic::{Code, Status};

use super::{Placing, item, rolled_back, settled, settled_as};
use crate::{
    books::{CUP, TEAPOT},
    shop::Shop,
    wait::until,
};

/// How long an order may take to run into a row lock.
const WAITS_LIMIT: Duration = Duration::from_secs(15);
/// The head start of the first order: it has waited this long when the second
/// one closes the circle, so they are not told at the same moment.
const HEAD_START: Duration = Duration::from_millis(1_000);

pub(super) async fn run(shop: &mut Shop) -> Result<String> {
    let before = settled(shop).await?;
    let there = [item(TEAPOT, 1), item(CUP, 1)];
    let back = [item(CUP, 1), item(TEAPOT, 1)];
    let mut first = Placing::start(shop, "crossing-there", 4, &there);
    let mut second = Placing::start(shop, "crossing-back", 5, &back);
    let first_held = first.watch.reach(1).await?;
    let second_held = second.watch.reach(1).await?;
    if matches!(
        shop.mode,
        ShopMode::Tcc | ShopMode::ThreePhase | ShopMode::Saga
    ) {
        // Nothing is locked until the end: what one took, the other does not want.
        drop((first_held, second_held));
        tokio::try_join!(first.ordered(), second.ordered())?;
        let both = before.with("crossing-there", 4, &there);
        settled_as(shop, both.with("crossing-back", 5, &back)).await?;
        return Ok("both were placed: goods that one took are in nobody's way".to_owned());
    }
    let first_xid = first_held.step.xid.clone();
    let second_xid = second_held.step.xid.clone();

    // The first one waits for the cup that the second one took …
    drop(first_held);
    if shop.mode != ShopMode::Xa {
        let head_start = u64::try_from(HEAD_START.as_millis())?;
        until("the first order waits", WAITS_LIMIT, async || {
            let detail = shop.operator.transaction(&first_xid).await?;
            let waits = detail.waiting.iter().map(|request| request.waiting_for_ms);
            ensure!(waits.max() >= Some(head_start), "it does not wait yet");
            Ok(())
        })
        .await?;
    }
    // … and now the second one for the first one's teapot.
    drop(second_held);

    let (first, second) = tokio::try_join!(first.answer(), second.answer())?;
    let (loser, winner, user, items, told) = match (first, second) {
        (Ok(_), Err(told)) => (second_xid, "crossing-there", 4, there, told),
        (Err(told), Ok(_)) => (first_xid, "crossing-back", 5, back, told),
        (Ok(_), Ok(_)) => bail!("both were placed: they did not cross"),
        // SQLite locks the whole database for one writer, so the two stood in each
        // other's way there as well; each gives in to the other. In XA they wait for each
        // other's rows in the database, which does not see that prepared ones wait, too.
        (Err(one), Err(other))
            if shop.kind == DatabaseKind::Sqlite || shop.mode == ShopMode::Xa =>
        {
            told_to_try_again(&other)?;
            rolled_back(shop, &second_xid).await?;
            rolled_back(shop, &first_xid).await?;
            let again = Placing::start(shop, "crossing-there", 4, &there);
            again.ordered().await?;
            (first_xid, "crossing-there", 4, there, one)
        }
        (Err(one), Err(other)) => bail!("both were refused: \"{one}\" and \"{other}\""),
    };
    told_to_try_again(&told)?;
    rolled_back(shop, &loser).await?;
    settled_as(shop, before.with(winner, user, &items)).await?;
    Ok(format!("the loser was told \"{}\"", told.message()))
}

fn told_to_try_again(told: &Status) -> Result<()> {
    ensure!(
        told.code() == Code::Aborted && !told.message().is_empty(),
        "the loser was not told to try again: {told}"
    );
    Ok(())
}
