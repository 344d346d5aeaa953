//! Goods and money over all three databases.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use shop_api::v1::Item;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::args::DatabaseUrls;

/// The tables that the demo needs to have for itself.
const TABLES: [&str; 6] = [
    "order_items",
    "orders",
    "stock",
    "accounts",
    "undo_log",
    "accede_meta",
];
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A product of the shop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) number: i64,
    name: &'static str,
    pub(crate) unit_price: i64,
    pub(crate) count: i64,
}

pub(crate) const TEAPOT: Product = product(1, "teapot", 2_450, 100);
pub(crate) const CUP: Product = product(2, "cup", 690, 500);
/// Fewer than the customers who want it at once.
pub(crate) const LAST_TICKETS: Product = product(3, "ticket", 5_000, 48);
const PRODUCTS: [Product; 3] = [TEAPOT, CUP, LAST_TICKETS];

const fn product(number: i64, name: &'static str, unit_price: i64, count: i64) -> Product {
    Product {
        number,
        name,
        unit_price,
        count,
    }
}

/// Customers with enough money, 1 to this.
pub(crate) const RICH_USERS: i64 = 64;
const RICH: i64 = 1_000_000;
/// A customer who cannot pay.
pub(crate) const POOR_USER: i64 = 100;
const POOR: i64 = 500;

/// What one order took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ordered {
    pub(crate) user: i64,
    pub(crate) paid: i64,
    /// Product and count, in the order's own sequence.
    pub(crate) items: Vec<(i64, i64)>,
}

/// Reference, user, paid, products, counts.
type OrderRow = (String, i64, i64, Vec<i64>, Vec<i64>);

/// What the three databases hold at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) stock: BTreeMap<i64, i64>,
    pub(crate) balances: BTreeMap<i64, i64>,
    /// By the customer's reference.
    pub(crate) orders: BTreeMap<String, Ordered>,
}

/// The demo's own look into the three databases.
pub(crate) struct Databases {
    order: PgPool,
    stock: PgPool,
    account: PgPool,
}

impl Databases {
    pub(crate) async fn connect(urls: &DatabaseUrls) -> Result<Self> {
        let connect = async |name: &str, url: &str| {
            PgPoolOptions::new()
                .max_connections(2)
                .acquire_timeout(CONNECT_LIMIT)
                .connect(url)
                .await
                .with_context(|| format!("cannot connect to the {name} database"))
        };
        Ok(Self {
            order: connect("order", &urls.order).await?,
            stock: connect("stock", &urls.stock).await?,
            account: connect("account", &urls.account).await?,
        })
    }

    fn each(&self) -> [(&'static str, &PgPool); 3] {
        [
            ("order", &self.order),
            ("stock", &self.stock),
            ("account", &self.account),
        ]
    }

    /// Fails when one of the databases holds one of the demo's tables.
    pub(crate) async fn refuse_used(&self) -> Result<()> {
        for (name, pool) in self.each() {
            let found: Vec<String> = sqlx::query_scalar(
                "SELECT table_name::text FROM information_schema.tables \
                 WHERE table_schema = current_schema() AND table_name = ANY($1) ORDER BY 1",
            )
            .bind(&TABLES[..])
            .fetch_all(pool)
            .await?;
            if !found.is_empty() {
                bail!(
                    "the {name} database already holds {}; give an empty one, or drop these tables \
                     with --reset",
                    found.join(", ")
                );
            }
        }
        Ok(())
    }

    pub(crate) async fn drop_tables(&self) -> Result<()> {
        let sql = format!("DROP TABLE IF EXISTS {}", TABLES.join(", "));
        for (_, pool) in self.each() {
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone()))
                .execute(pool)
                .await?;
        }
        Ok(())
    }

    /// Puts goods on the shelves and money on the accounts.
    pub(crate) async fn fill(&self) -> Result<()> {
        for product in PRODUCTS {
            sqlx::query(
                "INSERT INTO stock (product, name, unit_price, count) VALUES ($1, $2, $3, $4)",
            )
            .bind(product.number)
            .bind(product.name)
            .bind(product.unit_price)
            .bind(product.count)
            .execute(&self.stock)
            .await?;
        }
        for (user, balance) in users() {
            sqlx::query("INSERT INTO accounts (user_id, balance) VALUES ($1, $2)")
                .bind(user)
                .bind(balance)
                .execute(&self.account)
                .await?;
        }
        Ok(())
    }

    pub(crate) async fn read(&self) -> Result<Books> {
        let stock: Vec<(i64, i64)> = sqlx::query_as("SELECT product, count FROM stock")
            .fetch_all(&self.stock)
            .await?;
        let balances: Vec<(i64, i64)> = sqlx::query_as("SELECT user_id, balance FROM accounts")
            .fetch_all(&self.account)
            .await?;
        let rows: Vec<OrderRow> = sqlx::query_as(
            "SELECT o.reference, o.user_id, o.paid, \
             coalesce(array_agg(i.product ORDER BY i.position) FILTER (WHERE i.product IS NOT NULL), '{}'), \
             coalesce(array_agg(i.count ORDER BY i.position) FILTER (WHERE i.count IS NOT NULL), '{}') \
             FROM orders o LEFT JOIN order_items i ON i.order_id = o.id GROUP BY o.id",
        )
        .fetch_all(&self.order)
        .await?;
        let orders = rows
            .into_iter()
            .map(|(reference, user, paid, products, counts)| {
                let items = products.into_iter().zip(counts).collect();
                (reference, Ordered { user, paid, items })
            })
            .collect();
        Ok(Books {
            stock: stock.into_iter().collect(),
            balances: balances.into_iter().collect(),
            orders,
        })
    }

    /// Fails while some branch's undo record is left over.
    pub(crate) async fn no_undo_left(&self) -> Result<()> {
        for (name, pool) in self.each() {
            // 0: can still be undone. Marks of undone branches stay for a while.
            let left: i64 =
                sqlx::query_scalar("SELECT count(*) FROM undo_log WHERE log_status = 0")
                    .fetch_one(pool)
                    .await?;
            ensure!(
                left == 0,
                "{left} undo records are left in the {name} database"
            );
        }
        Ok(())
    }

    pub(crate) async fn close(&self) {
        for (_, pool) in self.each() {
            pool.close().await;
        }
    }
}

fn users() -> impl Iterator<Item = (i64, i64)> {
    (1..=RICH_USERS)
        .map(|user| (user, RICH))
        .chain([(POOR_USER, POOR)])
}

impl Books {
    /// What must always hold once nothing is under way: goods = remaining +
    /// ordered, money = balances + paid, and every order cost what its items cost.
    pub(crate) fn check(&self) -> Result<()> {
        let mut ordered: BTreeMap<i64, i64> = BTreeMap::new();
        let mut paid: BTreeMap<i64, i64> = BTreeMap::new();
        for (reference, order) in &self.orders {
            for (product, count) in &order.items {
                *ordered.entry(*product).or_default() += count;
            }
            *paid.entry(order.user).or_default() += order.paid;
            let cost: i64 = order
                .items
                .iter()
                .map(|(product, count)| price(*product) * count)
                .sum();
            ensure!(
                cost == order.paid && !order.items.is_empty(),
                "order {reference} paid {} for goods of {cost}",
                order.paid
            );
        }
        for product in PRODUCTS {
            let left = self.stock.get(&product.number).copied().unwrap_or_default();
            let gone = ordered.remove(&product.number).unwrap_or_default();
            ensure!(
                left >= 0 && left + gone == product.count,
                "goods: {} {}s = {left} left + {gone} ordered does not hold",
                product.count,
                product.name
            );
        }
        for (user, initial) in users() {
            let left = self.balances.get(&user).copied().unwrap_or_default();
            let gone = paid.remove(&user).unwrap_or_default();
            ensure!(
                left >= 0 && left + gone == initial,
                "money: {initial} of user {user} = {left} left + {gone} paid does not hold"
            );
        }
        ensure!(
            ordered.is_empty() && paid.is_empty(),
            "orders name unknown products or users"
        );
        Ok(())
    }

    /// The books after one more order.
    pub(crate) fn with(mut self, reference: &str, user: i64, items: &[Item]) -> Self {
        let items: Vec<(i64, i64)> = items
            .iter()
            .map(|item| (item.product, item.count))
            .collect();
        let paid = items
            .iter()
            .map(|(product, count)| price(*product) * count)
            .sum();
        for (product, count) in &items {
            *self.stock.entry(*product).or_default() -= count;
        }
        *self.balances.entry(user).or_default() -= paid;
        self.orders
            .insert(reference.to_owned(), Ordered { user, paid, items });
        self
    }
}

fn price(product: i64) -> i64 {
    PRODUCTS
        .iter()
        .find(|one| one.number == product)
        .map_or(0, |one| one.unit_price)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Books {
        Books {
            stock: PRODUCTS.iter().map(|one| (one.number, one.count)).collect(),
            balances: users().collect(),
            orders: BTreeMap::new(),
        }
    }

    fn items() -> Vec<Item> {
        vec![
            Item {
                product: 1,
                count: 2,
            },
            Item {
                product: 2,
                count: 3,
            },
        ]
    }

    #[test]
    fn whole_orders_keep_the_books() {
        full().check().expect("nothing happened");
        let books = full().with("a", 7, &items());
        books.check().expect("one order");
        assert_eq!(books.stock[&1], 98);
        assert_eq!(books.balances[&7], RICH - 2 * 2_450 - 3 * 690);
    }

    #[tokio::test]
    async fn the_books_are_read_from_real_databases() {
        use std::process::Command;

        use rustix::process::Signal;

        let home = tempfile::tempdir().expect("a folder");
        // The server runs as another user and must reach its folder in here.
        let open = Command::new("chmod").arg("711").arg(home.path()).status();
        assert!(open.expect("runs").success());
        let port = crate::shop::free_port().expect("one is free");
        let mut server = crate::postgres::start(home.path(), port, home.path().join("log"), false)
            .await
            .expect("starts");
        let urls = DatabaseUrls {
            order: crate::postgres::url(port, "shop_order"),
            stock: crate::postgres::url(port, "shop_stock"),
            account: crate::postgres::url(port, "shop_account"),
        };
        let databases = Databases::connect(&urls).await.expect("connects");
        databases.refuse_used().await.expect("empty");
        for (pool, sql) in [
            (
                &databases.order,
                include_str!("../../order/migrations/0001_orders.sql"),
            ),
            (
                &databases.stock,
                include_str!("../../stock/migrations/0001_stock.sql"),
            ),
            (
                &databases.account,
                include_str!("../../account/migrations/0001_accounts.sql"),
            ),
        ] {
            for _ in 0..2 {
                sqlx::raw_sql(sql)
                    .execute(pool)
                    .await
                    .expect("may be repeated");
            }
        }
        let error = databases.refuse_used().await.unwrap_err().to_string();
        assert!(
            error.contains("order database already holds order_items, orders"),
            "{error}"
        );
        databases.fill().await.expect("fills");
        assert_eq!(databases.read().await.expect("reads"), full());
        let sql = "UPDATE stock SET count = count - 2 WHERE product = 1";
        sqlx::raw_sql(sql)
            .execute(&databases.stock)
            .await
            .expect("takes");
        let sql = "UPDATE accounts SET balance = balance - 4900 WHERE user_id = 7";
        sqlx::raw_sql(sql)
            .execute(&databases.account)
            .await
            .expect("takes");
        let sql = "INSERT INTO orders (id, reference, user_id, paid) VALUES (1, 'a', 7, 4900); \
                   INSERT INTO order_items VALUES (1, 1, 1, 2)";
        sqlx::raw_sql(sql)
            .execute(&databases.order)
            .await
            .expect("orders");
        let books = databases.read().await.expect("reads");
        assert_eq!(books, full().with("a", 7, &items()[..1]));
        books.check().expect("they add up");
        databases.drop_tables().await.expect("drops");
        databases.refuse_used().await.expect("empty again");
        databases.close().await;
        server.signal(Signal::CONT).expect("runs");
        server.stop().await.expect("stops in order");
    }

    #[test]
    fn every_half_order_is_found() {
        let whole = full().with("a", 7, &items());
        let goods_only = Books {
            stock: whole.stock.clone(),
            ..full()
        };
        let money_only = Books {
            balances: whole.balances.clone(),
            ..full()
        };
        let order_only = Books {
            orders: whole.orders.clone(),
            ..full()
        };
        let mut cheap = whole.clone();
        cheap.orders.get_mut("a").expect("there").paid -= 1;
        let mut stranger = full();
        stranger = stranger.with("b", 9_999, &items());
        for (books, expected) in [
            (goods_only, "goods: 100 teapots"),
            (money_only, "money:"),
            (order_only, "goods:"),
            (cheap, "order a paid"),
            (stranger, "unknown"),
        ] {
            let error = books.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
