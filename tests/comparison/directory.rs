//! What is in the data directory before.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use assert_cmd::assert::Assert;
use repmgr_tests::{clone, run as run_command};

use crate::compare::{Scenario, compare};
use crate::from_barman::{COPIED, DRY, run};
use crate::plain;
use crate::trial::{Files, Trial};

/// Refused by us before Barman is asked.
const REFUSED: &[&str] = &["configured", "refused before"];

/// A run over what is there, whose times are not compared.
#[track_caller]
fn run_over(name: &'static str, groups: &'static [&'static str], what: impl Fn(&Trial<'_>) -> Assert) {
    let scenario = Scenario {
        name,
        groups,
        lab: plain(),
        settings: &[],
        files: Files::Names,
    };
    compare(&scenario, what);
}

/// Somebody's file is in the data directory.
pub(crate) fn with_notes(trial: &Trial<'_>, mode: u32) {
    let notes = trial.target.data_dir.join("notes.txt");
    trial.lab.scratch().write(notes, "mine", 0o600).unwrap();
    fs::set_permissions(&trial.target.data_dir, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_empty_directory_that_others_may_read() {
    run("empty", COPIED, &[], |trial| {
        with_notes(trial, 0o755);
        fs::remove_file(trial.target.data_dir.join("notes.txt")).unwrap();
        trial.clone(&[])
    });
}

#[test]
fn other_files() {
    run_over("not empty", REFUSED, |trial| {
        with_notes(trial, 0o700);
        trial.clone(&[])
    });
}

#[test]
fn other_files_by_force() {
    run_over("not empty, forced", REFUSED, |trial| {
        with_notes(trial, 0o700);
        trial.clone(&["-F"])
    });
}

#[test]
fn a_dry_run_over_other_files() {
    run_over("not empty, dry run", REFUSED, |trial| {
        with_notes(trial, 0o700);
        trial.clone(&["--dry-run"])
    });
}

#[test]
fn a_dry_run_over_an_instance() {
    run_over("instance, dry run", REFUSED, |trial| {
        clone(trial.lab, &trial.target, &[]).success();
        trial.clone(&["--dry-run"])
    });
}

#[test]
fn a_dry_run_over_an_instance_by_force() {
    run_over("instance, forced dry run", DRY, |trial| {
        clone(trial.lab, &trial.target, &[]).success();
        trial.clone(&["--dry-run", "-F"])
    });
}

/// The original removes the files below the server's feet.
#[test]
fn a_running_instance() {
    run_over("running", REFUSED, |trial| {
        clone(trial.lab, &trial.target, &[]).success();
        let instance = trial.lab.start_standby(&trial.target).unwrap();
        let pid = fs::read_to_string(trial.target.data_dir.join("postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().to_owned();
        let done = trial.clone(&["-F"]);
        let alive = fs::metadata(format!("/proc/{pid}")).is_ok();
        let there = trial.target.data_dir.join("postmaster.pid").exists();
        // Without its files a server ends sooner or later.
        trial.note(match there {
            true => format!("its files are there, the server runs {alive}"),
            false => "its files are gone".to_owned(),
        });
        let mut quit = trial.lab.scratch().command("kill");
        let sent = run_command(quit.args(["-s", "QUIT", &pid]));
        if there {
            sent.success();
        }
        while fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()) {
            std::thread::yield_now();
        }
        drop(instance);
        // What a server leaves differs from one run to the next.
        fs::remove_dir_all(&trial.target.data_dir).unwrap();
        done
    });
}
