//! XA branches that are kept open: committed in one phase, prepared when they must be, barred when
//! they are gone.

use std::{any::Any, sync::Arc, time::Duration};

use accede_proto::Xid;
use futures_util::future::BoxFuture;

use super::{
    super::{BranchKey, Fixture, PhaseTwoError, phase_two},
    TAKE, fences, fixture, key, prepare,
};
use crate::{
    AtPool, Registrar, XaPool,
    agent::Ended,
    store::{
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
            let session = sqlx::query_scalar("SELECT pg_backend_pid()::bigint")
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
        _: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        Box::pin(phase_two::commit_prepared(self, key))
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
            let terminate = sqlx::query("SELECT pg_terminate_backend($1::integer, 5000)")
                .bind(session)
                .execute(self.plain());
            terminate.await.expect("terminates");
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

async fn end(f: &Fixture, number: u64, end: End) -> Result<Ended, PhaseTwoError> {
    match end {
        End::Prepare => phase_two::prepare_open(&f.pool, key(number)).await,
        End::CommitOnePhase => phase_two::commit_open(&f.pool, key(number)).await,
    }
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
        "CREATE TABLE parent (id bigint PRIMARY KEY);
         CREATE TABLE child (id bigint REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    )
    .await;
    for (number, end_by) in [(1, End::CommitOnePhase), (2, End::Prepare)] {
        prepare(&xa, number, "INSERT INTO child VALUES (7)")
            .await
            .expect("looked at in the end");
        let why = refused(end(&f, number, end_by).await);
        assert!(why.contains("child"), "{why}");
    }
    assert!(fences(&f).await.is_empty(), "it is certain without a bar");
}

#[tokio::test]
async fn a_session_that_dies_in_the_last_message_is_a_no() {
    let (f, xa) = keeping().await;
    f.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN IF NEW.status = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid());
          PERFORM pg_sleep(5); END IF; RETURN NEW; END';
         CREATE TRIGGER die BEFORE INSERT ON accede_fence FOR EACH ROW EXECUTE FUNCTION die()",
    )
    .await;
    for (number, end_by) in [(1, End::CommitOnePhase), (2, End::Prepare)] {
        prepare(&xa, number, TAKE).await.expect("kept open");
        refused(end(&f, number, end_by).await);
    }
    assert_eq!(fences(&f).await, [3, 3]);
    assert_eq!(f.dump("stock").await, ["(1,10)", "(2,20)"]);
}
