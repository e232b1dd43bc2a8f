//! The data directory in every state it can be found in.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

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

/// Something that only root can do, and that is taken back at the end.
struct Obstacle(Vec<String>);

impl Obstacle {
    fn new(make: &[&str], undo: &[&str]) -> Option<Self> {
        let made = Command::new(make[0]).args(&make[1..]).output();
        let made = made.is_ok_and(|made| made.status.success());
        made.then(|| Self(undo.iter().map(|&word| word.to_owned()).collect()))
    }

    fn mount(from: &Path, to: &Path) -> Option<Self> {
        let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
        Self::new(&["mount", "--bind", from, to], &["umount", to])
    }

    fn chattr(flag: &str, path: &Path) -> Option<Self> {
        let path = path.to_str().unwrap();
        let (set, unset) = (format!("+{flag}"), format!("-{flag}"));
        Self::new(&["chattr", &set, path], &["chattr", &unset, path])
    }
}

impl Drop for Obstacle {
    fn drop(&mut self) {
        assert!(
            Command::new(&self.0[0])
                .args(&self.0[1..])
                .status()
                .unwrap()
                .success()
        );
    }
}

/// Containers mount single configuration files; others guard theirs by an attribute.
#[test]
fn a_single_file_that_cannot_be_removed_is_found_before_anything_is() {
    let lab = shared();
    let target = stopped(lab);
    let data = &target.data_dir;
    let tablespaces = lab.scratch().join(format!("node{}/tablespaces", target.node_id));
    let below = |dir: &Path| fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    let database = below(&below(&tablespaces.join("fast")));
    let mounted = lab.scratch().write("mounted.conf", "", 0o600).unwrap();
    let conf = data.join("postgresql.conf");
    let obstacles = [
        (
            conf.clone(),
            "is a mount point",
            Obstacle::mount as fn(&Path, &Path) -> Option<Obstacle>,
        ),
        (conf, "is immutable", |_, at| Obstacle::chattr("i", at)),
        (data.join("base/1"), "is append-only", |_, at| {
            Obstacle::chattr("a", at)
        }),
        (below(&database), "is immutable", |_, at| {
            Obstacle::chattr("i", at)
        }),
        (database, "is immutable", |_, at| Obstacle::chattr("i", at)),
    ];
    for (at, why, make) in obstacles {
        let Some(_obstacle) = make(&mounted, &at) else {
            return skip("a_single_file_that_cannot_be_removed", "only root can make one");
        };
        // The lock of a clone comes and goes at the top.
        let before = [Snapshot::inside(data), Snapshot::of([&tablespaces])];
        for more in [&["-F"][..], &["-F", "--dry-run"], &["-F", "--delta"]] {
            let said = output(&clone(lab, &target, more).code(1));
            assert!(
                said.contains(why) && said.contains(at.to_str().unwrap()),
                "{said}"
            );
            before.iter().for_each(Snapshot::assert_unchanged);
        }
    }
    clone(lab, &target, &["-F"]).success();
}

/// Such a directory lets each remove what is theirs only.
#[test]
fn what_others_own_in_a_sticky_directory_is_found_before_anything_is_erased() {
    let lab = shared();
    let target = stopped(lab);
    let dir = lab.scratch().dir(target.data_dir.join("shared")).unwrap();
    fs::write(dir.join("theirs"), "").unwrap();
    if chown(&dir, Some(0), Some(0)).is_err() {
        return skip(
            "what_others_own_in_a_sticky_directory",
            "only root can give things away",
        );
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
    let before = Snapshot::of([&target.data_dir]);
    for more in [&["-F"][..], &["-F", "--dry-run"], &["-F", "--delta"]] {
        clone(lab, &target, more)
            .code(1)
            .stderr(contains("theirs").and(contains("another user")));
        before.assert_unchanged();
    }
    fs::remove_dir_all(&dir).unwrap();
}

/// It goes with the directory, and is not said to stay.
#[test]
fn a_tablespace_inside_the_old_instance_is_said_to_be_erased() {
    let lab = shared();
    let target = stopped(lab);
    let inside = target.data_dir.join("inside");
    let old = inside.join("PG_15_202209061/5/12345");
    lab.scratch().write(&old, "old", 0o600).unwrap();
    symlink(&inside, target.data_dir.join("pg_tblspc/99999")).unwrap();
    for more in [&["-F", "--dry-run"][..], &["-F"]] {
        let said = output(&clone(lab, &target, more).success());
        assert!(said.contains("will be erased with it"), "{said}");
        assert!(!said.contains("left as it is"), "{said}");
    }
    assert!(!old.exists());
    drop(assert_standby(lab, &target));
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

const WAYS: [&[&str]; 5] = [
    &[],
    &["-F"],
    &["-F", "--dry-run"],
    &["--dry-run"],
    &["-F", "--delta"],
];

/// Every way to clone into a directory is refused, says all of these words and not that force helps, and
/// changes nothing below `kept`.
#[track_caller]
fn assert_never_replaced(lab: &Lab, dir: &Path, kept: &Path, words: &[&str]) {
    let target = node(lab, &[("data_directory", dir.to_str().unwrap())]);
    let before = Snapshot::of([kept]);
    for more in WAYS {
        let said = output(&clone(lab, &target, more).code(1));
        for word in words {
            assert!(said.contains(word), "{more:?}: no {word:?} in\n{said}");
        }
        assert!(!said.contains("--force"), "{said}");
        before.assert_unchanged();
    }
}

#[test]
fn a_directory_with_other_content_is_refused_force_or_not() {
    let lab = shared();
    let dir = lab.scratch().join("other files");
    for name in ["notes.txt", "letters", "base/1/more.txt"] {
        lab.scratch().write(dir.join(name), "mine", 0o600).unwrap();
    }
    let words = [
        "is not empty",
        "3 other entries",
        "\"base\", \"letters\", \"notes.txt\"",
    ];
    assert_never_replaced(lab, &dir, &dir, &words);
}

#[test]
fn a_configuration_directory_is_refused_and_says_where_its_data_are() {
    let lab = shared();
    let dir = lab.scratch().join("etc/postgresql/15/main");
    let conf = "port = 5432\ndata_directory = '/var/lib/postgresql/15/main'\n";
    for (name, text) in [
        ("postgresql.conf", conf),
        ("pg_hba.conf", ""),
        ("conf.d/own.conf", ""),
    ] {
        lab.scratch().write(dir.join(name), text, 0o600).unwrap();
    }
    assert_never_replaced(lab, &dir, &dir, &["configuration", "/var/lib/postgresql/15/main"]);
}

#[test]
fn a_directory_above_an_instance_is_refused_running_or_not() {
    let lab = shared();
    let dir = lab.scratch().join("one level/15");
    let target = node(lab, &[("data_directory", dir.join("main").to_str().unwrap())]);
    clone(lab, &target, &[]).success();
    let main = target.data_dir.to_str().unwrap();
    for above in [dir.as_path(), dir.parent().unwrap()] {
        assert_never_replaced(lab, above, &dir, &[main, "which is not running"]);
    }
    let standby = assert_standby(lab, &target);
    for more in WAYS {
        let above = node(lab, &[("data_directory", dir.to_str().unwrap())]);
        let said = output(&clone(lab, &above, more).code(1));
        assert!(said.contains(main) && said.contains("which is running"), "{said}");
    }
    standby.wait_for_streaming(repmgr_tests::LIMIT).unwrap();
}

#[test]
fn an_instance_that_holds_another_is_refused() {
    let lab = shared();
    let target = stopped(lab);
    let copy = target.data_dir.join("backup_copy");
    let scratch = lab.scratch();
    scratch.write(copy.join("PG_VERSION"), "15\n", 0o600).unwrap();
    scratch.write(copy.join("global/pg_control"), "x", 0o600).unwrap();
    let data = target.data_dir.clone();
    assert_never_replaced(
        lab,
        &data,
        &data,
        &[copy.to_str().unwrap(), "which is not running"],
    );
}

#[test]
fn what_lies_inside_an_instance_or_its_tablespaces_is_refused() {
    let lab = shared();
    let target = stopped(lab);
    let data = target.data_dir.clone();
    for inside in ["base", "base/1", "pg_wal", "pg_replslot", "not/there"] {
        let words = ["lies inside the data directory", data.to_str().unwrap()];
        assert_never_replaced(lab, &data.join(inside), &data, &words);
    }
    let tablespace = lab
        .scratch()
        .join(format!("node{}/tablespaces/fast", target.node_id));
    assert_never_replaced(lab, &tablespace, &tablespace, &["PG_15_"]);
    let part = fs::read_dir(&tablespace).unwrap().next().unwrap().unwrap().path();
    assert_never_replaced(lab, &part, &part, &["inside, the tablespace directory"]);
}

#[test]
fn a_running_servers_tablespace_is_refused() {
    let lab = shared();
    for place in lab.primary().tablespaces() {
        assert_never_replaced(
            lab,
            place,
            place,
            &["is in use", lab.primary().data_dir().to_str().unwrap()],
        );
    }
}

#[test]
fn a_backup_of_barmans_is_refused() {
    let lab = shared();
    let id = lab.backup_id().unwrap();
    let backup = lab.barman().server_dir(lab.server()).join("base").join(id);
    assert_never_replaced(lab, &backup.join("data"), &backup, &["Barman"]);
}

/// With what was put into it.
#[test]
fn an_instance_is_erased_with_force_whatever_is_in_it() {
    let lab = shared();
    let target = stopped(lab);
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
