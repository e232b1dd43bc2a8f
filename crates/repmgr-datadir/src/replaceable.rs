//! What may be erased. The rule is said here and nowhere else.
//!
//! A clone replaces an old instance (`PG_VERSION` with directories `global` and `base`), whole or damaged,
//! or a clone of ours that was not finished; nothing else that has content. It never replaces what
//!
//! - lies inside a data directory, a tablespace, or a directory of Barman's;
//! - is or holds something that a running server uses;
//! - holds another instance, another clone, or a tablespace that is not its own;
//! - is a directory of the system, or holds somebody's home.
//!
//! Nor does it begin to erase where it could not end: one walk finds what does not belong and what cannot
//! be removed. Force changes nothing of this.

mod found;
mod survey;
#[cfg(test)]
mod tests;
mod used;

use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use found::{Found, Stubborn};
use survey::{Survey, first_below};
use used::Used;

use crate::marker::read_bounded;
use crate::sys;
use crate::target::{InspectError, TablespaceLink, names_in};

/// Whose content a directory is to lose.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner<'a> {
    /// An instance, with the tablespaces it is linked to.
    Instance(&'a [TablespaceLink]),
    /// A clone of ours that was not finished.
    Clone,
    /// The instance or clone of which this is a tablespace or WAL directory.
    Outside,
}

/// Refuses a directory that cannot be replaced, or not to its end. `takes` names what at its top is to be
/// replaced.
pub(crate) fn check(
    path: &Path,
    owner: Owner<'_>,
    takes: &dyn Fn(&CStr) -> bool,
) -> Result<(), InspectError> {
    let refuse = |found| Err(InspectError::refused(path, found));
    let used = Used::find()?;
    if let Some(found) = above(path, &used)? {
        return refuse(found);
    }
    if let Some(found) = protected(path) {
        return refuse(found);
    }
    let root = sys::open_root(path).map_err(|source| InspectError::not_accessible(path, source))?;
    Survey::new(path, owner, &used)?.run(root.as_fd(), takes)
}

/// Says what a directory holds that is neither an instance nor a clone of ours. For the message only: it
/// is refused whatever it is.
pub(crate) fn describe(path: &Path) -> Result<Found, InspectError> {
    let used = Used::find()?;
    if let Some(found) = above(path, &used)? {
        return Ok(found);
    }
    if is_of_the_system(path) {
        return Ok(Found::System);
    }
    let names = names_in(path).map_err(|source| InspectError::not_accessible(path, source))?;
    let has = |name: &str| names.iter().any(|other| other == name);
    if has("postgresql.conf") && !has("PG_VERSION") {
        return Ok(Found::Configuration {
            data_directory: configured_data_directory(&path.join("postgresql.conf")),
        });
    }
    if let Some(found) = first_below(path, &used).or_else(|| protected(path)) {
        return Ok(found);
    }
    let entries = names.len();
    Ok(Found::Other {
        entries,
        names: names.into_iter().take(5).collect(),
    })
}

/// The last word counts, as for PostgreSQL. What is included from elsewhere is not looked at.
fn configured_data_directory(conf: &Path) -> Option<PathBuf> {
    let text = read_bounded(conf, 1 << 20).ok()?;
    let entries = repmgr_guc::scan(&text).filter_map(|line| line.content.ok().flatten());
    let last = entries.filter(|entry| entry.is("data_directory")).last()?;
    Some(PathBuf::from(OsStr::from_bytes(&last.value)))
}

/// Refuses a place inside of what is somebody else's, whether or not anything is there already.
pub(crate) fn check_place(path: &Path) -> Result<(), InspectError> {
    match inside(path)? {
        Some(found) => Err(InspectError::refused(path, found)),
        None => Ok(()),
    }
}

/// What `path` lies inside of, as far as its ancestors tell without a look at what else they hold.
fn inside(path: &Path) -> Result<Option<Found>, InspectError> {
    if let Some(part) = path.ancestors().find(|dir| {
        dir.file_name()
            .is_some_and(|name| is_tablespace_name(name.as_bytes()))
    }) {
        return Ok(Some(Found::InsideTablespace(part.to_owned())));
    }
    for dir in path.ancestors().skip(1) {
        if is_data_directory(dir)? {
            return Ok(Some(Found::InsideDataDirectory(dir.to_owned())));
        }
        let is_servers = exists(&dir.join("identity.json"))? && exists(&dir.join("base"))?;
        if is_servers || exists(&dir.join("backup.info"))? {
            return Ok(Some(Found::InsideBarman(dir.to_owned())));
        }
    }
    Ok(None)
}

/// As [`inside`], and what running servers have at `path` or above, and tablespaces beside it.
fn above(path: &Path, used: &Used) -> Result<Option<Found>, InspectError> {
    if let Some(found) = inside(path)? {
        return Ok(Some(found));
    }
    for dir in path.ancestors() {
        let meta = fs::metadata(dir).map_err(|source| InspectError::not_accessible(dir, source))?;
        if let Some(server) = used.by((meta.dev(), meta.ino())) {
            return Ok(Some(Found::Used {
                path: dir.to_owned(),
                pid: server.pid,
                data: server.data.clone(),
            }));
        }
        if dir != path && holds_tablespace(dir, meta.uid())? {
            return Ok(Some(Found::InsideTablespace(dir.to_owned())));
        }
    }
    Ok(None)
}

/// PostgreSQL makes the directory of a tablespace its own and readable: one that may not be read and is
/// not ours is none of ours.
fn holds_tablespace(dir: &Path, owner: u32) -> Result<bool, InspectError> {
    match names_in(dir) {
        Ok(names) => Ok(names.iter().any(|name| is_tablespace_name(name.as_bytes()))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && owner != us() => Ok(false),
        Err(source) => Err(InspectError::not_accessible(dir, source)),
    }
}

/// `PG_15_202209061`, `PG_9.6_201608131`.
pub(crate) fn is_tablespace_name(name: &[u8]) -> bool {
    let number = |text: &[u8]| !text.is_empty() && text.iter().all(|b| b.is_ascii_digit() || *b == b'.');
    let parts = name
        .strip_prefix(b"PG_")
        .map(|rest| rest.split(|b| *b == b'_').collect::<Vec<_>>());
    matches!(parts.as_deref(), Some([major, catalog]) if number(major) && number(catalog))
}

/// Whether it is a data directory, perhaps a damaged one.
fn is_data_directory(dir: &Path) -> Result<bool, InspectError> {
    Ok(exists(&dir.join("PG_VERSION"))? && exists(&dir.join("global"))?)
}

/// Whether a directory with a `PG_VERSION` has what every instance has. (A database's directory has a
/// `PG_VERSION`, too.)
pub(crate) fn has_instance_dirs(dir: &Path) -> bool {
    ["global", "base"].iter().all(|name| dir.join(name).is_dir())
}

fn exists(path: &Path) -> Result<bool, InspectError> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(false),
        Err(source) => Err(InspectError::not_accessible(path, source)),
    }
}

fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Directories that must not be emptied even if somebody made them a data directory.
fn protected(path: &Path) -> Option<Found> {
    if is_of_the_system(path) {
        return Some(Found::System);
    }
    homes()
        .into_iter()
        .filter_map(|home| fs::canonicalize(home).ok())
        .find(|home| home.starts_with(path))
        .map(Found::Home)
}

/// As the environment says, which may be another user's after `sudo`, and as the system says.
fn homes() -> Vec<PathBuf> {
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    let uid = us().to_string();
    let of_line = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
        match fields[..] {
            [_, _, id, _, _, home, _] if id == uid.as_bytes() && !home.is_empty() => {
                Some(PathBuf::from(OsStr::from_bytes(home)))
            }
            _ => None,
        }
    };
    passwd
        .split(|b| *b == b'\n')
        .filter_map(of_line)
        .chain(std::env::home_dir())
        .collect()
}

fn is_of_the_system(path: &Path) -> bool {
    const SYSTEM: &[&str] = &[
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",
        "/usr",
        "/usr/lib",
        "/usr/local",
        "/usr/share",
        "/var",
        "/var/backups",
        "/var/cache",
        "/var/lib",
        "/var/log",
        "/var/spool",
        "/var/tmp",
    ];
    path.parent().is_none() || SYSTEM.iter().any(|dir| Path::new(dir) == path)
}
