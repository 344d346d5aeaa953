use super::*;

fn write(sql: &str) -> WriteStatement {
    match analyse(sql) {
        Ok(Analysis::Write(write)) => *write,
        other => panic!("{sql}: {other:?}"),
    }
}

fn refused(sql: &str) -> Unsupported {
    match analyse(sql) {
        Err(unsupported) => unsupported,
        Ok(analysis) => panic!("{sql}: {analysis:?}"),
    }
}

#[test]
fn finds_the_clauses_of_an_update() {
    let sql = "UPDATE public.stock AS s -- where\n SET count = (SELECT 1 WHERE true), \"Name\" = 'set' \
               WHERE a IS DISTINCT FROM 1 RETURNING *, count(*) , s.*;";
    let found = write(sql);
    assert_eq!(found.kind, WriteKind::Update);
    assert_eq!(found.table.schema.as_deref(), Some("public"));
    assert_eq!(found.reference, "\"s\"");
    assert_eq!(found.assigned, ["count", "Name"]);
    assert_eq!(found.uses.functions, ["count"]);
    assert_eq!(&sql[found.head], " public.stock AS s -- where\n ");
    assert_eq!(
        &sql[found.body],
        " count = (SELECT 1 WHERE true), \"Name\" = 'set' "
    );
    assert_eq!(
        &sql[found.condition.expect("there")],
        " a IS DISTINCT FROM 1 "
    );
    assert_eq!(&sql[found.returning.expect("there")], " *, count(*) , s.*");
    assert_eq!(found.wildcards.len(), 1);
}

#[test]
fn finds_with_and_tuple_assignments() {
    let sql = "with x as (select 1 as update) update t set (a, b) = (select 1, 2), c[0].d = 1";
    // Sub-fields of arrays are beyond the parser.
    assert!(refused(sql).part.contains("parser"));
    let sql = "with x as (select 1) update t set (a, b) = (select 1, 2), c.d = 1";
    let found = write(sql);
    assert_eq!(found.assigned, ["a", "b", "c"]);
    assert_eq!(&sql[found.prefix], "with x as (select 1) ");
    assert!(found.condition.is_none() && found.returning.is_none());
}

#[test]
fn reads_inserts_and_deletes() {
    let found =
        write("INSERT INTO T (a) VALUES ($1), (DEFAULT) ON CONFLICT (a) DO NOTHING RETURNING a");
    assert_eq!((found.kind, &*found.table.name), (WriteKind::Insert, "t"));
    assert!(found.returning.is_some());
    write("INSERT INTO t DEFAULT VALUES");
    write("INSERT INTO t SELECT * FROM u WHERE a IN (SELECT b FROM v FOR UPDATE SKIP LOCKED)");
    let found = write("DELETE FROM a.t AS x USING u WHERE u.id = x.id");
    assert_eq!(
        (found.kind, &*found.reference),
        (WriteKind::Delete, "\"x\"")
    );
    write("WITH gone AS (SELECT 1 AS id) DELETE FROM t WHERE id IN (SELECT id FROM gone)");
}

#[test]
fn reads_upserts() {
    let sql = "INSERT INTO s.t AS x SELECT 1 FROM u WHERE true ON CONFLICT (lower(a), b) WHERE b > 0 DO UPDATE \
               SET b = excluded.b, (c, d) = (1, x.d) WHERE x.b IS DISTINCT FROM 1 -- so\n RETURNING *";
    let found = write(sql);
    assert!(found.updates_on_conflict);
    assert_eq!(found.assigned, ["b", "c", "d"]);
    assert!(sql[found.body.clone()].ends_with("(1, x.d) "));
    let condition = &sql[found.condition.expect("there is one")];
    assert_eq!(condition, " x.b IS DISTINCT FROM 1 -- so\n ");
    let found = write("INSERT INTO t VALUES (1) ON CONFLICT ON CONSTRAINT p DO UPDATE SET b = 1");
    assert_eq!((found.condition, found.assigned), (None, vec!["b".into()]));
}

#[test]
fn reads_updates_from_other_tables() {
    let sql = "UPDATE t SET a = u.a IS NOT DISTINCT FROM 1 FROM u AS \"U\" JOIN s.v ON true, \
               generate_series(1, 2) g WHERE t.id = \"U\".id RETURNING *, t.a";
    let found = write(sql);
    let from = &sql[found.from.expect("there is one")];
    assert!(from.starts_with(" u AS") && from.ends_with(" g "), "{from}");
    assert_eq!(found.wildcard_sources, ["\"t\"", "\"U\"", "\"v\"", "\"g\""]);
    write("UPDATE t SET a = 1 FROM u JOIN v USING (id)");
}

#[test]
fn tells_reads_from_locking_reads() {
    for sql in [
        "",
        " ; ",
        "SELECT 1",
        "(SELECT 1) UNION SELECT 2",
        "VALUES (1)",
        "SHOW x",
        "EXPLAIN DELETE FROM t",
        "LOCK TABLE t",
        "SET LOCAL statement_timeout = 5",
        "WITH x AS (SELECT now()) SELECT * FROM x",
    ] {
        assert!(matches!(analyse(sql), Ok(Analysis::Read(_))), "{sql}");
    }
    let sql = "SELECT a IS DISTINCT FROM b FROM t JOIN \"U\" u ON true WHERE c FOR NO KEY UPDATE OF u LIMIT 1";
    let Ok(Analysis::LockingRead(read)) = analyse(sql) else {
        panic!("{sql}")
    };
    assert_eq!(read.tables.len(), 1);
    assert_eq!(read.tables[0].table.name, "U");
    assert!(sql[read.select_list_end..].starts_with("FROM t JOIN"));
}

#[test]
fn refuses_what_cannot_be_undone_and_says_why() {
    let cases = [
        ("BEGIN", "local transaction"),
        ("start transaction", "local transaction"),
        ("COMMIT", "local transaction"),
        ("ROLLBACK TO x", "local transaction"),
        ("SAVEPOINT x", "local transaction"),
        ("PREPARE TRANSACTION 'x'", "hides"),
        ("EXECUTE x", "hides"),
        ("TRUNCATE t", "TRUNCATE"),
        (
            "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
            "MERGE",
        ),
        ("TABLE t", "TABLE"),
        ("COPY t FROM STDIN", "COPY"),
        ("CREATE TABLE t (a int)", "CREATE"),
        ("DROP TABLE t", "DROP"),
        ("ALTER TABLE t ADD a int", "ALTER"),
        ("DO $$ BEGIN END $$", "DO"),
        ("CALL p()", "CALL"),
        ("NOTIFY x", "NOTIFY"),
        ("VACUUM", "VACUUM"),
        ("RESET ALL", "session"),
        ("SET synchronous_commit = off", "SET"),
        ("SET LOCAL search_path = x", "SET"),
        ("EXPLAIN ANALYZE DELETE FROM t", "EXPLAIN"),
        ("EXPLAIN (ANALYZE) DELETE FROM t", "EXPLAIN"),
        ("SELECT 1; DELETE FROM t", "several statements"),
        ("SELECT * INTO x FROM t", "INTO"),
        (
            "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
            "WITH",
        ),
        (
            "WITH d AS (WITH e AS (SELECT 1) UPDATE t SET a = 1 RETURNING *) SELECT * FROM d",
            "WITH",
        ),
        (
            "WITH d AS (INSERT INTO t VALUES (1) RETURNING *) UPDATE u SET a = 1",
            "WITH",
        ),
        ("UPDATE ONLY t SET a = 1", "ONLY"),
        ("DELETE FROM ONLY t", "ONLY"),
        ("UPDATE t SET a = 1 WHERE CURRENT OF c", "parser"),
        ("UPDATE t SET accede_x = 1", "accede_x"),
        ("DELETE FROM \"accede_meta\"", "accede_meta"),
        ("DELETE FROM a.b.c", "a.b.c"),
        (
            "UPDATE t SET a = 1 FROM u JOIN v USING (id) RETURNING *",
            "RETURNING *",
        ),
        (
            "UPDATE t SET a = 1 FROM u, (v CROSS JOIN w) RETURNING *",
            "RETURNING *",
        ),
        ("SELECT set_config('a', 'b', false)", "set_config"),
        ("SELECT * FROM lo_import('x')", "lo_import"),
        (
            "SELECT query_to_xml('delete from t', true, true, '')",
            "query_to_xml",
        ),
        ("SELECT a FROM (SELECT a FROM t FOR UPDATE) x", "sub-query"),
        ("SELECT a FROM (SELECT 1 AS a) x FOR UPDATE", "plain table"),
        ("SELECT 1 FOR UPDATE", "without a table"),
        ("SELECT 'open", "not closed"),
        ("SELECT U&'x'", "U&"),
        ("nonsense", "NONSENSE"),
    ];
    for (sql, part) in cases {
        let found = refused(sql);
        assert!(found.part.contains(part), "{sql}: {}", found.part);
        assert!(!found.advice.is_empty());
    }
    let long = format!("SELECT '{}'", "x".repeat(limits::MAX_SQL_BYTES));
    assert!(refused(&long).part.contains("bytes"));
}

mod random {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics(words in proptest::collection::vec(prop_oneof![
            Just("UPDATE"), Just("t"), Just("SET"), Just("a"), Just("="), Just("1"), Just("WHERE"),
            Just("RETURNING"), Just("*"), Just(","), Just("("), Just(")"), Just("FROM"),
            Just("FOR"), Just("SELECT"), Just("DELETE"), Just("INSERT"), Just("INTO"), Just("WITH"),
            Just("AS"), Just("OF"), Just("NO"), Just("KEY"), Just("SHARE"), Just(";"), Just("'x'"),
            Just("ON CONFLICT DO NOTHING"), Just("VALUES"), Just("--\n"), Just("\"é\""),
        ], 0..14)) {
            let _ = super::analyse(&words.join(" "));
        }
    }
}
