//! The statements on MariaDB.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use accede_proto::Xid;
use accede_rm_agent::{Registrar, RmAgent, RmAgentBuilder, mariadb::AtPool};
use futures_util::future::BoxFuture;
use sqlx::{
    AssertSqlSafe, Executor, MySqlPool, Row as _, mysql::MySqlPoolOptions, mysql::MySqlRow,
};

use super::{BATCH, Job, RESOURCE, Store};
use crate::at::local::Finisher;

const CHANGE: &str = "UPDATE stock SET count = count - 1 WHERE product = ?";
const CHANGE_BATCH: &str = "UPDATE stock SET count = count - 1 WHERE product >= ? AND product < ?";
static ADD_BATCH: LazyLock<Arc<str>> = LazyLock::new(|| {
    let rows = vec!["(?, ?, ?)"; BATCH as usize].join(", ");
    format!("INSERT INTO deliveries (id, product, count) VALUES {rows}").into()
});

pub(super) struct MariaDb {
    plain: MySqlPool,
    at: AtPool,
}

pub(super) async fn with_agent(
    agent: RmAgentBuilder,
    url: &str,
    connections: u32,
) -> anyhow::Result<(RmAgent, Arc<dyn Store>)> {
    let pool = AtPool::builder(url).max_connections(connections);
    let agent = agent.mariadb_pool(RESOURCE, pool).start().await?;
    let store = MariaDb {
        plain: plain(url, connections)?,
        at: agent.mariadb_pool(RESOURCE)?,
    };
    Ok((agent, Arc::new(store)))
}

pub(super) fn local(
    registrar: Arc<dyn Registrar>,
    url: &str,
    connections: u32,
) -> anyhow::Result<MariaDb> {
    let pool = AtPool::builder(url).resource(RESOURCE);
    Ok(MariaDb {
        plain: plain(url, connections)?,
        at: pool.max_connections(connections).build(registrar)?,
    })
}

fn plain(url: &str, connections: u32) -> sqlx::Result<MySqlPool> {
    MySqlPoolOptions::new()
        .max_connections(connections)
        .test_before_acquire(false)
        .connect_lazy(url)
}

/// Deletes the undo rows of branches that have ended well.
pub(super) fn finisher(url: &str) -> sqlx::Result<Finisher> {
    let pool = plain(url, 1)?;
    Ok(Box::new(move |branches: Vec<(Xid, u32)>| {
        let pool = pool.clone();
        Box::pin(async move {
            let keys = vec!["(?, ?)"; branches.len()].join(", ");
            let sql = format!("DELETE FROM undo_log WHERE (xid, branch_id) IN ({keys})");
            let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
            for (xid, branch) in branches {
                query = query
                    .bind(xid.as_u64().cast_signed())
                    .bind(branch.cast_signed());
            }
            query.execute(&pool).await.map(drop)
        })
    }))
}

async fn run<'e>(job: Job, on: impl Executor<'e, Database = sqlx::MySql>) -> sqlx::Result<()> {
    let query = match job {
        Job::Change(product) => sqlx::query(CHANGE).bind(product),
        Job::ChangeBatch(products) => sqlx::query(CHANGE_BATCH)
            .bind(products.start)
            .bind(products.end),
        Job::AddBatch(ids) => {
            let query = sqlx::query(AssertSqlSafe(Arc::clone(&ADD_BATCH)));
            ids.fold(query, |query, id| query.bind(id).bind(id % 100).bind(1_i64))
        }
    };
    query.execute(on).await.map(drop)
}

impl Store for MariaDb {
    fn plain(&self, job: Job) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async move {
            let mut transaction = self.plain.begin().await?;
            run(job, &mut *transaction).await?;
            transaction.commit().await
        })
    }

    fn branch(&self, job: Job) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(
            self.at
                .run(move |branch| Box::pin(run(job.clone(), branch))),
        )
    }

    fn branch_in(&self, xid: Xid, job: Job) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async move {
            let mut branch = self.at.begin_in(xid).await?;
            run(job, &mut branch).await?;
            branch.commit().await
        })
    }

    fn by_hand<'a>(
        &'a self,
        registrar: &'a dyn Registrar,
        xid: Xid,
        product: i64,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let mut transaction = self.plain.begin().await?;
            let before = sqlx::query("SELECT * FROM stock WHERE product = ? FOR UPDATE")
                .bind(product)
                .fetch_one(&mut *transaction)
                .await?;
            run(Job::Change(product), &mut *transaction).await?;
            let after = sqlx::query("SELECT * FROM stock WHERE product = ?")
                .bind(product)
                .fetch_one(&mut *transaction)
                .await?;
            let images = serde_json::json!({
                "table": "stock", "kind": "update",
                "before": image(&before)?, "after": image(&after)?,
            });
            let registered = registrar
                .register(super::registration(xid, product))
                .await?;
            sqlx::query(
                "INSERT INTO undo_log (xid, branch_id, rollback_info, log_status, log_created)
                 VALUES (?, ?, ?, 0, UTC_TIMESTAMP(6))",
            )
            .bind(xid.as_u64().cast_signed())
            .bind(registered.branch.cast_signed())
            .bind(images.to_string().into_bytes())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            registrar.done(xid, registered.branch);
            Ok(())
        })
    }

    fn tidy(&self) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async move {
            for statement in [
                // What is left are the marks of branches that were undone.
                "TRUNCATE undo_log",
                "TRUNCATE deliveries",
            ] {
                sqlx::raw_sql(statement).execute(&self.plain).await?;
            }
            Ok(())
        })
    }

    fn is_undo_left(&self) -> BoxFuture<'_, sqlx::Result<bool>> {
        Box::pin(
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM undo_log WHERE log_status = 0)")
                .fetch_one(&self.plain),
        )
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            for pool in [&self.plain, self.at.plain()] {
                while pool.num_idle() < pool.size() as usize {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.plain.close().await;
            self.at.plain().close().await;
        })
    }
}

fn image(row: &MySqlRow) -> sqlx::Result<serde_json::Value> {
    Ok(super::image([
        (
            "product",
            "bigint",
            row.try_get::<i64, _>("product")?.into(),
        ),
        ("name", "text", row.try_get::<&str, _>("name")?.into()),
        ("count", "bigint", row.try_get::<i64, _>("count")?.into()),
        (
            "reserved",
            "bigint",
            row.try_get::<i64, _>("reserved")?.into(),
        ),
        (
            "note",
            "text",
            row.try_get::<Option<&str>, _>("note")?.into(),
        ),
    ]))
}
