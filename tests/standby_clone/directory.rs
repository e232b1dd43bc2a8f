//! The data directory in every state it can be found in.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{Lab, StopMode, Target};
use repmgr_tests::{Snapshot, assert_standby, clone, node, output, run, skip};

use crate::shared;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

/// Makes the data directory of `target`, for the lab's account.
fn make(lab: &Lab, target: &Target, mode: u32) {
    lab.scratch().dir(&target.data_dir).unwrap();
    fs::set_permissions(&target.data_dir, fs::Permissions::from_mode(mode)).unwrap();
}

/// A standby that ran and was stopped.
fn stopped(lab: &Lab) -> Target {
    let target = node(lab, &[]);
    clone(lab, &target, &[]).success();
    assert_standby(lab, &target).stop(StopMode::Fast).unwrap();
    target
}

/// Erasing would only find out when half is gone.
#[test]
fn what_cannot_be_removed_is_found_before_anything_is() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &[]).success();
    let theirs = target.data_dir.join("base/by-root");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("file"), "").unwrap();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o755)).unwrap();
    if std::os::unix::fs::chown(&theirs, Some(0), Some(0)).is_err() {
        return skip("what_cannot_be_removed", "only root can give things away");
    }
    let before = Snapshot::inside(&target.data_dir);
    for more in [&["-F"][..], &["-F", "--dry-run"], &["-F", "--delta"]] {
        clone(lab, &target, more)
            .code(1)
            .stderr(contains("no write access to").and(contains("by-root")));
        before.assert_unchanged();
    }
    // Nor could the lab remove it.
    fs::remove_dir_all(&theirs).unwrap();
}

#[test]
fn an_absent_directory_is_made_with_all_above_it() {
    let lab = shared();
    let dir = lab.scratch().join("deep/er/still/data");
    let target = node(lab, &[("data_directory", dir.to_str().unwrap())]);
    fs::remove_dir_all(lab.scratch().join("deep")).unwrap();
    clone(lab, &target, &[]).success();
    assert_eq!(mode(&dir), 0o700);
    drop(assert_standby(lab, &target));
}

#[test]
fn an_empty_directory_gets_the_mode_it_must_have() {
    let lab = shared();
    let target = node(lab, &[]);
    make(lab, &target, 0o755);
    let inode = target.data_dir.metadata().unwrap().ino();
    clone(lab, &target, &[])
        .success()
        .stderr(contains("correcting permissions"));
    assert_eq!(mode(&target.data_dir), 0o700);
    assert_eq!(
        target.data_dir.metadata().unwrap().ino(),
        inode,
        "another directory"
    );
    drop(assert_standby(lab, &target));
}

#[test]
fn a_directory_with_content_is_refused_without_force() {
    let lab = shared();
    let target = node(lab, &[]);
    lab.scratch()
        .write(target.data_dir.join("notes.txt"), "mine", 0o600)
        .unwrap();
    let before = Snapshot::of([target.data_dir.parent().unwrap()]);
    clone(lab, &target, &[])
        .code(1)
        .stderr(contains("is not empty"))
        .stderr(contains("--force"));
    before.assert_unchanged();
}

#[test]
fn a_directory_with_content_is_erased_with_force() {
    let lab = shared();
    let target = node(lab, &[]);
    let notes = lab
        .scratch()
        .write(target.data_dir.join("base/1/notes.txt"), "mine", 0o600)
        .unwrap();
    let inode = target.data_dir.metadata().unwrap().ino();
    clone(lab, &target, &["-F"]).success();
    assert!(!notes.exists());
    assert_eq!(
        target.data_dir.metadata().unwrap().ino(),
        inode,
        "another directory"
    );
    drop(assert_standby(lab, &target));
}

#[test]
fn a_stopped_instance_is_refused_without_force_and_cloned_over_with() {
    let lab = shared();
    let target = stopped(lab);
    let old = lab
        .scratch()
        .write(target.data_dir.join("base/5/99999"), "an old relation", 0o600)
        .unwrap();
    let before = Snapshot::of([&target.data_dir]);
    clone(lab, &target, &[]).code(1);
    before.assert_unchanged();
    clone(lab, &target, &["--force"]).success();
    assert!(!old.exists());
    drop(assert_standby(lab, &target));
}

/// (Defect 1) The original erases the directory of a running server with -F, and the server lives on over
/// foreign files.
#[test]
fn a_running_instance_is_never_touched_force_or_not() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &[]).success();
    let standby = assert_standby(lab, &target);
    let pid_file = fs::read_to_string(target.data_dir.join("postmaster.pid")).unwrap();
    let control = target
        .data_dir
        .join("global/pg_control")
        .metadata()
        .unwrap()
        .ino();
    for more in [&[][..], &["-F"], &["-F", "--dry-run"]] {
        let refused = clone(lab, &target, more).code(1);
        let said = output(&refused);
        assert!(said.contains("running"), "{said}");
        assert!(
            said.contains(pid_file.lines().next().unwrap()),
            "which process? {said}"
        );
    }
    assert_eq!(
        fs::read_to_string(target.data_dir.join("postmaster.pid")).unwrap(),
        pid_file
    );
    assert_eq!(
        target
            .data_dir
            .join("global/pg_control")
            .metadata()
            .unwrap()
            .ino(),
        control
    );
    standby.wait_for_streaming(repmgr_tests::LIMIT).unwrap();
}

#[test]
fn the_primarys_own_directory_is_never_touched() {
    let lab = shared();
    let data_dir = lab.primary().data_dir().to_str().unwrap();
    let target = node(lab, &[("data_directory", data_dir)]);
    clone(lab, &target, &["-F"]).code(1).stderr(contains("running"));
    assert_eq!(lab.primary().sql("select 1").unwrap(), "1");
}

/// A pid file says nothing about a server that is gone: the number may be another process's by now.
#[test]
fn a_stale_pid_file_does_not_stand_in_the_way() {
    let lab = shared();
    let target = stopped(lab);
    // Our own process: it runs, and is no postmaster of that directory.
    let text = format!(
        "{}\n{}\n1700000000\n5432\n",
        std::process::id(),
        target.data_dir.display()
    );
    lab.scratch()
        .write(target.data_dir.join("postmaster.pid"), &text, 0o600)
        .unwrap();
    clone(lab, &target, &["-F"]).success();
    drop(assert_standby(lab, &target));
}

/// (Defect 35) The original replaces the link by a directory and leaves the old content where it was.
#[test]
fn a_symbolic_link_stays_one() {
    let lab = shared();
    let target = node(lab, &[]);
    let volume = lab.scratch().dir(format!("volumes/{}", target.node_id)).unwrap();
    symlink(&volume, &target.data_dir).unwrap();
    clone(lab, &target, &[]).success();
    assert_eq!(fs::read_link(&target.data_dir).unwrap(), volume);
    assert_standby(lab, &target).stop(StopMode::Fast).unwrap();
    let old = lab
        .scratch()
        .write(volume.join("base/5/99999"), "an old relation", 0o600)
        .unwrap();
    clone(lab, &target, &["-F"]).success();
    assert_eq!(fs::read_link(&target.data_dir).unwrap(), volume);
    assert!(!old.exists());
    drop(assert_standby(lab, &target));
}

/// (Defect 25) The original builds shell commands from unquoted paths.
#[test]
fn a_path_may_hold_blanks_quotes_and_more() {
    let lab = shared();
    // Not more: pg_ctl hands the path to a shell inside double quotes.
    let dir = lab.scratch().join("it's a 'näw' & nicer; dir/data");
    let target = node(lab, &[("data_directory", dir.to_str().unwrap())]);
    clone(lab, &target, &[]).success();
    drop(assert_standby(lab, &target));
}

#[test]
fn a_directory_that_cannot_be_made_is_refused_before_anything_else_happens() {
    let lab = shared();
    let target = node(lab, &[]);
    let parent = target.data_dir.parent().unwrap();
    fs::set_permissions(parent, fs::Permissions::from_mode(0o555)).unwrap();
    for more in [&["--dry-run"][..], &[]] {
        let refused = clone(lab, &target, more).code(1);
        assert!(output(&refused).contains("ermission"), "{}", output(&refused));
    }
    fs::set_permissions(parent, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(
        !lab.scratch()
            .join(format!("node{}/tablespaces", target.node_id))
            .exists()
    );
}

#[test]
fn a_file_in_the_place_of_the_directory_is_refused() {
    let lab = shared();
    let target = node(lab, &[]);
    lab.scratch()
        .write(&target.data_dir, "not a directory", 0o600)
        .unwrap();
    let before = Snapshot::of([&target.data_dir]);
    clone(lab, &target, &["-F"]).code(1);
    before.assert_unchanged();
}

#[test]
fn root_is_refused() {
    let lab = shared();
    let target = node(lab, &[]);
    let clone = lab.clone_command(&target).unwrap();
    // To the program, user 0 of a user namespace is root.
    let mut command = lab.scratch().command("unshare");
    command.arg("-Ur");
    if !command.arg("true").output().unwrap().status.success() {
        return skip("root_is_refused", "no user namespaces here");
    }
    let mut command = lab.scratch().command("unshare");
    command.arg("-Ur").arg(clone.get_program()).args(clone.get_args());
    run(&mut command).code(1).stderr(contains("root"));
    assert!(!target.data_dir.exists());
}
