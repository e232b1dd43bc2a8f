use std::os::unix::fs::{MetadataExt, symlink};

use repmgr_types::CancelToken;

use super::*;
use crate::Found;
use crate::fake::Sleeper;

struct Place {
    dir: tempfile::TempDir,
    data: Target,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = Target::inspect(&dir.path().join("data")).unwrap();
        Self { dir, data }
    }

    fn with(&self, entries: &[&str]) -> PathBuf {
        let path = self.dir.path().canonicalize().unwrap().join("ts one");
        for entry in entries {
            fs::create_dir_all(path.join(entry)).unwrap();
        }
        path
    }

    fn look(&self, path: &Path, ours: Option<&str>) -> Result<OutsideState, OutsideError> {
        OutsideDir::tablespace(path, &self.data, ours).map(|dir| dir.state().clone())
    }
}

fn prepare(dir: &OutsideDir, existing: OldContent) -> Result<Tree, PrepareError> {
    dir.prepare(Permissions::default(), existing, &CancelToken::new(), &mut |_| {})
}

#[test]
fn absent_and_empty_locations_are_fine() {
    let place = Place::new();
    let path = place.with(&[]);
    let absent = OutsideDir::tablespace(&path, &place.data, None).unwrap();
    assert_eq!(absent.state(), &OutsideState::Absent);
    assert!(!path.exists());
    let tree = prepare(&absent, OldContent::Refuse).unwrap();
    assert_eq!(
        (tree.path(), fs::metadata(&path).unwrap().mode() & 0o7777),
        (path.as_path(), 0o700)
    );
    place.with(&["lost+found"]);
    assert_eq!(place.look(&path, None).unwrap(), OutsideState::Empty);
}

/// Defect 13 of the original: tablespaces that were not empty were only logged, never cleaned.
#[test]
fn only_the_replaced_instances_own_version_directories_are_erased() {
    let place = Place::new();
    let path = place.with(&["PG_15_202209061/5", "lost+found"]);
    fs::write(path.join("PG_15_202209061/5/16400"), "stale").unwrap();
    assert!(matches!(
        place.look(&path, None),
        Err(OutsideError::NotEmpty { .. })
    ));
    assert!(matches!(
        place.look(&path, Some("14")),
        Err(OutsideError::NotEmpty { .. })
    ));
    assert!(matches!(
        place.look(&path, Some("1")),
        Err(OutsideError::NotEmpty { .. })
    ));
    let ours = OutsideDir::tablespace(&path, &place.data, Some("15")).unwrap();
    assert_eq!(ours.state(), &OutsideState::Ours);
    assert!(matches!(
        prepare(&ours, OldContent::Refuse),
        Err(PrepareError::Outside(OutsideError::NotEmpty { .. }))
    ));
    prepare(&ours, OldContent::Keep).unwrap();
    assert!(path.join("PG_15_202209061/5/16400").exists());
    prepare(&ours, OldContent::Erase).unwrap();
    assert_eq!(names_in(&path).unwrap(), Vec::<OsString>::new());
    assert!(path.join("lost+found").exists());
}

#[test]
fn content_of_others_beside_ours_is_never_touched() {
    let place = Place::new();
    let path = place.with(&["PG_15_202209061"]);
    let ours = OutsideDir::tablespace(&path, &place.data, Some("15")).unwrap();
    place.with(&["PG_14_202107181"]);
    let error = prepare(&ours, OldContent::Erase).unwrap_err();
    assert!(error.to_string().contains("\"PG_14_202107181\""), "{error}");
    assert!(error.hint().unwrap().to_string().contains("tablespace_mapping"));
    assert!(path.join("PG_15_202209061").exists());
}

#[test]
fn content_that_came_after_the_look_is_not_erased() {
    let place = Place::new();
    let path = place.with(&[]);
    fs::create_dir(&path).unwrap();
    let empty = OutsideDir::tablespace(&path, &place.data, Some("15")).unwrap();
    place.with(&["PG_15_202209061"]);
    assert!(matches!(
        prepare(&empty, OldContent::Erase),
        Err(PrepareError::Outside(OutsideError::NotEmpty { .. }))
    ));
    assert!(path.join("PG_15_202209061").exists());
}

#[test]
fn a_location_of_a_running_server_is_never_ours() {
    let place = Place::new();
    let path = place.with(&["PG_15_202209061"]);
    let primary = place.dir.path().join("primary");
    fs::create_dir_all(primary.join("pg_tblspc")).unwrap();
    fs::write(primary.join("PG_VERSION"), "15").unwrap();
    symlink(&path, primary.join("pg_tblspc/16400")).unwrap();
    let server = Sleeper::postgres_in_dir(&primary);
    let refused = place.look(&path, Some("15"));
    drop(server);
    assert!(
        matches!(&refused, Err(OutsideError::Inspect(InspectError::NotReplaceable { found: Found::Used { data, .. }, .. })) if data.ends_with("primary")),
        "{refused:?}"
    );
    assert_eq!(place.look(&path, Some("15")).unwrap(), OutsideState::Ours);
}

#[test]
fn locations_that_cannot_work_are_refused() {
    let place = Place::new();
    let data = place.data.path();
    assert!(matches!(
        place.look(&data.join("ts"), None),
        Err(OutsideError::Overlaps { .. })
    ));
    assert!(matches!(
        place.look(data.parent().unwrap(), None),
        Err(OutsideError::Overlaps { .. })
    ));
    assert!(matches!(
        place.look(Path::new("relative"), None),
        Err(OutsideError::Relative(_))
    ));
    let file = place.dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(
        place.look(&file, None),
        Err(OutsideError::Inspect(InspectError::NotADirectory(_)))
    ));
}

/// Defect 20 of the original: the WAL directory was looked at after the whole copy.
#[test]
fn a_wal_directory_elsewhere_is_ours_when_it_has_wal_and_nothing_else() {
    let place = Place::new();
    let path = place.with(&["archive_status", "000000010000000000000003"]);
    assert!(matches!(
        OutsideDir::wal(&path, &place.data, false),
        Err(OutsideError::NotEmpty { .. })
    ));
    let ours = OutsideDir::wal(&path, &place.data, true).unwrap();
    prepare(&ours, OldContent::Erase).unwrap();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    place.with(&["my-notes"]);
    assert!(matches!(
        OutsideDir::wal(&path, &place.data, true),
        Err(OutsideError::NotEmpty { .. })
    ));
}

#[test]
fn wal_names_are_known() {
    for name in [
        "000000010000000000000003",
        "000000010000000000000003.partial",
        "000000010000000000000003.00000028.backup",
        "00000002.history",
        "archive_status",
        "summaries",
        "xlogtemp.4711",
    ] {
        assert!(is_wal_name(name.as_bytes()), "{name}");
    }
    for name in [
        "0000000100000000000000",
        "base",
        "00000002.partial",
        "PG_VERSION",
        "000000010000000000000003.gz",
    ] {
        assert!(!is_wal_name(name.as_bytes()), "{name}");
    }
}
