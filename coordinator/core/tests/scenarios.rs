//! The protocols as stories with recorded output: `tests/scenarios/*.txt`.
//!
//! `BLESS=1 cargo test -p accede-core --test scenarios` records anew.

mod story;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use story::World;

#[test]
fn every_scenario_goes_as_recorded() {
    let mut paths = scenarios();
    paths.sort();
    assert!(!paths.is_empty(), "there are no scenarios");
    let bless = std::env::var_os("BLESS").is_some();
    let mut failures = String::new();
    for path in &paths {
        let recorded = fs::read_to_string(path).expect("a scenario is a text");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let blocks = blocks(&recorded);
        let told = tell(&blocks);
        for failure in told
            .iter()
            .zip(&blocks)
            .filter_map(|(now, block)| now.differs(block))
        {
            let bless_cannot_help = failure.is_error;
            if !bless || bless_cannot_help {
                let _ = writeln!(failures, "tests/scenarios/{name}:{}", failure.text);
            }
        }
        if bless && told.iter().all(|now| now.error.is_none()) {
            let text = recorded_anew(&blocks, &told);
            if text != recorded {
                fs::write(path, text).expect("a scenario can be written");
            }
        }
    }
    assert!(
        failures.is_empty(),
        "scenarios went differently (./dev bless records them anew):\n\n{failures}"
    );
}

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let files = fs::read_dir(folder).expect("there is a folder of scenarios");
    let paths = files.map(|file| file.expect("the folder can be read").path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect()
}

/// A line of a scenario with what is recorded below it.
struct Block<'a> {
    /// From 1.
    number: usize,
    line: &'a str,
    recorded: Vec<&'a str>,
}

/// What a line brought this time.
#[derive(Default)]
struct Now {
    recorded: Vec<String>,
    error: Option<String>,
}

struct Failure {
    text: String,
    is_error: bool,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        match (line.strip_prefix("  "), blocks.last_mut()) {
            (Some(recorded), Some(block)) => block.recorded.push(recorded),
            _ => blocks.push(Block {
                number: i + 1,
                line,
                recorded: Vec::new(),
            }),
        }
    }
    blocks
}

/// Tells the story up to its first error. After every step the state goes through its bytes and
/// is read from the log again: a restart would change nothing.
fn tell(blocks: &[Block<'_>]) -> Vec<Now> {
    let mut world = World::new();
    let mut told = Vec::new();
    for block in blocks {
        let mut now = Now::default();
        if !block.line.is_empty() && !block.line.starts_with('#') {
            match step(&mut world, block.line) {
                Ok(recorded) => now.recorded = recorded,
                Err(error) => now.error = Some(error),
            }
        }
        let stop = now.error.is_some();
        told.push(now);
        if stop {
            break;
        }
    }
    told
}

fn step(world: &mut World, line: &str) -> Result<Vec<String>, String> {
    let news = world.tell(line)?;
    if world.restored()?.to_snapshot() != world.state.to_snapshot() {
        return Err("the snapshot holds something else than the state".into());
    }
    if world.replayed().to_snapshot() != world.state.to_snapshot() {
        return Err("the log read again makes another state".into());
    }
    Ok(world.recorded(&news))
}

impl Now {
    fn differs(&self, block: &Block<'_>) -> Option<Failure> {
        let mut text = format!("{}: {}\n", block.number, block.line);
        if let Some(error) = &self.error {
            let _ = writeln!(text, "  error: {error}");
            return Some(Failure {
                text,
                is_error: true,
            });
        }
        if self.recorded == block.recorded {
            return None;
        }
        for line in &block.recorded {
            let mark = if self.recorded.iter().any(|now| now == line) {
                ' '
            } else {
                '-'
            };
            let _ = writeln!(text, "{mark} {line}");
        }
        for line in self
            .recorded
            .iter()
            .filter(|now| !block.recorded.contains(&now.as_str()))
        {
            let _ = writeln!(text, "+ {line}");
        }
        Some(Failure {
            text,
            is_error: false,
        })
    }
}

fn recorded_anew(blocks: &[Block<'_>], told: &[Now]) -> String {
    let mut text = String::new();
    for (block, now) in blocks.iter().zip(told) {
        let _ = writeln!(text, "{}", block.line);
        for line in &now.recorded {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

#[test]
fn a_difference_names_its_line() {
    let recorded = "# why\nbegin A\n  ok\ncommit A\n  decided to roll back\n  A has committed\n";
    let blocks = blocks(recorded);
    let told = tell(&blocks);
    let differs = told
        .iter()
        .zip(&blocks)
        .filter_map(|(now, block)| now.differs(block));
    let failures: Vec<String> = differs.map(|failure| failure.text).collect();
    assert_eq!(
        failures,
        [
            "4: commit A\n- decided to roll back\n  A has committed\n+ decided to commit\n\
          + A is decided: commit\n"
        ]
    );
}

#[test]
fn a_step_that_cannot_be_told_says_why() {
    let mut world = World::new();
    for (line, why) in [
        ("dance", "\"dance\" is no verb"),
        (
            "begin A timeout 5",
            "\"5\" is no duration such as 250ms, 2s or 10min",
        ),
        ("begin A now", "\"now\" has no sense here"),
        ("begin B by nobody", "nobody has no lease"),
        ("done A 0", "branches count from 1"),
        (
            "register A stock: apple as a-long-name",
            "the name a-long-name has more than 8 bytes",
        ),
        ("show Z", "nobody spoke of Z yet"),
    ] {
        assert_eq!(world.tell(line).expect_err(line), why);
    }
}
