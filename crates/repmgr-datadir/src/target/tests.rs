use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use serde_json::json;

use super::*;
use crate::control::sample_control;
use crate::fake::Sleeper;
use crate::marker::Phase;
use crate::{Found, StalePidFile};

fn write(dir: &Path, rel: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(rel);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn instance(dir: &Path) {
    fs::create_dir(dir.join("base")).unwrap();
    write(dir, "PG_VERSION", "15\n");
    write(dir, "global/pg_control", sample_control());
}

fn state(path: &Path) -> TargetState {
    Target::inspect(path).unwrap().state().clone()
}

/// A directory that nobody can write to, root included where the file system has such an attribute.
struct ReadOnly<'a> {
    dir: &'a Path,
    works: bool,
}

fn chattr(flag: &str, dir: &Path) -> bool {
    Command::new("chattr")
        .arg(flag)
        .arg(dir)
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

impl<'a> ReadOnly<'a> {
    fn new(dir: &'a Path) -> Self {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o555)).unwrap();
        Self {
            dir,
            works: !rustix::process::geteuid().is_root() || chattr("+i", dir),
        }
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        if rustix::process::geteuid().is_root() {
            chattr("-i", self.dir);
        }
        fs::set_permissions(self.dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn absent_and_empty_directories_are_told_apart_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    let target = Target::inspect(&dir.path().join("a b/c")).unwrap();
    assert_eq!(target.state(), &TargetState::Absent { parent: real.clone() });
    assert_eq!(target.path(), real.join("a b/c"));
    assert!(!dir.path().join("a b").exists());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(state(dir.path()), TargetState::Empty { mode: 0o755 });
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    assert_eq!(
        state(dir.path()),
        TargetState::Empty { mode: 0o755 },
        "a fresh file system"
    );
}

#[test]
fn a_stopped_instance_is_described() {
    let dir = tempfile::tempdir().unwrap();
    instance(dir.path());
    fs::create_dir(dir.path().join("pg_tblspc")).unwrap();
    symlink("/srv/ts with blank", dir.path().join("pg_tblspc/16400")).unwrap();
    symlink("../../elsewhere", dir.path().join("pg_tblspc/16399")).unwrap();
    fs::create_dir(dir.path().join("pg_tblspc/16401")).unwrap();
    symlink("/wal/here", dir.path().join("pg_wal")).unwrap();
    let target = Target::inspect(dir.path()).unwrap();
    let head = PgControlHead::parse(&sample_control()).unwrap();
    assert_eq!(
        target.state(),
        &TargetState::Instance(Instance {
            major: "15".into(),
            control: Some(head)
        })
    );
    let links: Vec<_> = target
        .tablespaces()
        .iter()
        .map(|link| (link.oid, link.location.clone()))
        .collect();
    assert_eq!(links[1], (16400, "/srv/ts with blank".into()));
    assert_eq!(links[0], (16399, target.path().join("pg_tblspc/../../elsewhere")));
    assert_eq!(links.len(), 2);
    assert_eq!(target.wal_link(), Some(Path::new("/wal/here")));
    assert!(target.links_to(Path::new("/srv/ts with blank")) && !target.links_to(Path::new("/srv")));
}

#[test]
fn an_instance_without_its_control_file_is_an_instance() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "PG_VERSION", "9.6\n");
    assert!(
        matches!(state(dir.path()), TargetState::NonEmpty { .. }),
        "a database has one, too"
    );
    fs::create_dir(dir.path().join("base")).unwrap();
    fs::create_dir(dir.path().join("global")).unwrap();
    assert_eq!(
        state(dir.path()),
        TargetState::Instance(Instance {
            major: "9.6".into(),
            control: None
        })
    );
}

#[test]
fn other_content_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["f", "b", "a", "e", "d", "c"] {
        write(dir.path(), name, "");
    }
    assert_eq!(
        state(dir.path()),
        TargetState::NonEmpty {
            names: ["a", "b", "c", "d", "e"].map(Into::into).into()
        }
    );
    write(dir.path(), "PG_VERSION", "garbage");
    assert!(matches!(state(dir.path()), TargetState::NonEmpty { .. }));
}

#[test]
fn an_unfinished_clone_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let marker = Marker::new(json!({"backup": "20260824T101530"}), Phase::Copying);
    write(dir.path(), MARKER, serde_json::to_vec(&marker).unwrap());
    write(dir.path(), "PG_VERSION", "15\n");
    assert_eq!(
        state(dir.path()),
        TargetState::Unfinished { marker: Some(marker) }
    );
    write(dir.path(), MARKER, "{ torn");
    assert_eq!(state(dir.path()), TargetState::Unfinished { marker: None });
    fs::remove_file(dir.path().join(MARKER)).unwrap();
    write(dir.path(), LOCK, "");
    assert!(
        matches!(state(dir.path()), TargetState::NonEmpty { .. }),
        "a lock alone says nothing of what else is there"
    );
    fs::remove_file(dir.path().join("PG_VERSION")).unwrap();
    assert_eq!(state(dir.path()), TargetState::Unfinished { marker: None });
}

#[test]
fn a_marker_beside_a_control_file_does_not_make_an_instance_fair_game() {
    let dir = tempfile::tempdir().unwrap();
    instance(dir.path());
    let marker = Marker::new(json!(null), Phase::Copying);
    write(dir.path(), MARKER, serde_json::to_vec(&marker).unwrap());
    let target = Target::inspect(dir.path()).unwrap();
    assert!(matches!(target.state(), TargetState::Instance(_)));
    assert!(matches!(target.warnings(), [InspectWarning::LeftoverState(path)] if path.ends_with("repmgr")));
}

/// Defect 1 of the original: with -F it erased the directory of a running instance.
#[test]
fn a_running_instance_is_an_error_and_a_stale_pid_file_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    instance(dir.path());
    let server = Sleeper::in_dir(dir.path());
    write(dir.path(), "postmaster.pid", server.pid().to_string());
    let (running, server_pid) = (Target::inspect(dir.path()), server.pid());
    drop(server);
    let error = running.unwrap_err();
    assert!(
        matches!(&error, InspectError::Running { pid, .. } if *pid == server_pid),
        "{error}"
    );
    assert!(
        error.to_string().contains("appears to be running")
            && error.hint().unwrap().to_string().contains("postmaster.pid")
    );
    let target = Target::inspect(dir.path()).unwrap();
    assert!(matches!(
        target.warnings(),
        [InspectWarning::StalePidFile(StalePidFile::Gone { .. })]
    ));
}

#[test]
fn a_link_to_a_directory_leads_there_and_a_link_to_nothing_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap().join("real");
    let link = dir.path().join("link");
    symlink("real", &link).unwrap();
    for path in [link.clone(), link.join("below")] {
        assert!(
            matches!(Target::inspect(&path), Err(InspectError::DanglingLink { target, .. }) if target == Path::new("real"))
        );
    }
    fs::create_dir(&real).unwrap();
    assert_eq!(Target::inspect(&link).unwrap().path(), real);
    assert_eq!(
        Target::inspect(&link.join("below")).unwrap().path(),
        real.join("below")
    );
}

#[test]
fn what_is_no_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "file", "");
    for path in ["file", "file/below"] {
        assert!(
            matches!(
                Target::inspect(&dir.path().join(path)),
                Err(InspectError::NotADirectory(_))
            ),
            "{path}"
        );
    }
    assert!(matches!(
        Target::inspect(&dir.path().join("no/../way")),
        Err(InspectError::BadPath(_))
    ));
}

#[test]
fn places_where_nothing_can_be_written_are_refused_beforehand() {
    let dir = tempfile::tempdir().unwrap();
    let read_only = ReadOnly::new(dir.path());
    match Target::inspect(&dir.path().join("data")) {
        Err(error @ InspectError::NotWritable { .. }) => {
            assert!(read_only.works && error.hint().is_some());
            assert!(error.to_string().contains(dir.path().to_str().unwrap()));
        }
        // Root, where nothing keeps it from writing.
        Ok(target) => assert!(!read_only.works && matches!(target.state(), TargetState::Absent { .. })),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn directories_of_other_users_and_of_the_system_are_refused() {
    // Root owns /etc; everybody else is stopped by that.
    let expected = |error: &InspectError| {
        if rustix::process::geteuid().is_root() {
            matches!(
                error,
                InspectError::NotReplaceable {
                    found: Found::System,
                    ..
                }
            )
        } else {
            matches!(error, InspectError::OwnedByOther { owner: 0, .. })
        }
    };
    for path in ["/", "/etc", "/usr", "/var"] {
        let error = Target::inspect(Path::new(path))
            .and_then(|target| target.check_replaceable())
            .unwrap_err();
        assert!(expected(&error), "{error}");
    }
}
