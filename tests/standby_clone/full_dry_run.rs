//! `--dry-run=full`: whether a backup makes a standby, by all its bytes, with nothing written.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{BackupMethod, BarmanVersion, Lab, StopMode};
use repmgr_tests::{assert_standby, clone, node, output};

use crate::shared;

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect();
    names.sort();
    names
}

#[test]
fn a_good_backup_is_proven_and_nothing_is_written() {
    let lab = shared();
    let target = node(lab, &[]);
    let parent = target.data_dir.parent().unwrap().to_owned();
    let before = names(&parent);
    let done = clone(lab, &target, &["--dry-run=full", "--output=json"])
        .success()
        .stderr(
            contains("NOTICE: a standby can be made of backup")
                .and(contains("verified: sizes, data page checksums"))
                .and(contains("complete").not()),
        );
    assert_eq!(names(&parent), before);
    let json = String::from_utf8(done.get_output().stdout.clone()).unwrap();
    assert!(
        json.contains("\"event\":\"files_verified\"") && json.contains("\"event\":\"backup_verified\""),
        "{json}"
    );
}

/// Who watches over backups does so where a standby runs.
#[test]
fn a_place_that_is_in_use_is_a_warning() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &[]).success();
    let standby = assert_standby(lab, &target);
    clone(lab, &target, &["--dry-run"]).failure();
    clone(lab, &target, &["--dry-run=full"])
        .success()
        .stderr(contains("WARNING: ").and(contains("a standby can be made of backup")));
    assert!(standby.is_running().unwrap());
    standby.stop(StopMode::Fast).unwrap();
}

#[test]
fn a_damaged_page_is_found_in_files_and_in_archives() {
    let archives = Lab::builder()
        .barman(BarmanVersion::V3_19)
        .method(BackupMethod::Postgres)
        .barman_conf("backup_compression = gzip")
        .build()
        .unwrap();
    let target = node(&archives, &[]);
    clone(&archives, &target, &["--dry-run=full"])
        .success()
        .stderr(contains("a standby can be made of backup"));
    let id = archives.backup_id().unwrap();
    let dir = archives.barman().backup_dir(archives.server(), id).join("data");
    let archive = dir.join("base.tar.gz");
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xa5);
    fs::write(&archive, bytes).unwrap();
    let done = clone(&archives, &target, &["--dry-run=full"]).failure();
    assert!(!output(&done).contains("can be made of"), "{}", output(&done));
    assert!(!target.data_dir.exists());

    let lab = Lab::builder()
        .primary(repmgr_lab::PrimaryOptions {
            checksums: true,
            ..Default::default()
        })
        .build()
        .unwrap();
    let file = lab
        .primary()
        .sql("select pg_relation_filepath('lab_rows')")
        .unwrap();
    let stored = lab
        .barman()
        .backup_dir(lab.server(), lab.backup_id().unwrap())
        .join("data")
        .join(file);
    let mut bytes = fs::read(&stored).unwrap();
    bytes[100..120].fill(0xff);
    fs::write(&stored, bytes).unwrap();
    let target = node(&lab, &[]);
    clone(&lab, &target, &["--dry-run"]).success();
    clone(&lab, &target, &["--dry-run=full"])
        .code(14)
        .stderr(contains("damaged pages: block 0"));
}
