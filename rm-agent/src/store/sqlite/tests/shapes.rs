//! Every shape of a statement with its answer; the table in docs/at.md is made from
//! this. `BLESS=1` writes it anew.

use std::{fmt::Write as _, fs, path::PathBuf};

use super::{Fixture, xid};
use crate::Error;

/// Tables of every kind.
pub(super) const SCHEMA: &str = "
CREATE TABLE stock (product INTEGER PRIMARY KEY, count INT NOT NULL DEFAULT 0, code TEXT UNIQUE,
  twice INT GENERATED ALWAYS AS (count * 2) STORED, half REAL AS (count / 2.0));
INSERT INTO stock (product, count, code) VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, NULL);
CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT DEFAULT 'none');
INSERT INTO orders (note) VALUES ('n'), ('m');
CREATE TABLE users (name TEXT PRIMARY KEY COLLATE NOCASE, v) WITHOUT ROWID;
INSERT INTO users VALUES ('ann', 1), ('bob', x'00');
CREATE TABLE moods (mood TEXT PRIMARY KEY, v INT) STRICT;
INSERT INTO moods VALUES ('sad', 1);
CREATE TABLE no_key (v);
INSERT INTO no_key VALUES (1), (1), (NULL);
CREATE TABLE settled (id INTEGER PRIMARY KEY, v UNIQUE ON CONFLICT REPLACE);
INSERT INTO settled VALUES (1, 1);
CREATE TABLE parent (id INTEGER PRIMARY KEY, code INT UNIQUE);
CREATE TABLE child (id INTEGER PRIMARY KEY, p INT REFERENCES parent (id) ON DELETE SET NULL,
  c INT REFERENCES parent (code) ON UPDATE CASCADE ON DELETE CASCADE);
INSERT INTO parent VALUES (1, 1), (2, 2); INSERT INTO child VALUES (1, 1, 2), (2, 2, 2);
CREATE TABLE watched (id INTEGER PRIMARY KEY, v INT, touched INT DEFAULT 0);
INSERT INTO watched VALUES (1, 1, 0);
CREATE TABLE audit (what TEXT);
CREATE TRIGGER watch AFTER UPDATE OF v ON watched BEGIN
  UPDATE watched SET touched = touched + 1 WHERE id = NEW.id;
  INSERT INTO audit VALUES ('watched ' || NEW.id); END;
CREATE TABLE guarded (id INTEGER PRIMARY KEY, v INT);
CREATE TRIGGER guard BEFORE INSERT ON guarded BEGIN INSERT INTO audit VALUES ('guarded'); END;
CREATE VIEW seen AS SELECT product, count FROM stock;
CREATE TRIGGER see INSTEAD OF UPDATE ON seen BEGIN
  UPDATE stock SET count = NEW.count WHERE product = NEW.product; END;
CREATE UNIQUE INDEX of_moods ON moods (v) WHERE v > 0;
CREATE TABLE computed (id INTEGER PRIMARY KEY, v TEXT);
CREATE UNIQUE INDEX computed_v ON computed (lower(v));
CREATE TABLE tree (id INTEGER PRIMARY KEY, up INT REFERENCES tree (id) ON DELETE CASCADE);
CREATE TABLE hidden (rowid, oid, _rowid_);
CREATE VIRTUAL TABLE pages USING fts5(body);
CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);
CREATE TRIGGER notes_pages AFTER INSERT ON notes BEGIN INSERT INTO pages VALUES (NEW.body); END;";

/// All tables whose rows a rollback must bring back.
const TABLES: &[&str] = &[
    "stock", "orders", "users", "moods", "no_key", "settled", "parent", "child", "watched",
    "audit", "guarded", "notes",
];

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    /// Changes rows, and a rollback brings them back.
    Undone,
    /// Changes nothing.
    Runs,
    /// Refused before it runs.
    Refused,
}
use Answer::{Refused, Runs, Undone};

/// What it is called, statements of that shape, and the answer to each of them.
const SHAPES: &[(&str, Answer, &[&str])] = &[
    (
        "INSERT of one or several rows, with DEFAULT VALUES, from a SELECT, with RETURNING",
        Undone,
        &[
            "INSERT INTO stock (product, count) VALUES (7, 1), (8, 2)",
            "INSERT INTO orders DEFAULT VALUES",
            "INSERT INTO orders (note) SELECT code FROM stock RETURNING id",
            "WITH n (v) AS (VALUES (5), (6)) INSERT INTO no_key SELECT v FROM n",
        ],
    ),
    (
        "INSERT … ON CONFLICT DO NOTHING or DO UPDATE",
        Undone,
        &[
            "INSERT INTO stock (product, count) VALUES (1, 1), (9, 9) ON CONFLICT DO NOTHING",
            "INSERT INTO stock (product, code) VALUES (7, 'a') ON CONFLICT (code) DO UPDATE SET count = -1",
        ],
    ),
    (
        "INSERT OR REPLACE, REPLACE, UPDATE OR REPLACE, constraints with ON CONFLICT REPLACE",
        Undone,
        &[
            "INSERT OR REPLACE INTO stock (product, code) VALUES (1, 'b')",
            "REPLACE INTO users VALUES ('ANN', 2)",
            "UPDATE OR REPLACE stock SET code = 'a' WHERE product > 1",
            "INSERT INTO settled VALUES (2, 1)",
        ],
    ),
    (
        "INSERT OR IGNORE, UPDATE OR IGNORE",
        Undone,
        &[
            "INSERT OR IGNORE INTO stock (product) VALUES (1), (9)",
            "UPDATE OR IGNORE stock SET code = CASE product WHEN 3 THEN 'c' ELSE 'b' END",
        ],
    ),
    (
        "UPDATE with expressions and sub-queries, UPDATE … FROM",
        Undone,
        &[
            "UPDATE stock SET count = count + (SELECT COUNT(*) FROM orders) WHERE code IS NOT NULL",
            "UPDATE stock AS s SET count = o.id FROM orders o WHERE o.id = s.product",
            "UPDATE no_key SET v = 'x' WHERE v = 1 RETURNING v",
        ],
    ),
    (
        "UPDATE of the primary key, of the row number",
        Undone,
        &[
            "UPDATE stock SET product = product + 10",
            "UPDATE users SET name = 'ANN' WHERE name = 'ann'",
            "UPDATE no_key SET rowid = rowid + 7 WHERE rowid = 3",
        ],
    ),
    (
        "DELETE, also of all rows, with RETURNING",
        Undone,
        &[
            "DELETE FROM stock",
            "DELETE FROM no_key WHERE v IS NULL RETURNING rowid",
        ],
    ),
    (
        "a foreign key that changes other rows (CASCADE, SET NULL, SET DEFAULT)",
        Undone,
        &["DELETE FROM parent", "UPDATE parent SET code = code + 5"],
    ),
    (
        "a table with AFTER triggers: what they write is undone too",
        Undone,
        &["UPDATE watched SET v = 2"],
    ),
    (
        "a write to a view with INSTEAD OF triggers",
        Undone,
        &["UPDATE seen SET count = 0 WHERE product = 1"],
    ),
    (
        "SELECT, VALUES, EXPLAIN; functions of SQLite, of views, of pragma_…",
        Runs,
        &[
            "SELECT * FROM stock JOIN orders ON id = product",
            "SELECT upper(code), json_array(1), (SELECT user_version FROM pragma_user_version) FROM stock",
            "SELECT highlight(pages, 0, '<', '>') FROM pages('x')",
            "SELECT * FROM seen",
            "VALUES (1)",
            "EXPLAIN DELETE FROM stock",
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3) SELECT i FROM n",
        ],
    ),
    ("SAVEPOINT, ROLLBACK TO, RELEASE", Runs, &["SAVEPOINT one"]),
    (
        "REPLACE in any form where there are triggers of the application",
        Refused,
        &[
            "REPLACE INTO watched (id, v) VALUES (1, 1)",
            "UPDATE OR REPLACE watched SET v = 1",
        ],
    ),
    (
        "REPLACE in any form in a table with a foreign key to itself that deletes or changes rows",
        Refused,
        &["REPLACE INTO tree VALUES (1, 1)"],
    ),
    (
        "a table with a BEFORE trigger that is not allowed by name",
        Refused,
        &["INSERT INTO guarded VALUES (1, 1)"],
    ),
    (
        "a virtual table, or a trigger that writes one",
        Refused,
        &[
            "INSERT INTO pages VALUES ('x')",
            "INSERT INTO notes (body) VALUES ('x')",
            "DELETE FROM pages",
        ],
    ),
    (
        "the tables behind a virtual table",
        Refused,
        &["DELETE FROM pages_content"],
    ),
    (
        "a table with a unique index over an expression",
        Refused,
        &["INSERT INTO computed VALUES (1, 'A')"],
    ),
    (
        "a table whose columns hide its row numbers",
        Refused,
        &["INSERT INTO hidden VALUES (1, 1, 1)"],
    ),
    (
        "functions that may write: of extensions, unless allowed by name, load_extension …",
        Refused,
        &[
            "SELECT load_extension('x')",
            "SELECT optimize(pages) FROM pages",
        ],
    ),
    (
        "undo_log and accede_meta",
        Refused,
        &[
            "DELETE FROM undo_log",
            "UPDATE accede_meta SET cluster_id = NULL",
        ],
    ),
    (
        "sqlite_sequence and other tables of SQLite's own",
        Refused,
        &["UPDATE sqlite_sequence SET seq = 0"],
    ),
    (
        "a temporary table, an attached database",
        Refused,
        &["INSERT INTO temp.scratch VALUES (1)"],
    ),
    (
        "several statements in one text",
        Refused,
        &["DELETE FROM stock; DELETE FROM orders"],
    ),
    (
        "a parameter's name with brackets or colons",
        Refused,
        &["SELECT $a(b)"],
    ),
    (
        "BEGIN, COMMIT, ROLLBACK …",
        Refused,
        &["BEGIN", "COMMIT", "ROLLBACK", "END", "SAVEPOINT"],
    ),
    (
        "PRAGMA",
        Refused,
        &[
            "PRAGMA foreign_keys = OFF",
            "EXPLAIN PRAGMA foreign_keys = OFF",
        ],
    ),
    ("ATTACH, DETACH", Refused, &["ATTACH ':memory:' AS other"]),
    (
        "CREATE, ALTER, DROP, REINDEX, ANALYZE, VACUUM",
        Refused,
        &[
            "CREATE TEMP TABLE t (a)",
            "ALTER TABLE stock ADD x INT",
            "DROP TABLE stock",
            "VACUUM",
            "ANALYZE",
        ],
    ),
];

async fn dump(f: &Fixture) -> Vec<Vec<String>> {
    let mut tables = Vec::new();
    for table in TABLES {
        tables.push(f.dump(table).await);
    }
    tables
}

/// Runs one statement alone in a branch: the refusal, or nothing. Either way the
/// transaction can go on.
async fn run(f: &Fixture, number: u64, sql: &str) -> Option<Error> {
    let mut tx = f.pool.begin_in(xid(number)).await.expect("begin");
    let text = sqlx::AssertSqlSafe(sql.to_owned());
    let result = sqlx::query(text).execute(&mut tx).await;
    if let Err(error @ sqlx::Error::Database(_)) = &result {
        panic!("{sql}: {error}");
    }
    tx.commit().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    match result {
        Ok(_) => None,
        Err(sqlx::Error::AnyDriverError(own)) => {
            Some(*own.downcast().unwrap_or_else(|e| panic!("{sql}: {e}")))
        }
        Err(error) => panic!("{sql}: {error}"),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[tokio::test]
async fn every_shape_has_its_answer_and_stands_in_the_docs() {
    let f = Fixture::with(SCHEMA, |builder| {
        let options = sqlx::sqlite::SqlitePoolOptions::new().after_connect(|connection, _| {
            Box::pin(async move {
                use sqlx::Executor as _;
                connection
                    .execute("CREATE TEMP TABLE scratch (v)")
                    .await
                    .map(drop)
            })
        });
        builder.pool_options(options)
    })
    .await;
    let before = dump(&f).await;
    let mut table = String::from("| statement | answer | why | instead |\n|---|---|---|---|\n");
    let mut number = 0;
    for (name, answer, statements) in SHAPES {
        let mut row = match answer {
            Undone => format!("| {name} | undone | – | – |"),
            Runs => format!("| {name} | runs | – | – |"),
            Refused => String::new(),
        };
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
            assert_eq!(dump(&f).await != before, *answer == Undone, "{sql}");
            if !f.registrar.done_branches(xid(number)).is_empty() {
                f.roll_back(xid(number), 1)
                    .await
                    .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            }
            assert_eq!(dump(&f).await, before, "{sql}");
        }
        let _ = writeln!(table, "{row}");
    }
    assert_documented(&table);
}

fn assert_documented(table: &str) {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/at.md");
    let text = fs::read_to_string(&page).expect("the page is there");
    let begin = "<!-- begin statements of SQLite -->\n";
    let (head, rest) = text.split_once(begin).expect("the mark is there");
    let end = "<!-- end statements of SQLite -->";
    let (found, tail) = rest.split_once(end).expect("the mark is there");
    if std::env::var_os("BLESS").is_some() {
        let new = format!("{head}{begin}{table}{end}{tail}");
        fs::write(&page, new).expect("the page is writable");
        return;
    }
    assert_eq!(
        found, table,
        "docs/at.md: the table of statements is not what the agent does; run\n\
         BLESS=1 cargo test -p accede-rm-agent --lib sqlite::tests::shapes"
    );
}
