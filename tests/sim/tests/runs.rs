//! The simulator itself: seeds that must be clean, runs that must repeat, wrong use.

use std::process::{Command, Output};

use accede_sim::{Arguments, run_many, run_traced};

fn accede_sim(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_accede-sim");
    Command::new(program)
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn thirty_seeds_are_clean() {
    let summary = run_many(0, 30, false, &|_, _| {});
    assert_eq!(summary.broken, []);
    assert_eq!(summary.seeds, 30);
    assert!(summary.transactions > 30 * 20, "{summary:?}");
    assert!(summary.faults > 30 * 20, "{summary:?}");
    assert!(summary.harmless < 10, "{summary:?}");
}

#[test]
fn a_seed_repeats_byte_for_byte() {
    for seed in [1, 7, 11] {
        let (first, second) = (run_traced(seed), run_traced(seed));
        assert!(first == second, "seed {seed}");
        assert!(first.1.lines().count() > 100);
        assert_ne!(first.1, run_traced(seed + 1).1);
    }
}

#[test]
fn a_trace_says_time_who_and_what_and_ends_in_the_verdict() {
    let output = accede_sim(&["--seed", "3"]);
    assert_eq!(output.status.code(), Some(0));
    let story = text(&output.stdout);
    assert_eq!(story, run_traced(3).1);
    let last = story.lines().last().expect("not empty");
    assert!(last.starts_with("seed 3: all rules hold; "), "{last}");
    let begins = story
        .lines()
        .find(|line| line.contains("begins"))
        .expect("some begin");
    let words: Vec<&str> = begins.split_whitespace().collect();
    assert!(
        words[0].parse::<f64>().is_ok() && words[1] == "client",
        "{begins}"
    );
    assert_eq!(words[3].len(), 16, "{begins}");
}

#[test]
fn the_last_line_is_json() {
    let output = accede_sim(&["--seeds", "3", "--from", "5", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let summary = run_many(5, 3, false, &|_, _| {});
    let expected = format!(
        "{{\"seeds\":3,\"transactions\":{},\"faults\":{},\"violations\":0}}\n",
        summary.transactions, summary.faults
    );
    assert_eq!(text(&output.stdout), expected);
    assert!(text(&output.stderr).contains("3 of 3 seeds, 0 broken"));
    let output = accede_sim(&["--seeds", "1"]);
    assert!(text(&output.stdout).starts_with("1 seeds, "));
}

#[test]
fn wrong_use_is_explained() {
    let wrong: &[(&[&str], &str)] = &[
        (&[], "one of --seeds, --seed and --planted is needed"),
        (&["--seeds"], "--seeds needs a number"),
        (&["--seeds", "many"], "--seeds needs a number, not \"many\""),
        (&["--seeds", "-1"], "--seeds needs a number, not \"-1\""),
        (&["--seeds", "0"], "--seeds must be at least 1"),
        (
            &["--seeds", "2", "--from", "18446744073709551615"],
            "beyond 64 bits",
        ),
        (
            &["--seed", "1", "--json"],
            "--seed prints a trace, not JSON",
        ),
        (&["--seed", "1", "--seeds", "2"], "do not go together"),
        (&["--seed", "1", "--from", "2"], "do not go together"),
        (&["--planted", "--seeds", "2"], "do not go together"),
        (&["--planted", "--from", "2"], "do not go together"),
        (&["--sed", "1"], "unknown argument \"--sed\""),
    ];
    for (arguments, reason) in wrong {
        let output = accede_sim(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(
            said.contains(reason) && said.contains("usage: accede-sim"),
            "{said}"
        );
        assert!(output.stdout.is_empty());
    }
    let help = accede_sim(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).starts_with("usage: "));
    assert_eq!(Arguments::read([]).err(), Some(wrong[0].1.to_owned()));
}

#[cfg(not(feature = "planted-bugs"))]
#[test]
fn planted_bugs_need_their_feature() {
    let output = accede_sim(&["--planted"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--features planted-bugs"));
    assert_eq!(accede_sim::names(), [""; 0]);
}
