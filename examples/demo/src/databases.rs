//! The demo's own look into the three databases.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use shop_api::mode::ShopMode;
use sqlx::Row as _;

use crate::{
    args::DatabaseUrls,
    books::{Books, Ordered, PRODUCTS, Product, users},
    pool::Pool,
};

/// The tables that the demo needs to have for itself, in an order in which they
/// can be dropped.
const TABLES: [&str; 8] = [
    "order_items",
    "orders",
    "stock",
    "parcels",
    "accounts",
    "undo_log",
    "accede_fence",
    "accede_meta",
];

/// Reference, user, paid, and one of its products with its count.
type OrderRow = (String, i64, i64, Option<i64>, Option<i64>);

/// The demo's own look into the three databases.
pub(crate) struct Databases {
    order: Pool,
    stock: Pool,
    account: Pool,
    /// Orders have parcels.
    packs: bool,
}

impl Databases {
    pub(crate) async fn connect(urls: &DatabaseUrls, mode: ShopMode) -> Result<Self> {
        let connect = async |name: &str, url: &str| {
            Pool::connect(url)
                .await
                .with_context(|| format!("cannot connect to the {name} database"))
        };
        Ok(Self {
            order: connect("order", &urls.order).await?,
            stock: connect("stock", &urls.stock).await?,
            account: connect("account", &urls.account).await?,
            packs: mode == ShopMode::Mixed,
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
                    promised,
                } = one;
                format!("({number}, '{name}', {unit_price}, {count}, {promised})")
            })
            .collect();
        let sql = "INSERT INTO stock (product, name, unit_price, count, promised) VALUES";
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
        let parcels = if self.packs {
            let sql = "SELECT reference, pieces FROM parcels";
            let rows: Vec<(String, i64)> = self.order.rows(sql).await?;
            Some(rows.into_iter().collect())
        } else {
            None
        };
        Ok(Books {
            stock: stock.into_iter().collect(),
            balances: balances.into_iter().collect(),
            orders,
            parcels,
        })
    }

    /// Whether a branch of the stock is prepared and not ended.
    pub(crate) async fn stock_is_prepared(&self) -> Result<bool> {
        Ok(prepared(&self.stock).await? > 0)
    }

    /// Fails while some branch's undo record, try or promise is left over, or one is prepared, or
    /// goods or money are frozen.
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
            // 0: tried or promised, 4: pre-committed. What is over stays for a while.
            let left: Vec<(i64,)> = pool
                .rows("SELECT count(*) FROM accede_fence WHERE status IN (0, 4)")
                .await?;
            let left: i64 = left.iter().map(|(count,)| count).sum();
            ensure!(
                left == 0,
                "{left} tries or promises are left in the {name} database"
            );
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
    use crate::books::tests::{full, items};

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
        let databases = Databases::connect(&urls, ShopMode::Mixed)
            .await
            .expect("connects");
        databases.refuse_used().await.expect("empty");
        for ((_, pool), sql) in databases.each().into_iter().zip(migrations(kind)) {
            for _ in 0..2 {
                let again = pool.execute(sql.to_owned()).await;
                again.expect("may be repeated");
            }
        }
        let error = databases.refuse_used().await.unwrap_err().to_string();
        assert!(
            error.contains("order database already holds order_items, orders, parcels"),
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
                 INSERT INTO order_items VALUES (1, 1, 1, 2); INSERT INTO parcels VALUES ('a', 2)",
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
}
