//! Writing below one directory: safe against paths that lead out of it, fast with many small files.

mod error;
mod file;
mod flush;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

pub use error::TreeError;
pub use file::{Existing, FileSpec, TreeFile};

use crate::Permissions;
use crate::erase::{EraseError, Erasing, remove_children};
use crate::relpath::RelPath;
use crate::sys;

/// How many handles of directories are kept open for the next file in them.
const RECENT: usize = 32;

/// A directory that is written through handles: the data directory, one tablespace, or a WAL
/// directory elsewhere. Many threads may use one tree at once.
///
/// No path leads out of it: paths are checked by their spelling, and every component is opened
/// without following symbolic links. Missing parents of what is created are created.
#[derive(Debug)]
pub struct Tree {
    /// Opened before anything is written, so that [`Tree::sync`] learns of every lost write.
    root: Arc<OwnedFd>,
    path: PathBuf,
    permissions: Permissions,
    device: u64,
    /// The last used directories, latest first. Creating a file then costs no walk from the root.
    recent: Mutex<Vec<(Vec<u8>, Arc<OwnedFd>)>>,
    /// One directory on each other file system that is mounted below, by device.
    mounts: Mutex<Vec<(u64, Arc<OwnedFd>)>>,
}

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; never followed.
    Symlink,
    /// A socket, a pipe or a device.
    Other,
}

/// What is known of an entry without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// When the content changed last.
    pub modified: SystemTime,
}

impl Tree {
    /// Opens an existing directory. `path` itself may be or contain a symbolic link.
    ///
    /// # Errors
    /// When it is not a directory or cannot be opened.
    pub fn open(path: &Path, permissions: Permissions) -> Result<Self, TreeError> {
        let failed = |source| TreeError::Io {
            action: "open the directory",
            path: path.to_owned(),
            source,
        };
        let root = sys::open_root(path).map_err(failed)?;
        let device = rustix::fs::fstat(&root)
            .map_err(|errno| failed(errno.into()))?
            .st_dev;
        Ok(Self {
            root: Arc::new(root),
            path: path.to_owned(),
            permissions,
            device,
            recent: Mutex::default(),
            mounts: Mutex::default(),
        })
    }

    /// The directory's own path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The permissions that new entries get.
    pub fn permissions(&self) -> Permissions {
        self.permissions
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(crate) fn set_permissions(&mut self, permissions: Permissions) {
        self.permissions = permissions;
    }

    /// Creates a directory with the tree's mode, and missing parents. One that exists already gets
    /// that mode.
    ///
    /// # Errors
    /// When something else is in its place, or the operating system refuses.
    pub fn create_dir(&self, rel: impl AsRef<Path>) -> Result<(), TreeError> {
        let rel = rel.as_ref();
        let path = self.check(rel)?;
        let parent = self.parent(rel, path, true)?;
        self.enter(&parent, path.name(), rel, rel.as_os_str().len(), true)?;
        Ok(())
    }

    /// Creates a file and missing parents. Write to it, then call [`TreeFile::finish`].
    ///
    /// # Errors
    /// [`TreeError::Exists`] under [`Existing::Refuse`]; a directory is never replaced.
    pub fn create_file(&self, rel: impl AsRef<Path>, spec: FileSpec) -> Result<TreeFile, TreeError> {
        let rel = rel.as_ref();
        let path = self.check(rel)?;
        let parent = self.parent(rel, path, true)?;
        let mode = self.permissions.file(spec.mode);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let create = || rustix::fs::openat(&*parent, path.name(), flags, Mode::from_raw_mode(mode));
        let opened = match create() {
            // A new inode: neither links nor pipes nor an old mode survive.
            Err(Errno::EXIST) if spec.existing == Existing::Replace => {
                rustix::fs::unlinkat(&*parent, path.name(), AtFlags::empty())
                    .map_err(|errno| self.failed("replace", rel, errno))?;
                create()
            }
            opened => opened,
        };
        let fd = opened.map_err(|errno| self.failed("create", rel, errno))?;
        // The umask may have taken the group's part away.
        if mode & 0o077 != 0 {
            sys::set_mode(&fd, mode).map_err(|errno| self.failed("set the mode of", rel, errno))?;
        }
        Ok(TreeFile::new(fs::File::from(fd), self.full(rel), spec))
    }

    /// Opens an existing file to be brought up to date, from its first byte on: [`TreeFile::keep`] what is
    /// right, write the rest; [`TreeFile::finish`] cuts off what is beyond. One that
    /// [`open_revisable`](Self::open_revisable) does not open is replaced by an empty one.
    ///
    /// # Errors
    /// As [`create_file`](Self::create_file).
    pub fn revise_file(&self, rel: impl AsRef<Path>, spec: FileSpec) -> Result<TreeFile, TreeError> {
        let rel = rel.as_ref();
        let Some(file) = self.open_revisable(rel)? else {
            let existing = Existing::Replace;
            return self.create_file(rel, FileSpec { existing, ..spec });
        };
        sys::set_mode(&file, self.permissions.file(spec.mode))
            .map_err(|errno| self.failed("set the mode of", rel, errno))?;
        TreeFile::revised(file, self.full(rel), spec)
    }

    /// Opens a regular file for reading and writing if it may be changed in its place: `None` when there is
    /// none, when it is not ours, for its mode and time could not be set, when we may not write to it, or when
    /// it has other names too, for what shares it must stay.
    ///
    /// # Errors
    /// When it cannot be opened for another reason.
    pub fn open_revisable(&self, rel: impl AsRef<Path>) -> Result<Option<fs::File>, TreeError> {
        let rel = rel.as_ref();
        let Some(parent) = self.existing_parent(rel)? else {
            return Ok(None);
        };
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = match rustix::fs::openat(&*parent, self.check(rel)?.name(), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP | Errno::ACCESS | Errno::PERM) => return Ok(None),
            Err(errno) => return Err(self.failed("open", rel, errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.failed("look at", rel, errno))?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let is_ours = stat.st_uid == rustix::process::geteuid().as_raw();
        Ok((is_file && is_ours && stat.st_nlink == 1).then(|| fs::File::from(fd)))
    }

    /// Creates a symbolic link. One that leads there already is left as it is.
    ///
    /// # Errors
    /// When anything else is in its place.
    pub fn symlink(&self, rel: impl AsRef<Path>, target: &Path) -> Result<(), TreeError> {
        let rel = rel.as_ref();
        let path = self.check(rel)?;
        let parent = self.parent(rel, path, true)?;
        match rustix::fs::symlinkat(target, &*parent, path.name()) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => match rustix::fs::readlinkat(&*parent, path.name(), Vec::new()) {
                Ok(current) if current.to_bytes() == target.as_os_str().as_bytes() => Ok(()),
                _ => Err(TreeError::Exists { path: self.full(rel) }),
            },
            Err(errno) => Err(self.failed("create the link", rel, errno)),
        }
    }

    /// Opens a regular file for reading; `None` when there is none.
    ///
    /// # Errors
    /// When it is something else, or cannot be opened.
    pub fn open_file(&self, rel: impl AsRef<Path>) -> Result<Option<fs::File>, TreeError> {
        let rel = rel.as_ref();
        let Some(parent) = self.existing_parent(rel)? else {
            return Ok(None);
        };
        let path = self.check(rel)?;
        // A pipe in its place must not make us wait for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = match rustix::fs::openat(&*parent, path.name(), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.failed("open", rel, errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.failed("look at", rel, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(TreeError::Io {
                action: "read",
                path: self.full(rel),
                source: io::Error::other("not a regular file"),
            });
        }
        Ok(Some(fs::File::from(fd)))
    }

    /// Reads a whole file of at most `max` bytes; `None` when there is none.
    ///
    /// # Errors
    /// When it is larger, not a regular file, or cannot be read.
    pub fn read(&self, rel: impl AsRef<Path>, max: u64) -> Result<Option<Vec<u8>>, TreeError> {
        let rel = rel.as_ref();
        let Some(file) = self.open_file(rel)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| TreeError::Io {
                action: "read",
                path: self.full(rel),
                source,
            })?;
        if bytes.len() as u64 > max {
            return Err(TreeError::TooLarge {
                path: self.full(rel),
                max,
            });
        }
        Ok(Some(bytes))
    }

    /// What is there, links not followed; `None` when nothing is.
    ///
    /// # Errors
    /// When a parent is not a directory, or the operating system refuses.
    pub fn metadata(&self, rel: impl AsRef<Path>) -> Result<Option<Metadata>, TreeError> {
        let rel = rel.as_ref();
        let Some(parent) = self.existing_parent(rel)? else {
            return Ok(None);
        };
        let found = sys::stat(&*parent, self.check(rel)?.name());
        Ok(found
            .map_err(|errno| self.failed("look at", rel, errno))?
            .as_ref()
            .map(Metadata::of))
    }

    /// Sets the modification time of a file.
    ///
    /// # Errors
    /// When there is none, or the operating system refuses.
    pub fn set_modified(&self, rel: impl AsRef<Path>, time: SystemTime) -> Result<(), TreeError> {
        let rel = rel.as_ref();
        let path = self.check(rel)?;
        let parent = self.parent(rel, path, false)?;
        let stamp = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Timespec {
                tv_sec: after.as_secs().cast_signed(),
                tv_nsec: after.subsec_nanos().into(),
            },
            // Nothing of PostgreSQL is older than 1970; a time that is not set never counts as right.
            Err(_) => return Ok(()),
        };
        let times = Timestamps {
            last_access: stamp,
            last_modification: stamp,
        };
        rustix::fs::utimensat(&*parent, path.name(), &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed("set the time of", rel, errno))
    }

    /// Removes a file or link, for good also after a crash; directories stay. Whether there was one.
    ///
    /// # Errors
    /// For a directory, or when the operating system refuses.
    pub fn remove(&self, rel: impl AsRef<Path>) -> Result<bool, TreeError> {
        let rel = rel.as_ref();
        let Some(parent) = self.existing_parent(rel)? else {
            return Ok(false);
        };
        match rustix::fs::unlinkat(&*parent, self.check(rel)?.name(), AtFlags::empty()) {
            Ok(()) => rustix::fs::fsync(&*parent)
                .map(|()| true)
                .map_err(|errno| self.failed("flush the directory of", rel, errno)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("remove", rel, errno)),
        }
    }

    /// Removes a file, a link, or a directory with all that is in it, following no links. Whether there
    /// was one. A file system mounted there is emptied, and its mount point stays.
    ///
    /// # Errors
    /// When something cannot be removed, or `erasing` says stop; a part may be gone then.
    pub fn remove_all<'a>(
        &self,
        rel: impl AsRef<Path>,
        erasing: impl Into<Erasing<'a>>,
    ) -> Result<bool, EraseError> {
        let (rel, erasing) = (rel.as_ref(), erasing.into());
        let Some(parent) = self.existing_parent(rel)? else {
            return Ok(false);
        };
        let name = self.check(rel)?.name();
        let found = sys::stat(&*parent, name).map_err(|errno| self.failed("look at", rel, errno))?;
        let Some(stat) = found else { return Ok(false) };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_dir {
            let dir = sys::open_dir(&*parent, name).map_err(|errno| self.failed("open", rel, errno))?;
            remove_children(dir.as_fd(), &self.full(rel), &|_| false, erasing)?;
            self.forget_handles();
        }
        let flags = if is_dir {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        match erasing.removed(rustix::fs::unlinkat(&*parent, name, flags)) {
            Ok(()) | Err(Errno::NOENT | Errno::BUSY) => Ok(true),
            Err(errno) => Err(self.failed("remove", rel, errno).into()),
        }
    }

    /// Writes a small file so that after a crash either the old or the whole new content is there:
    /// under a temporary name, flushed, renamed, and the directory flushed. `mode` is the mode at the
    /// file's source, or 0640 for what the cluster allows; see [`Permissions::file`].
    ///
    /// # Errors
    /// When any of it fails; then the old content is still there.
    pub fn write_durable(&self, rel: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), TreeError> {
        let rel = rel.as_ref();
        let path = self.check(rel)?;
        let temporary = rel.with_file_name(OsStr::from_bytes(&[b".", path.name(), b".repmgr-new"].concat()));
        let written = self.replace_through(&temporary, rel, bytes, mode);
        if written.is_err() {
            // What went wrong first is what counts; a temporary file left over is replaced next time.
            drop(self.remove(&temporary));
        }
        written
    }

    fn replace_through(
        &self,
        temporary: &Path,
        rel: &Path,
        bytes: &[u8],
        mode: u32,
    ) -> Result<(), TreeError> {
        let spec = FileSpec {
            size: Some(bytes.len() as u64),
            mode,
            existing: Existing::Replace,
            ..FileSpec::default()
        };
        let mut file = self.create_file(temporary, spec)?;
        file.write_all(bytes)?;
        file.sync()?;
        file.finish()?;
        let parent = self.parent(rel, self.check(rel)?, false)?;
        rustix::fs::renameat(
            &*parent,
            self.check(temporary)?.name(),
            &*parent,
            self.check(rel)?.name(),
        )
        .map_err(|errno| self.failed("rename into place", rel, errno))?;
        rustix::fs::fsync(&*parent).map_err(|errno| self.failed("flush the directory of", rel, errno))
    }

    /// Forgets open handles of directories, for when directories were removed behind the tree's back.
    pub(crate) fn forget_handles(&self) {
        lock(&self.recent).clear();
    }

    fn check<'a>(&self, rel: &'a Path) -> Result<RelPath<'a>, TreeError> {
        RelPath::new(rel).ok_or_else(|| TreeError::BadPath { path: rel.to_owned() })
    }

    /// The parent's handle; `None` when the parent does not exist.
    fn existing_parent(&self, rel: &Path) -> Result<Option<Arc<OwnedFd>>, TreeError> {
        match self.parent(rel, self.check(rel)?, false) {
            Ok(dir) => Ok(Some(dir)),
            Err(TreeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parent(&self, rel: &Path, path: RelPath<'_>, create: bool) -> Result<Arc<OwnedFd>, TreeError> {
        let Some(parent) = path.parent() else {
            return Ok(Arc::clone(&self.root));
        };
        if let Some(dir) = self.recall(parent) {
            return Ok(dir);
        }
        let mut dir = Arc::clone(&self.root);
        let mut end = 0;
        for name in parent.split(|b| *b == b'/') {
            end += name.len();
            dir = Arc::new(self.enter(&dir, name, rel, end, create)?);
            end += 1;
        }
        let mut recent = lock(&self.recent);
        recent.truncate(RECENT - 1);
        recent.insert(0, (parent.to_owned(), Arc::clone(&dir)));
        Ok(dir)
    }

    fn recall(&self, parent: &[u8]) -> Option<Arc<OwnedFd>> {
        let mut recent = lock(&self.recent);
        let at = recent.iter().position(|(path, _)| path == parent)?;
        recent[..=at].rotate_right(1);
        Some(Arc::clone(&recent[0].1))
    }

    /// Opens the directory `name` in `dir`, which is the first `end` bytes of `rel`, and creates it
    /// with the tree's mode first if wanted.
    fn enter(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        rel: &Path,
        end: usize,
        create: bool,
    ) -> Result<OwnedFd, TreeError> {
        let at = || Path::new(OsStr::from_bytes(&rel.as_os_str().as_bytes()[..end]));
        let mut opened = sys::open_dir(dir, name);
        if create && matches!(opened, Err(Errno::NOENT)) {
            opened = match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(self.permissions.directory())) {
                Ok(()) | Err(Errno::EXIST) => sys::open_dir(dir, name),
                Err(errno) => Err(errno),
            };
        }
        let entered = opened.map_err(|errno| {
            if sys::is_not_a_directory(errno) {
                TreeError::NotADirectory {
                    path: self.full(rel),
                    at: self.full(at()),
                }
            } else {
                self.failed(
                    if create {
                        "create the directory"
                    } else {
                        "open the directory"
                    },
                    at(),
                    errno,
                )
            }
        })?;
        let prepare = || -> Result<u64, Errno> {
            let (stat, wanted) = (rustix::fs::fstat(&entered)?, self.permissions.directory());
            if create && stat.st_mode & 0o7777 != wanted {
                rustix::fs::fchmod(&entered, Mode::from_raw_mode(wanted))?;
            }
            Ok(stat.st_dev)
        };
        let device = prepare().map_err(|errno| self.failed("set the mode of", at(), errno))?;
        if device != self.device {
            self.note_mount(device, &entered)
                .map_err(|errno| self.failed("open the directory", at(), errno))?;
        }
        Ok(entered)
    }

    fn note_mount(&self, device: u64, dir: &OwnedFd) -> Result<(), Errno> {
        let mut mounts = lock(&self.mounts);
        if !mounts.iter().any(|(known, _)| *known == device) {
            mounts.push((device, Arc::new(rustix::io::fcntl_dupfd_cloexec(dir, 0)?)));
        }
        Ok(())
    }

    fn full(&self, rel: &Path) -> PathBuf {
        if rel.as_os_str().is_empty() {
            self.path.clone()
        } else {
            self.path.join(rel)
        }
    }

    fn failed(&self, action: &'static str, rel: &Path, errno: Errno) -> TreeError {
        let path = self.full(rel);
        if errno == Errno::EXIST {
            return TreeError::Exists { path };
        }
        TreeError::Io {
            action,
            path,
            source: errno.into(),
        }
    }
}

impl Metadata {
    fn of(stat: &Stat) -> Self {
        let whole = Duration::from_secs(stat.st_mtime.unsigned_abs());
        let second = if stat.st_mtime < 0 {
            SystemTime::UNIX_EPOCH - whole
        } else {
            SystemTime::UNIX_EPOCH + whole
        };
        Self {
            kind: match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Directory,
                FileType::Symlink => Kind::Symlink,
                _ => Kind::Other,
            },
            size: stat.st_size.unsigned_abs(),
            mode: stat.st_mode & 0o7777,
            modified: second + Duration::from_nanos(stat.st_mtime_nsec),
        }
    }
}

/// A panic elsewhere leaves these lists as good as they were.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
