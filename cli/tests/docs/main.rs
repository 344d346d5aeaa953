//! Tables in docs/ are made from the code; this test compares them, and writes them anew when the
//! variable `BLESS` is set.

mod limits;

use std::{fmt::Write as _, fs, path::PathBuf};

use accede_server::{METRICS, MetricKind, config};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("inside the workspace")
        .to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The part of a page between its marks is this table.
#[track_caller]
fn assert_generated(page: &str, name: &str, table: &str) {
    let text = read(page);
    let (begin, end) = (
        format!("<!-- begin {name} -->\n"),
        format!("<!-- end {name} -->"),
    );
    let (before, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{page}: {begin}"));
    let (found, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("{page}: {end}"));
    if std::env::var_os("BLESS").is_some() {
        let new = format!("{before}{begin}{table}{end}{after}");
        fs::write(root().join(page), new).expect("the page is writable");
        return;
    }
    assert_eq!(
        found, table,
        "{page}: the table {name} is not that of the code; run\n\
         BLESS=1 cargo test -p accede-cli --test docs"
    );
}

#[test]
fn settings_are_documented() {
    let defaults = config::load(&config::Inputs::default()).expect("defaults are sound");
    let mut table = String::from("| key | default | allowed | meaning |\n|---|---|---|---|\n");
    for (setting, (_, default, _)) in config::SETTINGS.iter().zip(&defaults.effective) {
        let default = match default.as_str() {
            "" => "–".to_owned(),
            value => format!("`{value}`"),
        };
        writeln!(
            table,
            "| `{}` | {default} | {} | {} |",
            setting.key, setting.allowed, setting.about
        )
        .expect("a string takes all");
    }
    assert_generated("docs/operations.md", "settings", &table);
}

#[test]
fn metrics_are_documented() {
    let mut table =
        String::from("| metric | kind | label | unit | meaning |\n|---|---|---|---|---|\n");
    for metric in METRICS {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        let label = if metric.label.is_empty() {
            "–"
        } else {
            metric.label
        };
        writeln!(
            table,
            "| `{}` | {kind} | {label} | {} | {} |",
            metric.name, metric.unit, metric.meaning
        )
        .expect("a string takes all");
    }
    assert_generated("docs/operations.md", "metrics", &table);
}

#[test]
fn limits_are_documented() {
    assert_generated("docs/at.md", "limits", &limits::table(&root()));
}

/// A rule about a metric that does not exist never fires.
#[test]
fn alert_rules_name_metrics_that_exist() {
    let rules = read("docs/alerts.yml");
    let mut named = 0;
    for word in rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if word.starts_with("accede_") {
            named += 1;
            assert!(
                METRICS.iter().any(|metric| metric.name == word),
                "{word} does not exist"
            );
        }
    }
    assert!(named > 5);
}

/// Files that pages point to are there.
#[test]
fn links_lead_somewhere() {
    for page in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/operations.md",
        "docs/at.md",
        "docs/protocol.md",
        "docs/three-phase.md",
        "docs/xa.md",
    ] {
        let folder = root().join(page).parent().expect("a folder").to_path_buf();
        for link in read(page).split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                assert!(
                    folder.join(target).exists(),
                    "{page}: {target} does not exist"
                );
            }
        }
    }
}

/// What the table "To change …, open …" names is there.
#[test]
fn rooms_exist() {
    let text = read("ARCHITECTURE.md");
    let table = text
        .split("## To change")
        .nth(1)
        .expect("the section is there");
    let mut rooms = 0;
    for word in table.split('`').skip(1).step_by(2) {
        let is_path = word.contains('/') && !word.contains(['<', ' ', '*', '{']);
        if is_path {
            rooms += 1;
            assert!(root().join(word).exists(), "{word} does not exist");
        }
    }
    assert!(rooms > 10);
}

/// Code in the README is code of the examples, which is compiled and run.
#[test]
fn the_readme_shows_code_that_exists() {
    let examples = [
        "examples/front/src/main.rs",
        "examples/stock/src/main.rs",
        "examples/shop-api/src/home.rs",
        "examples/stock/src/store/branches.rs",
        "examples/stock/src/store/sql/postgres.rs",
    ]
    .map(read)
    .concat();
    let known: Vec<&str> = examples.lines().map(str::trim).collect();
    let readme = read("README.md");
    for block in readme.split("```rust\n").skip(1) {
        let code = block.split("```").next().unwrap_or_default();
        for line in code
            .lines()
            .map(str::trim)
            .filter(|line| !line.ends_with('…'))
        {
            assert!(known.contains(&line), "no example has the line {line:?}");
        }
    }
}
