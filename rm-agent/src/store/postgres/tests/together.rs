//! Many branches undone in one local transaction, and which are left to be undone alone.

use sqlx::Connection as _;

use super::{BranchKey, Fixture, UndoPolicy, phase_two, trips::Counted, xid};

const STOCK: &str = "
CREATE TABLE stock (
  shop int, product numeric, count bigint NOT NULL, name text UNIQUE, twice bigint
    GENERATED ALWAYS AS (count * 2) STORED,
  PRIMARY KEY (shop, product)
);
INSERT INTO stock SELECT i % 3, i, i * 10, 'name ' || i FROM generate_series(1, 90) i;";

fn key(number: u64) -> BranchKey {
    BranchKey {
        xid: xid(number),
        branch: 1,
    }
}

impl Fixture {
    /// Undoes what can be undone of these transactions' branches together: their numbers.
    async fn together(&self, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        let keys: Vec<BranchKey> = numbers.iter().copied().map(key).collect();
        let undone = phase_two::roll_back_together(self.pool.phase_two(), &keys).await;
        let undone = undone.expect("nothing fails");
        let is_undone = |number: &u64| undone.contains(&key(*number));
        numbers.into_iter().filter(is_undone).collect()
    }

    /// A branch that nobody's row locks keep from committing.
    async fn unlocked(&self, number: u64, statements: &[&str]) {
        self.registrar.release();
        let branch = self.branch(xid(number), statements).await;
        branch.unwrap_or_else(|error| panic!("{statements:?}: {error}"));
    }

    async fn statuses(&self) -> Vec<(i64, i64)> {
        sqlx::query_as("SELECT log_status::bigint, count(*) FROM undo_log GROUP BY 1 ORDER BY 1")
            .fetch_all(self.pool.plain())
            .await
            .expect("readable")
    }
}

/// Round trips of undoing 40 branches with one such statement each.
async fn trips(f: &Fixture, statement: fn(u64) -> String) -> usize {
    let before = f.dump("stock").await;
    let counted = Counted::new(f).await;
    let mut count = 0;
    // The first round prepares the statements.
    for first in [0, 100] {
        for number in 1..=40 {
            f.unlocked(first + number, &[&statement(number)]).await;
        }
        counted.take().await;
        let keys: Vec<BranchKey> = (1..=40).map(|number| key(first + number)).collect();
        let undone = phase_two::roll_back_together(counted.pool.phase_two(), &keys).await;
        let mut undone = undone.expect("nothing is in the way");
        undone.sort_unstable();
        assert_eq!(undone, keys);
        assert_eq!(f.dump("stock").await, before);
        count = counted.take().await;
    }
    assert_eq!(f.statuses().await, [(1, 80)]);
    // A repeat finds the markers.
    assert!(f.together(1..=40).await.is_empty());
    f.roll_back(xid(7), 1).await.expect("it was undone");
    assert_eq!(f.dump("stock").await, before);
    counted.close().await;
    count
}

#[tokio::test]
async fn rows_that_are_alike_go_back_by_one_statement() {
    // BEGIN, the records, the table, the rows, their change, the markers, COMMIT.
    let f = Fixture::new(STOCK).await;
    let change = |number| format!("UPDATE stock SET count = count - 1 WHERE product = {number}");
    assert_eq!(trips(&f, change).await, 7);
    // And what else would go with them.
    let f = Fixture::new(STOCK).await;
    let insert = |number| format!("INSERT INTO stock VALUES (7, {number}, 1)");
    assert_eq!(trips(&f, insert).await, 8);
}

#[tokio::test]
async fn rows_go_only_if_nothing_goes_with_them() {
    let f = Fixture::new(
        "CREATE TABLE place (id int PRIMARY KEY);
         CREATE TABLE visit (id int PRIMARY KEY, place int REFERENCES place);
         CREATE TABLE part (id int PRIMARY KEY, whole int REFERENCES part, name text);",
    )
    .await;
    f.unlocked(1, &["INSERT INTO place VALUES (1), (2)"]).await;
    f.unlocked(
        2,
        &[
            "INSERT INTO place VALUES (3)",
            "INSERT INTO visit VALUES (3, 3)",
        ],
    )
    .await;
    f.unlocked(3, &["INSERT INTO place VALUES (4)"]).await;
    // Of one table, in any order.
    f.unlocked(
        4,
        &[
            "INSERT INTO part VALUES (1, NULL)",
            "INSERT INTO part VALUES (2, 1)",
        ],
    )
    .await;
    assert_eq!(f.together([2, 4]).await, [4], "two tables");
    assert!(f.dump("part").await.is_empty());
    // Somebody's row is in the way of one of them.
    f.execute("INSERT INTO visit VALUES (9, 4)").await;
    let keys = [key(1), key(3)];
    let attempt = async || phase_two::roll_back_together(f.pool.phase_two(), &keys).await;
    assert!(attempt().await.is_err());
    assert_eq!(f.dump("place").await, ["(1)", "(2)", "(3)", "(4)"]);
    // It would go as well.
    f.execute(
        "ALTER TABLE visit DROP CONSTRAINT visit_place_fkey,
           ADD FOREIGN KEY (place) REFERENCES place ON DELETE CASCADE",
    )
    .await;
    assert!(f.together([1, 3]).await.is_empty());
    // A column that came later holds something.
    f.execute("DROP TABLE visit; ALTER TABLE place ADD note text DEFAULT 'x'")
        .await;
    assert!(f.together([1, 3]).await.is_empty());
    f.execute("ALTER TABLE place DROP note").await;
    // Somebody took one away already.
    f.execute("DELETE FROM place WHERE id = 2").await;
    assert_eq!(f.together([1, 3]).await, [3]);
    assert_eq!(f.dump("place").await, ["(1)", "(3)"]);
}

#[tokio::test]
async fn several_tables_columns_and_rows() {
    let f = Fixture::new(STOCK).await;
    f.execute("CREATE TABLE note (id text PRIMARY KEY, said text, at interval, tags text[])")
        .await;
    f.execute("INSERT INTO note VALUES ('a', 'x', '1 day', '{1,NULL}'), ('b', NULL, NULL, NULL)")
        .await;
    let before = (f.dump("stock").await, f.dump("note").await);
    f.unlocked(1, &["UPDATE stock SET count = 0 WHERE shop = 0"])
        .await;
    f.unlocked(
        2,
        &[
            "UPDATE stock SET count = 7, name = NULL WHERE product = 1",
            "UPDATE note SET said = NULL, at = NULL, tags = '{{2},{3}}' WHERE id = 'a'",
        ],
    )
    .await;
    f.unlocked(
        3,
        &["UPDATE note SET said = 'it''s', at = '2 hours' WHERE id = 'b'"],
    )
    .await;
    // More rows than one local transaction takes, with those that are there already.
    f.execute("CREATE TABLE many (id int PRIMARY KEY, v int)")
        .await;
    f.execute("INSERT INTO many SELECT i, i FROM generate_series(1, 250) i")
        .await;
    let many = f.dump("many").await;
    f.unlocked(4, &["UPDATE many SET v = -v"]).await;
    assert_eq!(f.together(1..=4).await, [1, 2, 3]);
    assert_eq!((f.dump("stock").await, f.dump("note").await), before);
    assert_eq!(f.together([4]).await, [4], "it is taken alone");
    assert_eq!(f.dump("many").await, many);
}

#[tokio::test]
async fn what_is_not_simple_is_left_alone() {
    let f = Fixture::with(STOCK, |builder| {
        builder.escrow_column("pot", "amount", 0..=1_000)
    })
    .await;
    f.execute("CREATE TABLE pot (id int PRIMARY KEY, amount int); INSERT INTO pot VALUES (1, 500)")
        .await;
    let all = async || (f.dump("stock").await, f.dump("pot").await);
    let before = all().await;
    f.unlocked(1, &["UPDATE stock SET count = 0 WHERE product = 1"])
        .await;
    f.unlocked(2, &["DELETE FROM stock WHERE product = 2"])
        .await;
    f.unlocked(3, &["INSERT INTO stock VALUES (9, 9, 9, 'nine')"])
        .await;
    f.unlocked(4, &["UPDATE stock SET product = 1004 WHERE product = 4"])
        .await;
    // The same key, written differently.
    f.unlocked(5, &["UPDATE stock SET product = 5.0 WHERE product = 5"])
        .await;
    f.unlocked(6, &["UPDATE pot SET amount = amount - 1 WHERE id = 1"])
        .await;
    // A row that changed is simple, but one that went is not.
    f.unlocked(
        7,
        &[
            "UPDATE stock SET count = 0 WHERE product = 7",
            "DELETE FROM stock WHERE product = 8",
        ],
    )
    .await;
    // Its record is long.
    f.execute("CREATE TABLE long (id int PRIMARY KEY, said text)")
        .await;
    f.execute(
        "INSERT INTO long SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 4000) i",
    )
    .await;
    f.unlocked(9, &["UPDATE long SET said = NULL"]).await;
    assert_eq!(
        f.together((1..=9).chain([77])).await,
        [1, 3],
        "77 has no record"
    );
    assert_eq!(f.statuses().await, [(0, 6), (1, 2)]);
    for number in [9, 7, 6, 5, 4, 2] {
        f.roll_back(xid(number), 1).await.expect("undone alone");
    }
    assert_eq!(all().await, before);
}

#[tokio::test]
async fn what_others_changed_or_hold_is_left_alone() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    for number in 1..=6 {
        let sql = format!("UPDATE stock SET count = 0 WHERE product IN ({number}, 10{number})");
        f.unlocked(number, &[&sql]).await;
    }
    f.unlocked(
        7,
        &[
            "UPDATE stock SET count = 0 WHERE product = 7",
            "UPDATE stock SET name = 'eight' WHERE product = 8",
        ],
    )
    .await;
    f.execute("UPDATE stock SET count = 1 WHERE product = 1")
        .await;
    f.execute("DELETE FROM stock WHERE product = 2").await;
    f.execute("UPDATE stock SET count = 80 WHERE product = 8; UPDATE stock SET name = 'x' WHERE product = 8")
        .await;
    let mut other = sqlx::PgConnection::connect(&f.url).await.expect("connect");
    sqlx::raw_sql(
        "BEGIN; SELECT FROM stock WHERE product = 3 FOR KEY SHARE;
         SELECT FROM undo_log ORDER BY xid OFFSET 3 LIMIT 1 FOR UPDATE",
    )
    .execute(&mut other)
    .await
    .expect("locked");
    // It waits for nobody.
    assert_eq!(f.together(1..=7).await, [5, 6]);
    let now = f.dump("stock").await;
    assert!(
        now.contains(&"(2,5,50,\"name 5\",100)".to_owned()),
        "{now:?}"
    );
    assert!(now.contains(&"(0,3,0,\"name 3\",0)".to_owned()), "{now:?}");
    assert!(
        now.contains(&"(1,7,0,\"name 7\",0)".to_owned()),
        "a branch is undone whole or not at all: {now:?}"
    );
    other.close().await.expect("close");
    assert_eq!(f.together([3, 4]).await, [3, 4]);
    f.execute("UPDATE stock SET count = 0 WHERE product = 1; UPDATE stock SET name = 'eight' WHERE product = 8")
        .await;
    f.execute("INSERT INTO stock VALUES (2, 2, 0, 'name 2')")
        .await;
    assert_eq!(f.together([1, 2, 7]).await, [1, 2, 7]);
    assert_eq!(f.dump("stock").await, before);
}

#[tokio::test]
async fn branches_of_one_row_keep_their_order() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    for (number, count) in [(1, 5), (2, 6), (3, 7)] {
        let sql = format!("UPDATE stock SET count = {count} WHERE product = 1");
        f.unlocked(number, &[&sql]).await;
    }
    for number in [3, 2, 1] {
        let undone = f.together([1, 2, 3]).await;
        assert!(undone.is_empty() || undone == [number], "{undone:?}");
        if undone.is_empty() {
            assert_eq!(f.together([number]).await, [number]);
        }
    }
    assert_eq!(f.dump("stock").await, before);
}

/// Plans are kept while the table grows, so that one made when it is empty must use its index.
#[tokio::test]
async fn no_plan_reads_the_whole_undo_log() {
    let f = Fixture::new(STOCK).await;
    let delete = format!(
        "DELETE FROM undo_log WHERE {}",
        phase_two::is_of_branches("undo_log")
    );
    for (sql, arguments) in [
        (&*delete, "'{1}', '{1}'"),
        (phase_two::RECORDS, "'{1}', '{1}', 0::smallint, 9"),
        (phase_two::MARK, "'{(0,1)}', 1::smallint"),
    ] {
        let mut connection = f.pool.phase_two().acquire().await.expect("connects");
        let prepare = format!("PREPARE asked AS {sql}; SET plan_cache_mode = force_generic_plan");
        sqlx::raw_sql(sqlx::AssertSqlSafe(prepare))
            .execute(&mut *connection)
            .await
            .expect("prepared");
        let explain = format!("EXPLAIN EXECUTE asked({arguments})");
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain))
            .fetch_all(&mut *connection)
            .await
            .expect("explained");
        let plan = plan.join("\n");
        assert!(!plan.contains("Seq Scan"), "{plan}");
        assert!(
            plan.contains("Index Cond: ((xid = k.xid)") || sql == phase_two::MARK,
            "{plan}"
        );
        assert!(
            plan.contains("Tid Scan") || sql == phase_two::RECORDS,
            "{plan}"
        );
        connection.close().await.expect("closes");
    }
}

/// As when two agents of a database get the same orders.
#[tokio::test]
async fn two_at_once_share_the_branches() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    for number in 1..=30 {
        let sql = format!("UPDATE stock SET count = 0 WHERE product = {number}");
        f.unlocked(number, &[&sql]).await;
    }
    let (mut one, other, alone) = tokio::join!(
        f.together(1..=30),
        f.together((1..=30).rev()),
        f.roll_back(xid(15), 1)
    );
    alone.expect("whoever was first");
    one.extend(other);
    one.sort_unstable();
    let undone = one.len();
    one.dedup();
    assert_eq!(one.len(), undone, "each is undone once");
    for number in 1..=30 {
        f.roll_back(xid(number), 1).await.expect("the rest");
    }
    assert_eq!(f.dump("stock").await, before);
    assert_eq!(f.statuses().await, [(1, 30)]);
}

/// One that fails takes all with it, and each is undone alone then.
#[tokio::test]
async fn a_failure_undoes_nothing() {
    let f = Fixture::with(STOCK, |builder| builder.allow_trigger("noted", "note")).await;
    f.execute(
        "CREATE TABLE noted (id int PRIMARY KEY, v int, n int DEFAULT 0);
         INSERT INTO noted VALUES (1, 1), (2, 2);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN NEW.n := NEW.n + 1; RETURN NEW; END $$",
    )
    .await;
    let keys: Vec<BranchKey> = (1..=3).map(key).collect();
    f.unlocked(1, &["UPDATE stock SET count = 0 WHERE product = 1"])
        .await;
    f.unlocked(2, &["UPDATE stock SET name = 'new' WHERE product = 2"])
        .await;
    f.unlocked(3, &["UPDATE noted SET v = 9 WHERE id = 1"])
        .await;
    let attempt = async || phase_two::roll_back_together(f.pool.phase_two(), &keys).await;
    // A unique value is taken; a trigger changes what the images do not have.
    for (wrong, right) in [
        (
            "INSERT INTO stock VALUES (8, 8, 8, 'name 2')",
            "DELETE FROM stock WHERE shop = 8",
        ),
        (
            "CREATE TRIGGER note BEFORE UPDATE ON noted FOR EACH ROW EXECUTE FUNCTION note()",
            "DROP TRIGGER note ON noted",
        ),
    ] {
        f.execute(wrong).await;
        let before = f.dump("stock").await;
        assert!(attempt().await.is_err(), "{wrong}");
        assert_eq!(f.dump("stock").await, before, "{wrong}");
        assert_eq!(f.statuses().await, [(0, 3)], "{wrong}");
        f.execute(right).await;
    }
    // Of a table that is not as it was, only its own branches are left.
    f.execute("ALTER TABLE noted ALTER v TYPE bigint").await;
    assert_eq!(f.together(1..=3).await, [1, 2]);
    assert!(f.together([3]).await.is_empty());
    f.execute("ALTER TABLE noted ALTER v TYPE int; ALTER TABLE noted RENAME TO other")
        .await;
    assert!(f.together([3]).await.is_empty());
    f.execute("ALTER TABLE other RENAME TO noted").await;
    assert_eq!(f.together([3]).await, [3]);
}

/// A unique value that another transaction writes at this moment keeps nobody waiting for long.
#[tokio::test]
async fn it_waits_for_nobody() {
    let f = Fixture::new(STOCK).await;
    f.unlocked(1, &["UPDATE stock SET name = 'new' WHERE product = 1"])
        .await;
    f.unlocked(2, &["UPDATE stock SET count = 0 WHERE product = 2"])
        .await;
    let mut other = sqlx::PgConnection::connect(&f.url).await.expect("connect");
    sqlx::raw_sql("BEGIN; INSERT INTO stock VALUES (8, 8, 8, 'name 1')")
        .execute(&mut other)
        .await
        .expect("inserted");
    let started = crate::clock::now();
    let together = phase_two::roll_back_together(f.pool.phase_two(), &[key(1), key(2)]).await;
    assert!(together.is_err(), "{together:?}");
    assert!(started.elapsed() < crate::limits::PHASE_TWO_LOCK_TIMEOUT);
    f.roll_back_by(xid(2), 1, UndoPolicy::Check)
        .await
        .expect("alone it is in nobody's way");
    other.close().await.expect("close");
    assert_eq!(f.together([1]).await, [1]);
}
