//! Bringing a tree to disk, and the walk over it.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, Stat};

use super::{Kind, Metadata, Tree, TreeError, lock};
use crate::sys;

impl Tree {
    /// Makes sure that everything written below this tree is on disk, file systems mounted inside it
    /// included. Before Linux 5.8 `syncfs` does not tell of failed writes, so there every file is
    /// flushed by itself.
    ///
    /// # Errors
    /// When anything could not be written. What was written since the tree was opened is then to be
    /// thrown away: the kernel has dropped the data and will not tell again.
    pub fn sync(&self) -> Result<(), TreeError> {
        let mounts = lock(&self.mounts)
            .iter()
            .map(|(_, dir)| Arc::clone(dir))
            .collect::<Vec<_>>();
        for dir in std::iter::once(&self.root).chain(&mounts) {
            rustix::fs::syncfs(&**dir)
                .map_err(|errno| self.failed("flush the file system of", Path::new(""), errno))?;
        }
        if syncfs_tells_of_errors() {
            Ok(())
        } else {
            self.sync_each()
        }
    }

    /// Flushes files and directories one by one, as `initdb` and recovery of PostgreSQL do.
    pub(super) fn sync_each(&self) -> Result<(), TreeError> {
        self.visit(&self.root, &mut PathBuf::new(), &mut |dir, name, rel, stat| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            if !matches!(Metadata::of(stat).kind, Kind::File | Kind::Directory) || name == sys::LOST_AND_FOUND
            {
                return Ok(());
            }
            let flush = || rustix::fs::fsync(rustix::fs::openat(dir, name, flags, Mode::empty())?);
            flush().map_err(|errno| self.failed("flush", rel, errno))
        })?;
        rustix::fs::fsync(&*self.root).map_err(|errno| self.failed("flush", Path::new(""), errno))
    }

    /// Calls `visit` for every entry below, a directory before what is in it, links not followed.
    ///
    /// # Errors
    /// The first of `visit`, or of reading a directory.
    pub fn walk<E: From<TreeError>>(
        &self,
        mut visit: impl FnMut(&Path, Metadata) -> Result<(), E>,
    ) -> Result<(), E> {
        self.visit(&self.root, &mut PathBuf::new(), &mut |_, _, rel, stat| {
            visit(rel, Metadata::of(stat))
        })
    }

    fn visit<E: From<TreeError>>(
        &self,
        dir: &OwnedFd,
        rel: &mut PathBuf,
        each: &mut impl FnMut(BorrowedFd<'_>, &CStr, &Path, &Stat) -> Result<(), E>,
    ) -> Result<(), E> {
        for (name, _) in sys::list(dir).map_err(|errno| self.failed("read the directory", rel, errno))? {
            rel.push(OsStr::from_bytes(name.to_bytes()));
            let stat = sys::stat(dir, &*name).map_err(|errno| self.failed("look at", rel, errno))?;
            if let Some(stat) = stat {
                each(dir.as_fd(), &name, rel, &stat)?;
                if Metadata::of(&stat).kind == Kind::Directory && *name != *sys::LOST_AND_FOUND {
                    let below =
                        sys::open_dir(dir, &*name).map_err(|errno| self.failed("open", rel, errno))?;
                    self.visit(&below, rel, each)?;
                }
            }
            rel.pop();
        }
        Ok(())
    }
}

fn syncfs_tells_of_errors() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    kernel_version(&release).is_some_and(|version| version >= (5, 8))
}

pub(super) fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
