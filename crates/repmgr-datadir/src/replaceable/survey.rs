//! The walk that finds what does not belong to a directory, and what could not be removed from it.

use std::collections::{HashSet, VecDeque};
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, FileType, Mode, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::{Found, Owner, Stubborn, Used, is_tablespace_name, us};
use crate::marker::{INCOMING, MARKER, PARTS, STATE_DIR};
use crate::server::{ServerState, server_state};
use crate::sys;
use crate::target::InspectError;

/// Nothing of PostgreSQL is that deep, and each level takes an open file.
const MAX_DEPTH: usize = 100;

/// One look at everything below a directory.
pub(super) struct Survey<'a> {
    root: &'a Path,
    owner: Owner<'a>,
    used: &'a Used,
    /// The instance's tablespaces that lie below, by their real paths.
    own_tablespaces: HashSet<PathBuf>,
    mounts: HashSet<PathBuf>,
    us: u32,
}

impl<'a> Survey<'a> {
    pub(super) fn new(root: &'a Path, owner: Owner<'a>, used: &'a Used) -> Result<Self, InspectError> {
        let links = match owner {
            Owner::Instance(links) => links,
            Owner::Clone | Owner::Outside => &[],
        };
        Ok(Self {
            root,
            owner,
            used,
            own_tablespaces: links
                .iter()
                .filter_map(|link| fs::canonicalize(&link.location).ok())
                .collect(),
            mounts: mounts()?,
            us: us(),
        })
    }

    #[cfg(test)]
    pub(super) fn set_user(&mut self, us: u32) {
        self.us = us;
    }

    /// The first thing that stands against replacing what `takes` says of the entries at the top.
    pub(super) fn run(
        &self,
        root: BorrowedFd<'_>,
        takes: &dyn Fn(&CStr) -> bool,
    ) -> Result<(), InspectError> {
        self.look(root, self.root, 0, takes)
    }

    fn look(
        &self,
        dir: BorrowedFd<'_>,
        path: &Path,
        depth: usize,
        takes: &dyn Fn(&CStr) -> bool,
    ) -> Result<(), InspectError> {
        let failed = |errno: Errno| InspectError::not_accessible(path, errno.into());
        if depth > MAX_DEPTH {
            let source = io::Error::other("directories are nested too deeply to be looked into");
            return Err(InspectError::not_accessible(path, source));
        }
        let stat = rustix::fs::fstat(dir).map_err(failed)?;
        let mut entries = sys::list(dir).map_err(failed)?;
        self.check_belongs(path, depth, &stat, &entries)?;
        let is_mount = depth == 0 || self.mounts.contains(path);
        entries.retain(|(name, _)| !(is_mount && **name == *sys::LOST_AND_FOUND));
        if depth == 0 {
            entries.retain(|(name, _)| takes(name));
        }
        if !entries.is_empty() {
            self.check_gives(dir, path, depth)?;
        }
        for (name, kind) in entries {
            let full = path.join(OsStr::from_bytes(name.to_bytes()));
            self.check_removable(dir, &stat, &name, kind, &full)?;
            if kind != FileType::Directory {
                continue;
            }
            match sys::open_dir(dir, &*name) {
                Ok(below) => self.look(below.as_fd(), &full, depth + 1, takes)?,
                Err(Errno::NOENT) => {}
                // What mkfs leaves is root's, and is left alone.
                Err(Errno::ACCESS) if *name == *sys::LOST_AND_FOUND => {}
                Err(errno) => return Err(InspectError::not_accessible(&full, errno.into())),
            }
        }
        Ok(())
    }

    /// Whether the directory is the owner's.
    fn check_belongs(
        &self,
        path: &Path,
        depth: usize,
        stat: &Stat,
        entries: &[(CString, FileType)],
    ) -> Result<(), InspectError> {
        let refuse = |found| Err(InspectError::refused(self.root, found));
        if depth > 0 {
            if let Some(found) = self.used_by_a_server(path, sys::identity(stat)) {
                return refuse(found);
            }
            if self.is_state_of_the_clone(path) {
                return Ok(());
            }
            if let Some(found) = of_others(path, |name| has(entries, name)) {
                return refuse(found);
            }
        }
        match entries.iter().find(|(name, kind)| is_tablespace(name, *kind)) {
            Some((name, _)) if !self.may_hold_a_tablespace(path, depth) => {
                refuse(Found::Tablespace(path.join(OsStr::from_bytes(name.to_bytes()))))
            }
            _ => Ok(()),
        }
    }

    fn used_by_a_server(&self, path: &Path, identity: (u64, u64)) -> Option<Found> {
        self.used.by(identity).map(|server| match path == server.data {
            true => Found::Instance {
                path: path.to_owned(),
                pid: Some(server.pid),
            },
            false => Found::Used {
                path: path.to_owned(),
                pid: server.pid,
                data: server.data.clone(),
            },
        })
    }

    /// While a clone is made, whole data directories are below its own state.
    fn is_state_of_the_clone(&self, path: &Path) -> bool {
        !matches!(self.owner, Owner::Outside)
            && path.strip_prefix(self.root).is_ok_and(|rel| {
                rel == Path::new(STATE_DIR) || rel.starts_with(INCOMING) || rel.starts_with(PARTS)
            })
    }

    fn may_hold_a_tablespace(&self, path: &Path, depth: usize) -> bool {
        match self.owner {
            // Its links may be gone already.
            Owner::Clone => true,
            Owner::Outside => depth == 0,
            Owner::Instance(_) => {
                self.is_state_of_the_clone(path)
                    || self.own_tablespaces.contains(path)
                    // "In place", without a link.
                    || path.parent() == Some(&*self.root.join("pg_tblspc"))
            }
        }
    }

    /// Whether entries may be taken out of the directory.
    fn check_gives(&self, dir: BorrowedFd<'_>, path: &Path, depth: usize) -> Result<(), InspectError> {
        let failed = |errno: Errno| InspectError::not_accessible(path, errno.into());
        if let Some(why) = attributes(dir, c"", AtFlags::EMPTY_PATH)
            .map_err(failed)?
            .and_then(kept_by)
        {
            return Err(InspectError::Stubborn {
                path: path.to_owned(),
                why,
            });
        }
        // The top one is ours, and its mode is corrected.
        if depth == 0 {
            return Ok(());
        }
        rustix::fs::accessat(dir, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).map_err(
            |errno| InspectError::NotWritable {
                path: path.to_owned(),
                source: errno.into(),
            },
        )
    }

    /// Whether an entry may be taken out of a directory that gives others.
    fn check_removable(
        &self,
        dir: BorrowedFd<'_>,
        dir_stat: &Stat,
        name: &CStr,
        kind: FileType,
        full: &Path,
    ) -> Result<(), InspectError> {
        let stubborn = |why| {
            Err(InspectError::Stubborn {
                path: full.to_owned(),
                why,
            })
        };
        let failed = |errno: Errno| InspectError::not_accessible(full, errno.into());
        // A mounted directory stays, emptied.
        if self.mounts.contains(full) {
            return if kind == FileType::Directory {
                Ok(())
            } else {
                stubborn(Stubborn::Mounted)
            };
        }
        if let Some(why) = attributes(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed)?
            .and_then(kept_by)
        {
            return stubborn(why);
        }
        let is_sticky = dir_stat.st_mode & Mode::SVTX.as_raw_mode() != 0;
        if is_sticky && self.us != 0 && dir_stat.st_uid != self.us {
            match sys::stat(dir, name).map_err(failed)? {
                Some(stat) if stat.st_uid != self.us => {
                    return stubborn(Stubborn::Sticky { owner: stat.st_uid });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What a directory is in its own right that has entries of these names.
fn of_others(path: &Path, has: impl Fn(&str) -> bool) -> Option<Found> {
    if has("PG_VERSION") && has("global") {
        let pid = match server_state(path) {
            Ok(ServerState::Running { pid, .. }) => Some(pid),
            _ => None,
        };
        return Some(Found::Instance {
            path: path.to_owned(),
            pid,
        });
    }
    let begun = has(STATE_DIR) && path.join(MARKER).symlink_metadata().is_ok();
    begun.then(|| Found::Clone(path.to_owned()))
}

fn has(entries: &[(CString, FileType)], wanted: &str) -> bool {
    entries
        .iter()
        .any(|(name, _)| name.to_bytes() == wanted.as_bytes())
}

fn is_tablespace(name: &CStr, kind: FileType) -> bool {
    kind == FileType::Directory && is_tablespace_name(name.to_bytes())
}

/// The first thing below a directory that is somebody's, by levels. For a message: not more than some
/// thousand entries are looked at, and what cannot be read is passed by.
pub(super) fn first_below(path: &Path, used: &Used) -> Option<Found> {
    let mut left = 20_000_usize;
    let mut queue = VecDeque::from([path.to_owned()]);
    while let Some(dir) = queue.pop_front() {
        let identity = fs::metadata(&dir).map(|meta| (meta.dev(), meta.ino())).ok();
        let server = identity
            .and_then(|identity| used.by(identity))
            .filter(|_| dir != path);
        if let Some(server) = server.filter(|server| server.data != dir) {
            return Some(Found::Used {
                path: dir,
                pid: server.pid,
                data: server.data.clone(),
            });
        }
        let entries = sys::open_root(&dir)
            .ok()
            .and_then(|open| sys::list(open).ok())
            .unwrap_or_default();
        if dir != path
            && let Some(found) = of_others(&dir, |name| has(&entries, name))
        {
            return Some(found);
        }
        left = left.checked_sub(entries.len())?;
        for (name, kind) in entries {
            let full = dir.join(OsStr::from_bytes(name.to_bytes()));
            if is_tablespace(&name, kind) {
                return Some(Found::Tablespace(full));
            }
            if kind == FileType::Directory {
                queue.push_back(full);
            }
        }
    }
    None
}

fn kept_by(attributes: StatxAttributes) -> Option<Stubborn> {
    if attributes.contains(StatxAttributes::IMMUTABLE) {
        Some(Stubborn::Immutable)
    } else if attributes.contains(StatxAttributes::APPEND) {
        Some(Stubborn::AppendOnly)
    } else {
        None
    }
}

/// `None` when it is gone, or the kernel is too old to tell.
fn attributes(dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<Option<StatxAttributes>, Errno> {
    let flags = flags | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match rustix::fs::statx(dir, name, flags, StatxFlags::TYPE) {
        Ok(statx) => Ok(Some(statx.stx_attributes)),
        Err(Errno::NOENT | Errno::NOSYS) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// All mount points of this process, files included.
fn mounts() -> Result<HashSet<PathBuf>, InspectError> {
    let path = Path::new("/proc/self/mountinfo");
    let table = fs::read(path).map_err(|source| InspectError::not_accessible(path, source))?;
    Ok(mount_points(&table).collect())
}

fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    let lines = table.split(|b| *b == b'\n');
    lines
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
}

/// Blanks, tabs, line breaks and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_odd_characters() {
        let table =
            b"22 1 0:21 / /proc rw - proc proc rw\n23 1 8:1 /a /srv/a\\040b\\134c rw - ext4 /dev/sda1 rw\n";
        let found: Vec<_> = mount_points(table).collect();
        assert_eq!(found, [Path::new("/proc"), Path::new("/srv/a b\\c")]);
        assert_eq!(unescape(b"x\\9"), b"x\\9");
    }
}
