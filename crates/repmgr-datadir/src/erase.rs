use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use repmgr_types::{CancelToken, Cancelled, Hint};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::server::{RunningError, ServerState, server_state};
use crate::sys;
use crate::target::InspectError;
use crate::tree::TreeError;

/// A directory could not be emptied and prepared for a clone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EraseError {
    /// A server was started on it in the meantime. Nothing was erased.
    #[error("PostgreSQL appears to be running in {path:?} (process {pid})")]
    Running {
        /// The directory.
        path: PathBuf,
        /// The server's process.
        pid: i32,
    },
    /// It could not be found out whether a server runs. Nothing was erased.
    #[error(transparent)]
    Unknown(#[from] RunningError),
    /// Erasing was interrupted; the directory says that it is unfinished.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// It is never replaced, or could not be to the end. Nothing was erased.
    #[error(transparent)]
    Refused(#[from] InspectError),
    /// An entry could not be removed.
    #[error("could not remove {path:?}")]
    Remove {
        /// The entry.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The marker could not be written.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl EraseError {
    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Running { .. } => Some("stop the server first".into()),
            Self::Refused(error) => error.hint(),
            Self::Remove { path, .. } => Some(
                format!("see what keeps {path:?} from being removed, then run the same command again").into(),
            ),
            Self::Tree(error) => error.hint(),
            _ => None,
        }
    }
}

/// What erasing heeds while it goes on. Made of a [`CancelToken`] alone where nobody counts.
#[derive(Debug, Clone, Copy)]
pub struct Erasing<'a> {
    cancel: &'a CancelToken,
    removed: Option<&'a AtomicU64>,
}

impl<'a> Erasing<'a> {
    /// Stops when `cancel` says so.
    pub fn new(cancel: &'a CancelToken) -> Self {
        Self {
            cancel,
            removed: None,
        }
    }

    /// Adds every entry to `removed` that is gone, for others to look at meanwhile.
    #[must_use]
    pub fn counted(self, removed: &'a AtomicU64) -> Self {
        let removed = Some(removed);
        Self { removed, ..self }
    }

    pub(crate) fn check(self) -> Result<(), Cancelled> {
        self.cancel.check()
    }

    pub(crate) fn removed(self, outcome: Result<(), Errno>) -> Result<(), Errno> {
        if let (Ok(()), Some(removed)) = (outcome, self.removed) {
            removed.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }
}

impl<'a> From<&'a CancelToken> for Erasing<'a> {
    fn from(cancel: &'a CancelToken) -> Self {
        Self::new(cancel)
    }
}

/// Removes everything in `dir` except what `keep` names, following no links. Where another file system
/// is mounted inside, its content is removed, but the mount point and its `lost+found` stay.
pub(crate) fn remove_children(
    dir: BorrowedFd<'_>,
    path: &Path,
    keep: &dyn Fn(&CStr) -> bool,
    erasing: Erasing<'_>,
) -> Result<(), EraseError> {
    let failed = |path: &Path, errno: Errno| EraseError::Remove {
        path: path.to_owned(),
        source: errno.into(),
    };
    for (name, kind) in sys::list(dir).map_err(|errno| failed(path, errno))? {
        erasing.check()?;
        if keep(&name) {
            continue;
        }
        let full = path.join(OsStr::from_bytes(name.to_bytes()));
        if kind != FileType::Directory {
            match erasing.removed(rustix::fs::unlinkat(dir, &*name, AtFlags::empty())) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(errno) => return Err(failed(&full, errno)),
            }
        }
        let below = sys::open_dir(dir, &*name).map_err(|errno| failed(&full, errno))?;
        let mounted = is_other_device(dir, &below).map_err(|errno| failed(&full, errno))?;
        remove_children(
            below.as_fd(),
            &full,
            &|name| mounted && name == sys::LOST_AND_FOUND,
            erasing,
        )?;
        match erasing.removed(rustix::fs::unlinkat(dir, &*name, AtFlags::REMOVEDIR)) {
            // Busy: a mount point, which stays, empty.
            Ok(()) | Err(Errno::NOENT | Errno::BUSY) => {}
            Err(errno) => return Err(failed(&full, errno)),
        }
    }
    Ok(())
}

/// Takes `global/pg_control` away, so that PostgreSQL cannot start on what remains if erasing is
/// interrupted, and only then looks whether a server runs: one that started before is seen now and gets
/// its file back, one that starts later fails.
pub(crate) fn disable_instance(root: BorrowedFd<'_>, path: &Path) -> Result<(), EraseError> {
    let failed = |errno: Errno| EraseError::Remove {
        path: path.join(crate::PG_CONTROL),
        source: errno.into(),
    };
    let Some((dir, name)) = hide_control(root).map_err(failed)? else {
        return Ok(());
    };
    match server_state(path) {
        Ok(ServerState::Stopped { .. }) => Ok(()),
        running => {
            rename(&dir, HIDDEN, name).map_err(failed)?;
            match running? {
                ServerState::Running { pid, .. } => Err(EraseError::Running {
                    path: path.to_owned(),
                    pid,
                }),
                ServerState::Stopped { .. } => Ok(()),
            }
        }
    }
}

const HIDDEN: &str = ".pg_control.repmgr-old";

/// Renames the control file; `None` when there is none. When `global` is a link, which PostgreSQL would
/// follow and we do not, the link itself.
fn hide_control(root: BorrowedFd<'_>) -> Result<Option<(OwnedFd, &'static str)>, Errno> {
    let (dir, name) = match sys::open_dir(root, "global") {
        Ok(global) => (global, "pg_control"),
        Err(errno) if sys::is_not_a_directory(errno) => (sys::open_dir(root, ".")?, "global"),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    match rename(&dir, name, HIDDEN) {
        Ok(()) => Ok(Some((dir, name))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn rename(dir: &OwnedFd, from: &str, to: &str) -> Result<(), Errno> {
    rustix::fs::renameat(dir, from, dir, to)?;
    rustix::fs::fsync(dir)
}

fn is_other_device(dir: BorrowedFd<'_>, below: &OwnedFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstat(dir)?.st_dev != rustix::fs::fstat(below)?.st_dev)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Sleeper;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn erase<'a>(path: &Path, erasing: impl Into<Erasing<'a>>) -> Result<(), EraseError> {
        remove_children(
            sys::open_root(path).unwrap().as_fd(),
            path,
            &|name| name == c"keep",
            erasing.into(),
        )
    }

    #[test]
    fn everything_but_what_is_kept_goes_and_links_are_not_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("precious"), "x").unwrap();
        fs::create_dir_all(dir.path().join("a/b/keep")).unwrap();
        fs::create_dir(dir.path().join("keep")).unwrap();
        fs::write(dir.path().join("a/new\nline"), "").unwrap();
        symlink(outside.path(), dir.path().join("a/link")).unwrap();
        symlink("/nonexistent", dir.path().join("dangling")).unwrap();
        erase(dir.path(), &CancelToken::new()).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["keep"]);
        assert!(outside.path().join("precious").exists());
    }

    #[test]
    fn entries_that_are_gone_are_counted_and_what_stays_is_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for file in ["keep", "a/1", "a/2", "a/b/3"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let (cancel, removed) = (CancelToken::new(), AtomicU64::new(0));
        erase(dir.path(), Erasing::new(&cancel).counted(&removed)).unwrap();
        assert_eq!(removed.into_inner(), 5);
    }

    #[test]
    fn erasing_stops_when_asked_to() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        let cancel = CancelToken::new();
        cancel.cancel();
        assert!(matches!(
            erase(dir.path(), &cancel),
            Err(EraseError::Cancelled(_))
        ));
        assert!(dir.path().join("f").exists());
    }

    #[test]
    fn an_instance_loses_its_control_file_also_behind_a_linked_directory() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = sys::open_root(dir.path()).unwrap();
        let disable = || disable_instance(root.as_fd(), dir.path()).unwrap();
        disable();
        fs::write(outside.path().join("pg_control"), "").unwrap();
        symlink(outside.path(), dir.path().join("global")).unwrap();
        disable();
        assert!(!dir.path().join("global").is_symlink() && outside.path().join("pg_control").exists());
        fs::create_dir(dir.path().join("global")).unwrap();
        fs::write(dir.path().join("global/pg_control"), "").unwrap();
        disable();
        assert!(!dir.path().join("global/pg_control").exists());
    }

    /// Only root can mount; for others the kernel's refusal is all there is to see.
    #[test]
    fn a_mounted_file_system_is_emptied_and_stays_and_a_full_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mounted = dir.path().join("pg_wal");
        fs::create_dir(&mounted).unwrap();
        let mount = |args: &[&str]| {
            let mut command = std::process::Command::new("mount");
            command
                .args(args)
                .arg(&mounted)
                .stderr(std::process::Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if !mount(&["-t", "tmpfs", "-o", "size=64k", "tmpfs"]) {
            assert_eq!(fs::read_dir(&mounted).unwrap().count(), 0);
            return;
        }
        let tree = crate::Tree::open(dir.path(), crate::Permissions::default()).unwrap();
        let mut file = tree
            .create_file("pg_wal/sub/big", crate::FileSpec::default())
            .unwrap();
        let full = file.write_all(&[1; 1 << 20]);
        fs::create_dir(mounted.join("lost+found")).unwrap();
        let (synced, erased) = (tree.sync(), erase(dir.path(), &CancelToken::new()));
        let left: Vec<_> = fs::read_dir(&mounted)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        drop((file, tree));
        assert!(
            std::process::Command::new("umount")
                .arg(&mounted)
                .status()
                .unwrap()
                .success()
        );
        assert!(full.is_err_and(|error| error.is_no_space() && error.to_string().contains("pg_wal/sub/big")));
        synced.unwrap();
        erased.unwrap();
        assert_eq!(left, ["lost+found"]);
    }

    #[test]
    fn a_server_that_started_meanwhile_keeps_its_control_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("global")).unwrap();
        fs::write(dir.path().join("global/pg_control"), "precious").unwrap();
        let server = Sleeper::in_dir(dir.path());
        fs::write(dir.path().join("postmaster.pid"), server.pid().to_string()).unwrap();
        let root = sys::open_root(dir.path()).unwrap();
        let refused = disable_instance(root.as_fd(), dir.path());
        drop(server);
        assert!(matches!(refused, Err(EraseError::Running { .. })), "{refused:?}");
        assert_eq!(
            fs::read(dir.path().join("global/pg_control")).unwrap(),
            b"precious"
        );
    }
}
