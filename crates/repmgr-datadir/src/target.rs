//! A look at the directory a clone shall go to.

mod error;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, OFlags};
use rustix::io::Errno;

pub(crate) use error::in_process;
pub use error::{InspectError, InspectWarning};

use crate::control::{PG_CONTROL, PgControlHead};
use crate::marker::{LOCK, MARKER, MARKER_NEW, Marker, STATE_DIR, read_bounded};
use crate::memo::{self, MEMO, MEMO_NEW};
use crate::replaceable::{self, Owner, check_place, describe, has_instance_dirs};
use crate::server::{ServerState, server_state};
use crate::sys;

/// The directory a clone shall go to, as it was when looked at.
#[derive(Debug, Clone)]
pub struct Target {
    path: PathBuf,
    state: TargetState,
    warnings: Vec<InspectWarning>,
    tablespaces: Vec<TablespaceLink>,
    wal_link: Option<PathBuf>,
    identity: Option<(u64, u64)>,
    memo: Option<serde_json::Value>,
}

/// What a target directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetState {
    /// It does not exist; it can be created below `parent`.
    Absent {
        /// The nearest parent that exists. We may write there.
        parent: PathBuf,
    },
    /// It is there and empty, or has nothing but `lost+found`.
    Empty {
        /// Its permission bits.
        mode: u32,
    },
    /// A clone was begun here and not finished; PostgreSQL cannot start on it.
    Unfinished {
        /// What it says of itself; `None` when that is lost and there is nothing to trust.
        marker: Option<Marker>,
    },
    /// A PostgreSQL instance that is not running.
    Instance(Instance),
    /// Something else, which is never replaced: [`Target::check_replaceable`] says what it is.
    NonEmpty {
        /// Some of the names in it.
        names: Vec<OsString>,
    },
}

/// A PostgreSQL instance that is not running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// From `PG_VERSION`: "15", "9.6".
    pub major: String,
    /// From `global/pg_control`; `None` when that is missing or damaged.
    pub control: Option<PgControlHead>,
}

/// A link in `pg_tblspc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceLink {
    /// The tablespace's OID.
    pub oid: u32,
    /// Where the link leads; absolute.
    pub location: PathBuf,
}

impl Target {
    /// Looks at `path` and touches nothing. A symbolic link is resolved: the target is where it leads,
    /// and the link stays.
    ///
    /// # Errors
    /// Every reason not to clone there that can be known beforehand, a running server first of all.
    pub fn inspect(path: &Path) -> Result<Self, InspectError> {
        let (path, parent) = resolve(path)?;
        if let Some(parent) = parent {
            check_writable(&parent, false)?;
            return Ok(Self::bare(path, TargetState::Absent { parent }, None));
        }
        let not_accessible = |source| InspectError::NotAccessible {
            path: path.clone(),
            source,
        };
        let mut warnings = Vec::new();
        // A directory of somebody else is the better explanation for a pid file we may not read.
        let server = server_state(&path).or_else(|error| check_own(&path).and(Err(error.into())))?;
        match server {
            ServerState::Running { pid, command } => {
                return Err(InspectError::Running { path, pid, command });
            }
            ServerState::Stopped { stale } => warnings.extend(stale.map(InspectWarning::StalePidFile)),
        }
        let meta = check_own(&path)?;
        let names = names_in(&path).map_err(not_accessible)?;
        check_writable(&path, true)?;
        let mut target = Self::bare(
            path,
            TargetState::Empty {
                mode: meta.mode() & 0o7777,
            },
            Some((meta.dev(), meta.ino())),
        );
        if !names.is_empty() {
            target.look_inside(names, &mut warnings)?;
        }
        target.warnings = warnings;
        Ok(target)
    }

    /// As if nothing were at `path`, for who looks and makes nothing there.
    pub fn assumed_absent(path: &Path) -> Self {
        let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
        Self::bare(path.to_owned(), TargetState::Absent { parent }, None)
    }

    fn bare(path: PathBuf, state: TargetState, identity: Option<(u64, u64)>) -> Self {
        let (warnings, tablespaces) = (Vec::new(), Vec::new());
        Self {
            path,
            state,
            warnings,
            tablespaces,
            wal_link: None,
            identity,
            memo: None,
        }
    }

    fn look_inside(
        &mut self,
        names: Vec<OsString>,
        warnings: &mut Vec<InspectWarning>,
    ) -> Result<(), InspectError> {
        let path = self.path.as_path();
        let failed = |source| InspectError::NotAccessible {
            path: path.to_owned(),
            source,
        };
        let marker = Marker::read(path).map_err(failed)?;
        if lock_is_held(&path.join(LOCK)).map_err(failed)? {
            let pid = marker.map(|marker| marker.pid);
            return Err(InspectError::CloneInProgress {
                path: path.to_owned(),
                pid,
            });
        }
        self.memo = memo::read(path).map_err(failed)?;
        (self.tablespaces, self.wal_link) = outside_links(path).map_err(failed)?;
        let state = |file: &str| path.join(file).symlink_metadata().is_ok();
        // A lock alone was left by a clone that had changed nothing yet.
        let only_lock = !state(MARKER) && is_only_state(path, &names).map_err(failed)?;
        let begun = state(MARKER) || only_lock;
        let has_control = path.join(PG_CONTROL).symlink_metadata().is_ok();
        if begun && !has_control {
            self.state = TargetState::Unfinished { marker };
            return Ok(());
        }
        if state(MARKER) || state(LOCK) {
            warnings.push(InspectWarning::LeftoverState(path.join(STATE_DIR)));
        }
        let major = major_version(path).map_err(failed)?;
        self.state = match major.filter(|_| has_instance_dirs(path)) {
            Some(major) => TargetState::Instance(Instance {
                major,
                control: read_bounded(&path.join(PG_CONTROL), PgControlHead::SIZE as u64)
                    .ok()
                    .and_then(|head| PgControlHead::parse(&head).ok()),
            }),
            None => TargetState::NonEmpty {
                names: names.into_iter().take(5).collect(),
            },
        };
        Ok(())
    }

    /// The real path: absolute, symbolic links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    pub fn state(&self) -> &TargetState {
        &self.state
    }

    /// What to mention to the user.
    pub fn warnings(&self) -> &[InspectWarning] {
        &self.warnings
    }

    /// What an earlier clone noted ([`Memo`](crate::Memo)), and did not take back.
    pub fn memo(&self) -> Option<&serde_json::Value> {
        self.memo.as_ref()
    }

    /// The tablespace links of the instance or unfinished clone in it.
    pub fn tablespaces(&self) -> &[TablespaceLink] {
        &self.tablespaces
    }

    /// Whether a tablespace link of the instance or unfinished clone in it leads to `location`.
    pub fn links_to(&self, location: &Path) -> bool {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.tablespaces
            .iter()
            .any(|link| real(&link.location) == real(location))
    }

    /// Whether a path leads into the directory.
    pub fn contains(&self, path: &Path) -> bool {
        fs::canonicalize(path).is_ok_and(|real| real.starts_with(&self.path))
    }

    /// Where `pg_wal` (`pg_xlog`) leads when it is a symbolic link; absolute.
    pub fn wal_link(&self) -> Option<&Path> {
        self.wal_link.as_deref()
    }

    /// Whether a clone may be made here, forced, and would not fail half-way through erasing what is here:
    /// see the rule of this crate. It holds for every clone, whether it erases, or builds upon what is there.
    ///
    /// # Errors
    /// [`InspectError::NotReplaceable`] says what was found, [`InspectError::Stubborn`] and
    /// [`InspectError::NotWritable`] what cannot be removed.
    pub fn check_replaceable(&self) -> Result<(), InspectError> {
        let path = self.path.as_path();
        let owner = match &self.state {
            TargetState::Absent { .. } | TargetState::Empty { .. } => return check_place(path),
            TargetState::NonEmpty { .. } => return Err(InspectError::refused(path, describe(path)?)),
            TargetState::Unfinished { .. } => Owner::Clone,
            TargetState::Instance(_) => Owner::Instance(&self.tablespaces),
        };
        replaceable::check(path, owner, &|_| true)
    }

    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        self.identity
    }
}

/// The real path, and the nearest existing parent when it does not exist itself.
pub(crate) fn resolve(given: &Path) -> Result<(PathBuf, Option<PathBuf>), InspectError> {
    let failed = |path: &Path, source| InspectError::NotAccessible {
        path: path.to_owned(),
        source,
    };
    let given = std::path::absolute(given).map_err(|error| failed(given, error))?;
    for existing in given.ancestors() {
        let meta = match fs::symlink_metadata(existing) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
            Err(error) => return Err(failed(existing, error)),
        };
        let real = match fs::canonicalize(existing) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound && meta.is_symlink() => {
                let target = fs::read_link(existing).map_err(|error| failed(existing, error))?;
                return Err(InspectError::DanglingLink {
                    path: existing.to_owned(),
                    target,
                });
            }
            Err(error) => return Err(failed(existing, error)),
        };
        if !real.is_dir() {
            return Err(InspectError::NotADirectory(existing.to_owned()));
        }
        let missing = given.strip_prefix(existing).unwrap_or(Path::new(""));
        if missing.as_os_str().is_empty() {
            return Ok((real, None));
        }
        if missing
            .components()
            .any(|part| !matches!(part, Component::Normal(_)))
        {
            return Err(InspectError::BadPath(given));
        }
        return Ok((real.join(missing), Some(real)));
    }
    Err(InspectError::NotADirectory(given))
}

/// PostgreSQL starts only on a directory of its own user.
pub(crate) fn check_own(path: &Path) -> Result<fs::Metadata, InspectError> {
    let failed = |source| InspectError::NotAccessible {
        path: path.to_owned(),
        source,
    };
    let meta = fs::metadata(path).map_err(failed)?;
    let (owner, us) = (meta.uid(), rustix::process::geteuid().as_raw());
    if owner == us {
        Ok(meta)
    } else {
        Err(InspectError::OwnedByOther {
            path: path.to_owned(),
            owner,
            us,
        })
    }
}

/// Missing permission bits do not matter for a directory of ours: they are corrected.
pub(crate) fn check_writable(path: &Path, is_ours: bool) -> Result<(), InspectError> {
    match rustix::fs::accessat(CWD, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        Err(Errno::ACCESS) if is_ours => Ok(()),
        Err(errno) => Err(InspectError::NotWritable {
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

/// The names in a directory, sorted, without `lost+found`.
pub(crate) fn names_in(path: &Path) -> io::Result<Vec<OsString>> {
    let entries = sys::list(sys::open_root(path)?)?;
    let names = entries
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| **name != *sys::LOST_AND_FOUND);
    let mut names: Vec<_> = names.map(|name| OsString::from_vec(name.into_bytes())).collect();
    names.sort();
    Ok(names)
}

/// Where `pg_tblspc/*` and the WAL directory lead out of an instance.
pub(crate) fn outside_links(dir: &Path) -> io::Result<(Vec<TablespaceLink>, Option<PathBuf>)> {
    let link = |path: PathBuf| match fs::read_link(&path) {
        // Relative targets count from where the link is.
        Ok(target) => Ok(path.parent().map(|parent| parent.join(target))),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(error) => Err(error),
    };
    let mut tablespaces = Vec::new();
    let tblspc = dir.join("pg_tblspc");
    if tblspc.is_dir() {
        for entry in fs::read_dir(&tblspc)? {
            let name = entry?.file_name();
            let Some(oid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            tablespaces.extend(link(tblspc.join(name))?.map(|location| TablespaceLink { oid, location }));
        }
    }
    tablespaces.sort_by_key(|link| link.oid);
    let wal = link(dir.join("pg_wal"))?.or(link(dir.join("pg_xlog"))?);
    Ok((tablespaces, wal))
}

pub(crate) fn major_version(dir: &Path) -> io::Result<Option<String>> {
    let bytes = match read_bounded(&dir.join("PG_VERSION"), 64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    Ok((text.split('.').count() <= 2 && text.split('.').all(number)).then_some(text))
}

/// Whether a directory with these entries has nothing but the lock of a clone, and what a marker is written
/// through.
fn is_only_state(path: &Path, names: &[OsString]) -> io::Result<bool> {
    if names != [STATE_DIR] {
        return Ok(false);
    }
    let files = [LOCK, MEMO].map(|file| path.join(file));
    let ours = |name: &OsString| {
        files.contains(&path.join(STATE_DIR).join(name)) || *name == *MARKER_NEW || *name == *MEMO_NEW
    };
    Ok(names_in(&path.join(STATE_DIR))?.iter().all(ours))
}

pub(crate) fn lock_is_held(path: &Path) -> io::Result<bool> {
    let options = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match fs::OpenOptions::new()
        .read(true)
        .custom_flags(options.bits().cast_signed())
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        // Not left to closing: a child forked at this moment would hold it on.
        Ok(()) => Ok(rustix::fs::flock(&file, FlockOperation::Unlock).map(|()| false)?),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}
