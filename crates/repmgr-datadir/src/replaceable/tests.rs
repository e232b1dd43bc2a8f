use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};

use super::*;
use crate::control::sample_control;
use crate::fake::Sleeper;
use crate::marker::{Marker, Phase};
use crate::{Target, TargetState};

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    (dir, real)
}

fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn instance(dir: &Path) {
    write(dir.join("PG_VERSION"), "15\n");
    write(dir.join("global/pg_control"), sample_control());
    write(dir.join("base/5/PG_VERSION"), "15\n");
    write(dir.join("base/5/1249"), "x");
}

fn unfinished(dir: &Path) {
    let marker = Marker::new(serde_json::json!({}), Phase::Copying);
    write(
        dir.join(crate::marker::MARKER),
        serde_json::to_vec(&marker).unwrap(),
    );
}

fn outcome(dir: &Path) -> Result<(), InspectError> {
    Target::inspect(dir)?.check_replaceable()
}

#[track_caller]
fn found(dir: &Path) -> Found {
    match outcome(dir).unwrap_err() {
        InspectError::NotReplaceable { path, found } => {
            assert_eq!(path, dir);
            assert!(!found.hint().to_string().contains("force"));
            found
        }
        other => panic!("{other}"),
    }
}

#[test]
fn an_instance_and_a_clone_of_ours_are_replaced() {
    let (_dir, dir) = scratch();
    let (old, clone) = (dir.join("old"), dir.join("clone"));
    instance(&old);
    outcome(&old).unwrap();
    write(old.join("global/pg_control"), "damaged");
    write(old.join("notes.txt"), "");
    outcome(&old).unwrap();
    unfinished(&clone);
    instance(&clone.join("repmgr/incoming"));
    instance(&clone.join("repmgr/parts/0/data"));
    outcome(&clone).unwrap();
    outcome(&dir.join("absent")).unwrap();
}

#[test]
fn a_directory_above_an_instance_is_not_replaced() {
    let (_dir, dir) = scratch();
    let main = dir.join("main");
    instance(&main);
    assert_eq!(
        found(&dir),
        Found::Instance {
            path: main.clone(),
            pid: None
        }
    );
    let server = Sleeper::postgres_in_dir(&main);
    assert_eq!(
        found(&dir),
        Found::Instance {
            path: main.clone(),
            pid: Some(server.pid())
        }
    );
    drop(server);
    let hint = outcome(&dir).unwrap_err().hint().unwrap();
    assert!(hint.to_string().contains(main.to_str().unwrap()), "{hint}");
}

#[test]
fn an_instance_with_another_or_with_a_clone_in_it_is_not_replaced() {
    let (_dir, dir) = scratch();
    instance(&dir);
    let copy = dir.join("backup_copy/today");
    instance(&copy);
    assert_eq!(
        found(&dir),
        Found::Instance {
            path: copy.clone(),
            pid: None
        }
    );
    fs::remove_dir_all(dir.join("backup_copy")).unwrap();
    unfinished(&copy);
    assert_eq!(found(&dir), Found::Clone(copy));
    fs::remove_dir_all(dir.join("backup_copy")).unwrap();
    // A database that has only lost its directory is none.
    write(dir.join("base/5/global"), "");
    assert!(matches!(found(&dir), Found::Instance { .. }));
}

#[test]
fn nothing_inside_a_data_directory_a_tablespace_or_a_backup_is_replaced() {
    let (_dir, dir) = scratch();
    let main = dir.join("main");
    instance(&main);
    for inside in ["base", "base/5", "pg_wal", "absent/new"] {
        if !inside.starts_with("absent") {
            fs::create_dir_all(main.join(inside)).unwrap();
        }
        assert_eq!(
            found(&main.join(inside)),
            Found::InsideDataDirectory(main.clone()),
            "{inside}"
        );
    }
    let part = dir.join("ts/PG_15_202209061");
    instance(&part.join("5"));
    assert_eq!(found(&part.join("5")), Found::InsideTablespace(part.clone()));
    assert_eq!(found(&part), Found::InsideTablespace(part));
    instance(&dir.join("ts/data"));
    assert_eq!(
        found(&dir.join("ts/data")),
        Found::InsideTablespace(dir.join("ts"))
    );
    outcome(&dir.join("ts/new")).unwrap();

    let backup = dir.join("barman/main/base/20261129T180404");
    write(backup.join("backup.info"), "");
    instance(&backup.join("data"));
    assert_eq!(found(&backup.join("data")), Found::InsideBarman(backup.clone()));
    fs::remove_file(backup.join("backup.info")).unwrap();
    write(dir.join("barman/main/identity.json"), "");
    assert_eq!(
        found(&backup.join("data")),
        Found::InsideBarman(dir.join("barman/main"))
    );
}

#[test]
fn what_a_running_server_uses_is_not_replaced() {
    let (_dir, dir) = scratch();
    let (primary, old) = (dir.join("primary"), dir.join("old"));
    instance(&primary);
    instance(&old);
    for place in ["old/ts", "old/wal"] {
        fs::create_dir_all(dir.join(place)).unwrap();
    }
    fs::create_dir(primary.join("pg_tblspc")).unwrap();
    symlink(dir.join("old/ts"), primary.join("pg_tblspc/16400")).unwrap();
    let server = Sleeper::postgres_in_dir(&primary);
    let used = |path: &str| Found::Used {
        path: dir.join(path),
        pid: server.pid(),
        data: primary.clone(),
    };
    assert_eq!(found(&old), used("old/ts"));
    write(dir.join("old/ts/sub/file"), "");
    assert_eq!(
        found(&dir.join("old/ts/sub")),
        Found::InsideDataDirectory(old.clone())
    );
    fs::remove_file(old.join("PG_VERSION")).unwrap();
    assert_eq!(found(&dir.join("old/ts/sub")), used("old/ts"));
    write(old.join("PG_VERSION"), "15");
    fs::remove_file(primary.join("pg_tblspc/16400")).unwrap();
    symlink("../old/wal", primary.join("pg_wal")).unwrap();
    assert_eq!(found(&old), used("old/wal"));
}

/// `postgres_exporter` in "/", or a server that is just starting.
#[test]
fn a_postgres_that_works_elsewhere_makes_nothing_its_own() {
    let (_dir, dir) = scratch();
    instance(&dir.join("main"));
    let _other = Sleeper::postgres_in_dir(&dir);
    outcome(&dir.join("main")).unwrap();
}

#[test]
fn only_an_instances_own_tablespaces_go_with_it() {
    let (_dir, dir) = scratch();
    instance(&dir);
    let (own, in_place) = (dir.join("ts/one"), dir.join("pg_tblspc/16401"));
    fs::create_dir_all(own.join("PG_15_202209061/5")).unwrap();
    fs::create_dir_all(in_place.join("PG_15_202209061/5")).unwrap();
    let part = own.join("PG_15_202209061");
    assert_eq!(found(&dir), Found::Tablespace(part));
    symlink("../ts/one", dir.join("pg_tblspc/16400")).unwrap();
    outcome(&dir).unwrap();
}

#[test]
fn a_configuration_directory_is_not_replaced_and_says_where_its_data_are() {
    let (_dir, dir) = scratch();
    write(dir.join("postgresql.conf"), "port = 5432\n");
    assert_eq!(found(&dir), Found::Configuration { data_directory: None });
    write(
        dir.join("postgresql.conf"),
        "data_directory = '/old'\nDATA_directory '/var/lib/postgresql/15/main' # moved\nbroken ' line\n",
    );
    let data_directory = Some(PathBuf::from("/var/lib/postgresql/15/main"));
    assert_eq!(found(&dir), Found::Configuration { data_directory });
    let error = outcome(&dir).unwrap_err();
    assert!(error.to_string().contains("15/main") && error.hint().unwrap().to_string().contains("15/main"));
}

#[test]
fn other_content_is_counted_and_named() {
    let (_dir, dir) = scratch();
    for name in ["f", "b", "a", "e", "d", "c"] {
        write(dir.join(name), "");
    }
    let error = outcome(&dir).unwrap_err().to_string();
    assert!(
        error.contains("is not empty") && error.contains("6 other entries: \"a\", \"b\""),
        "{error}"
    );
    write(dir.join("repmgr/clone.lock"), "");
    assert!(
        matches!(found(&dir), Found::Other { entries: 7, .. }),
        "a lock makes nothing ours"
    );
    let state = Target::inspect(&dir).unwrap();
    assert!(matches!(state.state(), TargetState::NonEmpty { .. }));
}

#[test]
fn homes_are_not_replaced_even_if_they_are_instances() {
    let homes: Vec<_> = homes()
        .into_iter()
        .filter_map(|home| home.canonicalize().ok())
        .collect();
    assert!(!homes.is_empty());
    for home in homes {
        assert!(
            matches!(protected(&home), Some(Found::Home(_) | Found::System)),
            "{home:?}"
        );
    }
    assert_eq!(protected(Path::new("/usr/local/pgsql/data")), None);
    assert_eq!(protected(Path::new("/var/lib/postgresql/15/main")), None);
}

#[test]
fn names_of_tablespace_directories() {
    for good in ["PG_15_202209061", "PG_9.6_201608131"] {
        assert!(is_tablespace_name(good.as_bytes()), "{good}");
    }
    for bad in [
        "PG_VERSION",
        "PG_15",
        "PG_15_",
        "PG_15_1_2",
        "PG__202209061",
        "xPG_15_2",
    ] {
        assert!(!is_tablespace_name(bad.as_bytes()), "{bad}");
    }
}

/// Something that only root can do; taken back at the end.
struct Undone {
    undo: &'static str,
    args: Vec<String>,
}

impl Undone {
    /// `None` where it is not possible, as an unprivileged user or on this file system.
    fn after(program: &'static str, args: &[&str], undo: &'static str, undo_args: &[&str]) -> Option<Self> {
        let done = Command::new(program).args(args).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success()).then(|| Self {
            undo,
            args: undo_args.iter().map(|&arg| arg.to_owned()).collect(),
        })
    }

    fn chattr(flag: char, path: &Path) -> Option<Self> {
        let path = path.to_str().unwrap();
        Self::after(
            "chattr",
            &[&format!("+{flag}"), path],
            "chattr",
            &[&format!("-{flag}"), path],
        )
    }

    fn mount(from: &Path, to: &Path) -> Option<Self> {
        let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
        Self::after("mount", &["--bind", from, to], "umount", &[to])
    }
}

impl Drop for Undone {
    fn drop(&mut self) {
        assert!(
            Command::new(self.undo)
                .args(&self.args)
                .status()
                .unwrap()
                .success()
        );
    }
}

#[track_caller]
fn assert_stubborn(outcome: Result<(), InspectError>, wanted: &Path, reason: Stubborn) {
    match outcome.unwrap_err() {
        error @ InspectError::Stubborn { .. } => {
            let hint = error.hint().unwrap().to_string();
            let InspectError::Stubborn { path, why } = error else {
                unreachable!()
            };
            assert_eq!((path.as_path(), why), (wanted, reason));
            assert!(hint.contains(wanted.to_str().unwrap()), "{hint}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_file_that_cannot_be_removed_is_found_wherever_it_is() {
    let (_dir, dir) = scratch();
    let (old, conf) = (dir.join("old"), dir.join("my postgresql.conf"));
    instance(&old);
    write(&conf, "");
    write(old.join("postgresql.conf"), "");
    fs::create_dir(old.join("base/6")).unwrap();
    let file = old.join("postgresql.conf");
    if let Some(_mount) = Undone::mount(&conf, &file) {
        assert_stubborn(outcome(&old), &file, Stubborn::Mounted);
    }
    for (flag, why) in [('i', Stubborn::Immutable), ('a', Stubborn::AppendOnly)] {
        for at in ["postgresql.conf", "base/5/1249", "base/6", "base/5", "base"] {
            if let Some(_kept) = Undone::chattr(flag, &old.join(at)) {
                assert_stubborn(outcome(&old), &old.join(at), why);
            }
        }
        if let Some(_kept) = Undone::chattr(flag, &old) {
            assert!(outcome(&old).is_err(), "the directory itself");
        }
    }
    outcome(&old).unwrap();
}

#[test]
fn a_mounted_directory_is_emptied_and_no_obstacle() {
    let (_dir, dir) = scratch();
    let (old, disk) = (dir.join("old"), dir.join("disk"));
    instance(&old);
    write(disk.join("000000010000000000000001"), "");
    write(disk.join("lost+found/x"), "");
    fs::create_dir(old.join("pg_wal")).unwrap();
    let _mount = Undone::mount(&disk, &old.join("pg_wal"));
    outcome(&old).unwrap();
}

/// Root removes everything; others only what is theirs.
#[test]
fn what_others_own_in_a_sticky_directory_is_found() {
    let (_dir, dir) = scratch();
    instance(&dir);
    let shared = dir.join("shared");
    write(shared.join("theirs"), "");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    if chown(&shared, Some(65_534), None).is_err()
        || chown(shared.join("theirs"), Some(65_534), None).is_err()
    {
        return outcome(&dir).unwrap();
    }
    let used = Used::find().unwrap();
    let mut survey = Survey::new(&dir, Owner::Instance(&[]), &used).unwrap();
    let root = sys::open_root(&dir).unwrap();
    survey.run(root.as_fd(), &|_| true).unwrap();
    survey.set_user(1234);
    let outcome = survey.run(root.as_fd(), &|_| true);
    assert_stubborn(
        outcome,
        &shared.join("theirs"),
        Stubborn::Sticky { owner: 65_534 },
    );
}
