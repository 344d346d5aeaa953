//! Large statements: what fits, and what is refused before it fills the memory.

use super::{Fixture, xid};
use crate::{Error, limits};

async fn too_large(f: &Fixture, number: u64, sql: &str) -> String {
    let error = f.branch(xid(number), &[sql]).await.expect_err(sql);
    match Error::from_sqlx(&error) {
        Some(own @ Error::TooLarge { .. }) => own.to_string(),
        _ => panic!("{sql}: {error}"),
    }
}

#[tokio::test]
async fn ten_thousand_rows_are_undone_and_more_are_refused() {
    let most = limits::MAX_ROWS_PER_BRANCH;
    let f = Fixture::new(&format!(
        "CREATE TABLE many (id int PRIMARY KEY, v text);
         INSERT INTO many SELECT i, 'some text' FROM generate_series(1, {most} + 1) i;"
    ))
    .await;
    let before = f.dump("many").await;
    let fits = format!("UPDATE many SET v = v || id WHERE id <= {most}");
    f.branch(xid(1), &[&fits]).await.expect("it fits");
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("many").await, before);
    f.registrar.release();
    for sql in [
        "UPDATE many SET v = ''",
        "DELETE FROM many RETURNING id",
        "SELECT * FROM many FOR UPDATE",
        // Each of these rows leaves one place and comes to another.
        "UPDATE many SET id = id + 100000 WHERE id <= 6000",
    ] {
        let text = too_large(&f, 2, sql).await;
        assert!(
            text.contains("limit of 10000; split the work"),
            "{sql}: {text}"
        );
    }
    assert_eq!(f.dump("many").await, before, "rolled back");
}

#[tokio::test]
async fn large_rows_are_refused_while_they_come() {
    let f = Fixture::new(
        "CREATE TABLE wide (id int PRIMARY KEY, v text);
         ALTER TABLE wide ALTER v SET STORAGE EXTERNAL;
         INSERT INTO wide SELECT i, repeat('x', 1000000) FROM generate_series(1, 60) i;",
    )
    .await;
    let text = too_large(&f, 1, "UPDATE wide SET v = v || 'y'").await;
    assert!(text.contains("row images"), "{text}");
    // It stopped long before the last of them.
    let bytes: usize = text
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .expect("it names the size");
    assert!(bytes < limits::MAX_UNDO_BYTES + 4_000_000, "{text}");
    f.branch(xid(2), &["UPDATE wide SET v = 'y' WHERE id = 1"])
        .await
        .expect("one fits");
    f.roll_back(xid(2), 1).await.expect("undone");
}
