use super::*;

fn write(sql: &str) -> Write {
    match analyse(sql) {
        Ok(Analysis::Write(write)) => *write,
        other => panic!("{sql}: {other:?}"),
    }
}

fn refusal(sql: &str) -> String {
    match analyse(sql) {
        Err(found) => found.part,
        Ok(found) => panic!("{sql}: {found:?}"),
    }
}

#[test]
fn finds_the_clauses() {
    let sql =
        "UPDATE `Stock` AS s SET a = ?, b = 'x' WHERE id = ? AND (v > ?) ORDER BY id LIMIT 5;";
    let found = write(sql);
    let text = |clause: Option<Clause>| {
        let clause = clause.expect("it is there");
        (sql[clause.span].trim().to_owned(), clause.parameters)
    };
    assert_eq!(found.kind, WriteKind::Update);
    assert_eq!(found.table.name, "Stock");
    assert_eq!(found.reference, "`s`");
    assert_eq!(found.assigned, ["a", "b"]);
    assert_eq!(&sql[found.target.span.clone()], "`Stock` AS s ");
    let values = found
        .values
        .iter()
        .map(|value| &sql[value.clause.span.clone()]);
    assert_eq!(values.collect::<Vec<_>>(), ["?", "'x'"]);
    assert_eq!(found.head.parameters, 1);
    assert_eq!(text(found.condition), ("id = ? AND (v > ?)".to_owned(), 2));
    assert_eq!(text(found.order), ("id".to_owned(), 0));
    assert_eq!(text(found.limit), ("5".to_owned(), 0));

    let sql = "DELETE FROM t WHERE v = ? RETURNING id, upper(s)";
    let found = write(sql);
    assert_eq!(&sql[found.target.span], "t ");
    assert_eq!(text_of(sql, found.returning), " id, upper(s)");
}

fn text_of(sql: &str, span: Option<Range<usize>>) -> String {
    span.map_or_else(String::new, |span| sql[span].to_owned())
}

#[test]
fn reads_the_rows_of_an_insert() {
    use super::super::insert::CellKind::{Absent, Other, Plain};
    let kinds = |sql: &str| {
        let rows = write(sql).insert.and_then(|parts| parts.rows).expect(sql);
        rows.into_iter()
            .map(|row| row.into_iter().map(|c| (c.kind, c.parameters)).collect())
            .collect::<Vec<Vec<_>>>()
    };
    assert_eq!(
        kinds("INSERT INTO t (a, b) VALUES (?, NULL), (1 + ?, upper(?))"),
        [vec![(Plain, 1), (Absent, 0)], vec![(Plain, 1), (Other, 1)]]
    );
    assert_eq!(
        kinds("INSERT INTO t SET a = 'x', b = DEFAULT"),
        [[(Plain, 0), (Absent, 0)]]
    );
    let found = write("INSERT IGNORE INTO t SELECT * FROM o")
        .insert
        .expect("parts");
    assert!(found.rows.is_none() && found.columns.is_none());
}

#[test]
fn finds_the_table_that_joined_ones_belong_to() {
    for (sql, target) in [
        (
            "UPDATE t AS a JOIN o ON o.id = a.id AND o.x = ? SET a.v = ?, a.w = o.v WHERE o.y > ?",
            "t AS a JOIN o ON o.id = a.id AND o.x = ? ",
        ),
        (
            "DELETE a FROM o LEFT JOIN t AS a ON o.id = a.id WHERE o.y > ?",
            "o LEFT JOIN t AS a ON o.id = a.id ",
        ),
        (
            "DELETE FROM t USING t JOIN o USING (id)",
            "t JOIN o USING (id)",
        ),
    ] {
        let found = write(sql);
        assert!(found.joins, "{sql}");
        assert_eq!(found.table.name, "t", "{sql}");
        assert_eq!(&sql[found.target.span], target);
    }
}

#[test]
fn knows_which_values_read_the_same_each_time() {
    let names = |sql: &str| write(sql).values.remove(0).names;
    let known = |names: &[&str]| Some(names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>());
    assert_eq!(
        names("UPDATE t SET id = `Id` + ? * (2 - v)"),
        known(&["id", "v"])
    );
    assert_eq!(names("UPDATE t SET id = 'a'"), known(&[]));
    for other in ["RAND()", "@x", "DEFAULT", "(SELECT 1)", "UPPER ('x')"] {
        assert_eq!(
            names(&format!("UPDATE t SET id = {other}")),
            None,
            "{other}"
        );
    }
}

#[test]
fn finds_what_happens_on_a_conflict() {
    use super::super::insert::OnConflict::{Fail, Ignore, Replace, Update};
    let conflict = |sql: &str| write(sql).insert.expect("parts").conflict;
    assert_eq!(conflict("INSERT INTO t VALUES (1)"), Fail);
    assert_eq!(conflict("INSERT IGNORE INTO t VALUES (1)"), Ignore);
    assert_eq!(
        conflict("/* x */ REPLACE INTO t VALUES (1)"),
        Replace(8..15)
    );
    let sql = "INSERT INTO t (a) SELECT x FROM o JOIN p ON o.y = p.y \
               ON DUPLICATE KEY UPDATE t.a = VALUES(a), b = ? RETURNING a, ?";
    let found = write(sql);
    assert_eq!(found.assigned, ["a", "b"]);
    assert_eq!(found.parameters, 2);
    let Update(place) = found.insert.expect("parts").conflict else {
        panic!("an upsert");
    };
    assert!(sql[..place].ends_with("KEY UPDATE"));
}

#[test]
fn refuses_by_name_and_by_part() {
    for (sql, part) in [
        (
            "INSERT IGNORE INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 1",
            "IGNORE together",
        ),
        ("REPLACE t VALUES (1)", "between INSERT or REPLACE and INTO"),
        ("INSERT DELAYED INTO t VALUES (1)", ""),
        ("UPDATE IGNORE t SET a = 1", "UPDATE IGNORE"),
        ("UPDATE t, o SET t.a = 1", ""),
        (
            "UPDATE t JOIN o USING (id) SET t.a = 1, o.b = 2",
            "the one table it writes",
        ),
        (
            "UPDATE t JOIN o USING (id) SET a = 1",
            "the one table it writes",
        ),
        ("DELETE t, o FROM t JOIN o USING (id)", "several tables"),
        ("DELETE t FROM t JOIN o USING (id) LIMIT 1", ""),
        ("TRUNCATE t", "TRUNCATE"),
        ("CREATE TABLE x (a int)", "commits"),
        ("LOCK TABLES t WRITE", "LOCK TABLES"),
        ("SET autocommit = 0", "changes the session"),
        ("XA START 'x'", "cannot be undone"),
        ("CALL p()", "cannot be undone"),
        ("LOAD DATA INFILE 'x' INTO TABLE t", "LOAD DATA"),
        ("SELECT 1 INTO OUTFILE 'x'", "INTO"),
        ("SELECT 1; DELETE FROM t", "several statements"),
        ("/*! DELETE FROM t */", "that the database runs"),
        ("UPDATE t SET accede_x = 1", "the name accede_x"),
        ("SELECT count(*) FROM t FOR UPDATE", "aggregates"),
        (
            "SELECT * FROM (SELECT * FROM t FOR UPDATE) x",
            "does not end",
        ),
    ] {
        let found = refusal(sql);
        assert!(found.contains(part), "{sql}: {found}");
    }
}

#[test]
fn names_functions_that_it_does_not_know() {
    let functions = |sql: &str| match analyse(sql) {
        Ok(Analysis::Read(uses)) => uses.functions,
        Ok(Analysis::Write(write)) => write.uses.functions,
        other => panic!("{other:?}"),
    };
    assert!(functions("SELECT upper(a), count(*) FROM t WHERE b < now()").is_empty());
    assert_eq!(functions("EXPLAIN SELECT f(1)"), ["f"]);
    assert_eq!(
        functions("SELECT shop.f(1), My_Func()"),
        ["shop.f", "my_func"]
    );
    assert_eq!(
        functions("DELETE FROM t WHERE a = get_lock('x', 1) RETURNING f(a)"),
        ["get_lock", "f"]
    );
    assert_eq!(
        functions("SELECT last_insert_id(), last_insert_id(5)"),
        ["last_insert_id"]
    );
}
