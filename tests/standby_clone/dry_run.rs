//! `--dry-run`: finds what the real run would find, and writes nothing anywhere.

use std::fs;

use predicates::str::contains;
use repmgr_lab::Lab;
use repmgr_tests::{Snapshot, clone, node, output, run};

use crate::shared;

/// A dry run in a directory, with a home and a temporary directory, of its own.
fn dry_run(
    lab: &Lab,
    settings: &[(&str, &str)],
    before: impl Fn(&repmgr_lab::Target),
    more: &[&str],
) -> String {
    let target = node(lab, settings);
    before(&target);
    let scratch = lab.scratch();
    let id = target.node_id;
    let dir = |name: &str| scratch.dir(format!("node{id}/{name}")).unwrap();
    let (home, cwd) = (dir("home"), dir("cwd"));
    // What restore_command delivers when it is tried goes there, and goes again.
    let tmp = scratch.dir(format!("tmp{id}")).unwrap();
    let mut command = lab.clone_command(&target).unwrap();
    command
        .args(["--dry-run"])
        .args(more)
        .current_dir(&cwd)
        .env("HOME", &home)
        .env("TMPDIR", &tmp);
    let everything = scratch.join(format!("node{id}"));
    let places = [everything.as_path(), target.conf.as_path(), &scratch.join("bin")];
    let unchanged = Snapshot::of(places);
    let events = format!("select count(*) from repmgr.events where node_id = {id}");
    let events_before = lab.primary().sql(&events).unwrap();
    assert!(unchanged.len() > 4);
    let done = run(&mut command).success();
    unchanged.assert_unchanged();
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
    let slots = format!("select count(*) from pg_replication_slots where slot_name = 'repmgr_slot_{id}'");
    assert_eq!(lab.primary().sql(&slots).unwrap(), "0");
    assert_eq!(lab.primary().sql(&events).unwrap(), events_before);
    output(&done)
}

/// (Defect 4) The original leaves files in the temporary directory.
#[test]
fn nothing_is_written_anywhere() {
    let said = dry_run(shared(), &[("use_replication_slots", "true")], |_| (), &[]);
    assert!(said.contains("all prerequisites"), "{said}");
}

#[test]
fn nothing_is_written_over_an_existing_instance() {
    let lab = shared();
    let said = dry_run(
        lab,
        &[],
        |target| {
            clone(lab, target, &[])
                .success()
                .get_output()
                .status
                .success()
                .then_some(())
                .unwrap()
        },
        &["-F"],
    );
    assert!(said.contains("all prerequisites"), "{said}");
}

#[test]
fn the_plan_is_shown_with_what_will_be_configured() {
    let lab = shared();
    let said = dry_run(lab, &[], |_| (), &[]);
    let id = lab.backup_id().unwrap();
    for part in [
        "primary_conninfo",
        "restore_command",
        id,
        "fast",
        "upstream node 1",
    ] {
        assert!(said.contains(part), "no {part}:\n{said}");
    }
}

/// (Defect 22) The original's dry run promises what its real run refuses.
#[test]
fn what_the_real_run_refuses_the_dry_run_refuses() {
    let lab = shared();
    let target = node(lab, &[]);
    lab.scratch()
        .write(target.data_dir.join("notes.txt"), "mine", 0o600)
        .unwrap();
    let before = Snapshot::of([&target.data_dir]);
    let dry = clone(lab, &target, &["--dry-run"])
        .code(1)
        .stderr(contains("is not empty"));
    let real = clone(lab, &target, &[]).code(1);
    let errors = |said: String| {
        said.lines()
            .filter(|line| line.starts_with("ERROR: "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(errors(output(&dry)), errors(output(&real)));
    before.assert_unchanged();
    fs::remove_dir_all(&target.data_dir).unwrap();
    // And what it accepts, the real run does.
    clone(lab, &target, &["--dry-run"]).success();
    clone(lab, &target, &[]).success();
}
