use std::sync::Arc;

use super::*;
use crate::at::{
    analysis::analyse,
    statement::Analysis,
    table::{Column, Equality, UniqueIndex},
};

fn table() -> Table {
    let column = |name: &str, as_text| Column {
        name: name.into(),
        type_oid: 20,
        type_name: "t".into(),
        as_text,
        generated: false,
        merges: false,
        escrow: None,
        identity_always: false,
        equality: Equality::Bytes,
    };
    Table {
        oid: 1,
        storage: vec![1],
        schema: "s".into(),
        name: "t".into(),
        columns: vec![column("id", false), column("m", true), column("u", false)],
        key: vec![0],
        unique: vec![UniqueIndex {
            name: Arc::from("i"),
            columns: vec![2],
            nulls_are_equal: false,
        }],
        incoming: Vec::new(),
        recorded: Vec::new(),
    }
}

fn rewritten(sql: &str) -> String {
    let text = match analyse(sql) {
        Ok(Analysis::Write(write)) => rewrite(sql, &write, &table()).sql,
        Ok(Analysis::LockingRead(read)) => rewrite_locking(sql, &read, &[&table()]),
        other => panic!("{sql}: {other:?}"),
    };
    text.replace(STYLE, "{STYLE}")
}

#[test]
fn an_update_locks_its_rows_in_key_order_and_keeps_the_users_text() {
    assert_eq!(
        rewritten("UPDATE s.t AS x SET m = $1 -- why\nWHERE id = $2 RETURNING *, id;"),
        "UPDATE s.t AS x \n\
         SET m = $1 -- why\n\n\
         FROM (SELECT ROW(\"x\".tableoid, \"x\".*, \"x\".\"m\"::text{STYLE}) AS accede_before, \
         \"x\".\"id\" AS accede_k0\n\
         FROM \"s\".\"t\" AS \"x\"\n\
         WHERE id = $2 \n\
         ORDER BY \"x\".\"id\" FOR NO KEY UPDATE OF \"x\") AS accede_b WHERE \"x\".\"id\" = accede_b.accede_k0\n\
         RETURNING  \"x\".*, id\n\
         , accede_b.accede_before, ROW(\"x\".tableoid, \"x\".*, \"x\".\"m\"::text{STYLE}) AS accede_after"
    );
    assert!(
        rewritten("UPDATE t SET u = 1").contains("FOR UPDATE OF \"t\")"),
        "a unique column"
    );
}

#[test]
fn others_only_return_more() {
    let image = "ROW(\"t\".tableoid, \"t\".*, \"t\".\"m\"::text{STYLE})";
    assert_eq!(
        rewritten("INSERT INTO t VALUES (1) -- one"),
        format!("INSERT INTO t VALUES (1)\nRETURNING {image} AS accede_after")
    );
    assert_eq!(
        rewritten("DELETE FROM t RETURNING id"),
        format!("DELETE FROM t \nRETURNING  id\n, {image} AS accede_before")
    );
    assert_eq!(
        rewritten("SELECT id FROM t FOR UPDATE"),
        format!("SELECT id \n, {image} AS accede_lock0\nFROM t FOR UPDATE")
    );
}

#[test]
fn an_upsert_puts_the_old_row_aside() {
    let image = "ROW(\"x\".tableoid, \"x\".*, \"x\".\"m\"::text{STYLE})";
    let sql = "INSERT INTO t AS x VALUES (1) ON CONFLICT (id) DO UPDATE SET m = $1 WHERE x.u > 1 \
               RETURNING id";
    let text = rewritten(sql);
    let (user, rest) = text
        .split_once("WHERE CASE WHEN ( x.u > 1 \n) THEN")
        .expect(&text);
    assert_eq!(
        user,
        "INSERT INTO t AS x VALUES (1) ON CONFLICT (id) DO UPDATE SET m = $1 \n"
    );
    assert!(rest.contains(&format!("record_send({image})")), "{rest}");
    assert!(rest.contains("ELSE false END\nRETURNING  id\n, "), "{rest}");
    let text = rewritten("INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET m = 1");
    assert!(
        text.contains("SET m = 1\nWHERE pg_catalog.set_config("),
        "{text}"
    );
}

#[test]
fn only_an_image_of_this_statement_is_taken() {
    assert_eq!(captured(Some("12:00=00ff"), "12:00"), Some(vec![0, 255]));
    assert_eq!(captured(Some("12:00=00ff"), "12:01"), None);
    assert_eq!(
        captured(Some("12:00"), "12:00"),
        None,
        "it was taken already"
    );
    assert_eq!(captured(None, "12:00"), None);
}

#[test]
fn an_update_from_other_tables_joins_them_twice() {
    let text = rewritten("UPDATE t SET m = u.m FROM u, v WHERE t.id = u.id RETURNING *");
    assert!(text.contains("FROM  u, v \n, (SELECT ROW"), "{text}");
    assert!(
        text.contains("FROM \"s\".\"t\",  u, v \nWHERE t.id = u.id"),
        "{text}"
    );
    assert!(
        text.contains("AND ( t.id = u.id \n)\nRETURNING  \"t\".*, \"u\".*, \"v\".*"),
        "{text}"
    );
}
