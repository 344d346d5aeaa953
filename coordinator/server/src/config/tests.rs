use super::*;

/// Loads a file with this content, these variables and these flags.
fn loaded(
    file: Option<&str>,
    variables: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Settings, ConfigError> {
    let own = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("accede.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).expect("written");
    }
    load(&Inputs {
        file: file.map(|_| path),
        variables: own(variables),
        flags: own(flags),
    })
}

fn refused(file: Option<&str>, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    loaded(file, variables, flags)
        .expect_err("refused")
        .to_string()
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn defaults_work_and_say_that_they_are_defaults() {
    let settings = loaded(None, &[], &[]).expect("sound");
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:7700");
    assert_eq!(settings.log_format, LogFormat::Text);
    assert_eq!(settings.effective.len(), SETTINGS.len());
    assert!(
        settings
            .effective
            .iter()
            .all(|(_, _, place)| *place == Place::Default)
    );
}

#[test]
fn every_default_can_be_set_and_every_setting_has_an_effect() {
    let defaults = loaded(None, &[], &[]).expect("sound");
    for (setting, (key, value, _)) in SETTINGS.iter().zip(&defaults.effective) {
        assert_eq!(setting.key, *key);
        let again = loaded(None, &[(&setting.variable(), value)], &[]).expect("the same value");
        assert_eq!(again.place_of(key), Place::Variable(setting.variable()));
        assert_eq!(setting.flag.replace('-', "_"), setting.key);
    }
}

#[test]
fn flags_win_over_variables_over_the_file() {
    let file = "name = 'file'\nlisten = '127.0.0.1:1'\nsegment_bytes = 16777216\ninsecure = true\n";
    let variables = [
        ("ACCEDE_NAME", "variable"),
        ("ACCEDE_LISTEN", "127.0.0.1:2"),
        ("HOME", "/root"),
    ];
    let flags = [("name", "flag"), ("snapshot-bytes", "64 MiB")];
    let settings = loaded(Some(file), &variables, &flags).expect("sound");
    assert_eq!(settings.server.name, "flag");
    assert_eq!(settings.server.listen.port(), 2);
    assert_eq!(settings.server.segment_bytes, 16 * 1024 * 1024);
    assert_eq!(settings.server.snapshot_bytes, 64 * 1024 * 1024);
    assert!(settings.server.insecure);
    assert_eq!(settings.place_of("name").to_string(), "flag --name");
    assert_eq!(
        settings.place_of("listen").to_string(),
        "variable ACCEDE_LISTEN"
    );
    assert_has(
        &settings.place_of("insecure").to_string(),
        &["file ", "accede.toml"],
    );
    assert_eq!(settings.place_of("data_dir"), Place::Default);
}

#[test]
fn every_key_takes_effect() {
    let id = "00112233445566778899aabbccddeeff";
    let flags = [
        ("data-dir", "/srv/a"),
        ("cluster-id", id),
        ("snapshot-entries", "7"),
        ("log-format", "json"),
        ("log-filter", "debug"),
        ("insecure", "true"),
        ("listen", "0.0.0.0:0"),
    ];
    let settings = loaded(None, &[], &flags).expect("sound");
    assert_eq!(settings.server.data_dir, PathBuf::from("/srv/a"));
    assert_eq!(
        settings.server.cluster_id.map(|c| c.to_string()).as_deref(),
        Some(id)
    );
    assert_eq!(settings.server.snapshot_entries, 7);
    assert_eq!(settings.log_format, LogFormat::Json);
    assert_eq!(settings.log_filter, "debug");
}

#[test]
fn unknown_names_are_refused_with_the_nearest_one() {
    let text = refused(Some("segment_byte = 1"), &[], &[]);
    assert_has(
        &text,
        &[
            "accede.toml",
            "no setting segment_byte",
            "did you mean segment_bytes?",
        ],
    );
    let text = refused(None, &[("ACCEDE_LISTN", "x")], &[]);
    assert_has(
        &text,
        &["variable ACCEDE_LISTN", "did you mean ACCEDE_LISTEN?"],
    );
    let text = refused(None, &[], &[("datadir", "x")]);
    assert_has(&text, &["flag --datadir", "did you mean data-dir?"]);
    let text = refused(Some("[server]\nlisten = 'x'"), &[], &[]);
    assert_has(
        &text,
        &[
            "no setting server",
            "there are: archive, archive_bytes, cluster_id, data_dir",
        ],
    );
}

#[test]
fn wrong_types_are_refused() {
    for (line, reason) in [
        ("listen = 7700", "of the wrong type: a number"),
        ("listen = true", "of the wrong type: true or false"),
        ("listen = ['127.0.0.1:1']", "of the wrong type: a list"),
        ("insecure = 'yes'", "of the wrong type: a text"),
        ("snapshot_entries = 1.5", "of the wrong type: 1.5"),
        ("snapshot_entries = -1", "-1, below zero"),
        ("snapshot_entries = 'many'", "is no whole number"),
        ("segment_bytes = '64MB'", "is no number of bytes"),
        ("retention = 600", "of the wrong type: a number"),
        ("retention = '600'", "is no duration"),
        ("retention = '10 weeks'", "is no duration"),
        ("retention = '9s'", "is below 10s"),
        ("retention = '31d'", "is above 30d"),
        ("retention_transactions = 999", "is below 1000"),
        ("[listen]\na = 1", "of the wrong type: a table"),
    ] {
        let text = refused(Some(line), &[], &[]);
        assert_has(&text, &["accede.toml", reason, "allowed: "]);
    }
}

#[test]
fn values_out_of_range_are_refused() {
    for (flag, value, reason) in [
        ("listen", "localhost", "is no IP address and port"),
        ("segment-bytes", "1KiB", "is below 8388608"),
        ("segment-bytes", "2GiB", "is above 1073741824"),
        (
            "segment-bytes",
            "99999999999999GiB",
            "is no number of bytes",
        ),
        ("snapshot-entries", "0", "is below 1"),
        ("snapshot-bytes", "0", "is below 1"),
        ("cluster-id", "abc", "is no cluster id"),
        ("data-dir", "", "is empty"),
        ("log-format", "xml", "is no log format"),
        ("log-filter", "a=b=c", "cannot be read"),
        ("insecure", "1", "of the wrong type"),
    ] {
        let text = refused(None, &[], &[(flag, value)]);
        let place = format!("flag --{flag}");
        assert_has(&text, &[&place, reason, "allowed: "]);
    }
    let text = refused(None, &[("ACCEDE_NAME", "")], &[]);
    assert_has(&text, &["variable ACCEDE_NAME", "1 to 128 bytes"]);
}

#[test]
fn off_loopback_is_refused_and_says_where_the_address_stands() {
    let text = refused(Some("listen = '0.0.0.0:7700'"), &[], &[]);
    assert_has(&text, &["accede.toml", "0.0.0.0:7700", "--insecure"]);
}

#[test]
fn files_that_are_none_are_refused() {
    let missing = Inputs {
        file: Some("/nowhere/accede.toml".into()),
        ..Inputs::default()
    };
    let text = load(&missing).expect_err("missing").to_string();
    assert_has(
        &text,
        &["/nowhere/accede.toml cannot be read", "No such file"],
    );
    let text = refused(Some("listen ="), &[], &[]);
    assert_has(&text, &["accede.toml is no valid TOML", "line 1"]);
    let text = refused(Some(&"#".repeat(1024 * 1024 + 1)), &[], &[]);
    assert_has(&text, &["at most 1048576"]);
}

#[test]
fn variables_that_kubernetes_sets_are_let_be() {
    let links = [
        ("ACCEDE_SERVICE_HOST", "10.0.0.1"),
        ("ACCEDE_SERVICE_PORT_GRPC", "7700"),
        ("ACCEDE_PORT", "tcp://10.0.0.1:7700"),
        ("ACCEDE_PORT_7700_TCP_ADDR", "10.0.0.1"),
        ("ACCEDE_COORDINATOR", "http://127.0.0.1:7700"),
    ];
    loaded(None, &links, &[]).expect("not ours");
    assert_has(
        &refused(None, &[("ACCEDE_PORT", "7700")], &[]),
        &["no setting ACCEDE_PORT"],
    );
}

#[test]
fn durations_have_units() {
    for (text, seconds, shown) in [
        ("30s", 30, "30s"),
        ("90 s", 90, "90s"),
        ("120000ms", 120, "2min"),
        ("60min", 3_600, "1h"),
        ("48h", 172_800, "2d"),
        ("30d", 2_592_000, "30d"),
    ] {
        let file = format!("retention = '{text}'\nretention_transactions = 5000\n");
        let settings = loaded(Some(&file), &[], &[]).expect("sound");
        assert_eq!(settings.server.retention.as_secs(), seconds);
        assert_eq!(settings.server.retention_transactions, 5_000);
        let (_, value, _) = settings
            .effective
            .iter()
            .find(|(key, ..)| *key == "retention")
            .expect("it is listed");
        assert_eq!(value, shown);
    }
}
