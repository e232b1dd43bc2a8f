//! `repmgr.conf`: both grammars, and errors that name the place.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{Lab, Target};
use repmgr_tests::{assert_standby, clone, node, output};

use crate::shared;

fn rewrite(lab: &Lab, target: &Target, edit: impl Fn(String) -> String) {
    let text = fs::read_to_string(&target.conf).unwrap();
    lab.scratch().write(&target.conf, &edit(text), 0o600).unwrap();
}

/// The number of the line that begins with `start`.
fn line_of(path: &Path, start: &str) -> usize {
    let text = fs::read_to_string(path).unwrap();
    1 + text.lines().position(|line| line.starts_with(start)).unwrap()
}

/// As in repmgr 4 and in the customer's example: values with blanks and without quotes.
#[test]
fn the_grammar_of_repmgr_4_still_works() {
    let lab = shared();
    let target = node(lab, &[]);
    rewrite(lab, &target, |text| {
        let unquoted = |line: &str| {
            line.replace("='", " = ")
                .trim_end_matches('\'')
                .replace("''", "'")
        };
        text.lines()
            .map(|line| match line.contains("strange") {
                // The old grammar has no way to write a quote; this path holds none.
                true => format!("{line}\n"),
                false => unquoted(line) + "\n",
            })
            .collect()
    });
    let text = fs::read_to_string(&target.conf).unwrap();
    assert!(text.contains("restore_command = cp "), "{text}");
    clone(lab, &target, &[]).success();
    drop(assert_standby(lab, &target));
}

#[test]
fn an_error_names_file_line_and_parameter() {
    let lab = shared();
    for (parameter, value) in [
        ("node_id", "zero"),
        ("use_replication_slots", "perhaps"),
        ("recovery_min_apply_delay", "-5"),
        ("tablespace_mapping", "nowhere"),
        ("conninfo", "host=x colour=blue"),
    ] {
        let target = node(lab, &[(parameter, value)]);
        let refused = clone(lab, &target, &[]).code(1);
        let line = format!("line {}", line_of(&target.conf, parameter));
        for part in [target.conf.to_str().unwrap(), &line, parameter] {
            assert!(output(&refused).contains(part), "no {part}: {}", output(&refused));
        }
        assert!(!target.data_dir.exists());
    }
}

#[test]
fn what_is_missing_is_named() {
    let lab = shared();
    for parameter in ["node_id", "node_name", "conninfo", "data_directory"] {
        let target = node(lab, &[]);
        rewrite(lab, &target, |text| {
            let kept = text
                .lines()
                .filter(|line| !line.starts_with(&format!("{parameter}=")));
            kept.map(|line| format!("{line}\n")).collect()
        });
        clone(lab, &target, &[]).code(1).stderr(contains(parameter));
    }
}

/// Misspelt, a setting does nothing: whoever wrote it must hear of that.
#[test]
fn an_unknown_parameter_is_a_warning_with_its_place() {
    let lab = shared();
    let target = node(lab, &[("restore_comand", "cp a b")]);
    let line = format!("line {}", line_of(&target.conf, "restore_comand"));
    clone(lab, &target, &["--dry-run"]).success().stderr(
        contains("WARNING: ")
            .and(contains("restore_comand"))
            .and(contains(line)),
    );
}

/// (Defect 31) The original's `include_if_exists` aborts when the file does not exist.
#[test]
fn includes_are_read_and_may_be_missing() {
    let lab = shared();
    let target = node(lab, &[("barman_server", "")]);
    let included = lab
        .scratch()
        .write(
            format!("included-{}.conf", target.node_id),
            "barman_server = 'nosuch'\n",
            0o600,
        )
        .unwrap();
    rewrite(lab, &target, |text| {
        format!(
            "{text}include_if_exists 'no-such-file.conf'\ninclude '{}'\n",
            included.file_name().unwrap().to_str().unwrap()
        )
    });
    clone(lab, &target, &[]).code(19).stderr(contains("nosuch"));
}

#[test]
fn a_missing_file_is_named() {
    let lab = shared();
    let target = node(lab, &[]);
    fs::remove_file(&target.conf).unwrap();
    clone(lab, &target, &[])
        .code(1)
        .stderr(contains(target.conf.to_str().unwrap()));
}

/// One of the two alone is a mistake, and must not silently become a clone by other means.
#[test]
fn half_of_barmans_address_is_an_error() {
    let lab = shared();
    for missing in ["barman_host", "barman_server"] {
        let target = node(lab, &[(missing, "")]);
        clone(lab, &target, &[]).code(1).stderr(contains(missing));
    }
}
