//! What the demo shows: one file per story.

mod crossing;
mod hot_product;
mod killed;
mod plain;

use std::{future::Future, pin::Pin, time::Duration};

use accede_proto::v1::Status as Stand;
use anyhow::{Context as _, Result, bail, ensure};
use shop_api::{
    mode::ShopMode,
    v1::{Item, PlaceOrderRequest, PlaceOrderResponse},
};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::{
    books::{Books, Product},
    observer::Watch,
    shop::Shop,
    wait::until,
};

/// How long everything may take to settle after a scenario.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

type Story<'a> = Pin<Box<dyn Future<Output = Result<String>> + 'a>>;

/// One story; it returns what happened, for the table.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What must come out.
    pub(crate) about: &'static str,
    pub(crate) run: fn(&mut Shop) -> Story<'_>,
}

/// All of them, in the order in which they run.
pub(crate) const ALL: [Scenario; 7] = [
    Scenario {
        name: "committed-order",
        about: "an order commits in all three services",
        run: |shop| Box::pin(plain::committed(shop)),
    },
    Scenario {
        name: "short-of-money",
        about: "the account is short of money: all three roll back",
        run: |shop| Box::pin(plain::short_of_money(shop)),
    },
    Scenario {
        name: "service-killed",
        about: "a service is killed after its local commit, before the decision",
        run: |shop| Box::pin(killed::service(shop)),
    },
    Scenario {
        name: "coordinator-killed",
        about: "the coordinator is killed between the decision and phase two",
        run: |shop| Box::pin(killed::coordinator(shop)),
    },
    Scenario {
        name: "front-killed",
        about: "the front is killed in the middle of an order",
        run: |shop| Box::pin(killed::front(shop)),
    },
    Scenario {
        name: "hot-product",
        about: "64 customers want the last 48 tickets at once",
        run: |shop| Box::pin(hot_product::run(shop)),
    },
    Scenario {
        name: "crossing-orders",
        about: "two orders take the same goods crosswise: one wins",
        run: |shop| Box::pin(crossing::run(shop)),
    },
];

/// An order that is being placed while the scenario watches its steps.
struct Placing {
    reference: String,
    watch: Watch,
    answer: JoinHandle<Result<PlaceOrderResponse, Status>>,
}

impl Placing {
    fn start(shop: &Shop, reference: &str, user: i64, items: &[Item]) -> Self {
        Self::start_within(shop, reference, user, items, 0)
    }

    /// The customer does not wait for longer than that, in milliseconds.
    fn start_within(
        shop: &Shop,
        reference: &str,
        user: i64,
        items: &[Item],
        patience_ms: u32,
    ) -> Self {
        let watch = shop.observers.watch(reference);
        let order = PlaceOrderRequest {
            reference: reference.to_owned(),
            user,
            items: items.to_vec(),
            observer: shop.observers.url(),
            patience_ms,
        };
        let mut front = shop.front.clone();
        let answer = tokio::spawn(async move {
            let placed = front.place_order(order).await?;
            Ok(placed.into_inner())
        });
        Self {
            reference: reference.to_owned(),
            watch,
            answer,
        }
    }

    /// Lets it go on by itself and returns what the customer hears.
    async fn answer(self) -> Result<Result<PlaceOrderResponse, Status>> {
        drop(self.watch);
        Ok(self.answer.await?)
    }

    /// As [`answer`](Self::answer), and it must be an order.
    async fn ordered(self) -> Result<PlaceOrderResponse> {
        let reference = self.reference.clone();
        self.answer()
            .await?
            .with_context(|| format!("order {reference} was refused"))
    }

    /// As [`answer`](Self::answer), and it must be this refusal.
    async fn refused(self, code: Code, text: &str) -> Result<Status> {
        let reference = self.reference.clone();
        match self.answer().await? {
            Ok(placed) => bail!("order {reference} was placed as {}", placed.order),
            Err(status) => {
                ensure!(
                    status.code() == code && status.message().contains(text),
                    "order {reference} was refused for another reason: {status}"
                );
                Ok(status)
            }
        }
    }
}

/// The number of an order's step that writes it down: goods and seats are taken by then.
fn written_down(items: &[Item]) -> u32 {
    items.len() as u32 + 1
}

/// The number of an order's last step.
fn last_step(shop: &Shop, items: &[Item]) -> u32 {
    // The money, and perhaps a parcel.
    written_down(items) + 1 + u32::from(shop.mode == ShopMode::Mixed)
}

fn item(product: Product, count: i64) -> Item {
    Item {
        product: product.number,
        count,
    }
}

/// Waits until nothing is under way any more, then returns the books; they must
/// hold what they always hold.
pub(crate) async fn settled(shop: &Shop) -> Result<Books> {
    until("everything is settled", SETTLE_LIMIT, async || {
        shop.operator.nothing_open().await?;
        shop.databases.nothing_left().await?;
        let books = shop.databases.read().await?;
        books.check()?;
        Ok(books)
    })
    .await
}

/// Everything is settled and the books are these.
async fn settled_as(shop: &Shop, expected: Books) -> Result<()> {
    let books = settled(shop).await?;
    ensure!(
        books == expected,
        "the books are not as they should be: {}",
        differences(&expected, &books)
    );
    Ok(())
}

fn differences(expected: &Books, found: &Books) -> String {
    let mut all = Vec::new();
    for (product, count) in &expected.stock {
        let other = found.stock.get(product);
        if other != Some(count) {
            all.push(format!("product {product}: {other:?} instead of {count}"));
        }
    }
    for (user, balance) in &expected.balances {
        let other = found.balances.get(user);
        if other != Some(balance) {
            all.push(format!("user {user}: {other:?} instead of {balance}"));
        }
    }
    let names = expected.orders.keys().chain(found.orders.keys());
    for name in names.collect::<std::collections::BTreeSet<_>>() {
        let (one, other) = (expected.orders.get(name), found.orders.get(name));
        if one != other {
            all.push(format!("order {name}: {other:?} instead of {one:?}"));
        }
    }
    all.join("; ")
}

/// The transaction is rolled back for good.
async fn rolled_back(shop: &Shop, xid: &str) -> Result<String> {
    let detail = shop.operator.until_stands(xid, Stand::RolledBack).await?;
    let reason = detail.summary.and_then(|summary| summary.reason);
    Ok(reason
        .unwrap_or_default()
        .code()
        .as_str_name()
        .to_lowercase())
}
