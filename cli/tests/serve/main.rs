//! The program as a real process: starts, refusals, signals, backup, and that the documentation
//! tells the truth.

mod backup;
mod daemon;
mod repair;

use std::fs;

use accede_server::METRICS;
use daemon::{Daemon, accede, run};
use rustix::process::Signal;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn a_daemon_serves_and_ends_in_order() {
    let dir = directory();
    let daemon = Daemon::start(&dir.path().join("data"));
    for path in ["/readyz", "/healthz"] {
        let (status, body) = daemon.get(path);
        assert_eq!(status, "HTTP/1.1 200 OK", "{path}: {body}");
    }
    let (_, metrics) = daemon.get("/metrics");
    for metric in METRICS {
        assert!(
            metrics.contains(&format!("# TYPE {} ", metric.name)),
            "{}",
            metric.name
        );
    }
    let (code, status) = daemon.ask(&["status"]);
    assert_eq!(code, Some(0), "{status}");
    assert_eq!(status["leader"], true);
    assert_eq!(status["row_locks"], 0);
    let (code, list) = daemon.ask(&["tx", "list", "--older-than", "1s", "--status", "stuck"]);
    assert_eq!(
        (code, list["transactions"].as_array().map(Vec::len)),
        (Some(0), Some(0))
    );
    for verb in [vec!["tx", "show"], vec!["tx", "why"]] {
        let (code, answer) = daemon.ask(&[&verb[..], &["000c1f40a2e00001"]].concat());
        assert_eq!(
            (code, answer["exit_code"].as_u64()),
            (Some(1), Some(1)),
            "{answer}"
        );
        assert!(
            answer["error"]
                .as_str()
                .is_some_and(|e| e.contains("000c1f40a2e00001")),
            "{answer}"
        );
    }
    let (code, stdout, stderr) = daemon.end(Signal::TERM);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("SIGTERM: ending in order"), "{stderr}");
    let last = stdout.lines().last().expect("JSON");
    assert_eq!(last, r#"{"undecided":0,"unfinished":0,"stuck":0}"#);
}

#[test]
fn tables_are_for_people_and_interrupt_ends_as_well() {
    let dir = directory();
    let daemon = Daemon::start(&dir.path().join("data"));
    let url = daemon.url();
    let (code, stdout, stderr) = run(&["--coordinator", &url, "status"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("No agent is attached."), "{stdout}");
    assert!(!stdout.contains('\u{1b}'), "no colours in a pipe");
    let (_, stdout, _) = run(&["tx", "list", "--coordinator", &url]);
    assert_eq!(stdout, "No transaction matches.\n");
    assert_eq!(daemon.end(Signal::INT).0, Some(0));
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused() {
    let dir = directory();
    let data_dir = dir.path().join("data");
    let first = Daemon::start(&data_dir);
    let path = data_dir.to_str().expect("a plain path");
    let (code, stdout, stderr) = run(&[
        "--json",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        path,
    ]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("in use by another daemon: stop that daemon"),
        "{stderr}"
    );
    assert!(
        stdout
            .lines()
            .last()
            .is_some_and(|l| l.contains(r#""exit_code":1"#)),
        "{stdout}"
    );
    // The port is a clear sentence, too.
    let other = dir.path().join("other");
    let other = other.to_str().expect("a plain path");
    let (code, _, stderr) = run(&["serve", "--listen", &first.addr, "--data-dir", other]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("is another coordinator running?"),
        "{stderr}"
    );
}

#[test]
fn directories_that_are_not_ours_are_refused() {
    let dir = directory();
    let data_dir = dir.path().join("data");
    Daemon::start(&data_dir).end(Signal::TERM);
    let path = data_dir.to_str().expect("a plain path").to_owned();
    let start = |more: &[&str]| {
        let common = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &path];
        run(&[&common[..], more].concat())
    };
    let (code, _, stderr) = start(&["--cluster-id", "00112233445566778899aabbccddeeff"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("belongs to cluster"), "{stderr}");
    let identity = data_dir.join("IDENTITY");
    let good = fs::read(&identity).expect("there");
    let mut newer = good.clone();
    newer[8] = 99;
    fs::write(&identity, &newer).expect("written");
    let (code, _, stderr) = start(&[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("start the newer version again"), "{stderr}");
    let mut damaged = good;
    damaged[20] ^= 1;
    fs::write(&identity, &damaged).expect("written");
    let (code, _, stderr) = start(&[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("IDENTITY"), "{stderr}");
}

#[test]
fn wrong_settings_are_wrong_use() {
    let dir = directory();
    let file = dir.path().join("accede.toml");
    fs::write(&file, "lisen = '127.0.0.1:1'").expect("written");
    let file = file.to_str().expect("a plain path");
    for (args, expected) in [
        (vec!["serve", "--listen", "0.0.0.0:0"], "--insecure"),
        (vec!["serve", "--config", file], "did you mean listen?"),
        (vec!["check-config", "--config", file], "accede.toml"),
        (
            vec!["check-config", "--config", "/nowhere"],
            "/nowhere cannot be read",
        ),
        (
            vec!["serve", "--segment-bytes", "1"],
            "flag --segment-bytes",
        ),
        (vec!["schema", "create", "oracle://a/b"], "oracle"),
        (
            vec!["status", "--coordinator", "https://a:1"],
            "http://127.0.0.1:7700",
        ),
        (vec!["tx", "show", "xyz"], "16 hex digits"),
        (vec!["nothing"], "unrecognized"),
    ] {
        let (code, _, stderr) = run(&args);
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
    let wrong = accede(&["serve"])
        .env("ACCEDE_LISTN", "x")
        .output()
        .expect("runs");
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn check_config_tells_where_each_setting_comes_from() {
    let dir = directory();
    let file = dir.path().join("accede.toml");
    fs::write(&file, "name = 'here'\nsegment_bytes = '16MiB'\n").expect("written");
    let file = file.to_str().expect("a plain path");
    let out = accede(&[
        "--json",
        "check-config",
        "--config",
        file,
        "--log-format",
        "json",
    ])
    .env("ACCEDE_DATA_DIR", "/srv/accede")
    .output()
    .expect("runs");
    let line = String::from_utf8(out.stdout).expect("text");
    let json: serde_json::Value = serde_json::from_str(line.trim()).expect("one line of JSON");
    let find = |key: &str| {
        let all = json["settings"].as_array().expect("a list");
        let one = all.iter().find(|s| s["key"] == key).expect("listed");
        (one["value"].clone(), one["from"].clone())
    };
    assert_eq!(find("name"), ("here".into(), format!("file {file}").into()));
    assert_eq!(find("segment_bytes").0, "16777216");
    assert_eq!(
        find("data_dir"),
        ("/srv/accede".into(), "variable ACCEDE_DATA_DIR".into())
    );
    assert_eq!(find("log_format").1, "flag --log-format");
    assert_eq!(find("listen").1, "default");
}

#[test]
fn nobody_at_the_address_is_one_sentence() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", free.local_addr().expect("bound"));
    drop(free);
    let (code, stdout, stderr) = run(&["--coordinator", &url, "status"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.contains("connection refused; start one with `accede serve`"),
        "{stderr}"
    );
}
