//! `-F --delta`: a stopped instance is rebuilt, and only what differs is fetched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use predicates::str::contains;
use repmgr_lab::{
    BackupMethod, BarmanVersion, Lab, PrimaryOptions, ServerOptions, StopMode, Tablespace, Target,
};
use repmgr_tests::{assert_cannot_start, assert_standby, clone, node, output, skip};

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

/// How many files were here in full, as the clone says in the end.
fn reused(said: &str) -> u64 {
    let (_, rest) = said.split_once("were here already, ").unwrap_or_default();
    rest.split(' ').find_map(|word| word.parse().ok()).unwrap_or(0)
}

/// A figure of the summary for programs.
pub(crate) fn figure(outcome: &assert_cmd::assert::Assert, name: &str) -> u64 {
    let stdout = String::from_utf8_lossy(&outcome.get_output().stdout).into_owned();
    let (_, rest) = stdout
        .rsplit_once(&format!("\"{name}\":"))
        .unwrap_or_else(|| panic!("no {name} in {stdout}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// The file of the lab's table, relative to the data directory.
fn relation(lab: &Lab) -> String {
    let sql = "select pg_relation_filepath('lab_rows')";
    lab.primary().sql(sql).unwrap()
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
    // The crash lost a page, and the time of the file is that of the backup.
    let lost = target.data_dir.join(relation(lab));
    let time = fs::metadata(&lost).unwrap().modified().unwrap();
    let right = fs::read(&lost).unwrap();
    let mut wrong = right.clone();
    wrong[100..200].fill(0x55);
    fs::write(&lost, wrong).unwrap();
    fs::File::options()
        .write(true)
        .open(&lost)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let said = output(&clone(lab, &target, &["-F", "--delta"]).success());
    assert!(said.contains("block by block") && reused(&said) > 500, "{said}");
    drop(assert_standby(lab, &target));
}

#[test]
fn of_files_that_differ_only_the_blocks_that_do_travel() {
    let lab = lab_of(60_000);
    let target = used(&lab, &[], StopMode::Fast);
    let (here, stored) = (target.data_dir.join(relation(&lab)), stored(&lab));
    let size = fs::metadata(&stored).unwrap().len();
    assert!(size > 4_000_000, "{size}");
    for delta in ["--delta", "--delta=checksum"] {
        spoil(&here, 100);
        let done = clone(&lab, &target, &["-F", delta, "--output=json"]).success();
        let (moved, kept) = (figure(&done, "wire_bytes"), figure(&done, "reused_bytes"));
        assert!(kept > size, "{kept} {}", output(&done));
        // One page of a hundred, and what the standby wrote while it ran.
        assert!(moved < size / 4, "{moved} of {size}: {}", output(&done));
        assert!(fs::read(&here).unwrap() == fs::read(&stored).unwrap(), "{delta}");
    }
    drop(assert_standby(&lab, &target));
}

/// What did not travel is judged as what did.
#[test]
fn damage_that_the_backup_and_the_standby_share_is_noticed() {
    let lab = lab_of(10_000);
    let target = used(&lab, &[], StopMode::Fast);
    let stored = stored(&lab);
    spoil(&stored, 50);
    fs::copy(&stored, target.data_dir.join(relation(&lab))).unwrap();
    let done = clone(&lab, &target, &["-F", "--delta=checksum"])
        .code(14)
        .stderr(contains("damaged pages: block 0"));
    assert!(!output(&done).contains("complete"));
    assert_cannot_start(&lab, &target);
    // Nor does it count the second time.
    clone(&lab, &target, &["-F", "--delta=checksum"])
        .code(14)
        .stderr(contains("damaged pages: block 0"));
}

fn lab_of(rows: u32) -> Lab {
    let options = PrimaryOptions {
        rows,
        checksums: true,
        ..PrimaryOptions::default()
    };
    Lab::builder().primary(options).build().unwrap()
}

/// The file of the lab's table in the backup.
fn stored(lab: &Lab) -> PathBuf {
    let backup = lab.barman().backup_dir(lab.server(), lab.backup_id().unwrap());
    backup.join("data").join(relation(lab))
}

/// Changes a bit of every page of so many.
fn spoil(path: &Path, of: usize) {
    let mut bytes = fs::read(path).unwrap();
    for page in bytes.chunks_mut(8192).step_by(of) {
        page[4000] ^= 1;
    }
    fs::write(path, bytes).unwrap();
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
    // Of a file of root's it can be seen that it is right, but not written down.
    let version = target.data_dir.join("PG_VERSION");
    fs::set_permissions(&version, fs::Permissions::from_mode(0o644)).unwrap();
    // Only root can give it away; for others it is a file like any other.
    let _ = std::os::unix::fs::chown(&version, Some(0), Some(0));
    let said = output(&clone(&lab, &target, &["-F", "--delta"]).success());
    assert!(reused(&said) > 500, "{said}");
    drop(assert_standby(&lab, &target));
}

/// Its directory was in the place of the link until then.
#[test]
fn the_wal_directory_may_move_elsewhere() {
    let lab = shared();
    let target = used(lab, &[], StopMode::Fast);
    let elsewhere = lab.scratch().join("wal-of-a-rebuilt-one");
    let conf = fs::read_to_string(&target.conf).unwrap();
    let option = format!("{conf}pg_basebackup_options='--waldir={}'\n", elsewhere.display());
    lab.scratch().write(&target.conf, &option, 0o600).unwrap();
    clone(lab, &target, &["-F", "--delta"]).success();
    assert_eq!(fs::read_link(target.data_dir.join("pg_wal")).unwrap(), elsewhere);
    drop(assert_standby(lab, &target));
}

/// A file system that is mounted below has one directory of root's; and somebody worked as root here.
#[test]
fn what_belongs_to_somebody_else_is_left_alone_or_fetched() {
    let lab = shared();
    let target = used(lab, &[], StopMode::Fast);
    let data = &target.data_dir;
    let relation = relation(lab);
    let before = fs::read(data.join(&relation)).unwrap();
    let lost_and_found = data.join("pg_wal/lost+found");
    fs::create_dir(&lost_and_found).unwrap();
    let theirs = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(path, Some(0), Some(0))
    };
    if theirs(&lost_and_found, 0o700).is_err() {
        return skip("what_belongs_to_somebody_else", "only root can give things away");
    }
    for delta in ["--delta", "--delta=checksum"] {
        theirs(&data.join(&relation), 0o600).unwrap();
        theirs(&data.join("base/1/1259"), 0o644).unwrap();
        clone(lab, &target, &["-F", delta]).success();
        assert!(lost_and_found.exists());
        let standby = assert_standby(lab, &target);
        standby.stop(StopMode::Fast).unwrap();
        assert_eq!(fs::read(data.join(&relation)).unwrap().len(), before.len());
    }
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
