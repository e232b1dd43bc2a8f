//! A data directory that another program writes (`pg_basebackup`, `pg_combinebackup`), its way into place,
//! and what such a program makes it from.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use repmgr_types::Hint;

use super::Building;
use crate::control::{PG_CONTROL, PG_CONTROL_SIZE};
use crate::erase::{EraseError, Erasing};
use crate::marker::{INCOMING, PARTS, STATE_DIR};
use crate::tree::{Tree, TreeError};
use crate::{PgControlHead, sys};

/// What another program wrote could not be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// It wrote no data directory.
    #[error("\"{}\" is missing in {path:?}", PG_CONTROL)]
    NoControl {
        /// Where it should have written one.
        path: PathBuf,
    },
    /// Its control file is damaged.
    #[error("the control file in {path:?} is damaged")]
    Control {
        /// Where it wrote.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: crate::ControlError,
    },
    /// A file could not be read or moved.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl AdoptError {
    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Tree(error) => error.hint(),
            _ => None,
        }
    }
}

impl Building {
    /// Where another program may write a whole data directory: on the same file system, not there yet,
    /// and no place from which somebody would start a server by mistake.
    pub fn staging(&self) -> PathBuf {
        self.place.tree.path().join(INCOMING)
    }

    /// A directory, below the clone's own state, for something the data directory is made from. It is
    /// created, or still there from an interrupted clone that is continued; it goes with
    /// [`Building::remove_parts`], or when the clone is complete.
    ///
    /// # Errors
    /// When it cannot be created or opened, or `name` leads elsewhere.
    pub fn part(&self, name: &str) -> Result<Tree, TreeError> {
        let tree = &self.place.tree;
        let path = Path::new(PARTS).join(name);
        tree.create_dir(&path)?;
        Tree::open(&tree.path().join(path), tree.permissions())
    }

    /// Removes all that [`Building::part`] gave. Nothing of it may be in use any more.
    ///
    /// # Errors
    /// When something cannot be removed, or `erasing` says stop.
    pub fn remove_parts<'a>(&self, erasing: impl Into<Erasing<'a>>) -> Result<(), EraseError> {
        self.place.tree.remove_all(PARTS, erasing)?;
        Ok(())
    }

    /// Removes all that was written so far, here and to [`Building::staging`], but for the parts: for a
    /// program that can only begin anew.
    ///
    /// # Errors
    /// When something cannot be removed, or `erasing` says stop.
    pub fn keep_only_parts<'a>(&self, erasing: impl Into<Erasing<'a>>) -> Result<(), EraseError> {
        self.place.erase(&[b"parts"], erasing.into())
    }

    /// Moves what was written to [`Building::staging`] into place, all but the control file, which
    /// it returns for [`Building::finish`].
    ///
    /// # Errors
    /// When there is no data directory, or something cannot be moved.
    pub fn adopt_staged(&self) -> Result<Vec<u8>, AdoptError> {
        let tree = &self.place.tree;
        let path = self.staging();
        let staged_control = Path::new(INCOMING).join(PG_CONTROL);
        let control = tree
            .read(&staged_control, PG_CONTROL_SIZE as u64)?
            .ok_or_else(|| AdoptError::NoControl { path: path.clone() })?;
        PgControlHead::parse_whole(&control).map_err(|source| AdoptError::Control {
            path: path.clone(),
            source,
        })?;
        tree.remove(&staged_control)?;
        let failed = |action, at: &Path, errno: Errno| TreeError::Io {
            action,
            path: at.to_owned(),
            source: errno.into(),
        };
        let state = sys::open_dir(tree.root(), STATE_DIR).map_err(|errno| failed("open", &path, errno))?;
        let staged =
            sys::open_dir(state.as_fd(), "incoming").map_err(|errno| failed("open", &path, errno))?;
        let names = sys::list(staged.as_fd()).map_err(|errno| failed("read the directory", &path, errno))?;
        for (name, _) in names {
            let moved = rustix::fs::renameat(&staged, &name, tree.root(), &name);
            moved.map_err(|errno| failed("move into place", &shown(&path, &name), errno))?;
        }
        rustix::fs::unlinkat(&state, "incoming", AtFlags::REMOVEDIR)
            .map_err(|errno| failed("remove", &path, errno))?;
        tree.forget_handles();
        Ok(control)
    }
}

fn shown(path: &Path, name: &CString) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    path.join(std::ffi::OsStr::from_bytes(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use repmgr_types::CancelToken;

    use super::*;
    use crate::control::sample_control;
    use crate::{Claim, TakeOptions, Target};

    fn building(path: &Path) -> Building {
        let target = Target::inspect(path).unwrap();
        Claim::take(&target, TakeOptions::default(), &mut |_| {})
            .unwrap()
            .start_over(serde_json::Value::Null, &CancelToken::new())
            .unwrap()
    }

    #[test]
    fn a_staged_data_directory_moves_in_with_its_control_file_last() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let building = building(&data);
        let staging = building.staging();
        assert!(matches!(
            building.adopt_staged(),
            Err(AdoptError::NoControl { .. })
        ));
        fs::create_dir_all(staging.join("global")).unwrap();
        fs::create_dir_all(staging.join("base/5")).unwrap();
        fs::create_dir(staging.join("pg_tblspc")).unwrap();
        symlink("/elsewhere", staging.join("pg_tblspc/16400")).unwrap();
        fs::write(staging.join("PG_VERSION"), "15\n").unwrap();
        fs::write(staging.join("global/pg_control"), sample_control()).unwrap();
        let control = building.adopt_staged().unwrap();
        assert_eq!(control, sample_control());
        assert!(data.join("base/5").is_dir() && data.join("pg_tblspc/16400").is_symlink());
        assert!(!staging.exists() && !data.join(PG_CONTROL).exists());
        building.finish(&[], &control).unwrap();
        assert!(data.join(PG_CONTROL).exists() && !data.join(STATE_DIR).exists());
    }

    #[test]
    fn parts_outlast_what_was_made_of_them_and_go_with_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let (building, cancel) = (building(&data), CancelToken::new());
        for name in ["0/data", "0/16400"] {
            let part = building.part(name).unwrap();
            part.write_durable("base/5/1", b"x", 0o600).unwrap();
            assert_eq!(part.path(), data.join("repmgr/parts").join(name));
        }
        assert!(building.part("../x").is_err());
        fs::create_dir_all(building.staging().join("base")).unwrap();
        fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        symlink(data.join("repmgr/parts/0/16400"), data.join("pg_tblspc/16400")).unwrap();
        building.keep_only_parts(&cancel).unwrap();
        let here = |path: &str| data.join(path).exists();
        assert!(!building.staging().exists() && !here("pg_tblspc"));
        assert!(here("repmgr/parts/0/data/base/5/1") && here("repmgr/parts/0/16400/base/5/1"));
        assert!(here("repmgr/clone.json") && here("repmgr/clone.lock"));
        building.remove_parts(&cancel).unwrap();
        assert!(!here("repmgr/parts") && here("repmgr/clone.json"));
        building.part("0/data").unwrap();
        building.finish(&[], &sample_control()).unwrap();
        assert!(!here("repmgr"));
    }

    #[test]
    fn a_damaged_control_file_is_not_adopted() {
        let dir = tempfile::tempdir().unwrap();
        let building = building(&dir.path().join("data"));
        fs::create_dir_all(building.staging().join("global")).unwrap();
        fs::write(building.staging().join("global/pg_control"), [0; 8192]).unwrap();
        assert!(matches!(building.adopt_staged(), Err(AdoptError::Control { .. })));
    }
}
