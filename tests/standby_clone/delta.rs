//! `-F --delta`: a stopped instance is rebuilt, and only what differs is fetched.

use std::fs;
use std::path::Path;

use predicates::str::contains;
use repmgr_lab::{
    BackupMethod, BarmanVersion, Lab, PrimaryOptions, ServerOptions, StopMode, Tablespace, Target,
};
use repmgr_tests::{assert_standby, clone, node, output};

use crate::shared;

/// A standby that has run and was stopped.
fn used(lab: &Lab, settings: &[(&str, &str)], mode: StopMode) -> Target {
    let target = node(lab, settings);
    clone(lab, &target, &[]).success();
    let standby = assert_standby(lab, &target);
    standby.sql("select count(*) from lab_rows").unwrap();
    standby.stop(mode).unwrap();
    target
}

/// How many files need no fetching, as the clone says.
fn reused(said: &str) -> u64 {
    let line = said
        .lines()
        .find(|line| line.contains("are here already and need not"))
        .unwrap_or_default();
    line.split_whitespace()
        .find_map(|word| word.parse().ok())
        .unwrap_or(0)
}

fn put(lab: &Lab, dir: &Path, name: &str) {
    let path = dir.join(name);
    lab.scratch().dir(path.parent().unwrap()).unwrap();
    lab.scratch().write(&path, "old", 0o600).unwrap();
}

#[test]
fn a_rebuilt_standby_fetches_little_and_keeps_nothing_that_is_not_in_the_backup() {
    let lab = shared();
    let target = used(lab, &[], StopMode::Fast);
    let data = &target.data_dir;
    let fast = fs::read_link(
        fs::read_dir(data.join("pg_tblspc"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path(),
    )
    .unwrap();
    let version = fs::read_dir(&fast).unwrap().next().unwrap().unwrap().path();
    put(lab, data, "base/5/999999");
    put(lab, data, "base/77777/1");
    put(lab, data, "recovery.signal");
    put(lab, &version, "5/888888");
    // Same size and another content: PostgreSQL would have changed its time as well.
    let changed = data.join("base/1/1259");
    let size = fs::metadata(&changed).unwrap().len();
    fs::write(&changed, vec![0x55; usize::try_from(size).unwrap()]).unwrap();

    let done = clone(lab, &target, &["-F", "--delta"]).success();
    let said = output(&done);
    assert!(reused(&said) > 500, "{said}");
    for gone in ["base/5/999999", "base/77777", "recovery.signal"] {
        assert!(!data.join(gone).exists(), "{gone}");
    }
    assert!(!version.join("5/888888").exists());
    assert_ne!(
        fs::read(&changed).unwrap(),
        vec![0x55; usize::try_from(size).unwrap()]
    );
    drop(assert_standby(lab, &target));
}

#[test]
fn after_a_crash_times_say_nothing_and_checksums_do() {
    let lab = shared();
    let target = used(lab, &[], StopMode::Immediate);
    let quick = output(&clone(lab, &target, &["-F", "--delta", "--dry-run"]).success());
    assert!(quick.contains("not shut down in an orderly way"), "{quick}");
    let said = output(&clone(lab, &target, &["-F", "--delta=checksum"]).success());
    assert!(reused(&said) > 500, "{said}");
    drop(assert_standby(lab, &target));
}

#[test]
fn a_manifest_tells_what_is_right_whatever_the_times_say() {
    let lab = Lab::builder()
        .barman(BarmanVersion::V3_19)
        .method(BackupMethod::Postgres)
        .primary(PrimaryOptions::default())
        .tablespaces([Tablespace::from("fast")])
        .build()
        .unwrap();
    let target = used(&lab, &[], StopMode::Immediate);
    // A second backup: pg_basebackup gives each file a new time.
    lab.barman().backup(lab.server()).unwrap();
    let said = output(&clone(&lab, &target, &["-F", "--delta"]).success());
    assert!(reused(&said) > 500, "{said}");
    drop(assert_standby(&lab, &target));
}

#[test]
fn an_instance_of_another_cluster_gives_nothing() {
    let lab = shared();
    let other = Lab::builder()
        .tablespaces([Tablespace::from("fast")])
        .build()
        .unwrap();
    let theirs = used(&other, &[], StopMode::Fast);
    let target = node(lab, &[]);
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(&theirs.data_dir)
        .arg(&target.data_dir)
        .status()
        .unwrap();
    assert!(status.success());
    for link in fs::read_dir(target.data_dir.join("pg_tblspc")).unwrap() {
        fs::remove_file(link.unwrap().path()).unwrap();
    }
    let done = clone(lab, &target, &["-F", "--delta"])
        .success()
        .stderr(contains("another cluster"));
    assert_eq!(reused(&output(&done)), 0);
    drop(assert_standby(lab, &target));
}

#[test]
fn delta_without_force_is_refused() {
    let target = node(shared(), &[]);
    clone(shared(), &target, &["--delta"])
        .code(1)
        .stderr(contains("-F/--force"));
    assert!(!target.data_dir.exists());
}

#[test]
fn archives_can_only_be_fetched_whole() {
    let lab = shared();
    let target = used(lab, &[], StopMode::Fast);
    let options = ServerOptions {
        name: "packed".to_owned(),
        method: BackupMethod::Postgres,
        conf: vec!["backup_compression = gzip".to_owned()],
    };
    lab.add_server(&options).unwrap();
    let conf = fs::read_to_string(&target.conf).unwrap();
    let conf = conf
        .replace("barman_server='main'", "barman_server='packed'")
        .replace("get-wal main", "get-wal packed");
    lab.scratch().write(&target.conf, &conf, 0o600).unwrap();
    clone(lab, &target, &["-F", "--delta"])
        .success()
        .stderr(contains("can only be fetched whole"));
    drop(assert_standby(lab, &target));
}
