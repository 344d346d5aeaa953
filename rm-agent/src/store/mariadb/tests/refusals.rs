//! What is refused, and in which words.

use super::{AtPool, Fixture, xid};
use crate::Error;

const SCHEMA: &str = "
CREATE TABLE stock (id INT PRIMARY KEY, v INT, w INT);
INSERT INTO stock VALUES (1, 1, 1);
CREATE TABLE no_key (v INT);
CREATE TABLE old_engine (id INT PRIMARY KEY) ENGINE = MyISAM;
CREATE TABLE aria (id INT PRIMARY KEY) ENGINE = Aria;
CREATE TABLE versioned (id INT PRIMARY KEY) WITH SYSTEM VERSIONING;
CREATE TABLE watched (id INT PRIMARY KEY, v INT);
CREATE TRIGGER watch BEFORE UPDATE ON watched FOR EACH ROW SET NEW.v = 1;
CREATE TABLE parent (id INT PRIMARY KEY, code INT UNIQUE);
CREATE TABLE child (id INT PRIMARY KEY, p INT, c INT,
  FOREIGN KEY (p) REFERENCES parent (id) ON DELETE SET NULL,
  FOREIGN KEY (c) REFERENCES parent (code) ON UPDATE CASCADE);
CREATE TABLE made (id VARCHAR(36) DEFAULT UUID() PRIMARY KEY, v INT);
CREATE VIEW seen AS SELECT id FROM stock;
CREATE FUNCTION writes() RETURNS INT RETURN 1;
CREATE SEQUENCE numbers;";

#[tokio::test]
async fn every_refusal_names_the_part_and_the_transaction_goes_on() {
    let f = Fixture::new(SCHEMA).await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    for (sql, part) in [
        ("REPLACE INTO stock VALUES (1, 2, 3)", "REPLACE"),
        (
            "INSERT IGNORE INTO stock VALUES (1, 2, 3)",
            "INSERT IGNORE without RETURNING",
        ),
        (
            "INSERT INTO stock VALUES (1, 2, 3) ON DUPLICATE KEY UPDATE v = 1",
            "ON DUPLICATE KEY",
        ),
        (
            "INSERT INTO stock SELECT * FROM stock",
            "INSERT … SELECT without RETURNING",
        ),
        (
            "INSERT INTO stock VALUES (floor(rand()), 2, 3)",
            "key column id is an expression",
        ),
        ("INSERT INTO made (v) VALUES (1)", "made by the database"),
        (
            "UPDATE stock SET id = 2",
            "assigns its primary key column id",
        ),
        (
            "UPDATE stock SET v = 2 ORDER BY v + ?",
            "a parameter in its ORDER BY",
        ),
        ("UPDATE stock, parent SET stock.v = 1", ""),
        ("DELETE FROM no_key", "no primary key"),
        ("DELETE FROM old_engine", "engine MyISAM"),
        ("DELETE FROM aria", "engine Aria"),
        ("DELETE FROM versioned", "SYSTEM VERSIONED"),
        ("DELETE FROM numbers", "SEQUENCE"),
        ("UPDATE watched SET v = 2", "trigger watch"),
        ("DELETE FROM parent", "ON DELETE SET NULL"),
        ("UPDATE parent SET code = 2", "ON UPDATE CASCADE"),
        ("DELETE FROM undo_log", "belongs to Accede"),
        ("DELETE FROM mysql.plugin", "database in front"),
        ("DELETE FROM seen", "the view seen"),
        ("SELECT * FROM seen", "the view seen"),
        ("SELECT writes()", "the function writes"),
        ("DELETE FROM nothing_there", "there is no table"),
        ("TRUNCATE stock", "TRUNCATE"),
        ("ALTER TABLE stock ADD x INT", "commits"),
        ("LOCK TABLES stock WRITE", "LOCK TABLES"),
        ("SET SESSION sql_mode = ''", "changes the session"),
        ("SAVEPOINT one", "AtTransaction"),
    ] {
        let error = sqlx::query(sql).execute(&mut tx).await.expect_err(sql);
        let own = Error::from_sqlx(&error);
        assert!(
            matches!(own, Some(Error::Statement { .. } | Error::Table { .. })),
            "{sql}: {error}"
        );
        assert!(error.to_string().contains(part), "{sql}: {error}");
    }
    sqlx::query("UPDATE stock SET v = 5")
        .execute(&mut tx)
        .await
        .expect("the transaction goes on");
    tx.commit().await.expect("commit");
}

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
