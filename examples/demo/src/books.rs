//! Goods and money over all three databases.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use shop_api::v1::Item;
use sqlx::Row as _;

use crate::{args::DatabaseUrls, pool::Pool};

/// The tables that the demo needs to have for itself, in an order in which they
/// can be dropped.
const TABLES: [&str; 7] = [
    "order_items",
    "orders",
    "stock",
    "accounts",
    "undo_log",
    "accede_fence",
    "accede_meta",
];

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

/// Reference, user, paid, and one of its products with its count.
type OrderRow = (String, i64, i64, Option<i64>, Option<i64>);

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
    order: Pool,
    stock: Pool,
    account: Pool,
}

impl Databases {
    pub(crate) async fn connect(urls: &DatabaseUrls) -> Result<Self> {
        let connect = async |name: &str, url: &str| {
            Pool::connect(url)
                .await
                .with_context(|| format!("cannot connect to the {name} database"))
        };
        Ok(Self {
            order: connect("order", &urls.order).await?,
            stock: connect("stock", &urls.stock).await?,
            account: connect("account", &urls.account).await?,
        })
    }

    fn each(&self) -> [(&'static str, &Pool); 3] {
        [
            ("order", &self.order),
            ("stock", &self.stock),
            ("account", &self.account),
        ]
    }

    /// Fails when one of the databases holds one of the demo's tables.
    pub(crate) async fn refuse_used(&self) -> Result<()> {
        for (name, pool) in self.each() {
            let mut found = pool.tables().await?;
            found.retain(|table| TABLES.contains(&table.as_str()));
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
        for (_, pool) in self.each() {
            for table in TABLES {
                let sql = format!("DROP TABLE IF EXISTS {table}");
                pool.execute(sql).await?;
            }
        }
        Ok(())
    }

    /// Puts goods on the shelves and money on the accounts.
    pub(crate) async fn fill(&self) -> Result<()> {
        let goods: Vec<String> = PRODUCTS
            .iter()
            .map(|one| {
                let Product {
                    number,
                    name,
                    unit_price,
                    count,
                } = one;
                format!("({number}, '{name}', {unit_price}, {count})")
            })
            .collect();
        let sql = "INSERT INTO stock (product, name, unit_price, count) VALUES";
        self.stock
            .execute(format!("{sql} {}", goods.join(", ")))
            .await?;
        let money: Vec<String> = users()
            .map(|(user, balance)| format!("({user}, {balance})"))
            .collect();
        let sql = "INSERT INTO accounts (user_id, balance) VALUES";
        self.account
            .execute(format!("{sql} {}", money.join(", ")))
            .await
    }

    pub(crate) async fn read(&self) -> Result<Books> {
        let stock = self.stock.rows("SELECT product, count FROM stock").await?;
        let balances = self
            .account
            .rows("SELECT user_id, balance FROM accounts")
            .await?;
        // In one statement, so that no order is seen without its items.
        let rows: Vec<OrderRow> = self
            .order
            .rows(
                "SELECT o.reference, o.user_id, o.paid, i.product, i.count \
                 FROM orders o LEFT JOIN order_items i ON i.order_id = o.id \
                 ORDER BY o.id, i.position",
            )
            .await?;
        let mut orders: BTreeMap<String, Ordered> = BTreeMap::new();
        for (reference, user, paid, product, count) in rows {
            let order = orders.entry(reference).or_insert_with(|| Ordered {
                user,
                paid,
                items: Vec::new(),
            });
            order.items.extend(product.zip(count));
        }
        Ok(Books {
            stock: stock.into_iter().collect(),
            balances: balances.into_iter().collect(),
            orders,
        })
    }

    /// Whether a branch of the stock is prepared and not ended.
    pub(crate) async fn stock_is_prepared(&self) -> Result<bool> {
        Ok(prepared(&self.stock).await? > 0)
    }

    /// Fails while some branch's undo record or try is left over, or one is prepared, or goods or money are frozen.
    pub(crate) async fn nothing_left(&self) -> Result<()> {
        for (name, pool) in self.each() {
            // 0: can still be undone. Marks of undone branches stay for a while.
            let left: Vec<(i64,)> = pool
                .rows("SELECT count(*) FROM undo_log WHERE log_status = 0")
                .await?;
            let left: i64 = left.iter().map(|(count,)| count).sum();
            ensure!(
                left == 0,
                "{left} undo records are left in the {name} database"
            );
            // 0: tried. What was confirmed or cancelled stays for a while.
            let left: Vec<(i64,)> = pool
                .rows("SELECT count(*) FROM accede_fence WHERE status IN (0, 4)")
                .await?;
            let left: i64 = left.iter().map(|(count,)| count).sum();
            ensure!(left == 0, "{left} tries are left in the {name} database");
            let left = prepared(pool).await?;
            ensure!(
                left == 0,
                "{left} prepared transactions are left in the {name} database"
            );
        }
        for (pool, what, sql) in [
            (
                &self.stock,
                "goods",
                "SELECT count(*) FROM stock WHERE frozen <> 0",
            ),
            (
                &self.account,
                "money",
                "SELECT count(*) FROM accounts WHERE frozen <> 0",
            ),
        ] {
            let left: Vec<(i64,)> = pool.rows(sql).await?;
            let left: i64 = left.iter().map(|(count,)| count).sum();
            ensure!(left == 0, "{what} are frozen in {left} places");
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

/// Transactions that are prepared in this database.
async fn prepared(pool: &Pool) -> Result<i64> {
    let count: Vec<(i64,)> = match pool {
        Pool::Postgres(_) => {
            let sql = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";
            pool.rows(sql).await?
        }
        // The list is of the whole server; a name has the database's own id in it.
        Pool::MariaDb(pool) => {
            let id: Option<String> =
                sqlx::query_scalar("SELECT CAST(MAX(database_id) AS CHAR) FROM accede_meta")
                    .fetch_one(pool)
                    .await?;
            let id = id.unwrap_or_default().replace('-', "");
            let listed = sqlx::raw_sql("XA RECOVER").fetch_all(pool).await?;
            let mut count = 0;
            for row in &listed {
                let name: Vec<u8> = row.try_get_unchecked("data")?;
                count += i64::from(String::from_utf8_lossy(&name).contains(&id));
            }
            vec![(count,)]
        }
        Pool::Sqlite(_) => Vec::new(),
    };
    Ok(count.iter().map(|(count,)| count).sum())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::Signal;
    use shop_api::database::DatabaseKind;

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

    /// What the three services run when they start.
    fn migrations(kind: DatabaseKind) -> [&'static str; 3] {
        match kind {
            DatabaseKind::Postgres => [
                include_str!("../../order/migrations/postgres/0001_orders.sql"),
                include_str!("../../stock/migrations/postgres/0001_stock.sql"),
                include_str!("../../account/migrations/postgres/0001_accounts.sql"),
            ],
            DatabaseKind::MariaDb => [
                include_str!("../../order/migrations/mariadb/0001_orders.sql"),
                include_str!("../../stock/migrations/mariadb/0001_stock.sql"),
                include_str!("../../account/migrations/mariadb/0001_accounts.sql"),
            ],
            DatabaseKind::Sqlite => [
                include_str!("../../order/migrations/sqlite/0001_orders.sql"),
                include_str!("../../stock/migrations/sqlite/0001_stock.sql"),
                include_str!("../../account/migrations/sqlite/0001_accounts.sql"),
            ],
        }
    }

    async fn are_read_from_real_databases(kind: DatabaseKind) {
        let home = tempfile::tempdir().expect("a folder");
        // The server runs as another user and must reach its folder in here.
        let open = Command::new("chmod").arg("711").arg(home.path()).status();
        assert!(open.expect("runs").success());
        let port = crate::shop::free_port().expect("one is free");
        let (server, urls) = crate::server::start(kind, home.path(), port, false)
            .await
            .expect("starts");
        let databases = Databases::connect(&urls).await.expect("connects");
        databases.refuse_used().await.expect("empty");
        for ((_, pool), sql) in databases.each().into_iter().zip(migrations(kind)) {
            for _ in 0..2 {
                let again = pool.execute(sql.to_owned()).await;
                again.expect("may be repeated");
            }
        }
        let error = databases.refuse_used().await.unwrap_err().to_string();
        assert!(
            error.contains("order database already holds order_items, orders"),
            "{error}"
        );
        databases.fill().await.expect("fills");
        assert_eq!(databases.read().await.expect("reads"), full());
        for (pool, sql) in [
            (
                &databases.stock,
                "UPDATE stock SET count = count - 2 WHERE product = 1",
            ),
            (
                &databases.account,
                "UPDATE accounts SET balance = balance - 4900 WHERE user_id = 7",
            ),
            (
                &databases.order,
                "INSERT INTO orders (id, reference, user_id, paid) VALUES (1, 'a', 7, 4900); \
                 INSERT INTO order_items VALUES (1, 1, 1, 2)",
            ),
        ] {
            pool.execute(sql.to_owned()).await.expect("orders");
        }
        let books = databases.read().await.expect("reads");
        assert_eq!(books, full().with("a", 7, &items()[..1]));
        books.check().expect("they add up");
        databases.drop_tables().await.expect("drops");
        databases.refuse_used().await.expect("empty again");
        databases.close().await;
        assert_eq!(server.is_none(), kind == DatabaseKind::Sqlite);
        if let Some(mut server) = server {
            server.signal(Signal::CONT).expect("runs");
            server.stop().await.expect("stops in order");
        }
    }

    #[tokio::test]
    async fn the_books_are_read_from_postgres() {
        are_read_from_real_databases(DatabaseKind::Postgres).await;
    }

    #[tokio::test]
    async fn the_books_are_read_from_mariadb() {
        are_read_from_real_databases(DatabaseKind::MariaDb).await;
    }

    #[tokio::test]
    async fn the_books_are_read_from_sqlite() {
        are_read_from_real_databases(DatabaseKind::Sqlite).await;
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
