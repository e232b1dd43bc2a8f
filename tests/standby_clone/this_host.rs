//! `barman_host='local:'`: Barman is on this host, and no SSH is needed.

use std::fs;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{Instance, StopMode};
use repmgr_tests::{assert_standby, assert_takes_writes, clone, node};

use crate::shared;

#[test]
fn clones_without_a_connection_and_with_every_check() {
    let target = node(shared(), &[("barman_host", "local:")]);
    clone(shared(), &target, &[])
        .success()
        .stderr(contains("verified: sizes, data page checksums").and(contains("over the network").not()));
    let standby = assert_standby(shared(), &target);
    assert_takes_writes(shared(), &standby);
}

fn count(standby: &Instance) -> u64 {
    let rows = standby.sql("select count(*) from lab_rows").unwrap();
    rows.parse().unwrap()
}

/// A file that is shared with the backup, or taken from it, must be as good as one that travelled.
#[test]
fn a_rebuilt_standby_is_whole_and_the_backup_is_left_alone() {
    let target = node(shared(), &[("barman_host", "local:")]);
    clone(shared(), &target, &[]).success();
    let standby = assert_standby(shared(), &target);
    let relation = "select pg_relation_filepath('lab_rows')";
    let rows = count(&standby);
    let file = standby.sql(relation).unwrap();
    standby.stop(StopMode::Fast).unwrap();

    let lab = shared();
    let backup = lab
        .barman()
        .backup_dir(lab.server(), lab.backup_id().unwrap())
        .join("data");
    let stored = fs::read(backup.join(&file)).unwrap();
    let mut broken = stored.clone();
    broken[20..40].fill(0xff);
    fs::write(target.data_dir.join(&file), broken).unwrap();
    assert!(fs::read(backup.join(&file)).unwrap() == stored);

    clone(lab, &target, &["-F", "--delta"])
        .success()
        .stderr(contains("were here already"));
    let standby = assert_standby(lab, &target);
    // Others may have written more meanwhile.
    let now = count(&standby);
    assert!(now >= rows, "{now} of {rows}");
}

#[test]
fn the_restore_command_needs_no_connection_either() {
    let target = node(shared(), &[("barman_host", "local:"), ("restore_command", "")]);
    clone(shared(), &target, &[]).success();
    let standby = assert_standby(shared(), &target);
    let command = standby.sql("show restore_command").unwrap();
    assert!(command.contains("--local"), "{command}");
}
