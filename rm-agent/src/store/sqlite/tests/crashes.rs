//! A process that is killed at any moment: its rows have changed exactly if its undo
//! record is there.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::Arc,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::Row as _;

use super::{AtPool, BranchKey, Fixture, UndoPolicy, phase_two, registrar::TestRegistrar, xid};

/// Tells the process that dies where its database is.
const DATABASE: &str = "ACCEDE_TEST_SQLITE_VICTIM";
/// And from which number on its transactions are its own.
const FIRST: &str = "ACCEDE_TEST_SQLITE_FIRST";

const SETUP: &str = "
CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INT NOT NULL);
CREATE TABLE moves (account INT REFERENCES accounts (id), amount INT);
CREATE TRIGGER note AFTER UPDATE ON accounts BEGIN
  INSERT INTO moves VALUES (NEW.id, NEW.balance - OLD.balance); END;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)
INSERT INTO accounts SELECT i, 1000 FROM n;";

/// No test by itself: the process that is killed. It says when a branch has committed.
#[tokio::test]
async fn victim() {
    let Ok(url) = std::env::var(DATABASE) else {
        return;
    };
    let registrar = Arc::new(TestRegistrar::default());
    let pool = AtPool::builder(&url)
        .resource("victim")
        .build(registrar.clone())
        .expect("a pool");
    let first = std::env::var(FIRST).expect("it comes with the database");
    let mut number: u64 = first.parse().expect("a number");
    let mut random = StdRng::seed_from_u64(number);
    loop {
        number += 1;
        registrar.release();
        let mut tx = pool.begin_in(xid(number)).await.expect("begins");
        for _ in 0..random.random_range(1..4) {
            let sql = match random.random_range(0..4) {
                0 => "UPDATE accounts SET balance = balance + ? WHERE id = ?",
                1 => "INSERT OR IGNORE INTO accounts (balance, id) VALUES (?, ? + 20)",
                2 => "DELETE FROM moves WHERE amount > ? AND account = ?",
                _ => "UPDATE accounts SET balance = balance - ? WHERE id <= ?",
            };
            sqlx::query(sql)
                .bind(random.random_range(1..50))
                .bind(random.random_range(1..=20))
                .execute(&mut tx)
                .await
                .expect(sql);
        }
        tx.commit().await.expect("commits");
        println!("committed {number}");
    }
}

#[tokio::test]
async fn a_killed_process_leaves_whole_branches() {
    let f = Fixture::new(SETUP).await;
    let before = (f.dump("accounts").await, f.dump("moves").await);
    let deaths: u64 =
        std::env::var("ACCEDE_TEST_KILLS").map_or(5, |text| text.parse().expect("a number"));
    let mut random = StdRng::seed_from_u64(7);
    for death in 0..deaths.min(50) {
        let mut victim = Command::new(std::env::current_exe().expect("a test knows its file"))
            .args([
                "--exact",
                "store::sqlite::tests::crashes::victim",
                "--nocapture",
            ])
            .env(DATABASE, &f.url)
            .env(FIRST, (death * 1_000).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let said = BufReader::new(victim.stdout.take().expect("it is piped"));
        let commits = said
            .lines()
            .map_while(Result::ok)
            .filter(|line| line.starts_with("committed"));
        let wanted = random.random_range(1..8);
        let seen = commits.take(wanted).count();
        victim.kill().expect("it runs");
        victim.wait().expect("it ended");
        assert_eq!(seen, wanted, "it ended by itself");
    }
    let rows = sqlx::query("SELECT xid FROM undo_log WHERE log_status = 0 ORDER BY xid DESC")
        .fetch_all(f.pool.plain())
        .await
        .expect("readable");
    assert!(!rows.is_empty(), "nothing was committed");
    for row in rows {
        let number: i64 = row.get(0);
        let key = BranchKey {
            xid: accede_proto::Xid::from_u64(number.unsigned_abs()).expect("an XID"),
            branch: 1,
        };
        phase_two::roll_back(&f.pool, key, true, UndoPolicy::Check)
            .await
            .expect("undone");
    }
    assert_eq!((f.dump("accounts").await, f.dump("moves").await), before);
}
