//! The original repmgr must accept what we cloned: it will manage it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use predicates::str::contains;
use repmgr_lab::{Instance, Lab, StopMode, Target, original_repmgr};
use repmgr_tests::{assert_standby, clone, node, run};

/// One at a time: `cluster show` fails for every node that is registered and down.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn original(lab: &Lab, target: &Target, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = lab
        .scratch()
        .command(original_repmgr().expect("the package repmgr is installed"));
    run(command.arg("-f").arg(&target.conf).args(arguments))
}

/// Registers the standby of node `upstream` and asks after it in every way.
fn accepts(lab: &Lab, target: &Target, standby: &Instance, upstream: u32) {
    let upstream_option = format!("--upstream-node-id={upstream}");
    original(lab, target, &["standby", "register", &upstream_option]).success();
    let record = lab
        .primary()
        .sql(&format!(
            "select type, active, upstream_node_id, node_name from repmgr.nodes where node_id = {}",
            target.node_id
        ))
        .unwrap();
    assert_eq!(record, format!("standby|t|{upstream}|node{}", target.node_id));
    standby
        .wait_for_replay(lab.primary(), repmgr_tests::LIMIT)
        .unwrap();
    original(lab, target, &["cluster", "show"])
        .success()
        .stdout(contains(format!("node{}", target.node_id)));
    original(lab, target, &["node", "check"]).success();
    original(lab, target, &["node", "status"]).success();
}

#[test]
fn a_plain_standby_is_accepted() {
    let _alone = alone();
    let lab = Lab::builder().build().unwrap();
    let target = node(&lab, &[("restore_command", &lab.restore_command())]);
    clone(&lab, &target, &[]).success();
    let standby = assert_standby(&lab, &target);
    accepts(&lab, &target, &standby, 1);
    // A node it knows can be cloned anew and registered by force.
    standby.stop(StopMode::Fast).unwrap();
    clone(&lab, &target, &["-F"]).success();
    let standby = assert_standby(&lab, &target);
    original(&lab, &target, &["standby", "register", "--force"]).success();
    drop(standby);
}

#[test]
fn a_standby_with_tablespaces_and_a_slot_is_accepted() {
    let _alone = alone();
    let lab = Lab::builder().tablespaces(["fast"]).build().unwrap();
    let target = node(&lab, &[("use_replication_slots", "true")]);
    clone(&lab, &target, &[]).success();
    let standby = assert_standby(&lab, &target);
    accepts(&lab, &target, &standby, 1);
    let slot = format!(
        "select slot_name from repmgr.nodes where node_id = {} and slot_name in (select slot_name from \
         pg_replication_slots where active)",
        target.node_id
    );
    assert_eq!(
        lab.primary().sql(&slot).unwrap(),
        format!("repmgr_slot_{}", target.node_id)
    );
}

#[test]
fn a_standby_of_a_standby_is_accepted() {
    let _alone = alone();
    let lab = Lab::builder().build().unwrap();
    let first = node(&lab, &[]);
    clone(&lab, &first, &[]).success();
    let upstream = assert_standby(&lab, &first);
    accepts(&lab, &first, &upstream, 1);
    let target = node(&lab, &[("use_replication_slots", "true")]);
    clone(&lab, &target, &["--upstream-node-id", &first.node_id.to_string()]).success();
    let standby = assert_standby(&lab, &target);
    accepts(&lab, &target, &standby, first.node_id);
    upstream
        .wait_for_replay(lab.primary(), repmgr_tests::LIMIT)
        .unwrap();
    let streaming = format!(
        "select state, application_name from pg_stat_replication where application_name = 'node{}'",
        target.node_id
    );
    assert_eq!(
        upstream.sql(&streaming).unwrap(),
        format!("streaming|node{}", target.node_id)
    );
    original(&lab, &first, &["node", "check"]).success();
}
