use super::*;

fn parse(line: &[&str]) -> Result<CommandLine, String> {
    let program = std::iter::once("repmgr");
    CommandLine::parse(program.chain(line.iter().copied()).map(OsString::from))
}

fn args(line: &[&str]) -> Args {
    parse(line)
        .unwrap_or_else(|error| panic!("{line:?}: {error}"))
        .args
}

#[test]
fn the_definition_is_consistent() {
    command().debug_assert();
}

#[test]
fn options_stand_anywhere_between_the_words() {
    let expected = Args {
        words: ["standby", "clone", "node1"].map(str::to_owned).to_vec(),
        config_file: Some("r.conf".into()),
        port: Some("5433".to_owned()),
        force: true,
        ..Args::default()
    };
    for line in [
        &["-f", "r.conf", "-p", "5433", "-F", "standby", "clone", "node1"][..],
        &["standby", "-fr.conf", "clone", "--port=5433", "node1", "--force"],
        &["standby", "clone", "-Fp5433", "-f", "r.conf", "node1"],
        &[
            "--config-file",
            "r.conf",
            "--po",
            "5433",
            "-F",
            "--",
            "standby",
            "clone",
            "node1",
        ],
    ] {
        assert_eq!(args(line), expected, "{line:?}");
    }
}

#[test]
fn every_short_form_means_what_it_means_in_repmgr() {
    let line = [
        "-b", "/b", "-f", "f", "-F", "-d", "d", "-h", "h", "-p", "1", "-U", "u", "-R", "r", "-S", "s", "-D",
        "/d", "-c", "-L", "INFO", "-q", "-t", "-v",
    ];
    let expected = Args {
        pg_bindir: Some("/b".into()),
        config_file: Some("f".into()),
        force: true,
        dbname: Some("d".to_owned()),
        host: Some("h".to_owned()),
        port: Some("1".to_owned()),
        username: Some("u".to_owned()),
        remote_user: Some("r".to_owned()),
        superuser: Some("s".to_owned()),
        pgdata: Some("/d".into()),
        fast_checkpoint: true,
        log_level: Some("INFO".to_owned()),
        quiet: true,
        terse: true,
        verbose: true,
        ..Args::default()
    };
    assert_eq!(args(&line), expected);
    assert!(args(&["-?"]).help && args(&["-V"]).version);
}

#[test]
fn the_last_of_several_counts_and_values_may_look_like_options() {
    let args = args(&["-h", "a", "-F", "-h", "-b", "-F", "-d", "--x=1", "--username="]);
    assert_eq!(args.host.as_deref(), Some("-b"));
    assert_eq!(args.dbname.as_deref(), Some("--x=1"));
    assert_eq!(args.username.as_deref(), Some(""));
}

#[test]
fn an_optional_value_needs_an_equals_sign() {
    let given = args(&["--copy-external-config-files", "standby"]);
    assert_eq!(given.copy_external_config_files.as_deref(), Some("samepath"));
    assert_eq!(given.words, ["standby"]);
    let given = args(&["--copy-external-config-files=pgdata"]);
    assert_eq!(given.copy_external_config_files.as_deref(), Some("pgdata"));
    assert!(args(&["--recovery-conf-only"]).replication_conf_only);
}

#[test]
fn options_of_other_commands_are_taken_and_told_apart() {
    let line = parse(&[
        "-k",
        "3",
        "-C",
        "x",
        "-w",
        "-W",
        "--node-id",
        "3",
        "--wait=4",
        "--csv",
        "standby",
        "clone",
        "--wait-sync",
        "host",
    ])
    .unwrap();
    let names: Vec<_> = line.foreign.iter().map(|foreign| foreign.name).collect();
    let expected = [
        "remote-config-file",
        "node-id",
        "wait",
        "no-wait",
        "csv",
        "keep-history",
        "wait-sync",
    ];
    assert_eq!(names, expected);
    assert!(line.has_foreign("wait") && !line.has_foreign("nagios"));
    assert_eq!(line.args.words, ["standby", "clone", "host"]);
}

#[test]
fn what_is_wrong_is_told_in_one_line() {
    for (line, message) in [
        (&["--bogus"][..], "unknown option \"--bogus\""),
        (
            &["--forse"],
            "unknown option \"--forse\"; did you mean \"--force\"?",
        ),
        (&["-z"], "unknown option \"-z\""),
        (
            &["--conf=x"],
            "option \"--conf\" is ambiguous; possibilities: --config-file, --config-files, --config-archive-dir",
        ),
        (&["standby", "-h"], "option \"--host\" needs a value"),
        (&["--jobs"], "option \"--jobs\" needs a value"),
        (&["--csv=3"], "option \"--csv\" takes no value"),
    ] {
        assert_eq!(parse(line).unwrap_err(), message, "{line:?}");
    }
}
