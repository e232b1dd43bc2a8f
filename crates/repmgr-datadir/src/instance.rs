//! The data directory of an instance that stays: to be configured anew, not replaced.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::control::{PG_CONTROL, PgControlHead};
use crate::marker::{LOCK, MARKER, Marker, read_bounded};
use crate::target::{check_own, check_writable, lock_is_held, major_version, names_in, resolve};
use crate::{InspectError, Permissions, ServerState, Tree, TreeError, server_state};

/// The data directory of a PostgreSQL instance, as it was when looked at. Its server may be running.
#[derive(Debug, Clone)]
pub struct InstanceDir {
    path: PathBuf,
    major: String,
    control: PgControlHead,
    server: ServerState,
    permissions: Permissions,
}

impl InstanceDir {
    /// Looks at `path`, symbolic links resolved, and touches nothing.
    ///
    /// # Errors
    /// When no PostgreSQL instance is there that could be started, when its files are not ours to write,
    /// or while it is being cloned into. A running server is no error.
    pub fn inspect(path: &Path) -> Result<Self, InspectError> {
        let (path, parent) = resolve(path)?;
        let refuse = |why| {
            Err(InspectError::NotAnInstance {
                path: path.clone(),
                why,
            })
        };
        if parent.is_some() {
            return refuse("it does not exist");
        }
        let failed = |source| InspectError::NotAccessible {
            path: path.clone(),
            source,
        };
        // A directory of somebody else is the better explanation for a pid file we may not read.
        let server = server_state(&path).or_else(|error| check_own(&path).and(Err(error.into())))?;
        let meta = check_own(&path)?;
        check_writable(&path, false)?;
        if lock_is_held(&path.join(LOCK)).map_err(failed)? {
            let pid = Marker::read(&path).map_err(failed)?.map(|marker| marker.pid);
            return Err(InspectError::CloneInProgress { path, pid });
        }
        let control = match read_bounded(&path.join(PG_CONTROL), PgControlHead::SIZE as u64) {
            Ok(head) => Some(head),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let begun = [MARKER, LOCK]
            .iter()
            .any(|file| path.join(file).symlink_metadata().is_ok());
        if begun && control.is_none() {
            return refuse("it holds a clone that was not finished");
        }
        let Some(major) = major_version(&path).map_err(failed)? else {
            return match names_in(&path).map_err(failed)?.is_empty() {
                true => refuse("it is empty"),
                false => refuse("it has no PG_VERSION"),
            };
        };
        let Some(Ok(control)) = control.map(|head| PgControlHead::parse(&head)) else {
            return refuse("its control file is missing or damaged");
        };
        Ok(Self {
            path,
            major,
            control,
            server,
            permissions: Permissions::of_directory(meta.mode() & 0o7777),
        })
    }

    /// The real path: absolute, symbolic links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From `PG_VERSION`: "15", "9.6".
    pub fn major(&self) -> &str {
        &self.major
    }

    /// The beginning of its control file.
    pub fn control(&self) -> &PgControlHead {
        &self.control
    }

    /// Whether a server ran on it.
    pub fn server(&self) -> &ServerState {
        &self.server
    }

    /// Opens it for writing single files; existing modes stay.
    ///
    /// # Errors
    /// When it cannot be opened any more.
    pub fn tree(&self) -> Result<Tree, TreeError> {
        Tree::open(&self.path, self.permissions)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::control::sample_control;
    use crate::fake::Sleeper;
    use crate::{Claim, TakeOptions, Target};

    fn instance() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("global")).unwrap();
        fs::write(dir.path().join(PG_CONTROL), sample_control()).unwrap();
        fs::write(dir.path().join("PG_VERSION"), "15\n").unwrap();
        dir
    }

    fn refusal(dir: &Path) -> &'static str {
        match InstanceDir::inspect(dir).unwrap_err() {
            InspectError::NotAnInstance { why, .. } => why,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn an_instance_is_known_by_its_files_running_or_not() {
        let dir = instance();
        let found = InstanceDir::inspect(dir.path()).unwrap();
        assert_eq!(
            (found.major(), found.server()),
            ("15", &ServerState::Stopped { stale: None })
        );
        assert_eq!(found.control().pg_control_version, 1300);
        let process = Sleeper::postgres_in_dir(dir.path());
        let found = InstanceDir::inspect(dir.path()).unwrap();
        assert!(matches!(found.server(), ServerState::Running { pid, .. } if *pid == process.pid()));
    }

    #[test]
    fn what_is_no_whole_instance_is_refused_with_the_reason() {
        let dir = instance();
        assert_eq!(refusal(&dir.path().join("absent")), "it does not exist");
        fs::write(dir.path().join(PG_CONTROL), "short").unwrap();
        assert_eq!(refusal(dir.path()), "its control file is missing or damaged");
        fs::remove_file(dir.path().join(PG_CONTROL)).unwrap();
        assert_eq!(refusal(dir.path()), "its control file is missing or damaged");
        fs::remove_file(dir.path().join("PG_VERSION")).unwrap();
        assert_eq!(refusal(dir.path()), "it has no PG_VERSION");
        assert_eq!(refusal(tempfile::tempdir().unwrap().path()), "it is empty");
    }

    #[test]
    fn a_clone_that_is_made_or_was_not_finished_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::inspect(dir.path()).unwrap();
        let claim = Claim::take(&target, TakeOptions::default(), &mut |_| {}).unwrap();
        let building = claim
            .start_over(serde_json::Value::Null, &repmgr_types::CancelToken::new())
            .unwrap();
        let error = InstanceDir::inspect(dir.path()).unwrap_err();
        assert!(matches!(error, InspectError::CloneInProgress { .. }), "{error}");
        drop(building);
        assert_eq!(refusal(dir.path()), "it holds a clone that was not finished");
    }

    #[test]
    fn files_are_written_with_the_modes_the_directory_allows() {
        use std::os::unix::fs::PermissionsExt;
        for (directory, file) in [(0o700, 0o600), (0o750, 0o640)] {
            let dir = instance();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(directory)).unwrap();
            let tree = InstanceDir::inspect(dir.path()).unwrap().tree().unwrap();
            tree.write_durable("new", b"x", 0o640).unwrap();
            let mode = |name| fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777;
            assert_eq!((mode("new"), mode(".")), (file, directory));
        }
    }
}
