//! Few small wrappers over system calls, all of which refuse to follow symbolic links.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a directory by its full path. The handle can be listed, flushed and used as a root.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?)
}

/// Opens a directory right below another; a symbolic link is an error.
pub(crate) fn open_dir(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// The errors `openat` gives when something that is not a directory, a symbolic link included, stands
/// where a directory should be.
pub(crate) fn is_not_a_directory(errno: Errno) -> bool {
    errno == Errno::NOTDIR || errno == Errno::LOOP
}

/// `lstat` below a directory; `None` when there is nothing of that name.
pub(crate) fn stat(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names in a directory and what they are. Read to the end at once, so that the directory may
/// change while the caller works through them.
pub(crate) fn list(dir: impl AsFd) -> Result<Vec<(CString, FileType)>, Errno> {
    let dir = dir.as_fd();
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        // Some file systems do not tell the type with the name.
        let kind = match entry.file_type() {
            FileType::Unknown => match stat(dir, name)? {
                Some(stat) => FileType::from_raw_mode(stat.st_mode),
                None => continue,
            },
            kind => kind,
        };
        found.push((name.to_owned(), kind));
    }
    Ok(found)
}

/// What `mkfs` puts at the top of an ext file system; it does not make a directory non-empty.
pub(crate) const LOST_AND_FOUND: &CStr = c"lost+found";

/// A directory's identity: the same for every path and every name space it is seen from.
pub(crate) fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Sets the mode of a directory or file given by handle, if it is another one.
pub(crate) fn set_mode(fd: impl AsFd, mode: u32) -> Result<(), Errno> {
    let fd = fd.as_fd();
    if rustix::fs::fstat(fd)?.st_mode & 0o7777 == mode {
        return Ok(());
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))
}

/// Creates a directory and its missing parents: the leaf with exactly `mode`, parents with what the
/// umask leaves but always usable by the owner, as `pg_mkdir_p` does. Returns what it created,
/// outermost first. On failure nothing that it created stays.
pub(crate) fn make_dirs(path: &Path, mode: u32) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    let mut created = Vec::new();
    for dir in missing.into_iter().rev() {
        let made = if dir == path {
            make_exactly(dir, mode)
        } else {
            make_usable(dir)
        };
        match made {
            Ok(()) => created.push(dir.to_owned()),
            Err(error) => {
                // The first error is the one to report; what cannot be removed is empty anyway.
                created.iter().rev().for_each(|dir| drop(fs::remove_dir(dir)));
                return Err((dir.to_owned(), error));
            }
        }
    }
    Ok(created)
}

fn make_exactly(dir: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).inspect_err(|_| drop(fs::remove_dir(dir)))
}

fn make_usable(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().create(dir)?;
    let mode = fs::metadata(dir)?.permissions().mode() & 0o7777;
    if mode & 0o300 != 0o300 {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode | 0o300))?;
    }
    Ok(())
}
