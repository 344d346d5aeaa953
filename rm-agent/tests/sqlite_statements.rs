//! What a branch costs on SQLite, statement by statement. A process of its own: the statements are
//! counted where sqlx logs them.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use accede_proto::{Xid, XidParts};
use accede_rm_agent::{
    Refused, Registered, Registrar, Registration, RowCheck, schema,
    sqlite::{AtPool, AtTransaction},
};
use futures_util::future::BoxFuture;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Grants everything.
#[derive(Default)]
struct Yes(AtomicU32);

impl Registrar for Yes {
    fn register(&self, _: Registration) -> BoxFuture<'_, Result<Registered, Refused>> {
        let branch = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let give_up = Duration::from_secs(60);
        Box::pin(async move {
            Ok(Registered {
                branch,
                give_up,
                keep_open: false,
            })
        })
    }

    fn check_locks(&self, _: RowCheck) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(async { Ok(()) })
    }

    fn done(&self, _: Xid, _: u32) {}
    fn withdrawn(&self, _: Xid, _: u32) {}
    fn blocked(&self, _: Xid) {}
    fn doomed(&self, _: Xid, _: u32, _: String) {}
}

/// The statements that ran since it was last asked.
static STATEMENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn take() -> Vec<String> {
    std::mem::take(&mut *STATEMENTS.lock().expect("no panic while it is held"))
}

struct Log;

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Summary(Option<String>);
        impl Visit for Summary {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "summary" {
                    self.0 = Some(format!("{value:?}"));
                }
            }
        }
        let mut summary = Summary(None);
        event.record(&mut summary);
        let summary = summary.0.unwrap_or_default().replace('\\', "");
        let words: Vec<&str> = summary.trim_matches('"').split_whitespace().collect();
        let first = words.iter().take(3).copied().collect::<Vec<_>>().join(" ");
        STATEMENTS
            .lock()
            .expect("no panic while it is held")
            .push(first);
    }
}

async fn take_one(tx: &mut AtTransaction) {
    sqlx::query("UPDATE stock SET count = count - 1 WHERE product = ?")
        .bind(1)
        .execute(tx)
        .await
        .expect("updates");
}

#[tokio::test]
async fn a_branch_of_one_statement_is_ten_calls() {
    tracing::subscriber::set_global_default(Log).expect("the only one");
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("stock.db").display());
    schema::create(&url).await.expect("prepared");
    let pool = AtPool::builder(&url)
        .resource("stock-db")
        .max_connections(1)
        .connect(Arc::new(Yes::default()))
        .await
        .expect("prepared");
    sqlx::raw_sql(
        "CREATE TABLE stock (product INTEGER PRIMARY KEY, count INTEGER);
         INSERT INTO stock VALUES (1, 100)",
    )
    .execute(pool.plain())
    .await
    .expect("filled");
    take();
    let mut plain = pool.begin_plain().await.expect("begins");
    take_one(&mut plain).await;
    plain.commit().await.expect("commits");
    assert_eq!(take(), ["BEGIN", "UPDATE stock SET", "COMMIT"]);
    // The first branch of a connection makes its notes possible, and reads the catalog.
    for time in 1..=2 {
        let xid = Xid::from_parts(XidParts {
            time_ms: time,
            sequence: 1,
            worker: 1,
        });
        let mut branch = pool.begin_in(xid.expect("it fits")).await.expect("begins");
        take_one(&mut branch).await;
        branch.commit().await.expect("commits");
        let statements = take();
        if time == 1 {
            assert!(statements.len() <= 24, "{statements:?}");
            continue;
        }
        assert_eq!(
            statements,
            [
                "BEGIN IMMEDIATE",
                // What the connection notes already; nothing is left from the last time;
                // the time and the version of the schema.
                "SELECT name, COALESCE(rootpage,",
                "DELETE FROM temp.accede_log",
                "SELECT CAST(unixepoch('subsec') *",
                "UPDATE stock SET",
                // What was noted, the rows as they are now, and whether anything went unnoticed.
                "SELECT * FROM",
                "SELECT r.\"product\", r.\"count\"",
                "SELECT total_changes()",
                "INSERT INTO main.undo_log",
                "COMMIT",
            ]
        );
    }
}
