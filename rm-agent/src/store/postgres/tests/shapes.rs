//! Every shape of a statement with its answer; the table in docs/at.md is made from
//! this. `BLESS=1` writes it anew.

mod list;

use std::{fmt::Write as _, fs, path::PathBuf};

use super::{Fixture, xid};
use crate::Error;
use list::{
    Answer::{Refused, Runs, Undone},
    SCHEMA, SHAPES, TABLES,
};

async fn dump(f: &Fixture) -> Vec<Vec<String>> {
    let mut tables = Vec::new();
    for table in TABLES {
        tables.push(f.dump(table).await);
    }
    tables
}

/// Runs one statement alone in a branch: the refusal, or nothing.
async fn run(f: &Fixture, number: u64, sql: &str) -> Option<Error> {
    let mut tx = f.pool.begin_in(xid(number)).await.expect("begin");
    let text = sqlx::AssertSqlSafe(sql.to_owned());
    // The one shape that is about texts without parameters.
    let result = if sql.starts_with("UPDATE") && sql.contains(';') {
        sqlx::raw_sql(text).execute(&mut tx).await
    } else {
        sqlx::query(text).execute(&mut tx).await
    };
    match result {
        Ok(_) => {
            tx.commit().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            None
        }
        Err(error) => {
            tx.commit()
                .await
                .unwrap_or_else(|e| panic!("{sql}: {error}, {e}"));
            match error {
                sqlx::Error::AnyDriverError(own) => {
                    Some(*own.downcast().unwrap_or_else(|e| panic!("{sql}: {e}")))
                }
                error => panic!("{sql}: {error}"),
            }
        }
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[tokio::test]
async fn every_shape_has_its_answer_and_stands_in_the_docs() {
    let f = Fixture::with(SCHEMA, |builder| builder.allow_trigger("stamped", "stamp")).await;
    let before = dump(&f).await;
    let mut table = String::from("| statement | answer | why | instead |\n|---|---|---|---|\n");
    let mut number = 0;
    for (name, answer, statements) in SHAPES {
        let mut row = match answer {
            Undone => format!("| {name} | undone | – | – |"),
            Runs => format!("| {name} | runs | – | – |"),
            Refused => String::new(),
        };
        let mut changed = false;
        for sql in *statements {
            number += 1;
            f.registrar.release();
            let refusal = run(&f, number, sql).await;
            match (answer, refusal) {
                (
                    Refused,
                    Some(Error::Statement { part, advice } | Error::Table { part, advice, .. }),
                ) => {
                    if row.is_empty() {
                        row = format!("| {name} | refused | {} | {} |", cell(&part), cell(&advice));
                    }
                }
                (Undone | Runs, None) => {}
                (_, other) => panic!("{sql}: {other:?}"),
            }
            let now = dump(&f).await;
            changed |= now != before;
            if !f.registrar.done_branches(xid(number)).is_empty() {
                f.roll_back(xid(number), 1)
                    .await
                    .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            }
            assert_eq!(dump(&f).await, before, "{sql}");
        }
        assert_eq!(changed, matches!(answer, Undone), "{name}");
        let _ = writeln!(table, "{row}");
    }
    assert_documented(&table);
}

fn assert_documented(table: &str) {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/at.md");
    let text = fs::read_to_string(&page).expect("the page is there");
    let (begin, end) = ("<!-- begin statements -->\n", "<!-- end statements -->");
    let (head, rest) = text.split_once(begin).expect("the mark is there");
    let (found, tail) = rest.split_once(end).expect("the mark is there");
    if std::env::var_os("BLESS").is_some() {
        let new = format!("{head}{begin}{table}{end}{tail}");
        fs::write(&page, new).expect("the page is writable");
        return;
    }
    assert_eq!(
        found, table,
        "docs/at.md: the table of statements is not what the agent does; run\n\
         BLESS=1 cargo test -p accede-rm-agent --lib every_shape"
    );
}
