//! The proof: what a branch accepts is undone to the byte. As for PostgreSQL, with the
//! same settings.
//!
//! Generates schemas, rows and statements from a seed, runs them as branches and, as
//! plain SQL, in a shadow copy; ends each global transaction by commit or rollback and
//! compares whole tables byte for byte.

mod kinds;
mod schema;
mod statements;
mod world;

use std::fmt::Write as _;

use self::{
    schema::Schema,
    statements::Statement,
    world::{Counts, World},
};
use super::xid;
use crate::store::test_random::{self as random, Random};

/// Statements of an ordinary test run.
const STATEMENTS: u64 = 400;
/// Global transactions over one schema.
const TRANSACTIONS: usize = 8;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

#[tokio::test]
async fn what_is_accepted_is_undone_to_the_byte() {
    let wanted = setting("ACCEDE_TEST_STATEMENTS", STATEMENTS);
    let first = setting("ACCEDE_TEST_SEED", 1);
    let mut counts = Counts::default();
    for seed in first.. {
        round(seed, &mut counts).await;
        if !counts.mismatches.is_empty() || counts.left_locks + counts.left_undo_rows > 0 {
            report(&counts);
            panic!(
                "repeat with ACCEDE_TEST_SEED={seed} ACCEDE_TEST_STATEMENTS=1 cargo test \
                 -p accede-rm-agent --lib sqlite::tests::proof\n{}\n{} undo rows and {} locks \
                 are left",
                counts.mismatches.join("\n\n"),
                counts.left_undo_rows,
                counts.left_locks
            );
        }
        if counts.ran >= wanted {
            break;
        }
        let made = counts.ran + counts.refused + counts.failed;
        assert!(
            made < 100 || counts.ran * 2 > made,
            "of {made} statements only {} ran: this proves nothing",
            counts.ran
        );
    }
    report(&counts);
}

/// One schema with its transactions.
async fn round(seed: u64, counts: &mut Counts) {
    let mut random = Random::new(seed);
    let schema = Schema::new(&mut random);
    let fill: Vec<String> = (0..8)
        .map(|turn| {
            let table = &schema.tables[turn % schema.tables.len()];
            statements::fill(&mut random, &schema, table)
        })
        .collect();
    let mut world = World::new(&schema, &fill).await;
    for number in 0..TRANSACTIONS {
        let branches: Vec<Vec<Statement>> = (0..1 + random.below(2))
            .map(|_| statements::branch(&mut random, &schema))
            .collect();
        let commit = random.once_in(3);
        let before = counts.mismatches.len();
        world
            .transaction(xid(1 + number as u64), &branches, commit, counts)
            .await;
        if counts.mismatches.len() > before {
            counts.mismatches.push(schema.create.clone());
            break;
        }
    }
    world.close().await;
}

/// Says what was done; the line for machines goes to a file.
fn report(counts: &Counts) {
    let mut text = format!(
        "{} statements ran, {} were refused, {} failed in the database; {} transactions committed, {} rolled back\n",
        counts.ran, counts.refused, counts.failed, counts.committed, counts.rolled_back
    );
    for (shape, [ran, refused, failed]) in &counts.shapes {
        let _ = writeln!(
            text,
            "{ran:6} ran {refused:5} refused {failed:5} failed  {shape}"
        );
    }
    println!("{text}");
    let line = format!(
        "{{\"database\":\"sqlite\",\"statements\":{},\"mismatches\":{},\"left_undo_rows\":{},\"left_locks\":{}}}\n",
        counts.ran,
        counts.mismatches.len(),
        counts.left_undo_rows,
        counts.left_locks
    );
    if let Some(folder) = std::env::var_os("ACCEDE_TEST_PROOF") {
        let folder = std::path::PathBuf::from(folder);
        std::fs::create_dir_all(&folder).expect("the folder is writable");
        std::fs::write(folder.join("sqlite.json"), line).expect("the result is written");
        std::fs::write(folder.join("sqlite.txt"), text).expect("the result is written");
    }
}
