//! What rsync brings along: pages caught while the server wrote them, and the manifest of an older base backup.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{BackupMethod, Lab, PrimaryOptions, StopMode};
use repmgr_tests::{assert_standby, clone, node};

/// Damaged files of a backup.
const DAMAGED: i32 = 14;

/// The first page as a copy has it that took the head before a write and the rest after.
fn tear(file: &Path) {
    let file = fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(&[0, 0, 0, 0, 1, 0, 0, 0], 0).unwrap();
    file.write_all_at(b"torn", 8000).unwrap();
}

/// A backup that is taken while all rows of a small table change again and again; its id, and the table's file.
fn busy_backup(lab: &Lab) -> (String, String) {
    let primary = lab.primary();
    primary
        .sql("create table busy as select n as id, 0 as n from generate_series(1, 10) n")
        .unwrap();
    let file = primary.sql("select pg_relation_filepath('busy')").unwrap();
    let over = AtomicBool::new(false);
    let id = thread::scope(|scope| {
        let changing = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                primary.sql("update busy set n = n + 1").unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });
        let id = lab.barman().backup(lab.server());
        over.store(true, Ordering::Relaxed);
        changing.join().unwrap();
        id.unwrap()
    });
    (id, file.trim().to_owned())
}

#[test]
fn pages_that_recovery_replaces_are_no_damage_and_others_are() {
    let lab = Lab::builder()
        .method(BackupMethod::Rsync)
        .primary(PrimaryOptions {
            checksums: true,
            ..PrimaryOptions::default()
        })
        .build()
        .unwrap();
    // As after a failover: the primary was once made by pg_basebackup.
    let old = lab.scratch().join("old-backup");
    lab.primary().base_backup(&old, &[]).unwrap();
    let manifest = lab.primary().data_dir().join("backup_manifest");
    fs::copy(old.join("backup_manifest"), &manifest).unwrap();
    fs::set_permissions(&manifest, fs::Permissions::from_mode(0o644)).unwrap();
    let (id, busy) = busy_backup(&lab);
    let data = lab.barman().backup_dir(lab.server(), &id).join("data");
    assert!(data.join("backup_manifest").exists());
    tear(&data.join(&busy));
    let target = node(&lab, &[]);
    clone(&lab, &target, &[]).success().stderr(
        contains("1 pages of the backup were copied while the server wrote them")
            .and(contains(busy.as_str()))
            .and(contains(
                "NOTICE: backup_manifest in the backup is that of another base backup",
            )),
    );
    assert!(!target.data_dir.join("backup_manifest").exists());
    assert_standby(&lab, &target).stop(StopMode::Fast).unwrap();

    // Nothing wrote to this one.
    tear(&data.join("base/1/1255"));
    let target = node(&lab, &[]);
    clone(&lab, &target, &[]).code(DAMAGED).stderr(
        contains("\"base/1/1255\": damaged pages: block 0")
            .and(contains("does not have them"))
            .and(contains(format!("\"{busy}\": damaged")).not()),
    );
    clone(&lab, &target, &["--skip-page-checks"]).success().stderr(
        contains("WARNING: data pages of the backup are not verified").and(contains(
            "verified: sizes; data pages were not verified: as demanded",
        )),
    );
}

/// Whoever copies its directory later would take it for that of the copy.
#[test]
fn a_clone_by_pg_basebackup_keeps_no_manifest() {
    let lab = crate::shared();
    let target = node(lab, &[]);
    clone(lab, &target, &["--without-barman"]).success();
    assert!(target.data_dir.join("backup_label").exists());
    assert!(!target.data_dir.join("backup_manifest").exists());
    assert_standby(lab, &target).stop(StopMode::Fast).unwrap();
}
