//! What can be wrong with the node that the standby is to follow.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use predicates::str::contains;
use repmgr_lab::{Lab, Primary, PrimaryOptions, StopMode};
use repmgr_tests::{Snapshot, assert_standby, clone, node, output, run};

use crate::shared;

/// `repmgr.h` calls it ERR_DB_CONN.
const CONNECTION: i32 = 6;

/// A lab whose primary a test may stop; the next test finds it running.
fn mortal() -> MutexGuard<'static, Lab> {
    static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();
    let lab = LAB.get_or_init(|| Mutex::new(Lab::builder().build().unwrap()));
    let lab = lab.lock().unwrap_or_else(PoisonError::into_inner);
    if !lab.primary().is_running().unwrap() {
        lab.primary().start().unwrap();
    }
    lab
}

/// (Defects 7 and 29) Without the primary nothing is erased, with -F or without.
#[test]
fn a_stopped_primary_is_named_and_nothing_is_touched() {
    let lab = mortal();
    let target = node(&lab, &[]);
    clone(&lab, &target, &[]).success();
    assert_standby(&lab, &target).stop(StopMode::Fast).unwrap();
    lab.primary().stop(StopMode::Fast).unwrap();
    let before = Snapshot::inside(&target.data_dir);
    for more in [&["-F"][..], &["-F", "--dry-run"]] {
        clone(&lab, &target, more)
            .code(CONNECTION)
            .stderr(contains(lab.primary().port().to_string()))
            .stderr(contains("refused"));
        before.assert_unchanged();
    }
}

/// Several of Barman's own commands hang with such a primary.
#[test]
fn a_primary_that_accepts_and_never_answers_does_not_hold_us() {
    let lab = mortal();
    lab.primary().stop(StopMode::Fast).unwrap();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, lab.primary().port())).unwrap();
    let target = node(&lab, &[]);
    // `run` ends what takes three minutes; repmgr's connect_timeout is two seconds.
    clone(&lab, &target, &[])
        .code(CONNECTION)
        .stderr(contains("ERROR: "));
    assert!(!target.data_dir.exists());
    drop(silent);
}

#[test]
fn the_primary_of_another_cluster_is_refused() {
    let lab = shared();
    let other = Primary::create(
        lab.scratch(),
        lab.primary().install(),
        "other",
        &PrimaryOptions::default(),
    )
    .unwrap();
    let conninfo = format!(
        "host=127.0.0.1 port={} user=repmgr dbname=repmgr connect_timeout=5",
        other.port()
    );
    other
        .register(1, "node1", &conninfo, &lab.scratch().join("none.conf"))
        .unwrap();
    let target = node(lab, &[]);
    let port = other.port().to_string();
    for more in [&["-p", &port][..], &["-p", &port, "--dry-run"]] {
        let refused = clone(lab, &target, more).code(1);
        let id = |node: &Primary| {
            node.sql("select system_identifier from pg_control_system()")
                .unwrap()
        };
        for part in ["another cluster", &id(lab.primary()), &id(&other)] {
            assert!(output(&refused).contains(part), "no {part}: {}", output(&refused));
        }
        assert!(!target.data_dir.exists());
    }
}

#[test]
fn a_database_without_repmgr_metadata_is_refused() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &["-d", "postgres"])
        .code(1)
        .stderr(contains("repmgr"));
    assert!(!target.data_dir.exists());
}

#[test]
fn an_unknown_upstream_node_is_named() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &["--upstream-node-id", "4711"])
        .code(1)
        .stderr(contains("4711"));
    assert!(!target.data_dir.exists());
}

#[test]
fn a_name_that_another_node_has_is_refused() {
    let lab = shared();
    let target = node(lab, &[("node_name", "node1")]);
    clone(lab, &target, &[]).code(1).stderr(contains("node1"));
    assert!(!target.data_dir.exists());
}

#[test]
fn a_database_that_is_not_there_is_a_connection_failure() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &["-d", "nosuchdb"])
        .code(CONNECTION)
        .stderr(contains("nosuchdb"));
}

/// With Barman no parameter is needed: the connection's defaults do, as libpq has them.
#[test]
fn the_connection_may_come_from_the_environment() {
    let lab = shared();
    let target = node(lab, &[]);
    let mut command = lab.repmgr().unwrap();
    command
        .arg("-f")
        .arg(&target.conf)
        .args(["standby", "clone", "--dry-run"])
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", lab.primary().port().to_string())
        .env("PGUSER", "repmgr")
        .env("PGDATABASE", "repmgr");
    run(&mut command).success();
}
