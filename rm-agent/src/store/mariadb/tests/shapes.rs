//! Every shape of a statement with its answer; the table in docs/at.md is made from
//! this. `BLESS=1` writes it anew.

use std::{fmt::Write as _, fs, path::PathBuf};

use super::{Fixture, xid};
use crate::Error;

/// Tables of every kind.
pub(super) const SCHEMA: &str = "
CREATE TABLE stock (product INT PRIMARY KEY, count INT NOT NULL DEFAULT 0, code VARCHAR(20) UNIQUE,
  twice INT GENERATED ALWAYS AS (count * 2) STORED);
INSERT INTO stock (product, count, code) VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, NULL);
CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(20) DEFAULT 'none');
INSERT INTO orders (note) VALUES ('n'), ('m');
CREATE TABLE pairs (a INT, b INT, c INT UNIQUE, PRIMARY KEY (a, b));
CREATE TABLE made (id VARCHAR(36) DEFAULT UUID() PRIMARY KEY, v INT);
CREATE TABLE moods (mood ENUM('sad', 'ok') PRIMARY KEY, v INT);
INSERT INTO moods VALUES ('sad', 1);
CREATE TABLE months (id INT, month DATE, v INT, PRIMARY KEY (id, month))
  PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN (5), PARTITION high VALUES LESS THAN MAXVALUE);
INSERT INTO made VALUES ('m', 1);
INSERT INTO months VALUES (1, '2026-01-05', 1), (7, '2026-02-05', 2);
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
INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (1, 1, 1);
CREATE VIEW seen AS SELECT product FROM stock;
CREATE FUNCTION writes() RETURNS INT RETURN 1;
CREATE SEQUENCE numbers;";

/// All tables whose rows a rollback must bring back.
const TABLES: &[&str] = &[
    "stock", "orders", "made", "moods", "months", "parent", "child", "watched",
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
        "INSERT of one or several rows, with keys that are constants or parameters",
        Undone,
        &[
            "INSERT INTO stock (product, count) VALUES (7, 1), (8, 2)",
            "INSERT INTO stock SET product = 7, code = UPPER('x')",
            "INSERT INTO months VALUES (9, '2026-03-01', 1)",
        ],
    ),
    (
        "INSERT with an AUTO_INCREMENT key",
        Undone,
        &[
            "INSERT INTO orders (note) VALUES ('x'), ('y')",
            "INSERT INTO orders VALUES (NULL, 'x')",
            "INSERT INTO orders () VALUES ()",
        ],
    ),
    (
        "INSERT whose keys are expressions, computed defaults, ENUM, FLOAT …",
        Undone,
        &[
            "INSERT INTO stock (product) VALUES (FLOOR(4.2)), (CHAR_LENGTH('12345'))",
            "INSERT INTO made (v) VALUES (1)",
            "INSERT INTO moods VALUES ('ok', 1)",
        ],
    ),
    (
        "INSERT … SELECT",
        Undone,
        &[
            "INSERT INTO orders (note) SELECT code FROM stock",
            "INSERT INTO stock (product) SELECT id + 10 FROM orders",
        ],
    ),
    (
        "INSERT IGNORE",
        Undone,
        &[
            "INSERT IGNORE INTO stock (product) VALUES (1), (9)",
            "INSERT IGNORE INTO orders (note) VALUES ('x')",
            "INSERT IGNORE INTO stock (product, code) SELECT id + 2, 'a' FROM orders UNION SELECT 8, 'h'",
        ],
    ),
    (
        "INSERT … ON DUPLICATE KEY UPDATE, of VALUES or SELECT",
        Undone,
        &[
            "INSERT INTO stock (product, code) VALUES (1, 'x'), (8, 'b'), (9, 'c') ON DUPLICATE KEY UPDATE count = count + 1",
            "INSERT INTO stock (product) SELECT id FROM orders ON DUPLICATE KEY UPDATE count = VALUES(product)",
            "INSERT INTO stock (product) VALUES (1) ON DUPLICATE KEY UPDATE product = 9 RETURNING product",
            "INSERT INTO orders (id, note) VALUES (1, 'x') ON DUPLICATE KEY UPDATE note = 'y'",
        ],
    ),
    (
        "REPLACE … VALUES",
        Undone,
        &[
            "REPLACE INTO stock (product, code) VALUES (1, 'b'), (9, 'c')",
            "REPLACE INTO stock SET product = 3, count = 7",
            "REPLACE INTO moods VALUES ('sad', 5), ('ok', 1)",
            "REPLACE INTO orders (id, note) VALUES (1, 'x') RETURNING note",
        ],
    ),
    (
        "INSERT … RETURNING, whatever its keys",
        Undone,
        &[
            "INSERT INTO made (v) VALUES (1) RETURNING id",
            "INSERT INTO moods VALUES ('ok', 1) RETURNING mood",
            "INSERT INTO orders (note) SELECT code FROM stock RETURNING id",
        ],
    ),
    (
        "INSERT IGNORE … RETURNING",
        Undone,
        &["INSERT IGNORE INTO stock (product) VALUES (1), (9) RETURNING product"],
    ),
    (
        "UPDATE with expressions and sub-queries",
        Undone,
        &[
            "UPDATE stock SET count = count + (SELECT COUNT(*) FROM orders) WHERE code IS NOT NULL",
            "UPDATE stock AS s SET count = 0 WHERE product IN (SELECT id FROM orders)",
        ],
    ),
    (
        "UPDATE of the primary key by constants, parameters and columns",
        Undone,
        &[
            "UPDATE stock SET product = 9 WHERE product = 1",
            "UPDATE stock SET count = 1, product = product + 10 ORDER BY product DESC",
            "UPDATE made SET id = 'x'",
            "UPDATE months SET month = '2026-07-01', id = 8 - id",
        ],
    ),
    (
        "UPDATE or DELETE of joined tables that writes one of them",
        Undone,
        &[
            "UPDATE stock AS s JOIN orders ON id = product AND note > 'm' SET s.count = id + 5, s.code = note",
            "UPDATE orders LEFT JOIN stock ON product = id + 1 SET orders.note = 'x' WHERE code = 'b'",
            "DELETE s FROM orders LEFT JOIN stock AS s ON s.product >= id WHERE s.count > 5",
            "DELETE FROM stock USING stock JOIN orders ON id = product",
        ],
    ),
    (
        "UPDATE and DELETE with ORDER BY and LIMIT",
        Undone,
        &[
            "UPDATE stock SET count = 1 ORDER BY count DESC LIMIT 1",
            "DELETE FROM stock ORDER BY product LIMIT 2",
        ],
    ),
    (
        "DELETE, also with RETURNING",
        Undone,
        &[
            "DELETE FROM stock",
            "DELETE FROM months WHERE v > 1 RETURNING id",
        ],
    ),
    (
        "SELECT, also FOR UPDATE or LOCK IN SHARE MODE of one table (NOWAIT, SKIP LOCKED, WAIT n)",
        Runs,
        &[
            "SELECT * FROM stock JOIN orders ON id = product",
            "SELECT * FROM stock WHERE product = 1 FOR UPDATE",
            "SELECT count FROM stock AS s LOCK IN SHARE MODE",
            "SELECT count FROM stock FOR UPDATE WAIT 1",
        ],
    ),
    (
        "SAVEPOINT, ROLLBACK TO, RELEASE SAVEPOINT; `AtTransaction::begin`",
        Runs,
        &["SAVEPOINT one"],
    ),
    (
        "REPLACE … SELECT",
        Refused,
        &["REPLACE INTO stock (product) SELECT id FROM orders"],
    ),
    (
        "REPLACE whose parameters stand in several unique indexes, one between those of another",
        Refused,
        &["REPLACE INTO pairs (a, c, b) VALUES (?, ?, ?)"],
    ),
    (
        "INSERT … SELECT that gives AUTO_INCREMENT keys, without RETURNING",
        Refused,
        &["INSERT INTO orders (id, note) SELECT product, code FROM stock"],
    ),
    (
        "INSERT IGNORE … ON DUPLICATE KEY UPDATE",
        Refused,
        &["INSERT IGNORE INTO stock (product) VALUES (1) ON DUPLICATE KEY UPDATE count = 1"],
    ),
    (
        "UPDATE of the primary key by a function, a sub-query or a column assigned before",
        Refused,
        &[
            "UPDATE stock SET product = FLOOR(RAND() * 100) + 50",
            "UPDATE stock SET product = (SELECT MAX(id) FROM orders) + 9 WHERE product = 1",
            "UPDATE stock SET count = 8, product = count WHERE product = 1",
            "UPDATE moods SET mood = 'ok'",
        ],
    ),
    (
        "UPDATE … ORDER BY with a parameter",
        Refused,
        &["UPDATE stock SET count = 2 ORDER BY count + ?"],
    ),
    (
        "UPDATE or DELETE of joined tables that writes several of them, or does not say which",
        Refused,
        &[
            "UPDATE stock JOIN orders ON id = product SET stock.count = 1, orders.note = 'x'",
            "UPDATE stock JOIN orders ON id = product SET count = 1",
            "DELETE stock, orders FROM stock JOIN orders ON id = product",
            "UPDATE stock JOIN orders ON id = product SET stock.product = 9",
        ],
    ),
    (
        "UPDATE IGNORE, DELETE IGNORE",
        Refused,
        &[
            "UPDATE IGNORE stock SET count = 1",
            "DELETE IGNORE FROM stock",
        ],
    ),
    (
        "a table without a primary key",
        Refused,
        &["INSERT INTO no_key VALUES (1)"],
    ),
    (
        "a table of MyISAM, Aria …",
        Refused,
        &["DELETE FROM old_engine", "DELETE FROM aria"],
    ),
    (
        "a system-versioned table, a sequence",
        Refused,
        &["DELETE FROM versioned", "DELETE FROM numbers"],
    ),
    (
        "a table with a trigger that is not allowed by name",
        Refused,
        &["UPDATE watched SET v = 2"],
    ),
    (
        "a foreign key that changes other rows",
        Refused,
        &["DELETE FROM parent", "UPDATE parent SET code = 2"],
    ),
    (
        "a view",
        Refused,
        &["SELECT * FROM seen", "DELETE FROM seen"],
    ),
    (
        "a stored or loadable function that is not allowed by name, GET_LOCK …",
        Refused,
        &[
            "SELECT writes()",
            "UPDATE stock SET count = GET_LOCK('x', 0)",
        ],
    ),
    (
        "a table of another database",
        Refused,
        &["DELETE FROM mysql.plugin"],
    ),
    (
        "undo_log and accede_meta",
        Refused,
        &["DELETE FROM undo_log"],
    ),
    ("SELECT … INTO", Refused, &["SELECT 1 INTO @x"]),
    (
        "FOR UPDATE over several tables, groups or in a sub-query",
        Refused,
        &[
            "SELECT * FROM stock JOIN orders ON id = product FOR UPDATE",
            "SELECT COUNT(*) FROM stock FOR UPDATE",
            "SELECT * FROM (SELECT * FROM stock FOR UPDATE) s",
        ],
    ),
    (
        "several statements in one text with parameters",
        Refused,
        &["DELETE FROM stock; DELETE FROM orders"],
    ),
    (
        "a comment that the database runs",
        Refused,
        &["/*! DELETE FROM stock */"],
    ),
    (
        "COMMIT, ROLLBACK, BEGIN …",
        Refused,
        &["COMMIT", "START TRANSACTION", "ROLLBACK"],
    ),
    ("TRUNCATE", Refused, &["TRUNCATE stock"]),
    (
        "CREATE, ALTER, DROP, RENAME",
        Refused,
        &["ALTER TABLE stock ADD x INT", "DROP TABLE stock"],
    ),
    ("LOCK TABLES", Refused, &["LOCK TABLES stock WRITE"]),
    ("SET, USE", Refused, &["SET autocommit = 1", "USE mysql"]),
    (
        "LOAD DATA",
        Refused,
        &["LOAD DATA INFILE 'x' INTO TABLE stock"],
    ),
    (
        "PREPARE, EXECUTE",
        Refused,
        &["PREPARE s FROM 'DELETE FROM stock'"],
    ),
    (
        "CALL, DO, XA, HANDLER, GRANT, FLUSH, ANALYZE …",
        Refused,
        &[
            "CALL p()",
            "DO writes()",
            "XA START 'x'",
            "FLUSH TABLES",
            "ANALYZE TABLE stock",
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
    let f = Fixture::new(SCHEMA).await;
    let (_, database) = f.url.rsplit_once('/').expect("a database");
    let database = database.to_owned();
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
                        let part = part.replace(&database, "shop");
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
    let begin = "<!-- begin statements of MariaDB -->\n";
    let (head, rest) = text.split_once(begin).expect("the mark is there");
    let end = "<!-- end statements of MariaDB -->";
    let (found, tail) = rest.split_once(end).expect("the mark is there");
    if std::env::var_os("BLESS").is_some() {
        let new = format!("{head}{begin}{table}{end}{tail}");
        fs::write(&page, new).expect("the page is writable");
        return;
    }
    assert_eq!(
        found, table,
        "docs/at.md: the table of statements is not what the agent does; run\n\
         BLESS=1 cargo test -p accede-rm-agent --lib mariadb::tests::shapes"
    );
}
