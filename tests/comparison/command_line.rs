//! Options and the configuration file.

use std::fs;

use assert_cmd::assert::Assert;
use repmgr_tests::{node, run as run_command};

use crate::basebackup;
use crate::from_barman::run;
use crate::plain;
use crate::trial::{Program, Trial};

const DRY_DIRECTLY: &[&str] = &[
    "direct",
    "direct reached",
    "direct checked",
    "no slot",
    "direct dry",
];

/// Standard output is the result here.
fn printed(trial: &Trial<'_>, arguments: &[&str]) -> Assert {
    let done = run_command(trial.repmgr().args(arguments));
    let out = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    for line in out.lines() {
        trial.note(format!("printed {line}"));
    }
    done
}

#[test]
fn the_version() {
    run("version", &[], &[], |trial| printed(trial, &["--version"]));
}

#[test]
fn every_parameter() {
    run("dump", &[], &[], |trial| {
        let conf = trial.target.conf.display().to_string();
        printed(trial, &["-f", &conf, "--dump-config"])
    });
}

/// What one program takes and the other does not: parameters of the original's own tests.
/// A data directory must not depend on where the program is started.
const TAKEN_BY_ONE: &[&str] = &[
    "data_directory='-1'",
    "data_directory='0'",
    "data_directory='5x'",
    "data_directory='word'",
    "failover_delay='0'",
    "promote_delay='0'",
];

#[test]
fn every_parameter_takes_what_it_takes_in_the_original() {
    let lab = plain();
    let target = node(lab, &[]);
    let conf = fs::read_to_string(&target.conf).unwrap();
    let takes = |program, text: &str| {
        let trial = Trial::as_it_is(lab, &target, program);
        lab.scratch().write(&target.conf, text, 0o600).unwrap();
        let done = trial.configured(&["--dump-config"]);
        let output = done.get_output();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (_, dump) = takes(Program::Original, &conf);
    let names: Vec<&str> = dump
        .lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(name, _)| name)
        .collect();
    assert!(names.len() > 70, "{dump}");
    let mut seen = Vec::new();
    for name in names {
        let others: String = conf
            .lines()
            .filter(|line| !line.starts_with(&format!("{name}=")))
            .map(|line| format!("{line}\n"))
            .collect();
        for value in ["0", "-1", "5x", "word"] {
            let text = format!("{others}{name}='{value}'\n");
            if takes(Program::Original, &text).0 != takes(Program::Ours, &text).0 {
                seen.push(format!("{name}='{value}'"));
            }
        }
    }
    seen.sort();
    assert_eq!(seen, TAKEN_BY_ONE);
}

#[test]
fn every_parameter_with_a_command() {
    run("dump with a command", &[], &[], |trial| {
        let conf = trial.target.conf.display().to_string();
        printed(trial, &["-f", &conf, "--dump-config", "standby", "clone"])
    });
}

#[test]
fn no_command() {
    run("no command", &[], &[], |trial| printed(trial, &[]));
}

#[test]
fn no_action() {
    run("no action", &[], &[], |trial| printed(trial, &["standby"]));
}

#[test]
fn too_many_words() {
    run("words", &[], &[], |trial| {
        printed(trial, &["standby", "clone", "a", "b"])
    });
}

#[test]
fn a_host_twice() {
    run("host twice", &[], &[], |trial| {
        printed(trial, &["standby", "clone", "-h", "a", "b"])
    });
}

#[test]
fn wrong_values() {
    run("wrong values", &[], &[], |trial| {
        trial.configured(&[
            "standby",
            "clone",
            "-L",
            "loud",
            "-p",
            "many",
            "--upstream-node-id=0",
            "--copy-external-config-files=elsewhere",
            "--recovery-min-apply-delay=soon",
            "-d",
            "colour=blue",
        ])
    });
}

#[test]
fn an_unknown_option() {
    run("unknown option", &[], &[], |trial| {
        trial.configured(&["standby", "clone", "--no-such-option"])
    });
}

#[test]
fn options_of_other_commands() {
    run("foreign options", basebackup::DRY, &[], |trial| {
        trial.clone(&[
            "--dry-run",
            "-c",
            "--without-barman",
            "--node-id=7",
            "--node-name=x",
            "--event=y",
            "--all",
            "--siblings-follow",
            "--compact",
            "--check-upstream-config",
        ])
    });
}

#[test]
fn quiet() {
    run("quiet", &["silent"], &[], |trial| {
        trial.clone(&["--dry-run", "-q"])
    });
}

#[test]
fn terse() {
    run("terse", &["terse"], &[("no_such_parameter", "1")], |trial| {
        trial.clone(&["--dry-run", "-t"])
    });
}

#[test]
fn a_file_that_is_not_there() {
    run("no file", &[], &[], |trial| {
        printed(trial, &["-f", "nowhere.conf", "standby", "clone"])
    });
}

#[test]
fn errors_in_the_file() {
    let settings = [
        ("node_id", "0"),
        ("use_replication_slots", "perhaps"),
        ("recovery_min_apply_delay", "5 min"),
        ("conninfo", "host=x colour=blue"),
    ];
    run("wrong file", &[], &settings, |trial| trial.clone(&[]));
}

#[test]
fn a_syntax_error_in_the_file() {
    run("syntax error", &[], &[], |trial| {
        trial.configure("pg_bindir=/usr/bin\n");
        trial.clone(&["--dry-run"])
    });
}

#[test]
fn half_of_barmans_address() {
    run("half an address", &[], &[("barman_server", "")], |trial| {
        trial.clone(&[])
    });
}

#[test]
fn warnings_about_the_file() {
    let settings = [
        ("no_such_parameter", "1"),
        ("loglevel", "INFO"),
        ("config_directory", "/etc/postgresql"),
    ];
    run("warnings", basebackup::DRY, &settings, |trial| {
        trial.clone(&["--dry-run", "-c", "--without-barman"])
    });
}

#[test]
fn an_included_file_that_may_be_missing() {
    run("include_if_exists", &[], &[], |trial| {
        trial.configure("include_if_exists 'no-such-file.conf'\n");
        trial.clone(&["--dry-run"])
    });
}

#[test]
fn another_application_name() {
    let settings = [("conninfo", "host=127.0.0.1 dbname=repmgr application_name=other")];
    run("application name", basebackup::DRY, &settings, |trial| {
        trial.clone(&["--dry-run", "-c", "--without-barman"])
    });
}

#[test]
fn no_configuration_file() {
    run("no configuration file", DRY_DIRECTLY, &[], |trial| {
        let (data, port) = (
            trial.target.data_dir.display().to_string(),
            trial.lab.primary().port().to_string(),
        );
        printed(
            trial,
            &[
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "repmgr",
                "-d",
                "repmgr",
                "-D",
                &data,
                "standby",
                "clone",
                "--dry-run",
            ],
        )
    });
}

#[test]
fn neither_file_nor_directory() {
    run("no directory", &[], &[], |trial| {
        printed(trial, &["-h", "127.0.0.1", "standby", "clone", "--dry-run"])
    });
}
