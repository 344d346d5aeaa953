//! Something is killed (SIGKILL) at the worst moment.

use accede_proto::v1::{Decision, Status as Stand};
use anyhow::{Result, ensure};
use shop_api::mode::ShopMode;
use tonic::Code;

use super::{Placing, item, rolled_back, settled, settled_as};
use crate::{
    books::{CUP, POOR_USER, TEAPOT},
    shop::{Part, Shop},
};

/// The stock service dies with its branch committed locally; then the account
/// has too little money. Stock's branch can be undone only once it is back.
pub(super) async fn service(shop: &mut Shop) -> Result<String> {
    let before = settled(shop).await?;
    let items = [item(TEAPOT, 2)];
    let mut placing = Placing::start(shop, "service-killed", POOR_USER, &items);
    let held = placing.watch.reach(2).await?;
    let xid = held.step.xid.clone();
    shop.operator.until_done(&xid, 2).await?;
    shop.kill(Part::Stock)?;
    drop(held);
    placing
        .refused(Code::FailedPrecondition, "not enough money")
        .await?;
    let detail = shop.operator.until_stands(&xid, Stand::RollingBack).await?;
    // In TCC the account's branch was there, too, before it refused.
    let branches = detail.branches.iter();
    let branches = branches.filter(|branch| branch.status != "withdrawn");
    let branches = branches.count();
    ensure!(branches == 2, "{branches} branches instead of 2");
    let is_there = if shop.mode == ShopMode::Xa {
        shop.databases.stock_is_prepared().await?
    } else {
        let middle = shop.databases.read().await?;
        middle.stock[&TEAPOT.number] == before.stock[&TEAPOT.number] - 2
    };
    ensure!(
        is_there,
        "nobody was there to undo the stock, yet it is undone"
    );

    shop.restart(Part::Stock)?;
    shop.ready(Part::Stock).await?;
    rolled_back(shop, &xid).await?;
    settled_as(shop, before).await?;
    Ok("undone by itself once the service was back".to_owned())
}

/// The services are frozen with all branches done, so nobody can acknowledge
/// phase two; commit is decided, the coordinator dies and comes back.
pub(super) async fn coordinator(shop: &mut Shop) -> Result<String> {
    let before = settled(shop).await?;
    let items = [item(CUP, 6)];
    let mut placing = Placing::start(shop, "coordinator-killed", 2, &items);
    let held = placing.watch.reach(3).await?;
    let xid = held.step.xid.clone();
    shop.operator.until_done(&xid, 3).await?;
    for part in Part::SERVICES {
        shop.freeze(part)?;
    }
    drop(held);
    placing.ordered().await?;
    shop.operator.until_stands(&xid, Stand::Committing).await?;

    shop.kill(Part::Coordinator)?;
    shop.restart(Part::Coordinator)?;
    shop.ready(Part::Coordinator).await?;
    let detail = shop.operator.until_stands(&xid, Stand::Committing).await?;
    let summary = detail.summary.unwrap_or_default();
    ensure!(
        summary.decision() == Decision::Commit && summary.unfinished_branches == 3,
        "after the restart {} branches are unfinished instead of 3",
        summary.unfinished_branches
    );
    ensure!(
        shop.databases.nothing_left().await.is_err(),
        "phase two has happened before the services went on"
    );
    for part in Part::SERVICES {
        shop.thaw(part)?;
    }
    shop.operator.until_stands(&xid, Stand::Committed).await?;
    settled_as(shop, before.with("coordinator-killed", 2, &items)).await?;
    for part in Part::SERVICES {
        shop.ready(part).await?;
    }
    shop.ready(Part::Front).await?;
    Ok("the decision was found again and finished".to_owned())
}

/// Nobody is left to decide; the coordinator rolls back.
pub(super) async fn front(shop: &mut Shop) -> Result<String> {
    let before = settled(shop).await?;
    let items = [item(TEAPOT, 1), item(CUP, 1)];
    let mut placing = Placing::start(shop, "front-killed", 3, &items);
    let held = placing.watch.reach(4).await?;
    let xid = held.step.xid.clone();
    shop.operator.until_done(&xid, 4).await?;
    shop.kill(Part::Front)?;
    drop(held);
    ensure!(placing.answer().await?.is_err(), "a dead front answered");
    let reason = rolled_back(shop, &xid).await?;
    settled_as(shop, before).await?;
    shop.restart(Part::Front)?;
    shop.ready(Part::Front).await?;
    Ok(format!("rolled back by the coordinator: {reason}"))
}
