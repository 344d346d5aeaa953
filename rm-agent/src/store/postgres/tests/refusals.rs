//! Tables and statements that AT refuses before it runs them; the check at start.

use super::{Fixture, server, xid};
use crate::{AtPool, Error};

const TABLES: &str = "
CREATE TABLE plain (id int PRIMARY KEY, v int UNIQUE, w int);
CREATE TABLE no_key (v int);
CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE part_one PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE VIEW seen AS SELECT * FROM plain;
CREATE UNLOGGED TABLE fast (id int PRIMARY KEY);
CREATE TABLE base (id int PRIMARY KEY);
CREATE TABLE derived (PRIMARY KEY (id)) INHERITS (base);
CREATE TABLE ruled (id int PRIMARY KEY);
CREATE RULE r AS ON INSERT TO ruled DO ALSO NOTIFY x;
CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE triggered (id int PRIMARY KEY, v int);
CREATE TRIGGER t_note AFTER INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION noop();
CREATE TABLE parent (id int PRIMARY KEY, code int UNIQUE, v int);
CREATE TABLE child (p int REFERENCES parent ON DELETE SET NULL,
                    c int REFERENCES parent (code) ON UPDATE CASCADE);
CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO plain VALUES (9) RETURNING 1';
CREATE FUNCTION reads() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM plain';
CREATE TABLE defaulted (id int PRIMARY KEY DEFAULT writes());
CREATE TABLE ident (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY);
CREATE TABLE secret (id int PRIMARY KEY);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;";

#[tokio::test]
async fn tables_that_cannot_be_undone_are_refused() {
    let f = Fixture::new(TABLES).await;
    let cases = [
        ("INSERT INTO no_key VALUES (1)", "no primary key"),
        (
            "INSERT INTO part_one VALUES (1)",
            "partition of public.parts",
        ),
        ("INSERT INTO seen VALUES (1)", "view"),
        ("INSERT INTO fast VALUES (1)", "unlogged"),
        ("DELETE FROM base", "inheritance"),
        ("DELETE FROM ruled", "rules"),
        ("DELETE FROM triggered", "trigger t_note"),
        ("DELETE FROM parent", "ON DELETE SET NULL"),
        ("UPDATE parent SET code = 1", "ON UPDATE CASCADE"),
        ("UPDATE ident SET id = 1", "primary key column id"),
        ("UPDATE ident SET n = DEFAULT", "IDENTITY"),
        (
            "INSERT INTO defaulted VALUES (DEFAULT)",
            "defaults or checks calls writes",
        ),
        ("DELETE FROM undo_log", "system table"),
        ("DELETE FROM pg_catalog.pg_class", "system table"),
        ("DELETE FROM nowhere", "no table nowhere"),
        ("SELECT writes()", "writes is VOLATILE"),
        (
            "INSERT INTO plain SELECT * FROM writes()",
            "writes is VOLATILE",
        ),
        ("SELECT * FROM seen FOR UPDATE", "view"),
        ("BEGIN", "belongs to AtTransaction"),
    ];
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    for (sql, part) in cases {
        let error = sqlx::query(sql).execute(&mut tx).await.expect_err(sql);
        let error = Error::from_sqlx(&error).unwrap_or_else(|| panic!("{sql}: {error}"));
        assert!(error.to_string().contains(part), "{sql}: {error}");
        assert!(!error.is_retryable());
    }
    // A refused statement did not run; the transaction goes on.
    for sql in [
        "INSERT INTO parts VALUES (1)",
        "DELETE FROM defaulted",
        "INSERT INTO derived VALUES (1)",
        "UPDATE parent SET v = 1",
        "INSERT INTO parent VALUES (1, 1, 1)",
        "INSERT INTO ident VALUES (1)",
        "SELECT reads(), now(), random(), nextval('pg_catalog.pg_class'::regclass) WHERE false",
        "INSERT INTO plain VALUES (1, 1, reads())",
        "SET LOCAL work_mem = '8MB'",
        "LOCK TABLE plain IN SHARE MODE",
    ] {
        sqlx::query(sql)
            .execute(&mut tx)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    tx.commit().await.expect("commit");
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(
        f.dump("plain").await.len() + f.dump("parent").await.len(),
        0
    );
}

#[tokio::test]
async fn row_security_and_temporary_tables_are_refused() {
    let f = Fixture::new(TABLES).await;
    f.execute(
        "DO $$ BEGIN CREATE ROLE accede_limited; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         GRANT ALL ON secret, undo_log, accede_meta TO accede_limited",
    )
    .await;
    let options: sqlx::postgres::PgConnectOptions = f.url.parse().expect("a URL");
    let pool = AtPool::builder(&f.url)
        .resource("test-db")
        .connect_options(options.options([("role", "accede_limited")]))
        .connect(f.registrar.clone())
        .await
        .expect("it has the privileges");
    let mut tx = pool.begin_in(xid(1)).await.expect("begin");
    let error = sqlx::query("DELETE FROM secret")
        .execute(&mut tx)
        .await
        .expect_err("RLS");
    assert!(error.to_string().contains("row-level security"), "{error}");
    tx.rollback().await.expect("rollback");

    // A temporary table that hides an ordinary one of a remembered statement.
    let f = Fixture::with(TABLES, |builder| builder.max_connections(1)).await;
    f.branch(xid(2), &["INSERT INTO plain VALUES (1, 1, 1)"])
        .await
        .expect("commit");
    f.execute("CREATE TEMP TABLE plain (id int PRIMARY KEY, v int UNIQUE, w int)")
        .await;
    f.registrar.release();
    let error = f
        .branch(xid(3), &["INSERT INTO plain VALUES (1, 1, 1)"])
        .await
        .expect_err("hidden");
    assert!(crate::is_retryable(&error), "{error}");
    let error = f
        .branch(xid(3), &["INSERT INTO plain VALUES (1, 1, 1)"])
        .await
        .expect_err("temporary");
    assert!(error.to_string().contains("temporary"), "{error}");
}

#[tokio::test]
async fn what_is_allowed_runs() {
    let f = Fixture::with(TABLES, |builder| {
        builder
            .allow_trigger("public.triggered", "t_note")
            .allow_function("writes")
    })
    .await;
    f.branch(
        xid(1),
        &["INSERT INTO triggered VALUES (1, 1)", "SELECT writes()"],
    )
    .await
    .expect("allowed");
    f.roll_back(xid(1), 1).await.expect("undone");
    assert!(f.dump("triggered").await.is_empty());
    assert_eq!(f.dump("plain").await.len(), 1, "as the builder was told");
}

#[tokio::test]
async fn outside_a_global_transaction_nothing_is_refused() {
    let f = Fixture::new(TABLES).await;
    for sql in [
        "INSERT INTO no_key VALUES (1)",
        "TRUNCATE no_key",
        "CREATE TABLE x (a int)",
    ] {
        sqlx::query(sql).execute(&f.pool).await.expect("untouched");
        let mut tx = f.pool.begin_plain().await.expect("begin");
        let _ = sqlx::query(sql).execute(&mut tx).await;
        tx.rollback().await.expect("rollback");
    }
    assert!(f.registrar.events().is_empty());
}

#[tokio::test]
async fn the_check_at_start_says_what_to_do() {
    let url = server::database().await;
    let registrar = std::sync::Arc::new(super::TestRegistrar::default());
    let connect = || {
        AtPool::builder(&url)
            .resource("r")
            .connect(registrar.clone())
    };
    let plain = sqlx::PgPool::connect(&url).await.expect("connect");
    let run = |sql: &'static str| {
        let plain = plain.clone();
        async move {
            sqlx::raw_sql(sql)
                .execute(&plain)
                .await
                .map(drop)
                .expect(sql)
        }
    };
    let missing = connect().await.expect_err("no tables").to_string();
    assert!(missing.contains("undo_log does not exist"), "{missing}");
    assert!(missing.contains("accede schema create"), "{missing}");
    for (sql, part) in [
        ("CREATE TABLE undo_log (xid bigint)", "no column branch_id"),
        (
            "ALTER TABLE undo_log ADD branch_id text",
            "has type text, not integer",
        ),
        ("DROP TABLE undo_log", "does not exist"),
    ] {
        run(sql).await;
        let error = connect().await.expect_err(sql).to_string();
        assert!(error.contains(part), "{error}");
    }
    crate::schema::create(&url).await.expect("created");
    crate::schema::create(&url).await.expect("a repeat");
    crate::schema::check(&url).await.expect("checked");
    connect().await.expect("prepared");
    for (sql, part, back) in [
        (
            "ALTER TABLE undo_log ALTER log_created DROP NOT NULL",
            "NOT NULL",
            "ALTER TABLE undo_log ALTER log_created SET NOT NULL",
        ),
        (
            "ALTER TABLE undo_log DROP CONSTRAINT undo_log_pkey",
            "primary key",
            "ALTER TABLE undo_log ADD PRIMARY KEY (xid, branch_id)",
        ),
        (
            "UPDATE accede_meta SET schema_version = 9",
            "update the service",
            "UPDATE accede_meta SET schema_version = 1",
        ),
        (
            "DELETE FROM accede_meta",
            "holds no row",
            "INSERT INTO accede_meta (schema_version) VALUES (1)",
        ),
    ] {
        run(sql).await;
        let error = crate::schema::check(&url).await.expect_err(sql).to_string();
        assert!(error.contains(part), "{error}");
        run(back).await;
    }
    connect().await.expect("as before");
    for (bad, part) in [
        ("oracle://x", "scheme \"oracle\""),
        ("postgres://[", "cannot be used"),
    ] {
        let error = crate::schema::check(bad).await.expect_err(bad).to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = AtPool::builder(&url)
        .build(registrar.clone())
        .expect_err("no name")
        .to_string();
    assert!(error.contains("resource name"), "{error}");
    assert!(
        crate::schema::print(&url)
            .expect("known")
            .contains("CREATE TABLE IF NOT EXISTS undo_log")
    );
}

/// Built-in functions that may do something are refused unless they are known to be harmless.
#[tokio::test]
async fn built_in_functions_have_an_allow_list() {
    let f = Fixture::new("").await;
    let mut connection = f.pool.plain().acquire().await.expect("connect");
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT proname::text FROM pg_proc WHERE provolatile = 'v'
         AND pronamespace = 'pg_catalog'::regnamespace
         AND prorettype <> ALL ('{trigger,event_trigger}'::regtype[])",
    )
    .fetch_all(f.pool.plain())
    .await
    .expect("readable");
    assert!(names.len() > 200, "{}", names.len());
    let harmless = crate::store::postgres::catalog::HARMLESS_BUILT_INS;
    for name in &names {
        let sql = format!("SELECT {name}(1)");
        let planned = f.pool.planner().plan(&sql, &mut connection).await;
        assert_eq!(planned.is_ok(), harmless.contains(&&**name), "{name}");
    }
    for name in harmless {
        assert!(
            names.iter().any(|known| known == name),
            "{name} does not exist"
        );
    }
}
