//! The databases that the orders are placed in.

use accede_rm_agent::{AtPool, RmAgent, RmAgentBuilder, mariadb};
use sqlx::Row as _;

use crate::{mariadb_server, postgres_server};

/// A pool on a database.
pub(crate) trait Ground: Clone + Send + Sync + 'static {
    /// An empty database; its URL.
    fn database() -> impl Future<Output = String> + Send;
    /// Has the agent serve it.
    fn serve(agent: RmAgentBuilder, resource: &str, url: &str) -> RmAgentBuilder;
    /// The pool that the agent has for it.
    fn of(agent: &RmAgent, resource: &str) -> Result<Self, accede_rm_agent::Error>;
    /// Inserts a number into a table, as a branch of XA; its session.
    fn insert(
        &self,
        table: &'static str,
        number: i64,
    ) -> impl Future<Output = Result<i64, sqlx::Error>> + Send;
    /// The integers of a query's first column, if the database answers.
    fn numbers(&self, sql: &'static str) -> impl Future<Output = Option<Vec<i64>>> + Send;
    /// How many prepared transactions it has.
    fn prepared(&self) -> impl Future<Output = Option<i64>> + Send;
    /// Runs a text outside of any transaction.
    fn execute(&self, sql: String) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
    /// Ends a session, as an operator would.
    fn terminate(&self, session: i64) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
    fn close(&self) -> impl Future<Output = ()> + Send;
}

macro_rules! ground {
    ($serve:ident, $of:ident, $server:ident, $session:literal, $insert:literal) => {
        async fn database() -> String {
            $server::database().await
        }

        fn serve(agent: RmAgentBuilder, resource: &str, url: &str) -> RmAgentBuilder {
            agent.$serve(resource, url)
        }

        fn of(agent: &RmAgent, resource: &str) -> Result<Self, accede_rm_agent::Error> {
            agent.$of(resource)
        }

        async fn insert(&self, table: &'static str, number: i64) -> Result<i64, sqlx::Error> {
            let mut tx = self.xa().begin().await?;
            let session = sqlx::query_scalar($session).fetch_one(&mut tx).await?;
            sqlx::query(sqlx::AssertSqlSafe(format!($insert, table)))
                .bind(number)
                .execute(&mut tx)
                .await?;
            tx.commit().await?;
            Ok(session)
        }

        async fn numbers(&self, sql: &'static str) -> Option<Vec<i64>> {
            sqlx::query_scalar(sql).fetch_all(self.plain()).await.ok()
        }

        async fn execute(&self, sql: String) -> Result<(), sqlx::Error> {
            let sql = sqlx::AssertSqlSafe(sql);
            sqlx::raw_sql(sql).execute(self.plain()).await.map(drop)
        }

        async fn close(&self) {
            self.plain().close().await;
        }
    };
}

impl Ground for AtPool {
    ground!(
        postgres,
        pool,
        postgres_server,
        "SELECT pg_backend_pid()::bigint",
        "INSERT INTO {} VALUES ($1)"
    );

    async fn prepared(&self) -> Option<i64> {
        let sql = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";
        self.numbers(sql).await.map(|found| found[0])
    }

    async fn terminate(&self, session: i64) -> Result<(), sqlx::Error> {
        self.execute(format!("SELECT pg_terminate_backend({session}, 5000)"))
            .await
    }
}

impl Ground for mariadb::AtPool {
    ground!(
        mariadb,
        mariadb_pool,
        mariadb_server,
        "SELECT CAST(CONNECTION_ID() AS SIGNED)",
        "INSERT INTO {} VALUES (?)"
    );

    /// The server lists those of all its databases; their names say which.
    async fn prepared(&self) -> Option<i64> {
        let id = "SELECT CAST(REPLACE(database_id, '-', '') AS CHAR) FROM accede_meta";
        let id: String = sqlx::query_scalar(id).fetch_one(self.plain()).await.ok()?;
        let listed = sqlx::raw_sql("XA RECOVER").fetch_all(self.plain()).await;
        let ours = listed.ok()?.into_iter().filter(|row| {
            let name: Vec<u8> = row.try_get_unchecked(3).unwrap_or_default();
            String::from_utf8_lossy(&name).contains(&id)
        });
        i64::try_from(ours.count()).ok()
    }

    async fn terminate(&self, session: i64) -> Result<(), sqlx::Error> {
        self.execute(format!("KILL CONNECTION {session}")).await
    }
}
