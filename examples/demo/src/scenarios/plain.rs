//! Nothing is killed.

use accede_proto::v1::Status as Stand;
use anyhow::{Result, ensure};
use shop_api::mode::ShopMode;
use tonic::Code;

use super::{Placing, item, rolled_back, settled, settled_as, written_down};
use crate::{
    books::{CUP, POOR_USER, SEAT, TEAPOT},
    shop::Shop,
};

pub(super) async fn committed(shop: &mut Shop) -> Result<String> {
    let before = settled(shop).await?;
    let items = [item(TEAPOT, 1), item(CUP, 4), item(SEAT, 2)];
    let placed = Placing::start(shop, "committed", 1, &items)
        .ordered()
        .await?;
    shop.operator
        .until_stands(&placed.xid, Stand::Committed)
        .await?;
    let after = before.with("committed", 1, &items);
    settled_as(shop, after.clone()).await?;
    // By mistake once more: the goods that it took by then go back.
    Placing::start(shop, "committed", 1, &items)
        .refused(Code::AlreadyExists, "exists already")
        .await?;
    settled_as(shop, after).await?;
    Ok(format!(
        "order {} for {} cents, once although it was placed twice",
        placed.order, placed.paid
    ))
}

pub(super) async fn short_of_money(shop: &mut Shop) -> Result<String> {
    let before = settled(shop).await?;
    let items = [item(TEAPOT, 3), item(SEAT, 1)];
    let mut placing = Placing::start(shop, "short", POOR_USER, &items);
    // The order is written down and the goods are taken, both for all to see; what the database
    // has only prepared, nobody sees.
    let goods_seen = if shop.mode == ShopMode::Xa { 0 } else { 3 };
    let order_seen = !matches!(shop.mode, ShopMode::Xa | ShopMode::Mixed);
    let held = placing.watch.reach(written_down(&items)).await?;
    let middle = shop.databases.read().await?;
    ensure!(
        middle.orders.contains_key("short") == order_seen
            && middle.stock[&TEAPOT.number] == before.stock[&TEAPOT.number] - goods_seen,
        "stock and order should have committed locally"
    );
    let xid = held.step.xid.clone();
    drop(held);
    let status = placing
        .refused(Code::FailedPrecondition, "not enough money")
        .await?;
    rolled_back(shop, &xid).await?;
    settled_as(shop, before).await?;
    Ok(format!("told \"{}\"", status.message()))
}
