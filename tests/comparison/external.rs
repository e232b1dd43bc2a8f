//! Configuration files outside the data directory.

use assert_cmd::assert::Assert;

use crate::compare::{Scenario, compare};
use crate::debian;
use crate::from_barman::COPIED;
use crate::trial::{Files, Trial};

const COPIED_DIRECTLY: &[&str] = &[
    "configured",
    "direct",
    "direct reached",
    "direct checked",
    "no slot",
    "direct copied",
];

#[track_caller]
fn direct(name: &'static str, groups: &'static [&'static str], what: impl Fn(&Trial<'_>) -> Assert) {
    let scenario = Scenario {
        name,
        groups,
        lab: debian(),
        settings: &[("barman_host", ""), ("barman_server", ""), ("barman_config", "")],
        files: Files::Names,
    };
    compare(&scenario, |trial| {
        let before = stamps();
        let done = what(trial);
        trial.note(format!(
            "the source's own files {}",
            if stamps() == before { "stay" } else { "change" }
        ));
        done
    });
}

/// Names and content of the primary's files, which are the targets of `samepath` too: both nodes are on
/// one host.
fn stamps() -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(debian().primary().conf_dir()).unwrap();
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    found.sort();
    found
}

#[test]
fn to_the_same_place() {
    direct("external", COPIED_DIRECTLY, |trial| {
        trial.clone(&["-c", "--copy-external-config-files"])
    });
}

#[test]
fn into_the_data_directory() {
    direct(
        "external pgdata",
        &[
            "configured",
            "direct",
            "direct reached",
            "direct checked",
            "no slot",
        ],
        |trial| trial.clone(&["-c", "--copy-external-config-files=pgdata"]),
    );
}

#[test]
fn in_a_dry_run() {
    direct(
        "external dry run",
        &[
            "configured",
            "direct",
            "direct reached",
            "direct checked",
            "no slot",
            "direct dry",
        ],
        |trial| trial.clone(&["-c", "--dry-run", "--copy-external-config-files=pgdata"]),
    );
}

#[test]
fn without_being_asked() {
    direct("external left", COPIED_DIRECTLY, |trial| trial.clone(&["-c"]));
}

#[test]
fn a_user_who_cannot_log_in() {
    direct(
        "external stranger",
        &["configured", "direct", "direct reached"],
        |trial| trial.clone(&["-c", "-R", "nobody", "--copy-external-config-files=pgdata"]),
    );
}

#[test]
fn with_barman() {
    let scenario = Scenario {
        name: "external with barman",
        groups: COPIED,
        lab: debian(),
        settings: &[],
        files: Files::Content,
    };
    compare(&scenario, |trial| {
        trial.clone(&["--copy-external-config-files=pgdata"])
    });
}

#[test]
fn with_barman_without_being_asked() {
    let scenario = Scenario {
        name: "external left by barman",
        groups: COPIED,
        lab: debian(),
        settings: &[],
        files: Files::Content,
    };
    compare(&scenario, |trial| trial.clone(&[]));
}
