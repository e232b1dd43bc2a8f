//! The command line.

use std::process::{Command, Stdio};

use crate::program::{Bench, is_root, program};

const TRY: &str = "Try \"repmgr --help\" for more information.\n";
const TRY_STANDBY: &str = "Try \"repmgr --help\" or \"repmgr standby --help\" for more information.\n";

fn usage(errors: &[&str], end: &str) -> String {
    let list: String = errors.iter().map(|error| format!("  {error}\n")).collect();
    format!("The following command line errors were encountered:\n{list}{end}")
}

#[test]
fn the_version_is_printed_as_tools_parse_it() {
    let version = env!("CARGO_PKG_VERSION");
    for option in ["-V", "--version"] {
        let expected = format!("repmgr {version}\n");
        Bench::new().run(&[option]).success().stdout(expected).stderr("");
    }
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    let number = format!("{}\n", parts[0] * 10_000 + parts[1] * 100 + parts[2]);
    Bench::new()
        .run(&["--version-number"])
        .success()
        .stdout(number)
        .stderr("");
}

#[test]
fn help_goes_to_standard_output_with_and_without_a_command() {
    for line in [&["--help"][..], &["-?"], &["standby", "clone", "--help"]] {
        let assert = Bench::new().run(line).success().stderr("");
        let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        for part in [
            "repmgr [OPTIONS] standby clone [HOST]",
            "--upstream-node-id",
            "--backup-id",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}

#[test]
fn a_reader_that_does_not_want_the_help_is_no_error() {
    let mut child = Command::new(program())
        .arg("--help")
        .env("REPMGR_ORIGINAL", "none")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn root_gets_help_and_version_and_nothing_else() {
    if !is_root() {
        // Only root can be refused for being root; .ci/run and the lab run as root.
        return;
    }
    for option in ["--help", "--version", "--version-number"] {
        let mut command = Command::new(program());
        let output = command
            .arg(option)
            .env("REPMGR_ORIGINAL", "none")
            .output()
            .unwrap();
        assert!(output.status.success(), "{option}");
    }
    for line in [&["standby", "clone"][..], &["--dump-config"], &[]] {
        let mut command = Command::new(program());
        let output = command
            .args(line)
            .env("REPMGR_ORIGINAL", "none")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{line:?}");
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            "ERROR: repmgr cannot be run as root\nHINT: run it as the user that owns the data directory and runs \
             PostgreSQL, for example with \"sudo -u postgres\"\n"
        );
    }
}

#[test]
fn wrong_words_are_told_as_repmgr_tells_them() {
    for (line, error, end) in [
        (&[][..], "no repmgr command provided", TRY),
        (
            &["standby"],
            "no action provided for command 'standby'",
            TRY_STANDBY,
        ),
        (
            &["clone"],
            "unknown repmgr command 'clone'; did you mean \"standby clone\"?",
            TRY,
        ),
        (
            &["clone", "standby"],
            "unknown repmgr action 'clone standby'; did you mean \"standby clone\"?",
            TRY,
        ),
        (
            &["standby", "foo"],
            "unknown repmgr action 'standby foo'",
            TRY_STANDBY,
        ),
        (
            &["standby", "clone", "h1", "h2"],
            "too many command-line arguments (first extra is \"h2\")",
            TRY_STANDBY,
        ),
        (
            &["--dump-config", "standby", "clone"],
            "--dump-config cannot be used in combination with a repmgr command",
            TRY_STANDBY,
        ),
    ] {
        assert_eq!(Bench::new().refused(line), usage(&[error], end), "{line:?}");
    }
}

#[test]
fn wrong_options_end_with_1_not_with_2() {
    for (line, error) in [
        (&["standby", "clone", "--bogus"][..], "unknown option \"--bogus\""),
        (&["standby", "clone", "-h"], "option \"--host\" needs a value"),
    ] {
        assert_eq!(Bench::new().refused(line), usage(&[error], TRY), "{line:?}");
    }
    let line = ["standby", "clone", "-p", "0", "-L", "loud", "--jobs=x"];
    let errors = [
        "\"-p/--port\": must be 1 or greater (provided: \"0\")",
        "invalid log level \"loud\" provided",
        "\"--jobs\": invalid value (provided: \"x\")",
    ];
    assert_eq!(Bench::new().refused(&line), usage(&errors, TRY));
}

#[test]
fn without_barman_repmgr_wants_to_know_the_source() {
    let host = "host name for the source node must be provided with -h/--host when executing STANDBY CLONE";
    let parameters =
        "database connection parameters for the source node must be provided when executing STANDBY CLONE";
    let errors = usage(&[host, parameters], TRY_STANDBY);
    assert_eq!(Bench::new().refused(&["standby", "clone"]), errors);
    let only_parameters = usage(&[parameters], TRY_STANDBY);
    assert_eq!(
        Bench::new().refused(&["standby", "clone", "node1"]),
        only_parameters
    );
    let bench = Bench::new();
    let said = bench.refused(&["standby", "clone", "-h", "node1"]);
    let here = bench.path("repmgr.conf");
    let looked = format!(
        "ERROR: no data directory provided\nDETAIL: there is no configuration file \"{}\", \"/etc/repmgr.conf\", ",
        here.display()
    );
    assert!(said.starts_with(&looked), "{said}");
    let hint = "named with -f/--config-file\nHINT: use -D/--pgdata to explicitly specify a data directory\n";
    assert!(said.ends_with(hint), "{said}");
}

#[test]
fn a_host_given_twice_is_an_error() {
    let bench = Bench::ordinary("");
    let error = "host name provided both with -h/--host and as an extra parameter";
    let said = bench.refused(&["-h", "a", "standby", "clone", "b", "-L", "ERROR"]);
    assert_eq!(said, usage(&[error], TRY_STANDBY));
}

#[test]
fn options_without_effect_are_warned_of_and_the_clone_goes_on() {
    let bench = Bench::ordinary("restore_command='fetch %f %p'\n");
    let line = [
        "-L",
        "warning",
        "-D",
        "/x",
        "-c",
        "--wait=3",
        "--siblings-follow",
        "--csv",
        "standby",
        "clone",
    ];
    let assert = bench.run(&line).code(19).stdout("");
    let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    let expected = "WARNING: following problems with command line parameters detected:\n  \
                    -D/--pgdata will be ignored if a repmgr configuration file is provided\n  \
                    -c/--fast-checkpoint has no effect in Barman mode\n  \
                    --wait will be ignored when executing STANDBY CLONE\n  \
                    --siblings-follow is not effective when executing STANDBY CLONE\nERROR: ";
    assert!(said.starts_with(expected), "{said}");
    let terse = [&["-t"], &line[..]].concat();
    let assert = bench.run(&terse).code(19);
    let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(said.starts_with("ERROR: ") && said.lines().count() == 1, "{said}");
}
