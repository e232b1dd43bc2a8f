use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::json;

use super::*;
use crate::control::sample_control;
use crate::fake::Sleeper;
use crate::{FileSpec, InspectError, InspectWarning};

const FORCE: TakeOptions = TakeOptions {
    permissions: Permissions { group_access: false },
    force: true,
};

fn take(path: &Path, options: TakeOptions) -> Result<Claim, ClaimError> {
    Claim::take(&Target::inspect(path).unwrap(), options, &mut |_| {})
}

fn start(path: &Path, options: TakeOptions) -> Building {
    take(path, options)
        .unwrap()
        .start_over(json!({"backup": "B1"}), &CancelToken::new())
        .unwrap()
}

fn hint_of(hint: Option<repmgr_types::Hint>) -> String {
    hint.unwrap().to_string()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn instance(dir: &Path) {
    fs::create_dir_all(dir.join("global")).unwrap();
    fs::create_dir_all(dir.join("base/5")).unwrap();
    fs::write(dir.join("PG_VERSION"), "15\n").unwrap();
    fs::write(dir.join("global/pg_control"), sample_control()).unwrap();
    fs::write(dir.join("base/5/1249"), "old").unwrap();
    set_mode(dir, 0o700);
}

/// Every path below with its size, to see that nothing changed.
fn listing(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    let tree = Tree::open(dir, Permissions::default()).unwrap();
    tree.walk(|path, meta| -> Result<(), TreeError> {
        all.push((
            path.to_owned(),
            if meta.kind == crate::Kind::File {
                meta.size
            } else {
                0
            },
        ));
        Ok(())
    })
    .unwrap();
    all.sort();
    all
}

#[test]
fn a_claim_that_is_dropped_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b c/data");
    drop(take(&deep, TakeOptions::default()).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    set_mode(&empty, 0o755);
    let claim = take(&empty, TakeOptions::default()).unwrap();
    assert_eq!(mode(&empty), 0o700);
    claim.release().unwrap();
    assert_eq!((mode(&empty), fs::read_dir(&empty).unwrap().count()), (0o755, 0));

    let old = dir.path().join("old");
    instance(&old);
    let before = listing(&old);
    drop(take(&old, FORCE).unwrap());
    assert_eq!(listing(&old), before);
}

#[test]
fn what_somebody_else_put_into_a_created_directory_stays() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/data");
    let claim = take(&data, TakeOptions::default()).unwrap();
    fs::write(dir.path().join("a/notes"), "").unwrap();
    claim.release().unwrap();
    assert!(!data.exists() && dir.path().join("a/notes").exists());
}

#[test]
fn steps_are_announced_before_they_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    let steps = |path: &Path| {
        let mut steps = Vec::new();
        let target = Target::inspect(path).unwrap();
        let claim = Claim::take(&target, TakeOptions::default(), &mut |step| {
            steps.push(match step {
                Preparation::CreatingDirectory(path) => ("create", path.to_owned(), path.exists()),
                Preparation::CorrectingPermissions(path) => ("correct", path.to_owned(), path.exists()),
            });
        });
        drop(claim.unwrap());
        steps
    };
    let data = real.join("data");
    let state = data.join("repmgr");
    assert_eq!(
        steps(&data),
        [("create", data.clone(), false), ("create", state.clone(), false)]
    );
    fs::create_dir(&data).unwrap();
    assert_eq!(
        steps(&data),
        [("correct", data.clone(), true), ("create", state, false)]
    );
}

#[test]
fn the_mode_follows_the_cluster_and_the_permissions_follow_the_mode() {
    let dir = tempfile::tempdir().unwrap();
    let open = TakeOptions {
        permissions: Permissions { group_access: true },
        force: false,
    };
    for (name, before, options, after) in [
        ("new", None, TakeOptions::default(), 0o700),
        ("new-open", None, open, 0o750),
        ("wide", Some(0o777), open, 0o700),
        ("kept", Some(0o750), open, 0o750),
        ("strict", Some(0o700), open, 0o700),
        ("closed", Some(0o750), TakeOptions::default(), 0o700),
        ("locked-up", Some(0o500), TakeOptions::default(), 0o700),
    ] {
        let path = dir.path().join(name);
        if let Some(before) = before {
            fs::create_dir(&path).unwrap();
            set_mode(&path, before);
        }
        let claim = take(&path, options).unwrap();
        assert_eq!(mode(&path), after, "{name}");
        assert_eq!(claim.permissions().group_access, after == 0o750, "{name}");
    }
}

#[test]
fn content_is_taken_by_force_only() {
    let dir = tempfile::tempdir().unwrap();
    instance(dir.path());
    let error = take(dir.path(), TakeOptions::default()).unwrap_err();
    assert!(matches!(error, ClaimError::NotEmpty(_)) && hint_of(error.hint()).contains("force"));
    drop(take(dir.path(), FORCE).unwrap());
    fs::remove_file(dir.path().join("PG_VERSION")).unwrap();
    for options in [TakeOptions::default(), FORCE] {
        let error = take(dir.path(), options).unwrap_err();
        assert!(matches!(error, ClaimError::Refused(_)), "{error}");
        assert!(!hint_of(error.hint()).contains("force"));
    }
}

#[test]
fn two_clones_never_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::inspect(dir.path()).unwrap();
    let again = || Claim::take(&target, TakeOptions::default(), &mut |_| {});
    let first = again().unwrap();
    assert!(matches!(again(), Err(ClaimError::InProgress { pid: None, .. })));
    let building = first.start_over(json!(null), &CancelToken::new()).unwrap();
    let us = Some(std::process::id());
    assert!(matches!(again(), Err(ClaimError::InProgress { pid, .. }) if pid == us));
    let inspected = Target::inspect(dir.path());
    assert!(matches!(inspected, Err(InspectError::CloneInProgress { pid, .. }) if pid == us));
    drop(building);
    assert!(
        Target::inspect(dir.path()).is_ok(),
        "the lock ends with its holder"
    );
}

#[test]
fn a_directory_that_changed_since_it_was_looked_at_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let absent = Target::inspect(&data).unwrap();
    fs::create_dir(&data).unwrap();
    let empty = Target::inspect(&data).unwrap();
    fs::write(data.join("news"), "").unwrap();
    for target in [&absent, &empty] {
        let taken = Claim::take(target, TakeOptions::default(), &mut |_| {});
        assert!(matches!(taken, Err(ClaimError::Changed(_))), "{taken:?}");
    }
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
    fs::rename(&data, dir.path().join("moved")).unwrap();
    fs::create_dir(&data).unwrap();
    assert!(matches!(
        Claim::take(&empty, TakeOptions::default(), &mut |_| {}),
        Err(ClaimError::Changed(_))
    ));
}

/// Defects 16 and 35 of the original: erased before anything was proven, and the link replaced.
#[test]
fn starting_over_erases_the_instance_behind_a_link_and_keeps_the_link() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link, outside) = (
        dir.path().join("real"),
        dir.path().join("link"),
        dir.path().join("ts"),
    );
    instance(&real);
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "").unwrap();
    fs::create_dir(real.join("pg_tblspc")).unwrap();
    symlink(&outside, real.join("pg_tblspc/16400")).unwrap();
    fs::create_dir(real.join("repmgr")).unwrap();
    fs::write(real.join("repmgr/show-server.txt"), "left over from the original").unwrap();
    symlink("real", &link).unwrap();

    let building = start(&link, FORCE);
    let names: Vec<_> = listing(&real).into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        names,
        ["repmgr", "repmgr/clone.json", "repmgr/clone.lock"].map(PathBuf::from)
    );
    assert!(outside.join("precious").exists());
    building.finish(&[], &sample_control()).unwrap();
    assert!(link.is_symlink() && link.join("global/pg_control").exists());
}

#[test]
fn an_interrupted_erasure_leaves_a_directory_that_must_be_erased() {
    let dir = tempfile::tempdir().unwrap();
    instance(dir.path());
    let claim = take(dir.path(), FORCE).unwrap();
    // As an interruption after the first step leaves it.
    claim
        .place
        .mark(Marker::new(json!(null), Phase::Discard))
        .unwrap();
    disable_instance(claim.place.tree.root(), dir.path()).unwrap();
    let cancel = CancelToken::new();
    cancel.cancel();
    let Claim { mut undo, place, .. } = claim;
    undo.disarm();
    assert!(matches!(
        place.erase(&[], Erasing::new(&cancel)),
        Err(EraseError::Cancelled(_))
    ));
    drop(place);
    assert!(dir.path().join("base/5/1249").exists() && !dir.path().join("global/pg_control").exists());
    let claim = take(dir.path(), TakeOptions::default()).unwrap();
    assert!(matches!(claim.resume(), Err(ResumeError::NotResumable(_))));
    // No force is needed to erase what is of no use to anybody.
    start(dir.path(), TakeOptions::default());
    assert!(!dir.path().join("base").exists());
}

#[test]
fn cancelling_before_the_first_step_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    instance(dir.path());
    let before = listing(dir.path());
    let cancel = CancelToken::new();
    cancel.cancel();
    let claim = take(dir.path(), FORCE).unwrap();
    assert!(matches!(
        claim.start_over(json!(null), &cancel),
        Err(EraseError::Cancelled(_))
    ));
    assert_eq!(listing(dir.path()), before);
}

/// Defect 1 of the original.
#[test]
fn a_server_started_after_the_look_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    instance(dir.path());
    let claim = take(dir.path(), FORCE).unwrap();
    let server = Sleeper::in_dir(dir.path());
    fs::write(dir.path().join("postmaster.pid"), server.pid().to_string()).unwrap();
    let refused = claim.start_over(json!(null), &CancelToken::new());
    drop(server);
    assert!(matches!(refused, Err(EraseError::Running { .. })), "{refused:?}");
    assert!(dir.path().join("global/pg_control").exists() && dir.path().join("base/5/1249").exists());
    assert!(!dir.path().join("repmgr").exists());
}

#[test]
fn what_a_killed_clone_left_in_an_untouched_instance_goes_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    instance(dir.path());
    let before = listing(dir.path());
    fs::create_dir(dir.path().join("repmgr")).unwrap();
    fs::write(dir.path().join("repmgr/clone.lock"), "").unwrap();
    drop(take(dir.path(), FORCE).unwrap());
    assert_eq!(listing(dir.path()), before);
}

#[test]
fn a_memo_is_there_until_it_is_cleared_or_the_clone_complete() {
    let dir = tempfile::tempdir().unwrap();
    let memo = || Target::inspect(dir.path()).unwrap().memo().cloned();
    instance(dir.path());
    // Killed before the directory was marked: the instance is untouched, the memo known.
    let claim = take(dir.path(), FORCE).unwrap();
    claim.memo().write(&json!({"slot": "a"})).unwrap();
    drop(claim);
    assert_eq!(memo(), Some(json!({"slot": "a"})));
    let building = start(dir.path(), FORCE);
    drop(building);
    assert_eq!(memo(), Some(json!({"slot": "a"})));
    let claim = take(dir.path(), FORCE).unwrap();
    let kept = claim.memo();
    let building = claim.resume().unwrap();
    kept.clear().unwrap();
    kept.clear().unwrap();
    drop(building);
    assert_eq!(memo(), None);
    let claim = take(dir.path(), FORCE).unwrap();
    claim.memo().write(&json!({"slot": "b"})).unwrap();
    let building = claim.resume().unwrap();
    building.finish(&[], &sample_control()).unwrap();
    assert!(memo().is_none() && !dir.path().join("repmgr").exists());
}

#[test]
fn a_clone_that_is_interrupted_is_found_and_continued() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let building = start(&data, TakeOptions::default());
    let mut file = building
        .tree()
        .create_file("base/5/1249", FileSpec::default())
        .unwrap();
    file.write_all(b"abc").unwrap();
    file.finish().unwrap();
    drop(building);

    let target = Target::inspect(&data).unwrap();
    let TargetState::Unfinished { marker: Some(marker) } = target.state() else {
        panic!("{:?}", target.state())
    };
    assert_eq!(marker.identity, json!({"backup": "B1"}));
    // Looked at, but not continued: still there.
    drop(Claim::take(&target, TakeOptions::default(), &mut |_| {}).unwrap());
    let building = take(&data, TakeOptions::default()).unwrap().resume().unwrap();
    assert_eq!(building.tree().read("base/5/1249", 9).unwrap().unwrap(), b"abc");
    building.finish(&[], &sample_control()).unwrap();
    assert!(matches!(
        Target::inspect(&data).unwrap().state(),
        TargetState::Instance(_) | TargetState::NonEmpty { .. }
    ));
}

#[test]
fn a_clone_that_was_finished_or_replaced_after_the_look_is_not_taken_for_unfinished() {
    let dir = tempfile::tempdir().unwrap();
    drop(start(dir.path(), TakeOptions::default()));
    let looked = Target::inspect(dir.path()).unwrap();
    let other = take(dir.path(), TakeOptions::default()).unwrap();
    drop(
        other
            .start_over(json!({"backup": "B2"}), &CancelToken::new())
            .unwrap(),
    );
    let taken = Claim::take(&looked, TakeOptions::default(), &mut |_| {});
    assert!(matches!(taken, Err(ClaimError::Changed(_))), "{taken:?}");

    let looked = Target::inspect(dir.path()).unwrap();
    let other = take(dir.path(), TakeOptions::default())
        .unwrap()
        .resume()
        .unwrap();
    other.finish(&[], &sample_control()).unwrap();
    let taken = Claim::take(&looked, TakeOptions::default(), &mut |_| {});
    assert!(matches!(taken, Err(ClaimError::Changed(_))), "{taken:?}");
    assert!(dir.path().join(PG_CONTROL).exists() && !dir.path().join(STATE_DIR).exists());
}

#[test]
fn the_control_file_comes_last_and_the_state_directory_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (data, ts) = (dir.path().join("data"), dir.path().join("ts"));
    fs::create_dir(&ts).unwrap();
    let ts = Tree::open(&ts, Permissions::default()).unwrap();
    let building = start(&data, TakeOptions::default());
    building.tree().create_dir("base").unwrap();
    building
        .tree()
        .write_durable("PG_VERSION", b"15\n", 0o640)
        .unwrap();
    building.finish(&[&ts], &sample_control()).unwrap();
    let names: Vec<_> = listing(&data).into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        names,
        ["PG_VERSION", "base", "global", "global/pg_control"].map(PathBuf::from)
    );
    assert_eq!(mode(&data.join("global/pg_control")), 0o600);
    let target = Target::inspect(&data).unwrap();
    assert!(matches!(target.state(), TargetState::Instance(_)) && target.warnings().is_empty());
}

/// Its tablespaces are known by that; without it they would be anybody's and refused for ever.
#[test]
fn a_clone_that_is_of_no_use_still_says_what_it_is_of() {
    let dir = tempfile::tempdir().unwrap();
    let building = start(dir.path(), TakeOptions::default());
    building.discard();
    drop(building);
    let target = Target::inspect(dir.path()).unwrap();
    let TargetState::Unfinished { marker: Some(marker) } = target.state() else {
        panic!("{:?}", target.state())
    };
    assert_eq!(marker.identity, json!({"backup": "B1"}));
    assert!(!marker.is_resumable());
}

#[test]
fn a_damaged_control_file_never_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    for damaged in [&sample_control()[..8000], &[0; 8192]] {
        let building = start(&dir.path().join("data"), TakeOptions::default());
        assert!(matches!(
            building.finish(&[], damaged),
            Err(FinishError::Control(_))
        ));
        assert!(!dir.path().join("data/global").exists());
    }
}

#[test]
fn a_finished_clone_that_could_not_tidy_up_is_an_instance() {
    let dir = tempfile::tempdir().unwrap();
    let building = start(dir.path(), TakeOptions::default());
    building.tree().create_dir("base").unwrap();
    building
        .tree()
        .write_durable("PG_VERSION", b"15\n", 0o640)
        .unwrap();
    building
        .tree()
        .write_durable(PG_CONTROL, &sample_control(), 0o640)
        .unwrap();
    drop(building);
    let target = Target::inspect(dir.path()).unwrap();
    assert!(matches!(target.state(), TargetState::Instance(_)));
    assert!(matches!(target.warnings(), [InspectWarning::LeftoverState(_)]));
    assert!(matches!(
        take(dir.path(), TakeOptions::default()),
        Err(ClaimError::NotEmpty(_))
    ));
}

#[test]
fn building_upon_an_instance_keeps_its_files_and_disables_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    instance(&data);
    let building = take(&data, FORCE)
        .unwrap()
        .build_upon(json!({"backup": "B2"}))
        .unwrap();
    assert!(!data.join(PG_CONTROL).exists() && data.join("base/5/1249").exists());
    drop(building);
    let target = Target::inspect(&data).unwrap();
    let TargetState::Unfinished { marker: Some(marker) } = target.state() else {
        panic!("{:?}", target.state());
    };
    assert!(marker.is_resumable());
    assert_eq!(marker.identity, json!({"backup": "B2"}));
}

#[test]
fn nothing_is_built_upon_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    instance(&data);
    let claim = take(&data, FORCE).unwrap();
    let server = Sleeper::postgres_in_dir(&data);
    let refused = claim.build_upon(json!({}));
    drop(server);
    assert!(matches!(refused, Err(EraseError::Running { .. })), "{refused:?}");
    assert!(data.join(PG_CONTROL).exists() && !data.join(STATE_DIR).exists());
}
