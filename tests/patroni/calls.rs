//! As Patroni calls it, without Patroni: what a cluster would need much time to show.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use repmgr_lab::{BackupMethod, Lab, PrimaryOptions, check, program_under_test, tool};
use repmgr_tests::{LIMIT, Relay, Snapshot, output, run};

/// `repmgr-patroni replica` into this directory, with the lab's primary as leader.
fn replica(lab: &Lab, host: &str, data_dir: &Path, more: &[&str]) -> Command {
    let program = program_under_test().unwrap().with_file_name("repmgr-patroni");
    // The lab's account cannot reach what cargo built.
    let copy = lab.scratch().join("bin/repmgr-patroni");
    if !copy.exists() {
        check(tool("cp").arg(&program).arg(&copy), LIMIT).unwrap();
    }
    let connection = format!(
        "user=repmgr dbname=repmgr host=127.0.0.1 port={}",
        lab.primary().port()
    );
    let mut command = lab.scratch().command(copy);
    command
        .args(["replica", "--scope=lab", "--role=replica"])
        .arg(format!("--connstring={connection}"))
        .arg(format!("--datadir={}", data_dir.display()))
        .arg(format!("--barman_host={host}"))
        .arg(format!("--barman_server={}", lab.server()))
        .arg(format!(
            "--barman_config={}",
            lab.barman().config_file().display()
        ))
        .arg(format!("--restore_command={}", lab.quick_restore_command()))
        .args(more);
    command
}

fn place(lab: &Lab, name: &str) -> PathBuf {
    lab.scratch().dir(name).unwrap().join("data")
}

#[test]
fn it_ends_soon_after_sigterm_or_its_time_and_leaves_nothing_that_starts() {
    let options = PrimaryOptions {
        rows: 20_000,
        ..PrimaryOptions::default()
    };
    let lab = Lab::builder().primary(options).build().unwrap();
    Relay::start(lab.sshd(), "slowsrv", 100 << 10).unwrap();
    let data_dir = place(&lab, "terminated");
    let mut child = replica(&lab, "slowsrv", &data_dir, &["--compress=none"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !data_dir.join("base").exists() {
        assert!(begun.elapsed() < LIMIT && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = child.id().to_string();
    check(tool("kill").args(["-s", "TERM", &pid]), LIMIT).unwrap();
    let sent = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(sent.elapsed() < Duration::from_secs(8), "{:?}", sent.elapsed());
    assert!(!data_dir.join("global/pg_control").exists());

    let data_dir = place(&lab, "late");
    let late = run(&mut replica(
        &lab,
        "slowsrv",
        &data_dir,
        &["--compress=none", "--time_limit=8"],
    ));
    let said = output(&late.code(1));
    assert!(said.contains("it is not done after 8 s"), "{said}");
    assert!(!data_dir.join("global/pg_control").exists());

    // A host that stays away is given up, and in the meantime tried again.
    lab.sshd().stop().unwrap();
    let data_dir = place(&lab, "away");
    let away = run(&mut replica(&lab, "barmansrv", &data_dir, &["--retry_for=5"]));
    let said = output(&away.code(1));
    assert!(said.contains("trying again in 2 s"), "{said}");
}

#[test]
fn only_an_instance_of_this_cluster_is_replaced() {
    let lab = Lab::builder().build().unwrap();
    let data_dir = place(&lab, "other");
    let initdb = lab.primary().install().program("initdb").unwrap();
    check(
        lab.scratch().command(initdb).arg("-N").arg("-D").arg(&data_dir),
        LIMIT,
    )
    .unwrap();
    let before = Snapshot::inside(&data_dir);
    let refused = run(&mut replica(&lab, "barmansrv", &data_dir, &["--keep_data=True"]));
    let said = output(&refused.code(1));
    assert!(said.contains("holds an instance of another cluster"), "{said}");
    before.assert_unchanged();
}

#[test]
fn a_backup_without_configuration_gets_one_and_no_leader_is_needed() {
    let options = PrimaryOptions {
        debian_layout: true,
        ..PrimaryOptions::default()
    };
    let lab = Lab::builder()
        .method(BackupMethod::Postgres)
        .primary(options)
        .build()
        .unwrap();
    let data_dir = place(&lab, "bare");
    // The last word counts: Patroni knows no leader.
    let done = run(&mut replica(
        &lab,
        "barmansrv",
        &data_dir,
        &["--connstring=", "--no_leader=1"],
    ));
    let said = output(&done.success());
    assert!(
        said.contains("the backup has no postgresql.conf; a plain one was written"),
        "{said}"
    );
    assert!(!said.contains("connecting to upstream"), "{said}");
    for file in [
        "postgresql.conf",
        "pg_hba.conf",
        "standby.signal",
        "global/pg_control",
    ] {
        assert!(data_dir.join(file).exists(), "{file}");
    }
    let auto = fs::read_to_string(data_dir.join("postgresql.auto.conf")).unwrap();
    assert!(
        !auto.contains("primary_conninfo") && !auto.contains("restore_command"),
        "{auto}"
    );
}
