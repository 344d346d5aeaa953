//! Something is killed (SIGKILL) at the worst moment.

use accede_proto::v1::{Decision, Status as Stand};
use anyhow::{Result, ensure};
use shop_api::{mode::ShopMode, v1::Item};
use tonic::Code;

use super::{Placing, item, last_step, rolled_back, settled, settled_as, written_down};
use crate::{
    books::{Books, CUP, POOR_USER, SEAT, TEAPOT},
    shop::{Part, Shop},
};

/// How long a customer waits whose order nobody is left to decide: much longer than
/// it takes until the front is killed.
const PATIENCE_MS: u32 = 6_000;

/// The stock service dies with its branch committed locally; then the account
/// has too little money. Stock's branch can be undone only once it is back.
pub(super) async fn service(shop: &mut Shop) -> Result<String> {
    let before = settled(shop).await?;
    let items = [item(TEAPOT, 2), item(SEAT, 1)];
    let mut placing = Placing::start(shop, "service-killed", POOR_USER, &items);
    let done = written_down(&items);
    let held = placing.watch.reach(done).await?;
    let xid = held.step.xid.clone();
    shop.operator.until_done(&xid, done).await?;
    shop.kill(Part::Stock)?;
    drop(held);
    placing
        .refused(Code::FailedPrecondition, "not enough money")
        .await?;
    let detail = shop.operator.until_stands(&xid, Stand::RollingBack).await?;
    // Where money is frozen the account's branch is there before it refuses. An observer's are not
    // what this is about.
    let branches = detail.branches.iter();
    let branches = branches.filter(|branch| {
        !branch.resource.starts_with("account") && !branch.resource.contains("://")
    });
    let branches = branches.count();
    ensure!(
        branches == done as usize,
        "{branches} branches instead of {done}"
    );
    let is_there = if shop.mode == ShopMode::Xa {
        shop.databases.stock_is_prepared().await?
    } else {
        let middle = shop.databases.read().await?;
        middle.stock[&TEAPOT.number] == before.stock[&TEAPOT.number] - 2
            && middle.stock[&SEAT.number] == before.stock[&SEAT.number] - 1
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
    let items = [item(CUP, 6), item(SEAT, 1)];
    if shop.mode == ShopMode::Saga {
        return coordinator_of_a_saga(shop, before, &items).await;
    }
    let mut placing = Placing::start(shop, "coordinator-killed", 2, &items);
    let done = last_step(shop, &items);
    let held = placing.watch.reach(done).await?;
    let xid = held.step.xid.clone();
    shop.operator.until_done(&xid, done).await?;
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
    // A parcel that is packed is packed.
    let unfinished = written_down(&items) + 1;
    ensure!(
        summary.decision() == Decision::Commit && summary.unfinished_branches == unfinished,
        "after the restart {} branches are unfinished instead of {unfinished}",
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

/// A saga has no phase two; the step that is left is ordered by a coordinator that dies, from a
/// service that is frozen, and again by the next one.
async fn coordinator_of_a_saga(shop: &mut Shop, before: Books, items: &[Item]) -> Result<String> {
    let mut placing = Placing::start(shop, "coordinator-killed", 2, items);
    let done = written_down(items);
    let held = placing.watch.reach(done).await?;
    let xid = held.step.xid.clone();
    shop.operator.until_done(&xid, done).await?;
    shop.freeze(Part::Account)?;
    placing.watch.leave();
    drop(held);
    shop.operator.until_runs(&xid, "account").await?;

    shop.kill(Part::Coordinator)?;
    shop.restart(Part::Coordinator)?;
    shop.ready(Part::Coordinator).await?;
    let detail = shop.operator.until_stands(&xid, Stand::Active).await?;
    let done_since = detail.branches.iter().any(|branch| {
        let is_over = matches!(branch.status.as_str(), "done" | "finished");
        branch.step == "account" && is_over
    });
    ensure!(!done_since, "a frozen service has taken the money");
    shop.thaw(Part::Account)?;
    shop.operator.until_stands(&xid, Stand::Committed).await?;
    placing.ordered().await?;
    settled_as(shop, before.with("coordinator-killed", 2, items)).await?;
    for part in [Part::Account, Part::Front] {
        shop.ready(part).await?;
    }
    Ok("the plan was found again and went on where it was".to_owned())
}

/// Nobody is left to decide; the coordinator rolls back. A saga needs nobody, and goes on.
pub(super) async fn front(shop: &mut Shop) -> Result<String> {
    let before = settled(shop).await?;
    let items = [item(TEAPOT, 1), item(CUP, 1), item(SEAT, 1)];
    let is_saga = shop.mode == ShopMode::Saga;
    let (done, patience) = if is_saga {
        (written_down(&items), 0)
    } else {
        (last_step(shop, &items), PATIENCE_MS)
    };
    let mut placing = Placing::start_within(shop, "front-killed", 3, &items, patience);
    let held = placing.watch.reach(done).await?;
    let xid = held.step.xid.clone();
    shop.operator.until_done(&xid, done).await?;
    shop.kill(Part::Front)?;
    drop(held);
    ensure!(placing.answer().await?.is_err(), "a dead front answered");
    let what = if is_saga {
        shop.operator.until_stands(&xid, Stand::Committed).await?;
        settled_as(shop, before.with("front-killed", 3, &items)).await?;
        "the coordinator had the rest done without it".to_owned()
    } else {
        let reason = rolled_back(shop, &xid).await?;
        settled_as(shop, before).await?;
        format!("rolled back by the coordinator: {reason}")
    };
    shop.restart(Part::Front)?;
    shop.ready(Part::Front).await?;
    Ok(what)
}
