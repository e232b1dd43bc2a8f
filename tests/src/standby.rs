//! Proves that what was cloned is a standby: not by an exit status, but by what it does.

use std::sync::atomic::{AtomicU32, Ordering};

use repmgr_lab::{Instance, Lab, StopMode, Target, check, run};

use crate::LIMIT;

/// A started standby, stopped when dropped.
pub type Standby = Instance;

/// Starts it; it must be in recovery, stream, and hold what the primary holds, a new row included.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn assert_standby(lab: &Lab, target: &Target) -> Standby {
    let standby = match lab.start_standby(target) {
        Ok(standby) => standby,
        Err(error) => panic!("{error:#}\n{}", lab.instance(target).log_tail()),
    };
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let note = format!(
        "for node {}, row {}",
        target.node_id,
        CALLS.fetch_add(1, Ordering::Relaxed)
    );
    let primary = lab.primary();
    primary
        .sql(&format!("insert into lab_rows (note) values ('{note}')"))
        .unwrap();
    let arrived = format!("select count(*) from lab_rows where note = '{note}'");
    standby.wait_for(&arrived, "1", LIMIT).unwrap();
    // Other tests write to a shared primary at the same time, so that the two can differ for a moment.
    let equal = (0..20).any(|_| {
        let there = primary.fingerprint().unwrap();
        standby.wait_for_replay(primary, LIMIT).unwrap();
        let here = standby.fingerprint().unwrap();
        here == there && primary.fingerprint().unwrap() == there
    });
    assert!(
        equal,
        "not the same data.\nprimary:\n{}\nstandby:\n{}",
        primary.fingerprint().unwrap(),
        standby.fingerprint().unwrap()
    );
    assert!(standby.is_in_recovery().unwrap());
    standby
}

/// Promotes it and writes in every tablespace; where the cluster has page checksums, all must be right.
///
/// # Panics
/// If anything of it fails.
#[track_caller]
pub fn assert_takes_writes(lab: &Lab, standby: &Standby) {
    // Its new timeline must not get into the archive that other standbys recover from.
    standby.sql("alter system set archive_command = 'true'").unwrap();
    standby.sql("select pg_reload_conf()").unwrap();
    standby.wait_for("show archive_command", "true", LIMIT).unwrap();
    standby.promote().unwrap();
    standby
        .wait_for("select pg_is_in_recovery()", "f", LIMIT)
        .unwrap();
    let names = standby
        .sql("select spcname from pg_tablespace where spcname <> 'pg_global' order by spcname")
        .unwrap();
    for (n, name) in names.lines().enumerate() {
        let name = name.replace('"', "\"\"");
        standby
            .sql(&format!(
                "create table after_promotion_{n} tablespace \"{name}\" as select generate_series(1, 1000) as id"
            ))
            .unwrap();
        let rows = standby
            .sql(&format!("select count(*) from after_promotion_{n}"))
            .unwrap();
        assert_eq!(rows, "1000", "{name}");
    }
    standby.sql("checkpoint").unwrap();
    let checksums = standby.sql("show data_checksums").unwrap() == "on";
    standby.stop(StopMode::Fast).unwrap();
    let program = standby.install().bin_dir().join("pg_checksums");
    if checksums && program.exists() {
        check(
            lab.scratch()
                .command(program)
                .arg("--check")
                .arg("-D")
                .arg(standby.data_dir()),
            LIMIT,
        )
        .unwrap();
    }
}

/// An unfinished clone: PostgreSQL must refuse to start on it.
///
/// # Panics
/// If it starts.
#[track_caller]
pub fn assert_cannot_start(lab: &Lab, target: &Target) {
    assert!(
        !target.data_dir.join("global/pg_control").exists(),
        "an unfinished clone has a control file"
    );
    if !target.data_dir.exists() {
        return;
    }
    let postgres = lab.primary().install().bin_dir().join("postgres");
    let socket_dir = lab.scratch().join("run");
    let mut start = lab.scratch().command(postgres);
    start
        .arg("-D")
        .arg(&target.data_dir)
        .args(["-p", &target.port.to_string()])
        .arg("-k")
        .arg(socket_dir);
    let ended = run(&mut start, LIMIT).expect("postgres runs on an unfinished clone");
    assert!(!ended.status.success());
}
