//! What is refused, and in which words.

use super::{AtPool, Fixture, shapes::SCHEMA, xid};

#[tokio::test]
async fn what_the_application_allows_runs() {
    let f = Fixture::with(SCHEMA, |builder| {
        builder
            .allow_trigger("watched", "watch")
            .allow_function("writes")
    })
    .await;
    f.branch(xid(1), &["UPDATE watched SET v = writes()"])
        .await
        .expect("allowed");
}

#[tokio::test]
async fn unfit_sessions_are_refused() {
    let f = Fixture::new(SCHEMA).await;
    for (setting, part) in [
        ("sql_mode = 'ANSI_QUOTES'", "ANSI_QUOTES"),
        ("sql_mode = 'NO_BACKSLASH_ESCAPES'", "NO_BACKSLASH_ESCAPES"),
        ("time_zone = '+02:00'", "time zone"),
        ("tx_isolation = 'READ-UNCOMMITTED'", "READ UNCOMMITTED"),
        ("foreign_key_checks = 0", "foreign_key_checks"),
        ("unique_checks = 0", "unique_checks"),
    ] {
        let options = sqlx::mysql::MySqlPoolOptions::new()
            .max_connections(1)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    use sqlx::Executor as _;
                    let set = format!("SET SESSION {setting}");
                    connection
                        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(set)))
                        .await
                        .map(drop)
                })
            });
        let pool = AtPool::builder(&f.url)
            .resource("test-db")
            .pool_options(options)
            .build(f.registrar.clone())
            .expect("a pool");
        let mut tx = pool.begin_in(xid(1)).await.expect("begin");
        let error = sqlx::query("UPDATE stock SET v = 2")
            .execute(&mut tx)
            .await
            .expect_err(part);
        assert!(error.to_string().contains(part), "{setting}: {error}");
        tx.rollback().await.expect("rollback");
    }
}

#[tokio::test]
async fn a_database_that_is_not_prepared_is_named() {
    let url = super::server::database().await;
    let pool = |url: &str| {
        AtPool::builder(url)
            .resource("x")
            .build(std::sync::Arc::new(
                super::registrar::TestRegistrar::default(),
            ))
    };
    let error = pool(&url)
        .expect("lazy")
        .check()
        .await
        .expect_err("no tables");
    assert!(
        error.to_string().contains("undo_log does not exist"),
        "{error}"
    );
    crate::schema::create(&url).await.expect("created");
    crate::schema::create(&url)
        .await
        .expect("a repeat changes nothing");
    crate::schema::check(&url).await.expect("fits");
    let (server, _) = url.rsplit_once('/').expect("a database");
    let error = pool(server).expect_err("no database");
    assert!(error.to_string().contains("names no database"), "{error}");
}

/// Whoever does not see triggers would not notice what they write.
#[tokio::test]
async fn a_user_without_the_trigger_privilege_is_refused() {
    let f = Fixture::new("").await;
    let (_, name) = f.url.rsplit_once('/').expect("a database");
    f.execute(&format!(
        "CREATE USER blind_{name}@'%'; GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO blind_{name}@'%'"
    ))
    .await;
    let url = f.url.replace("root@", &format!("blind_{name}@"));
    let error = crate::schema::check(&url).await.expect_err("blind");
    assert!(
        error.to_string().contains("does not see triggers"),
        "{error}"
    );
    f.execute(&format!("GRANT TRIGGER ON {name}.* TO blind_{name}@'%'"))
        .await;
    crate::schema::check(&url).await.expect("it sees them");
}
