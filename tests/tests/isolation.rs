//! What transactions see of each other, for every way to ask: real clients at the same time, a real
//! daemon, a real database. Each cell of the table in docs/at.md is played here.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod stock;

use std::{fmt::Write as _, fs, path::PathBuf, sync::Arc};

use accede_proto::v1::{ListRowLocksRequest, operator_client::OperatorClient};
use accede_rm_agent::{AtTransaction, is_retryable};
use accede_tests::eventually;
use accede_tm_client::{GlobalTransaction, Options};
use tokio::task::JoinHandle;

use stock::{SOON, Surroundings};

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// A plain local transaction outside of any global one.
    Outside,
    /// A branch that reads by SELECT.
    Branch,
    /// A branch that reads by SELECT … FOR UPDATE.
    BranchForUpdate,
    /// A local transaction in a `global_lock` scope that reads by SELECT … FOR UPDATE.
    GlobalLock,
}

use Ask::{Branch, BranchForUpdate, GlobalLock, Outside};

/// How it reads in the table, and what it costs beside the statements themselves.
const ASKS: [(Ask, &str, &str); 4] = [
    (
        Outside,
        "local transaction outside of any global one, plain SELECT",
        "nothing",
    ),
    (
        Branch,
        "branch, plain SELECT",
        "one to register, if it writes",
    ),
    (
        BranchForUpdate,
        "branch, SELECT … FOR UPDATE",
        "one for each such SELECT, one to register, if it writes",
    ),
    (
        GlobalLock,
        "`global_lock` scope, SELECT … FOR UPDATE",
        "one for each such SELECT, one before a commit that writes",
    ),
];

const ANOMALIES: [&str; 7] = [
    "dirty write",
    "dirty read",
    "non-repeatable read",
    "the same, between two branches of one transaction",
    "lost update",
    "write skew",
    "phantom",
];

/// What docs/at.md says: whether each of the anomalies can happen.
fn claimed(ask: Ask) -> [bool; 7] {
    match ask {
        Outside => [true, true, true, true, true, true, true],
        Branch => [false, true, true, true, true, true, true],
        BranchForUpdate | GlobalLock => [false, false, false, true, false, false, true],
    }
}

/// A transaction of a client.
struct Client {
    tx: AtTransaction,
    global: Option<GlobalTransaction>,
    ask: Ask,
}

impl Client {
    async fn begin(s: &Surroundings, ask: Ask) -> anyhow::Result<Self> {
        let global = match ask {
            Outside | GlobalLock => None,
            Branch | BranchForUpdate => Some(s.transactions.begin(Options::new("client")).await?),
        };
        let tx = match (&global, ask) {
            (Some(global), _) => s.pool.begin_in(global.xid()).await?,
            (None, GlobalLock) => s.pool.begin_checked().await?,
            (None, _) => s.pool.begin_plain().await?,
        };
        Ok(Self { tx, global, ask })
    }

    async fn read(&mut self, condition: &str) -> Result<Vec<i64>, sqlx::Error> {
        let lock = match self.ask {
            Outside | Branch => "",
            BranchForUpdate | GlobalLock => " FOR UPDATE",
        };
        let sql = format!("SELECT count FROM stock WHERE {condition} ORDER BY product{lock}");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut self.tx)
            .await?;
        Ok(rows.iter().map(|row| sqlx::Row::get(row, 0)).collect())
    }

    async fn write(&mut self, product: i64, count: i64) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE stock SET count = $2 WHERE product = $1")
            .bind(product)
            .bind(count)
            .execute(&mut self.tx)
            .await
            .map(drop)
    }

    /// Commits, the global transaction too.
    async fn commit(self) -> anyhow::Result<()> {
        self.tx.commit().await?;
        if let Some(global) = self.global {
            global.commit().await?;
        }
        Ok(())
    }

    /// Ends its local transaction and begins the next one of the same transaction.
    async fn next(&mut self, s: &Surroundings) -> anyhow::Result<()> {
        let next = match (&self.global, self.ask) {
            (Some(global), _) => s.pool.begin_in(global.xid()).await?,
            (None, GlobalLock) => s.pool.begin_checked().await?,
            (None, _) => s.pool.begin_plain().await?,
        };
        std::mem::replace(&mut self.tx, next).commit().await?;
        Ok(())
    }

    async fn give_up(self) -> anyhow::Result<()> {
        self.tx.rollback().await?;
        if let Some(global) = self.global {
            global.roll_back("given up").await?;
        }
        Ok(())
    }
}

/// Two products with a hundred each, once what was played before is over.
async fn reset(s: &Surroundings) -> anyhow::Result<()> {
    let operator = OperatorClient::connect(s.url.clone()).await?;
    eventually("no row is locked", SOON, async || {
        let mut operator = operator.clone();
        let listed = operator.list_row_locks(ListRowLocksRequest::default());
        let listed = listed.await.ok()?.into_inner().row_locks;
        listed.is_empty().then_some(())
    })
    .await?;
    let setup = "DELETE FROM stock; INSERT INTO stock VALUES (1, 100), (2, 100)";
    sqlx::raw_sql(setup).execute(s.pool.plain()).await?;
    Ok(())
}

/// Waits until the task has ended, or stands still at the coordinator or in the database.
async fn ended_or_waits<T>(s: &Surroundings, task: &JoinHandle<T>) -> anyhow::Result<()> {
    let operator = OperatorClient::connect(s.url.clone()).await?;
    eventually("a client ends or waits", SOON, async || {
        let mut operator = operator.clone();
        let listed = operator.list_row_locks(ListRowLocksRequest::default());
        let listed = listed.await.ok()?.into_inner().row_locks;
        let waits = listed.iter().any(|row| !row.waiting.is_empty());
        let blocked: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_locks WHERE NOT granted")
            .fetch_one(s.pool.plain())
            .await
            .ok()?;
        (task.is_finished() || waits || blocked > 0).then_some(())
    })
    .await
}

/// Runs a client's work until it is not refused for a passing reason.
async fn until_done<T>(
    s: Arc<Surroundings>,
    ask: Ask,
    mut work: impl AsyncFnMut(&mut Client) -> Result<T, sqlx::Error>,
) -> anyhow::Result<T> {
    loop {
        let mut client = Client::begin(&s, ask).await?;
        match work(&mut client).await {
            Ok(value) => match client.commit().await {
                Ok(()) => return Ok(value),
                Err(error) if error.downcast_ref().is_some_and(is_retryable) => {}
                Err(error) => return Err(error),
            },
            Err(error) if is_retryable(&error) => client.give_up().await?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// A branch has changed a row; somebody else changes it before the rollback. Did that keep the row
/// from being undone?
async fn dirty_write(s: &Arc<Surroundings>, ask: Ask) -> anyhow::Result<bool> {
    let mut first = Client::begin(s, Branch).await?;
    first.write(1, 50).await?;
    first.next(s).await?;
    let second = tokio::spawn(until_done(Arc::clone(s), ask, async |c| {
        c.write(1, 7).await
    }));
    ended_or_waits(s, &second).await?;
    let xid = first.tx.xid().expect("a branch");
    first.give_up().await?;
    second.await??;
    let mut operator = OperatorClient::connect(s.url.clone()).await?;
    let get = accede_proto::v1::GetTransactionRequest { xid: xid.as_u64() };
    let status = eventually("it ends or is stuck", SOON, async || {
        let detail = operator
            .clone()
            .get_transaction(get)
            .await
            .ok()?
            .into_inner();
        let status = detail.summary?.status();
        use accede_proto::v1::Status::{RolledBack, Stuck};
        matches!(status, RolledBack | Stuck).then_some(status)
    })
    .await?;
    if status == accede_proto::v1::Status::Stuck {
        let accept = accede_proto::v1::RepairRequest {
            xid: xid.as_u64(),
            verb: accede_proto::v1::RepairVerb::Accept.into(),
            by: "test".to_owned(),
            reason: "played".to_owned(),
            ..Default::default()
        };
        operator.repair(accept).await?;
        return Ok(true);
    }
    assert_eq!(s.counts().await[0], 7, "the second one's write is lost");
    Ok(false)
}

/// Does anybody see what is undone later?
async fn dirty_read(s: &Arc<Surroundings>, ask: Ask) -> anyhow::Result<bool> {
    let mut writer = Client::begin(s, Branch).await?;
    writer.write(1, 50).await?;
    writer.next(s).await?;
    let reader = tokio::spawn(until_done(Arc::clone(s), ask, async |c| {
        c.read("product = 1").await
    }));
    ended_or_waits(s, &reader).await?;
    writer.give_up().await?;
    Ok(reader.await?? == [50])
}

/// Do two reads of a row differ?
async fn non_repeatable_read(
    s: &Arc<Surroundings>,
    ask: Ask,
    between: bool,
) -> anyhow::Result<bool> {
    let mut reader = Client::begin(s, ask).await?;
    let first = reader.read("product = 1").await?;
    if between {
        reader.next(s).await?;
    }
    let writer = tokio::spawn(until_done(Arc::clone(s), Branch, async |c| {
        c.write(1, 50).await
    }));
    ended_or_waits(s, &writer).await?;
    let second = reader.read("product = 1").await?;
    reader.commit().await?;
    writer.await??;
    Ok(first != second)
}

/// Two clients read a number and write what they made of it.
async fn lost_update(s: &Arc<Surroundings>, ask: Ask) -> anyhow::Result<bool> {
    let mut first = Client::begin(s, ask).await?;
    let seen = first.read("product = 1").await?[0];
    let (saw, seen_too) = tokio::sync::oneshot::channel();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let mut signals = Some((saw, gone));
    let second = tokio::spawn(until_done(Arc::clone(s), ask, async move |c| {
        let seen = c.read("product = 1").await?[0];
        if let Some((saw, gone)) = signals.take() {
            let _ = saw.send(());
            let _ = gone.await;
        }
        c.write(1, seen - 10).await
    }));
    saw_or_waits(s, seen_too, &second).await?;
    first.write(1, seen - 10).await?;
    first.commit().await?;
    let _ = go.send(());
    second.await??;
    Ok(s.counts().await[0] != 80)
}

/// Each of two clients takes a hundred from its own product, if two hundred are there in all.
async fn write_skew(s: &Arc<Surroundings>, ask: Ask) -> anyhow::Result<bool> {
    let mut first = Client::begin(s, ask).await?;
    let seen: i64 = first.read("true").await?.iter().sum();
    let (saw, seen_too) = tokio::sync::oneshot::channel();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let mut signals = Some((saw, gone));
    let second = tokio::spawn(until_done(Arc::clone(s), ask, async move |c| {
        let seen: i64 = c.read("true").await?.iter().sum();
        if let Some((saw, gone)) = signals.take() {
            let _ = saw.send(());
            let _ = gone.await;
        }
        if seen >= 200 {
            c.write(2, 0).await?;
        }
        Ok(())
    }));
    saw_or_waits(s, seen_too, &second).await?;
    if seen >= 200 {
        first.write(1, 0).await?;
    }
    first.commit().await?;
    let _ = go.send(());
    second.await??;
    Ok(s.counts().await.iter().sum::<i64>() < 100)
}

/// Waits until the client has read, or cannot.
async fn saw_or_waits<T: Send + 'static>(
    s: &Surroundings,
    saw: tokio::sync::oneshot::Receiver<()>,
    client: &JoinHandle<T>,
) -> anyhow::Result<()> {
    tokio::select! {
        _ = saw => Ok(()),
        waits = ended_or_waits(s, client) => waits,
    }
}

/// Do rows appear between two reads?
async fn phantom(s: &Arc<Surroundings>, ask: Ask) -> anyhow::Result<bool> {
    let mut reader = Client::begin(s, ask).await?;
    let first = reader.read("count > 10").await?;
    let insert = "INSERT INTO stock VALUES (3, 100)";
    let writer = until_done(Arc::clone(s), Branch, async |c| {
        sqlx::query(insert).execute(&mut c.tx).await
    });
    writer.await?;
    let second = reader.read("count > 10").await?;
    reader.commit().await?;
    Ok(first != second)
}

async fn play(s: &Arc<Surroundings>, ask: Ask, anomaly: usize) -> anyhow::Result<bool> {
    reset(s).await?;
    match anomaly {
        0 => dirty_write(s, ask).await,
        1 => dirty_read(s, ask).await,
        2 => non_repeatable_read(s, ask, false).await,
        3 => non_repeatable_read(s, ask, true).await,
        4 => lost_update(s, ask).await,
        5 => write_skew(s, ask).await,
        _ => phantom(s, ask).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_ask_allows_what_the_docs_say() -> anyhow::Result<()> {
    let s = Arc::new(Surroundings::new(|pool| pool).await?);
    let mut table = format!(
        "| how to ask | further round trips | {} |\n",
        ANOMALIES.join(" | ")
    );
    let _ = writeln!(table, "|---|---|{}", "---|".repeat(ANOMALIES.len()));
    for (ask, name, cost) in ASKS {
        let _ = write!(table, "| {name} | {cost} |");
        for (anomaly, claim) in claimed(ask).into_iter().enumerate() {
            let happened = play(&s, ask, anomaly).await?;
            assert_eq!(happened, claim, "{ask:?}: {}", ANOMALIES[anomaly]);
            let _ = write!(table, " {} |", if happened { "possible" } else { "never" });
        }
        table.push('\n');
    }
    assert_documented(&table);
    Arc::into_inner(s)
        .expect("all clients are done")
        .end()
        .await;
    Ok(())
}

fn assert_documented(table: &str) {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/at.md");
    let text = fs::read_to_string(&page).expect("the page is there");
    let (begin, end) = ("<!-- begin isolation -->\n", "<!-- end isolation -->");
    let (head, rest) = text.split_once(begin).expect("the mark is there");
    let (found, tail) = rest.split_once(end).expect("the mark is there");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&page, format!("{head}{begin}{table}{end}{tail}")).expect("writable");
        return;
    }
    assert_eq!(
        found, table,
        "docs/at.md: the table of isolation is not what clients saw; run\n\
         BLESS=1 cargo test -p accede-tests --test isolation"
    );
}
