//! XA branches that are kept open: committed in one phase, prepared when they must be, barred when
//! they are gone.

use std::{any::Any, sync::Arc, time::Duration};

use accede_proto::Xid;
use futures_util::future::BoxFuture;

use super::{
    super::{AtPool, BranchKey, Fixture, PhaseTwoError, phase_two},
    BEFORE, TAKE, fences, fixture, key, payload, prepare, stock,
};
use crate::{
    Registrar,
    agent::Ended,
    store::{
        mariadb::XaPool,
        test_xa_open::{Ground, Keeper},
        xa::open::End,
    },
};

impl Keeper for AtPool {
    fn at(url: &str, connections: u32, registrar: Arc<dyn Registrar>) -> Self {
        AtPool::builder(url)
            .resource("test-db")
            .max_connections(connections)
            .build(registrar)
            .expect("a pool")
    }

    fn branch(&self, xid: Xid, sql: &'static str) -> BoxFuture<'_, Result<i64, sqlx::Error>> {
        Box::pin(async move {
            let mut tx = self.xa().begin_in(xid).await?;
            let session = sqlx::query_scalar("SELECT CAST(CONNECTION_ID() AS SIGNED)")
                .fetch_one(&mut tx)
                .await?;
            sqlx::query(sql).execute(&mut tx).await?;
            tx.commit().await?;
            Ok(session)
        })
    }

    fn commit<'a>(
        &'a self,
        key: BranchKey,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        Box::pin(phase_two::commit_prepared(self, key, payload))
    }

    fn prepared(&self) -> BoxFuture<'_, usize> {
        Box::pin(async move {
            let found = phase_two::prepared(self, Duration::ZERO, 100).await;
            usize::try_from(found.expect("reads").ours).expect("few")
        })
    }

    fn read(&self, sql: &'static str) -> BoxFuture<'_, Vec<i64>> {
        Box::pin(async move {
            let read = sqlx::query_scalar(sql).fetch_all(self.plain());
            read.await.expect("reads")
        })
    }

    fn execute(&self, sql: &'static str) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let done = sqlx::raw_sql(sql).execute(self.plain()).await;
            done.expect("valid SQL");
        })
    }

    fn occupy(&self) -> BoxFuture<'_, Box<dyn Any + Send>> {
        Box::pin(async move {
            let connection = self.plain().acquire().await.expect("there is one");
            Box::new(connection) as Box<dyn Any + Send>
        })
    }

    fn terminate(&self, session: i64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let kill = format!("KILL CONNECTION {session}");
            let killed = sqlx::raw_sql(sqlx::AssertSqlSafe(kill)).execute(self.plain());
            killed.await.expect("killed");
            // It ends some time after that.
            let list = "SELECT CAST(ID AS SIGNED) FROM information_schema.PROCESSLIST";
            let ended = async {
                while self.read(list).await.contains(&session) {
                    tokio::task::yield_now().await;
                }
            };
            let ended = tokio::time::timeout(Duration::from_secs(20), ended);
            ended.await.expect("ended");
        })
    }
}

async fn ground() -> Ground<AtPool> {
    let (f, _) = fixture().await;
    Ground::new(f.url.clone(), f.registrar.clone())
}

open_stories!(
    the_only_branch_commits_in_one_phase_however_often,
    it_costs_as_much_as_a_local_transaction,
    another_branch_makes_it_prepare_and_it_ends_by_its_order,
    a_rollback_reaches_the_open_transaction,
    one_whose_session_is_gone_is_a_no,
    an_agent_without_the_session_bars_it,
    agents_that_are_ordered_at_once_agree,
    neighbours_do_not_meet,
    one_that_waits_for_too_long_is_prepared_by_itself,
    whoever_needs_its_connection_gets_it,
    a_shutdown_prepares_what_is_open,
    the_deadline_counts_for_the_vote_and_not_for_the_only_branch,
    an_answer_that_is_lost_is_found_in_the_database,
    a_foreign_row_is_nobodys_guess,
);

async fn keeping() -> (Fixture, XaPool) {
    let (f, xa) = fixture().await;
    *f.registrar.keeps_open.lock() = true;
    f.pool.keep_open(usize::MAX);
    (f, xa)
}

/// As the coordinator does, it repeats what a session that still ends is in the way of.
async fn end(f: &Fixture, number: u64, end: End) -> Result<Ended, PhaseTwoError> {
    let payload = payload(f, number);
    let ended = async {
        loop {
            let ended = match end {
                End::Prepare => phase_two::prepare_open(&f.pool, key(number), &payload).await,
                End::CommitOnePhase => phase_two::commit_open(&f.pool, key(number), &payload).await,
            };
            if !matches!(ended, Err(PhaseTwoError::Failed { .. })) {
                return ended;
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), ended);
    ended.await.expect("nothing stays in the way")
}

fn refused(ended: Result<Ended, PhaseTwoError>) -> String {
    match ended {
        Ok(Ended::Refused(why)) => why,
        other => panic!("expected a no, got {other:?}"),
    }
}

#[tokio::test]
async fn what_the_database_refuses_in_the_end_is_a_no() {
    let (f, xa) = keeping().await;
    f.execute(
        "CREATE TRIGGER full BEFORE INSERT ON accede_fence FOR EACH ROW
         IF NEW.status = 1 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no room'; END IF",
    )
    .await;
    for (number, end_by) in [(1, End::CommitOnePhase), (2, End::Prepare)] {
        prepare(&xa, number, TAKE).await.expect("kept open");
        let why = refused(end(&f, number, end_by).await);
        assert!(why.contains("no room"), "{why}");
    }
    assert!(fences(&f).await.is_empty(), "it is certain without a bar");
    assert_eq!(stock(&f).await, BEFORE);
    // Its connection serves others again.
    f.execute("DROP TRIGGER full").await;
    prepare(&xa, 3, TAKE).await.expect("kept open");
    let ended = end(&f, 3, End::CommitOnePhase).await;
    assert_eq!(ended, Ok(Ended::Finished));
}

#[tokio::test]
async fn a_session_that_dies_in_the_last_message_is_a_no() {
    let (f, xa) = keeping().await;
    f.execute(
        "CREATE TRIGGER die BEFORE INSERT ON accede_fence FOR EACH ROW
         IF NEW.status = 1 THEN KILL CONNECTION CONNECTION_ID(); END IF",
    )
    .await;
    for (number, end_by) in [(1, End::CommitOnePhase), (2, End::Prepare)] {
        prepare(&xa, number, TAKE).await.expect("kept open");
        refused(end(&f, number, end_by).await);
    }
    assert_eq!(stock(&f).await, BEFORE);
}

/// What a branch sets for its session does not outlive it.
#[tokio::test]
async fn a_session_is_as_before_when_its_branch_has_committed() {
    let (f, xa) = keeping().await;
    let settings = "SELECT CAST(@@innodb_lock_wait_timeout AS CHAR), CAST(@@wait_timeout AS CHAR)";
    let fresh: (String, String) = sqlx::query_as(settings)
        .fetch_one(f.pool.plain())
        .await
        .expect("reads");
    prepare(&xa, 1, TAKE).await.expect("kept open");
    let ended = end(&f, 1, End::CommitOnePhase).await;
    assert_eq!(ended, Ok(Ended::Finished));
    let mut tx = xa.begin().await.expect("its connection");
    let after: (String, String) = sqlx::query_as(settings)
        .fetch_one(&mut tx)
        .await
        .expect("reads");
    assert_eq!(after, fresh);
}
