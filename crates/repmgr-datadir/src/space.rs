use std::io;
use std::path::{Path, PathBuf};

use crate::sys;

/// Room on the file system that holds, or will hold, a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Tells file systems apart, so that needs on the same one can be added up. (Subvolumes of
    /// one btrfs look like several file systems although they share their room.)
    pub filesystem: u64,
    /// Bytes an ordinary user can still write.
    pub available: u64,
    /// Files an ordinary user can still create; `None` where the file system has no such limit.
    pub files_available: Option<u64>,
}

/// The room could not be found out.
#[derive(Debug, thiserror::Error)]
#[error("could not find out the free space at {path:?}")]
pub struct SpaceError {
    /// The path that was asked about, or its nearest existing parent.
    pub path: PathBuf,
    #[source]
    source: io::Error,
}

impl Space {
    /// The room at `path`, or at its nearest existing parent when it does not exist yet.
    ///
    /// # Errors
    /// When that directory cannot be opened.
    pub fn at(path: &Path) -> Result<Self, SpaceError> {
        let failed = |path: &Path, source| SpaceError {
            path: path.to_owned(),
            source,
        };
        let path = std::path::absolute(path).map_err(|error| failed(path, error))?;
        let existing = path
            .ancestors()
            .find(|dir| dir.is_dir())
            .unwrap_or(Path::new("/"));
        Self::look(existing).map_err(|error| failed(existing, error))
    }

    fn look(dir: &Path) -> io::Result<Self> {
        let fd = sys::open_root(dir)?;
        let room = rustix::fs::fstatvfs(&fd)?;
        Ok(Self {
            filesystem: rustix::fs::fstat(&fd)?.st_dev,
            available: room.f_bavail.saturating_mul(room.f_frsize),
            files_available: (room.f_files > 0).then_some(room.f_favail),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_exist_yet_has_the_room_of_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        let (here, below) = (
            Space::at(dir.path()).unwrap(),
            Space::at(&dir.path().join("a/b/c")).unwrap(),
        );
        assert_eq!(here.filesystem, below.filesystem);
        assert!(here.available > 0);
        assert_ne!(
            Space::at(Path::new("/proc/self")).unwrap().filesystem,
            here.filesystem
        );
    }
}
