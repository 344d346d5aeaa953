//! Databases that are not fit, and settings.

use std::sync::Arc;

use sqlx::{ConnectOptions as _, Executor as _, sqlite::SqliteConnectOptions};

use super::{AtPool, Fixture, folder, registrar::TestRegistrar, shapes::SCHEMA, xid};

fn build(url: &str) -> AtPool {
    AtPool::builder(url)
        .resource("x")
        .build(Arc::new(TestRegistrar::default()))
        .expect("lazy")
}

async fn why(url: &str) -> String {
    build(url).check().await.expect_err(url).to_string()
}

#[tokio::test]
async fn databases_that_are_not_fit_are_named() {
    let folder = folder();
    let url = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    let make = async |name: &str, sql: &'static str| {
        let options: SqliteConnectOptions = url(name).parse().expect("a URL");
        let mut connection = options
            .create_if_missing(true)
            .connect()
            .await
            .expect("opened");
        connection
            .execute(sqlx::raw_sql(sql))
            .await
            .expect("prepared");
        url(name)
    };
    let error = why(&url("missing.db")).await;
    assert!(error.contains("unable to open"), "{error}");
    let plain = make("plain.db", "CREATE TABLE t (id)").await;
    let error = why(&plain).await;
    assert!(error.contains("journal_mode is delete"), "{error}");
    assert!(error.contains("journal_mode = WAL"), "{error}");
    let error = why("sqlite::memory:").await;
    assert!(error.contains("use a database in a file"), "{error}");
    let wide = make(
        "wide.db",
        "PRAGMA encoding = 'UTF-16'; PRAGMA journal_mode = WAL; CREATE TABLE t (id)",
    );
    let error = why(&wide.await).await;
    assert!(error.contains("encoding is UTF-16"), "{error}");
    let empty = make("empty.db", "PRAGMA journal_mode = WAL").await;
    let error = why(&empty).await;
    assert!(error.contains("undo_log does not exist"), "{error}");
    assert!(error.contains("accede schema create"), "{error}");
    let other = make(
        "other.db",
        "PRAGMA journal_mode = WAL; CREATE TABLE undo_log (xid TEXT); CREATE TABLE accede_meta (a)",
    );
    let error = why(&other.await).await;
    assert!(error.contains("undo_log.xid has type TEXT"), "{error}");

    for url in [plain, empty, url("new.db")] {
        crate::schema::create(&url).await.expect("created");
        crate::schema::create(&url)
            .await
            .expect("a repeat changes nothing");
        crate::schema::check(&url).await.expect("fits");
        build(&url).check().await.expect("fits");
    }
}

#[tokio::test]
async fn a_newer_schema_asks_for_an_update() {
    let f = Fixture::new("UPDATE accede_meta SET schema_version = 2").await;
    let error = why(&f.url).await;
    assert!(error.contains("update the service"), "{error}");
    f.execute("DELETE FROM accede_meta").await;
    let error = why(&f.url).await;
    assert!(error.contains("no row of this version"), "{error}");
    f.execute("ALTER TABLE undo_log DROP COLUMN log_created")
        .await;
    let error = why(&f.url).await;
    assert!(error.contains("has no column log_created"), "{error}");
}

#[tokio::test]
async fn builders_say_what_is_missing() {
    let registrar = || Arc::new(TestRegistrar::default());
    let error = AtPool::builder("sqlite:///tmp/x.db")
        .build(registrar())
        .expect_err("no name");
    assert!(error.to_string().contains("no resource name"), "{error}");
    let error = AtPool::builder("sqlite:///tmp/x.db")
        .resource("x")
        .phase_two_connections(0)
        .build(registrar())
        .expect_err("no connections");
    assert!(
        error.to_string().contains("phase_two_connections"),
        "{error}"
    );
    let error = AtPool::builder("postgres://x")
        .resource("x")
        .build(registrar())
        .expect_err("no SQLite");
    assert!(error.to_string().contains("cannot be used"), "{error}");
}

#[tokio::test]
async fn what_the_application_allows_runs() {
    let f = Fixture::with(SCHEMA, |builder| {
        builder
            .allow_trigger("guarded", "guard")
            .allow_function("load_extension")
    })
    .await;
    f.branch(xid(1), &["INSERT INTO guarded VALUES (1, 1)"])
        .await
        .expect("allowed");
    let error = f
        .branch(xid(2), &["SELECT load_extension('nothing')"])
        .await
        .expect_err("allowed here, not by the database");
    assert!(error.as_database_error().is_some(), "{error}");
}
