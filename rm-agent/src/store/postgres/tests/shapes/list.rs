//! The shapes.

/// Tables of every kind.
pub(super) const SCHEMA: &str = "
CREATE TABLE stock (product int PRIMARY KEY, count int NOT NULL DEFAULT 0, code text UNIQUE,
  twice int GENERATED ALWAYS AS (count * 2) STORED);
INSERT INTO stock VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, NULL);
CREATE TABLE orders (id serial, part uuid DEFAULT gen_random_uuid(), \"Note\" text,
  product int REFERENCES stock, PRIMARY KEY (id, part));
INSERT INTO orders (\"Note\", product) VALUES ('n', 1), ('m', 1);
CREATE TABLE numbered (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int);
INSERT INTO numbered (v) VALUES (1);
CREATE TABLE months (id int, month date, v int, PRIMARY KEY (id, month)) PARTITION BY RANGE (month);
CREATE TABLE january PARTITION OF months FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE february PARTITION OF months FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
INSERT INTO months VALUES (1, '2026-01-05', 1), (2, '2026-02-05', 2);
CREATE TABLE odd_parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE odd_part PARTITION OF odd_parts FOR VALUES FROM (0) TO (9);
CREATE UNIQUE INDEX ON odd_part (v);
CREATE TABLE base (id int PRIMARY KEY, v int);
CREATE TABLE derived (PRIMARY KEY (id)) INHERITS (base);
INSERT INTO derived VALUES (1, 1);
CREATE TABLE parent (id int PRIMARY KEY, code int UNIQUE);
CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE,
  c int REFERENCES parent (code) ON UPDATE CASCADE);
INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (1, 1, 1);
CREATE TABLE no_key (v int); INSERT INTO no_key VALUES (1);
CREATE UNLOGGED TABLE fast (id int PRIMARY KEY);
CREATE TABLE with_rule (id int PRIMARY KEY);
CREATE RULE r AS ON INSERT TO with_rule DO ALSO NOTIFY x;
CREATE TABLE documents (id int PRIMARY KEY, body pg_node_tree);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v = NEW.v + 1; RETURN NEW; END';
CREATE TABLE stamped (id int PRIMARY KEY, v int);
CREATE TRIGGER stamp BEFORE INSERT ON stamped FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TRIGGER same BEFORE UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE TABLE watched (id int PRIMARY KEY, v int);
CREATE TRIGGER watch AFTER UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO no_key VALUES (9) RETURNING 1';
CREATE FUNCTION touch(stock) RETURNS int LANGUAGE sql AS 'INSERT INTO no_key VALUES (9) RETURNING 1';
CREATE FUNCTION reads() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM no_key';
CREATE TABLE defaulted (id int PRIMARY KEY, v int DEFAULT writes());
CREATE VIEW seen AS SELECT product, count FROM stock;
CREATE VIEW hidden AS SELECT * FROM (SELECT product, writes() AS w FROM stock) inner_one;
CREATE VIEW hidden_built_in AS SELECT setval('orders_id_seq', 1) AS v;
CREATE VIEW behind AS SELECT * FROM hidden;";

/// All tables whose rows a rollback must bring back.
pub(super) const TABLES: &[&str] = &[
    "stock",
    "orders",
    "numbered",
    "months",
    "base",
    "derived",
    "parent",
    "child",
    "no_key",
    "stamped",
    "watched",
    "defaulted",
    "odd_parts",
];

#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// Changes rows, and a rollback brings them back.
    Undone,
    /// Changes nothing.
    Runs,
    /// Refused before it runs.
    Refused,
}
use Answer::{Refused, Runs, Undone};

/// What it is called, statements of that shape, and the answer to each of them.
pub(super) type Shape = (&'static str, Answer, &'static [&'static str]);

pub(super) const SHAPES: &[Shape] = &[
    (
        "INSERT of one or several rows",
        Undone,
        &[
            "INSERT INTO stock (product, count) VALUES (4, 1), (5, 2)",
            "INSERT INTO public.stock AS s VALUES (4, DEFAULT, 'd') RETURNING *, s.count + 1",
        ],
    ),
    (
        "INSERT that leaves values to a default, sequence or identity",
        Undone,
        &[
            "INSERT INTO orders (product) VALUES (2)",
            "INSERT INTO orders DEFAULT VALUES",
            "INSERT INTO numbered (v) VALUES (5) RETURNING id",
            "INSERT INTO numbered OVERRIDING SYSTEM VALUE VALUES (77, 5)",
        ],
    ),
    (
        "INSERT … SELECT",
        Undone,
        &["INSERT INTO stock (product) SELECT product + 10 FROM stock"],
    ),
    (
        "INSERT … ON CONFLICT DO NOTHING",
        Undone,
        &["INSERT INTO stock VALUES (1, 1), (4, 4) ON CONFLICT DO NOTHING"],
    ),
    (
        "INSERT … ON CONFLICT DO UPDATE, also with WHERE",
        Undone,
        &[
            "INSERT INTO stock VALUES (1, 5), (4, 4) ON CONFLICT (product) DO UPDATE SET count = stock.count + excluded.count",
            "INSERT INTO stock AS s (product, code) VALUES (1, 'b'), (9, 'z') ON CONFLICT (code) DO UPDATE SET count = 1 WHERE s.count > 5 RETURNING s.*",
        ],
    ),
    (
        "UPDATE with expressions and sub-queries",
        Undone,
        &[
            "UPDATE stock SET count = count - 1 WHERE product = 1 AND count >= 1 RETURNING count",
            "UPDATE stock AS s SET (count, code) = (SELECT max(count), 'x' || s.product FROM stock), twice = DEFAULT WHERE product IN (SELECT product FROM orders)",
        ],
    ),
    (
        "UPDATE … FROM, also with JOIN",
        Undone,
        &[
            "UPDATE stock SET count = o.id FROM orders o WHERE o.product = stock.product",
            "UPDATE stock s SET code = o.\"Note\" FROM orders o LEFT JOIN numbered n ON n.id = o.id WHERE s.product = o.id RETURNING *",
        ],
    ),
    (
        "UPDATE of a primary key",
        Undone,
        &[
            "UPDATE stock SET product = product + 10 WHERE product > 1",
            "UPDATE parent SET id = 5 WHERE id = 7 OR (id = 1 AND NOT EXISTS (SELECT FROM child WHERE p = 1))",
        ],
    ),
    (
        "DELETE, also with USING",
        Undone,
        &[
            "DELETE FROM stock WHERE product > 1 RETURNING *",
            "DELETE FROM orders AS o USING stock s WHERE o.product = s.product",
        ],
    ),
    (
        "WITH … before a write, if it only reads",
        Undone,
        &[
            "WITH low AS (SELECT product FROM stock WHERE count < 15) UPDATE stock SET count = 99 WHERE product IN (SELECT product FROM low)",
            "WITH stock AS (SELECT 2 AS product) DELETE FROM stock WHERE product IN (SELECT product FROM stock)",
        ],
    ),
    (
        "names in quotes, with a schema, found by the search path",
        Undone,
        &["UPDATE \"public\".\"orders\" SET \"Note\" = 'q' WHERE \"orders\".\"Note\" = 'n'"],
    ),
    (
        "a partitioned table, by its own name",
        Undone,
        &[
            "UPDATE months SET v = v + 1",
            "UPDATE months SET month = month + 20 WHERE id = 1",
            "INSERT INTO months VALUES (2, '2026-02-05', 9), (3, '2026-01-01', 3) ON CONFLICT (id, month) DO UPDATE SET v = excluded.v",
            "DELETE FROM months",
        ],
    ),
    (
        "a table that inherits from another one",
        Undone,
        &["UPDATE derived SET v = 2"],
    ),
    (
        "a table with triggers that `allow_trigger` names, or with PostgreSQL's own that look at nothing but the row",
        Undone,
        &["INSERT INTO stamped VALUES (1, 1)"],
    ),
    (
        "a function that is STABLE, built in and harmless, or named by `allow_function`",
        Undone,
        &[
            "UPDATE stock SET count = reads() + (random() * 0)::int + 1 + 0 * nextval('orders_id_seq')",
        ],
    ),
    (
        "SAVEPOINT, ROLLBACK TO, RELEASE; `AtTransaction::begin`",
        Runs,
        &["SAVEPOINT a"],
    ),
    (
        "several statements in one text without parameters (`raw_sql`)",
        Undone,
        &["UPDATE stock SET count = 1; DELETE FROM orders"],
    ),
    (
        "SELECT, VALUES, SHOW, EXPLAIN without ANALYZE",
        Runs,
        &[
            "SELECT * FROM stock JOIN seen USING (product)",
            "VALUES (1), (2)",
            "SHOW server_version",
            "EXPLAIN DELETE FROM stock",
        ],
    ),
    (
        "SELECT … FOR UPDATE, NO KEY UPDATE, SHARE, KEY SHARE; OF, NOWAIT, SKIP LOCKED",
        Runs,
        &[
            "SELECT * FROM stock s JOIN orders o ON o.product = s.product FOR UPDATE OF s",
            "SELECT * FROM stock FOR NO KEY UPDATE NOWAIT",
            "SELECT * FROM months FOR SHARE SKIP LOCKED",
            "SELECT product FROM stock LIMIT 1 FOR KEY SHARE",
        ],
    ),
    (
        "LOCK TABLE, SET LOCAL of a harmless parameter",
        Runs,
        &[
            "LOCK TABLE stock IN SHARE MODE",
            "SET LOCAL work_mem = '8MB'",
        ],
    ),
    (
        "a write in WITH or in a sub-query",
        Refused,
        &["WITH gone AS (DELETE FROM orders RETURNING *) INSERT INTO no_key SELECT id FROM gone"],
    ),
    (
        "SELECT … FOR UPDATE in a sub-query, over several SELECTs",
        Refused,
        &[
            "SELECT * FROM (SELECT * FROM stock FOR UPDATE) s",
            "SELECT product FROM stock UNION SELECT id FROM orders FOR UPDATE",
        ],
    ),
    (
        "SELECT … INTO",
        Refused,
        &["SELECT * INTO copied FROM stock"],
    ),
    ("TABLE", Refused, &["TABLE stock"]),
    (
        "ONLY",
        Refused,
        &["DELETE FROM ONLY stock", "UPDATE ONLY stock SET count = 1"],
    ),
    ("TRUNCATE", Refused, &["TRUNCATE stock"]),
    (
        "MERGE",
        Refused,
        &["MERGE INTO stock s USING orders o ON o.product = s.product WHEN MATCHED THEN DELETE"],
    ),
    (
        "COPY",
        Refused,
        &["COPY stock FROM STDIN", "COPY stock TO STDOUT"],
    ),
    ("CALL", Refused, &["CALL tidy_up()"]),
    ("DO", Refused, &["DO 'BEGIN END'"]),
    (
        "PREPARE, EXECUTE as text",
        Refused,
        &["PREPARE p AS DELETE FROM stock", "EXECUTE p"],
    ),
    (
        "a cursor",
        Refused,
        &["DECLARE c CURSOR FOR SELECT 1", "FETCH c"],
    ),
    (
        "EXPLAIN ANALYZE",
        Refused,
        &["EXPLAIN ANALYZE DELETE FROM stock"],
    ),
    (
        "DDL",
        Refused,
        &[
            "CREATE TABLE x (id int)",
            "ALTER TABLE stock ADD x int",
            "DROP TABLE stock",
            "REFRESH MATERIALIZED VIEW x",
        ],
    ),
    ("NOTIFY, LISTEN", Refused, &["NOTIFY x", "LISTEN x"]),
    (
        "BEGIN, COMMIT, ROLLBACK as text",
        Refused,
        &["BEGIN", "COMMIT", "ROLLBACK"],
    ),
    (
        "SET of any other parameter, SET TRANSACTION, RESET",
        Refused,
        &[
            "SET work_mem = '8MB'",
            "SET LOCAL synchronous_commit = off",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "RESET ALL",
        ],
    ),
    (
        "names that begin with `accede_`",
        Refused,
        &["UPDATE stock AS accede_b SET count = 1"],
    ),
    (
        "several statements in one text with parameters",
        Refused,
        &["DELETE FROM orders; DELETE FROM stock"],
    ),
    (
        "RETURNING * of an UPDATE … FROM with JOIN … USING",
        Refused,
        &[
            "UPDATE stock SET count = 1 FROM orders o JOIN numbered n USING (id) WHERE o.product = stock.product RETURNING *",
        ],
    ),
    (
        "a table without a primary key",
        Refused,
        &["DELETE FROM no_key"],
    ),
    (
        "a partition by its own name",
        Refused,
        &["DELETE FROM january"],
    ),
    (
        "a partitioned table whose partitions differ in unique indexes or foreign keys, or are not ordinary tables",
        Refused,
        &["DELETE FROM odd_parts"],
    ),
    (
        "a table that others inherit from",
        Refused,
        &["DELETE FROM base"],
    ),
    (
        "a view",
        Refused,
        &["DELETE FROM seen", "SELECT * FROM seen FOR UPDATE"],
    ),
    (
        "a table with rewrite rules",
        Refused,
        &["DELETE FROM with_rule"],
    ),
    (
        "an unlogged or temporary table",
        Refused,
        &["DELETE FROM fast"],
    ),
    (
        "a table with a column that cannot be written back",
        Refused,
        &["DELETE FROM documents"],
    ),
    (
        "a table of the system or of this library",
        Refused,
        &["DELETE FROM pg_catalog.pg_class", "DELETE FROM undo_log"],
    ),
    (
        "DELETE where a foreign key changes other rows (CASCADE, SET NULL …)",
        Refused,
        &["DELETE FROM parent"],
    ),
    (
        "UPDATE of a column whose foreign key has ON UPDATE CASCADE and the like",
        Refused,
        &[
            "UPDATE parent SET code = 2",
            "INSERT INTO parent VALUES (1) ON CONFLICT (id) DO UPDATE SET code = 3",
        ],
    ),
    (
        "UPDATE of a GENERATED ALWAYS AS IDENTITY column",
        Refused,
        &["UPDATE numbered SET id = DEFAULT"],
    ),
    (
        "a table with any other trigger",
        Refused,
        &["UPDATE watched SET v = 1"],
    ),
    (
        "a default or check that calls a VOLATILE function",
        Refused,
        &["INSERT INTO defaulted (id) VALUES (1)"],
    ),
    (
        "a VOLATILE function",
        Refused,
        &[
            "SELECT writes()",
            "INSERT INTO stock SELECT * FROM writes()",
            "UPDATE stock SET count = writes()",
            "SELECT stock.touch FROM stock",
            "SELECT (s).touch FROM stock s",
        ],
    ),
    (
        "a view that calls a VOLATILE function, at any depth",
        Refused,
        &[
            "SELECT * FROM hidden",
            "UPDATE stock SET count = 1 WHERE product IN (SELECT product FROM behind)",
            "SELECT * FROM hidden_built_in",
        ],
    ),
    (
        "a built-in function with effects that last",
        Refused,
        &[
            "SELECT setval('orders_id_seq', 5)",
            "SELECT lo_creat(-1)",
            "SELECT pg_notify('x', 'y')",
            "SELECT pg_advisory_lock(1)",
            "SELECT pg_terminate_backend(1)",
        ],
    ),
];
