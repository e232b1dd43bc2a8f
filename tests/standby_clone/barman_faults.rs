//! What can be wrong with Barman, its host, the way there, and the backup.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{BackupMethod, Lab, ServerOptions, StopMode, Target};
use repmgr_tests::{Snapshot, assert_standby, clone, node, output};

use crate::shared;

/// `repmgr.h` calls it ERR_BARMAN.
const BARMAN: i32 = 19;

/// Refused with this code and words, with nothing on disk; also in a dry run (defect 22).
#[track_caller]
fn refused(lab: &Lab, target: &Target, more: &[&str], code: i32, words: &[&str]) {
    for dry_run in [&["--dry-run"][..], &[]] {
        let arguments: Vec<&str> = more.iter().chain(dry_run).copied().collect();
        let outcome = clone(lab, target, &arguments).code(code);
        let said = output(&outcome);
        for word in words {
            assert!(said.contains(word), "no \"{word}\" in\n{said}");
        }
        assert!(said.contains("ERROR: "), "{said}");
        assert!(!said.contains("complete"), "{said}");
        assert!(!target.data_dir.exists(), "the directory was made:\n{said}");
    }
}

#[test]
fn an_unknown_server_is_named() {
    let target = node(shared(), &[("barman_server", "nosuch")]);
    refused(shared(), &target, &[], BARMAN, &["nosuch"]);
}

#[test]
fn a_server_without_a_backup_is_said_to_have_none() {
    let lab = shared();
    // Barman knows the server and has never seen it.
    let section = "[virgin]\ndescription = no backup yet\nconninfo = host=127.0.0.1 port=1 user=postgres \
                   dbname=postgres\nbackup_method = postgres\nstreaming_conninfo = host=127.0.0.1 port=1 \
                   user=postgres\narchiver = on\n";
    lab.scratch()
        .write("barman/conf.d/virgin.conf", section, 0o600)
        .unwrap();
    let target = node(lab, &[("barman_server", "virgin")]);
    refused(lab, &target, &[], BARMAN, &["virgin", "backup"]);
}

/// (Defect 18) The original knows only `latest`.
#[test]
fn an_unknown_backup_is_named() {
    let target = node(shared(), &[]);
    refused(
        shared(),
        &target,
        &["--backup-id", "20200101T000000"],
        BARMAN,
        &["20200101T000000"],
    );
}

#[test]
fn a_wrong_barman_config_is_named() {
    let target = node(shared(), &[("barman_config", "/no/such/barman.conf")]);
    refused(shared(), &target, &[], BARMAN, &["/no/such/barman.conf"]);
}

#[test]
fn a_host_without_barman_is_said_to_have_none() {
    let target = node(shared(), &[("barman_command", "/no/such/barman")]);
    refused(
        shared(),
        &target,
        &[],
        BARMAN,
        &["/no/such/barman", "barman_command"],
    );
}

/// (Defect 3) The original lists no files, erases the old cluster with -F, and exits with 0.
#[test]
fn a_host_that_refuses_connections_is_named() {
    let target = node(shared(), &[("barman_host", "closed")]);
    refused(shared(), &target, &[], BARMAN, &["closed", "refused"]);
}

#[test]
fn a_host_nobody_knows_is_named() {
    let target = node(shared(), &[("barman_host", "no-such-host.invalid")]);
    refused(shared(), &target, &[], BARMAN, &["no-such-host.invalid"]);
}

/// (Defect 23) To the original, a login that fails is "no valid backup".
#[test]
fn a_login_that_fails_says_which_keys_were_tried() {
    let target = node(shared(), &[("barman_host", "stranger")]);
    refused(
        shared(),
        &target,
        &[],
        BARMAN,
        &["stranger", "not_authorized", "publickey"],
    );
}

#[test]
fn a_changed_host_key_is_an_alarm() {
    let target = node(shared(), &[("barman_host", "changed")]);
    refused(shared(), &target, &[], BARMAN, &["host key", "wrong_known_hosts"]);
}

/// A server of its own with a backup, for a test that damages it.
fn server(lab: &Lab, name: &str, conf: &[&str]) -> String {
    let options = ServerOptions {
        name: name.to_owned(),
        method: BackupMethod::Postgres,
        conf: conf.iter().map(ToString::to_string).collect(),
    };
    lab.add_server(&options).unwrap()
}

/// A stopped standby that nobody may touch.
fn precious(lab: &Lab, settings: &[(&str, &str)]) -> Target {
    let target = node(lab, settings);
    let good: Vec<_> = settings
        .iter()
        .filter(|(key, _)| *key != "barman_server")
        .copied()
        .collect();
    let first = node(lab, &[("data_directory", target.data_dir.to_str().unwrap())]);
    assert!(good.is_empty(), "the good clone takes no settings");
    clone(lab, &first, &[]).success();
    assert_standby(lab, &first).stop(StopMode::Fast).unwrap();
    target
}

/// (Defects 3 and 16) The original erases everything before anything is verified.
#[test]
fn force_erases_nothing_until_the_backup_has_been_proven_readable() {
    let lab = shared();
    let id = server(lab, "locked", &[]);
    let target = precious(lab, &[("barman_server", "locked")]);
    let before = Snapshot::of([target.data_dir.parent().unwrap()]);
    let secret = lab.barman().backup_dir("locked", &id).join("data/base/1/1259");
    let mode = fs::metadata(&secret).unwrap().permissions();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    for more in [&["-F"][..], &["-F", "--dry-run"]] {
        clone(lab, &target, more)
            .code(BARMAN)
            .stderr(contains("data/base/1/1259").or(contains("base/1/1259")));
        before.assert_unchanged();
    }
    fs::set_permissions(&secret, mode).unwrap();
    clone(lab, &target, &["-F"]).success();
    drop(assert_standby(lab, &target));
}

/// Barman locks a backup that it deletes.
#[test]
fn force_erases_nothing_while_barman_is_at_work_on_the_backup() {
    let lab = shared();
    let id = server(lab, "busy", &[]);
    let target = precious(lab, &[("barman_server", "busy")]);
    let parts = ["base", "global", "pg_wal", "PG_VERSION"].map(|name| target.data_dir.join(name));
    let before = Snapshot::of(&parts);
    let lock = lab
        .barman()
        .server_dir("busy")
        .with_file_name(format!(".busy-{id}.lock"));
    let mut locked = lab
        .scratch()
        .command("flock")
        .arg(&lock)
        .args(["-c", "echo locked; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(locked.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    clone(lab, &target, &["-F"])
        .code(BARMAN)
        .stderr(contains("has locked backup").and(contains("HINT: wait until Barman has finished")));
    before.assert_unchanged();
    drop(locked.stdin.take());
    assert!(locked.wait().unwrap().success());
    clone(lab, &target, &["-F"]).success();
    drop(assert_standby(lab, &target));
}

/// Without a manifest nothing names the files that a backup had.
#[test]
fn a_backup_that_lost_a_table_is_refused() {
    let lab = shared();
    let id = lab
        .add_server(&ServerOptions::new("holed", BackupMethod::Rsync))
        .unwrap();
    let target = precious(lab, &[("barman_server", "holed")]);
    let parts = ["base", "global", "pg_wal", "PG_VERSION"].map(|name| target.data_dir.join(name));
    let before = Snapshot::of(&parts);
    fs::remove_file(lab.barman().backup_dir("holed", &id).join("data/base/1/1255")).unwrap();
    for more in [&["-F"][..], &["-F", "--dry-run"]] {
        clone(lab, &target, more)
            .code(BARMAN)
            .stderr(contains("files are missing in backup").and(contains("HINT: choose another backup")));
        before.assert_unchanged();
    }
    clone(lab, &target, &["-F", "--accept-damage"])
        .success()
        .stderr(contains("WARNING: files are missing"));
}

/// A standby with such an archive would follow a server that was given up.
#[test]
fn an_archive_that_leads_to_another_timeline_is_refused() {
    let lab = shared();
    server(lab, "led-astray", &[]);
    let target = node(lab, &[("barman_server", "led-astray")]);
    let history = lab
        .barman()
        .server_dir("led-astray")
        .join("wals/00000002.history");
    lab.scratch()
        .write(&history, "1\t0/1\tpromoted\n", 0o600)
        .unwrap();
    refused(
        lab,
        &target,
        &[],
        1,
        &["00000002.history", "timeline 1", "HINT: some server"],
    );
    fs::remove_file(&history).unwrap();
    clone(lab, &target, &[]).success();
}

/// (Defect 2) To the original a backup without its control file is a complete standby.
#[test]
fn a_backup_that_lost_its_control_file_is_refused() {
    let lab = shared();
    let id = server(lab, "headless", &[]);
    fs::remove_file(
        lab.barman()
            .backup_dir("headless", &id)
            .join("data/global/pg_control"),
    )
    .unwrap();
    let target = node(lab, &[("barman_server", "headless")]);
    refused(lab, &target, &[], BARMAN, &["pg_control"]);
}

#[test]
fn a_failed_backup_is_not_chosen_and_not_accepted() {
    let lab = shared();
    let first = server(lab, "failing", &[]);
    let second = lab.barman().backup("failing").unwrap();
    let info = lab.barman().backup_dir("failing", &second).join("backup.info");
    let text = fs::read_to_string(&info).unwrap();
    lab.scratch()
        .write(&info, &text.replace("status=DONE", "status=FAILED"), 0o644)
        .unwrap();
    let target = node(lab, &[("barman_server", "failing")]);
    refused(
        lab,
        &target,
        &["--backup-id", &second],
        BARMAN,
        &[&second, "FAILED"],
    );
    clone(lab, &target, &[]).success();
    let label = fs::read_to_string(target.data_dir.join("backup_label")).unwrap();
    assert!(!label.contains(&second), "{first} is the last good one:\n{label}");
    drop(assert_standby(lab, &target));
}
