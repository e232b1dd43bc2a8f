//! Clones with `pg_basebackup`.

use assert_cmd::assert::Assert;
use repmgr_lab::Lab;
use repmgr_tests::clone;

use crate::compare::{Scenario, compare};
use crate::directory::with_notes;
use crate::trial::{Files, Trial};
use crate::{plain, spacious, standby};

const COPIED: &[&str] = &[
    "configured",
    "direct",
    "direct reached",
    "direct checked",
    "no slot",
    "direct copied",
];
const COPIED_SLOT: &[&str] = &[
    "configured",
    "direct",
    "direct reached",
    "direct checked",
    "direct copied",
];
/// The groups of a dry run that ends well.
pub(crate) const DRY: &[&str] = &[
    "configured",
    "direct dry, configured",
    "direct",
    "direct reached",
    "direct checked",
    "no slot",
    "direct dry",
];
const DRY_SLOT: &[&str] = &[
    "configured",
    "direct dry, configured",
    "direct",
    "direct reached",
    "direct checked",
    "direct dry",
];
const REFUSED: &[&str] = &["configured", "direct", "direct reached"];
const UNREACHED: &[&str] = &["configured", "direct"];

#[track_caller]
fn run_in(
    lab: &'static Lab,
    name: &'static str,
    groups: &'static [&'static str],
    settings: &[(&str, &str)],
    what: impl Fn(&Trial<'_>) -> Assert,
) {
    let mut all = vec![("barman_host", ""), ("barman_server", ""), ("barman_config", "")];
    all.extend_from_slice(settings);
    let scenario = Scenario {
        name,
        groups,
        lab,
        settings: &all,
        files: Files::Names,
    };
    compare(&scenario, what);
}

#[track_caller]
fn run(
    name: &'static str,
    groups: &'static [&'static str],
    settings: &[(&str, &str)],
    what: impl Fn(&Trial<'_>) -> Assert,
) {
    run_in(plain(), name, groups, settings, what);
}

#[test]
fn a_direct_clone() {
    run("direct", COPIED, &[], |trial| trial.clone(&["-c"]));
}

#[test]
fn although_barman_is_configured() {
    let scenario = Scenario {
        name: "without barman",
        groups: COPIED,
        lab: plain(),
        settings: &[],
        files: Files::Names,
    };
    compare(&scenario, |trial| trial.clone(&["-c", "--without-barman"]));
}

#[test]
fn a_direct_dry_run_with_a_fast_checkpoint() {
    run("direct dry run, fast", DRY, &[], |trial| {
        trial.clone(&["-c", "--dry-run"])
    });
}

#[test]
fn tablespaces() {
    run_in(spacious(), "direct tablespaces", COPIED, &[], |trial| {
        trial.clone(&["-c"])
    });
}

#[test]
fn a_slot() {
    let settings = [("use_replication_slots", "true")];
    run("direct slot", COPIED_SLOT, &settings, |trial| {
        trial.clone(&["-c"])
    });
}

#[test]
fn a_dry_run_with_a_slot() {
    let settings = [("use_replication_slots", "true")];
    run("direct slot dry run", DRY_SLOT, &settings, |trial| {
        trial.clone(&["-c", "--dry-run"])
    });
}

#[test]
fn wal_is_fetched_at_the_end() {
    let settings = [("pg_basebackup_options", "-X fetch --label=mine")];
    run("direct options", COPIED, &settings, |trial| trial.clone(&["-c"]));
}

#[test]
fn a_wal_directory() {
    run("direct waldir", COPIED, &[], |trial| {
        let wal = trial.dir().join("outside/wal");
        trial.configure(&format!("pg_basebackup_options='--waldir={}'\n", wal.display()));
        trial.clone(&["-c"])
    });
}

#[test]
fn verification() {
    run("direct verify", COPIED, &[], |trial| {
        trial.clone(&["-c", "--verify-backup"])
    });
}

#[test]
fn over_other_files_by_force() {
    run("direct forced", UNREACHED, &[], |trial| {
        with_notes(trial, 0o700);
        trial.clone(&["-c", "-F"])
    });
}

#[test]
fn over_a_stopped_instance() {
    run("direct over an instance", COPIED, &[], |trial| {
        clone(trial.lab, &trial.target, &["-c"]).success();
        trial.clone(&["-c", "-F"])
    });
}

#[test]
fn other_files() {
    run("direct not empty", UNREACHED, &[], |trial| {
        let notes = trial.target.data_dir.join("notes.txt");
        trial.lab.scratch().write(notes, "mine", 0o600).unwrap();
        trial.clone(&["-c"])
    });
}

#[test]
fn a_role_for_replication() {
    run("direct replication user", COPIED, &[], |trial| {
        trial.clone(&["-c", "--replication-user", "replicator"])
    });
}

#[test]
fn a_role_for_replication_that_may_not() {
    run("direct unfit user", REFUSED, &[], |trial| {
        trial.clone(&["-c", "--replication-user", "plain"])
    });
}

#[test]
fn a_standby_is_copied() {
    let (target, instance) = standby();
    let (id, port) = (target.node_id.to_string(), instance.port().to_string());
    run("direct cascade", COPIED, &[], |trial| {
        trial.clone(&["-c", "-p", &port, "--upstream-node-id", &id])
    });
}

#[test]
fn a_mapping_of_a_tablespace_that_is_not_there() {
    let settings = [("tablespace_mapping", "/no/such/place=/other")];
    run("direct wrong mapping", REFUSED, &settings, |trial| {
        trial.clone(&["-c"])
    });
}

#[test]
fn no_host() {
    run("direct without host", &["configured"], &[], |trial| {
        trial.configured(&["-U", "repmgr", "-d", "repmgr", "standby", "clone"])
    });
}

#[test]
fn no_parameters() {
    run("direct without parameters", &["configured"], &[], |trial| {
        trial.configured(&["standby", "clone"])
    });
}

#[test]
fn nobody_listens() {
    run("direct unreachable", UNREACHED, &[], |trial| {
        trial.clone(&["-p", "1"])
    });
}

#[test]
fn no_database() {
    run("direct no database", UNREACHED, &[], |trial| {
        trial.clone(&["-d", "nosuchdb"])
    });
}

#[test]
fn no_extension() {
    run("direct no extension", REFUSED, &[], |trial| {
        trial.clone(&["-c", "-d", "postgres"])
    });
}

#[test]
fn an_unknown_upstream_node() {
    run("direct unknown upstream node", REFUSED, &[], |trial| {
        trial.clone(&["-c", "--upstream-node-id", "4711"])
    });
}

#[test]
fn no_upstream_connection_without_barman() {
    run("direct no connection", &["configured"], &[], |trial| {
        trial.clone(&["-c", "--dry-run", "--no-upstream-connection"])
    });
}
