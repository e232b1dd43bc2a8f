//! Clones from Barman's catalogue.

use assert_cmd::assert::Assert;
use repmgr_tests::clone;

use crate::compare::{Scenario, compare};
use crate::trial::{Files, Trial};
use crate::{plain, spacious};

/// The groups of a run that copies.
pub(crate) const COPIED: &[&str] = &["configured", "barman", "source", "checked", "no slot", "copied"];
pub(crate) const COPIED_SLOT: &[&str] = &["configured", "barman", "source", "checked", "slot", "copied"];
/// The groups of a dry run that ends well.
pub(crate) const DRY: &[&str] = &["configured", "barman", "source", "checked", "no slot", "dry"];
const DRY_SLOT: &[&str] = &["configured", "barman", "source", "checked", "slot", "dry"];

/// A run with Barman in the plain lab.
#[track_caller]
pub(crate) fn run(
    name: &'static str,
    groups: &'static [&'static str],
    settings: &[(&str, &str)],
    what: impl Fn(&Trial<'_>) -> Assert,
) {
    let scenario = Scenario {
        name,
        groups,
        lab: plain(),
        settings,
        files: Files::Content,
    };
    compare(&scenario, what);
}

#[test]
fn a_plain_clone() {
    run("plain", COPIED, &[], |trial| trial.clone(&[]));
}

#[test]
fn a_plain_dry_run() {
    run("plain dry run", DRY, &[], |trial| trial.clone(&["--dry-run"]));
}

#[test]
fn a_slot() {
    let settings = [("use_replication_slots", "true")];
    run("slot, made", COPIED_SLOT, &settings, |trial| trial.clone(&[]));
}

/// Clones with a slot by a role that may not make one, here and on the upstream node.
#[track_caller]
fn without_rights(name: &'static str, groups: &'static [&'static str], more: &[&str]) {
    let settings = [("use_replication_slots", "true")];
    run(name, groups, &settings, |trial| {
        let upstream = format!(
            "host=127.0.0.1 port={} user=plain dbname=repmgr connect_timeout=5",
            trial.lab.primary().port()
        );
        let mut arguments = vec!["-U", "plain", "--upstream-conninfo", &upstream];
        arguments.extend(more);
        trial.clone(&arguments)
    });
}

/// The role for replication makes it.
#[test]
fn a_slot_for_a_role_without_rights() {
    without_rights("slot, plain role", COPIED_SLOT, &[]);
}

#[test]
fn a_slot_by_a_superuser() {
    without_rights("slot, superuser", COPIED_SLOT, &["-S", "postgres"]);
}

#[test]
fn a_slot_by_a_superuser_who_is_not_there() {
    let groups = &["configured", "barman", "source", "checked", "slot"];
    without_rights("slot, wrong superuser", groups, &["-S", "nosuch"]);
}

#[test]
fn a_dry_run_with_a_slot() {
    let settings = [("use_replication_slots", "true")];
    run("slot dry run", DRY_SLOT, &settings, |trial| {
        trial.clone(&["--dry-run"])
    });
}

#[test]
fn tablespaces() {
    let scenario = Scenario {
        name: "tablespaces",
        groups: COPIED,
        lab: spacious(),
        settings: &[],
        files: Files::Content,
    };
    compare(&scenario, |trial| trial.clone(&[]));
}

#[test]
fn a_wal_directory() {
    // The path is that of the node's directory, which only the trial knows.
    run("waldir", COPIED, &[], |trial| {
        let mut command = trial.clone_command(&[]);
        let wal = trial.dir().join("outside/wal");
        trial.configure(&format!("pg_basebackup_options='--waldir={}'\n", wal.display()));
        repmgr_tests::run(&mut command)
    });
}

#[test]
fn over_a_stopped_instance_that_has_a_record() {
    run("over an instance", COPIED, &[], |trial| {
        crate::register(trial.lab, &trial.target, 1);
        clone(trial.lab, &trial.target, &[]).success();
        trial.clone(&["-F"])
    });
}

/// Manifests are there with Barman too, if it kept one.
#[test]
fn verification() {
    run("verify", &["configured"], &[], |trial| {
        trial.clone(&["--verify-backup"])
    });
}

#[test]
fn options_without_effect() {
    run("no effect", DRY, &[], |trial| {
        trial.clone(&[
            "--dry-run",
            "-c",
            "-R",
            "postgres",
            "-S",
            "postgres",
            "-D",
            "/nowhere",
            "--wait-start=3",
        ])
    });
}

#[test]
fn a_server_that_barman_does_not_know() {
    let settings = [("barman_server", "nosuch")];
    run("unknown server", &["configured", "barman"], &settings, |trial| {
        trial.clone(&[])
    });
}

#[test]
fn a_barman_host_that_cannot_be_reached() {
    plain().sshd().add_host("closed", &[("Port", "1")]).unwrap();
    let settings = [("barman_host", "closed")];
    run("unknown host", &["configured", "barman"], &settings, |trial| {
        trial.clone(&[])
    });
}
