//! Every model comes to what it must, and docs/three-phase.md says so.

use std::{fs, path::PathBuf, process::Command};

use accede_models::{Finding, Report, alone_table, docs_table, explore_all, text};

const PAGE: &str = "docs/three-phase.md";

/// The part of the page between its marks is this table; with `BLESS` it becomes so.
#[track_caller]
fn assert_generated(name: &str, table: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(PAGE);
    let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{PAGE}: {error}"));
    let (begin, end) = (
        format!("<!-- begin {name} -->\n"),
        format!("<!-- end {name} -->"),
    );
    let (before, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{PAGE}: {begin}"));
    let (found, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("{PAGE}: {end}"));
    if std::env::var_os("BLESS").is_some() {
        let new = format!("{before}{begin}{table}{end}{after}");
        fs::write(&path, new).expect("the page is writable");
    } else {
        assert_eq!(
            found, table,
            "{PAGE}: the table {name} is not that of the code; run\n\
             BLESS=1 cargo test -p accede-models --test models -- --test-threads=1"
        );
    }
}

#[test]
fn what_a_participant_may_do_alone_is_documented() {
    assert_generated("alone", &alone_table());
}

#[test]
fn every_model_comes_to_what_it_must() {
    let reports = explore_all();
    println!("{}", text(&reports));
    let wrong: Vec<&Report> = reports.iter().filter(|r| !r.as_expected).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for report in &reports {
        // A story is there whenever something was found, and only then.
        assert_eq!(report.found.is_some(), report.end.is_some());
        assert_eq!(report.found.is_some(), !report.trace.is_empty());
    }
    let holes = |finding| reports.iter().filter(|r| r.found == Some(finding)).count();
    assert_eq!((holes(Finding::Blocked), holes(Finding::Tear)), (2, 7));
    assert_generated("models", &docs_table(&reports));
}

#[test]
fn wrong_use_is_refused() {
    let run = |argument| {
        let program = env!("CARGO_BIN_EXE_accede-models");
        let output = Command::new(program).arg(argument).output();
        output.expect("the program starts")
    };
    let refused = run("--jsonn");
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("unknown argument \"--jsonn\"") && said.contains("usage:"));
    let helped = run("--help");
    assert!(helped.status.success());
    assert!(String::from_utf8_lossy(&helped.stdout).starts_with("usage: accede-models"));
}
