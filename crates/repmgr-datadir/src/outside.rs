//! Directories of a cluster that are not below its data directory: tablespaces, and a WAL directory
//! elsewhere.

#[cfg(test)]
mod tests;

use std::ffi::{CStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use repmgr_types::{Hint, Remedy};

use crate::erase::{EraseError, Erasing, remove_children};
use crate::replaceable::{self, Owner, check_place};
use crate::target::{InspectError, Target, check_own, check_writable, names_in, resolve};
use crate::tree::{Tree, TreeError};
use crate::{Permissions, Preparation, sys};

/// A directory outside the data directory that a clone will write to, as it was when looked at.
#[derive(Debug, Clone)]
pub struct OutsideDir {
    path: PathBuf,
    kind: OutsideKind,
    state: OutsideState,
    data: Target,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum OutsideKind {
    /// With the major version of the instance whose directories may be in it.
    Tablespace {
        ours: Option<String>,
    },
    Wal {
        ours: bool,
    },
}

/// What such a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideState {
    /// It does not exist; it can be created.
    Absent,
    /// It is there and empty, or has nothing but `lost+found`.
    Empty,
    /// It has content of the instance or unfinished clone that is being replaced, and nothing else.
    Ours,
}

/// A directory outside that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutsideError {
    /// As for a data directory.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// PostgreSQL wants absolute paths.
    #[error("{0:?} is not an absolute path")]
    Relative(PathBuf),
    /// It is inside the data directory, or the data directory is inside it.
    #[error("{path:?} and the data directory {data:?} overlap")]
    Overlaps {
        /// The directory.
        path: PathBuf,
        /// The data directory.
        data: PathBuf,
    },
    /// It has content that is not ours to remove.
    #[error("{path:?} exists and is not empty: it has {}", list(.names))]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Some of the names in it.
        names: Vec<OsString>,
    },
}

fn list(names: &[OsString]) -> String {
    names
        .iter()
        .map(|name| format!("{name:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl OutsideError {
    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<Hint> {
        let elsewhere = |words: &'static str| Some(Hint::new(words).remedy(Remedy::TablespaceMapping));
        match self {
            Self::Inspect(InspectError::NotReplaceable { .. }) | Self::Overlaps { .. } => {
                elsewhere("choose another, empty directory; for a tablespace, map it elsewhere with ")
            }
            Self::Inspect(error) => error.hint(),
            Self::NotEmpty { .. } => elsewhere(
                "empty it if it belongs to an old standby of this node; otherwise choose another directory, \
                 for a tablespace with ",
            ),
            Self::Relative(_) => None,
        }
    }
}

/// What to do with content that is [`OutsideState::Ours`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldContent {
    /// Fail if there is any.
    Refuse,
    /// Leave it; a clone is being continued.
    Keep,
    /// Erase it.
    Erase,
}

/// A directory outside could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// It can no longer be used, or not in this way.
    #[error(transparent)]
    Outside(#[from] OutsideError),
    /// Its old content could not be erased.
    #[error(transparent)]
    Erase(#[from] EraseError),
    /// It could not be created or given its mode.
    #[error("could not create {path:?} or set its mode")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It could not be opened.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl PrepareError {
    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Outside(error) => error.hint(),
            Self::Erase(error) => error.hint(),
            Self::Tree(error) => error.hint(),
            Self::Create { .. } => None,
        }
    }
}

impl OutsideDir {
    /// Looks at a tablespace's location for a clone into `data`, and touches nothing.
    ///
    /// `ours` is the major version ("15") of the instance or unfinished clone that is being replaced, if
    /// that has a tablespace here: [`Target::links_to`] says so, or the marker of the clone. Then that
    /// version's directories count as ours; they may be erased. A running server's never do, but take
    /// care with instances that were copied on this host: their links may lead to what is their source's.
    ///
    /// # Errors
    /// When it has anything else in it, is used by a running server, or cannot be written.
    pub fn tablespace(location: &Path, data: &Target, ours: Option<&str>) -> Result<Self, OutsideError> {
        Self::inspect(
            location,
            data,
            OutsideKind::Tablespace {
                ours: ours.map(str::to_owned),
            },
        )
    }

    /// Looks at a WAL directory elsewhere (`--waldir`) for a clone into `data`, and touches nothing.
    /// WAL in it counts as ours when `ours` is set.
    ///
    /// # Errors
    /// As for [`OutsideDir::tablespace`].
    pub fn wal(location: &Path, data: &Target, ours: bool) -> Result<Self, OutsideError> {
        Self::inspect(location, data, OutsideKind::Wal { ours })
    }

    fn inspect(location: &Path, data: &Target, kind: OutsideKind) -> Result<Self, OutsideError> {
        if !location.is_absolute() {
            return Err(OutsideError::Relative(location.to_owned()));
        }
        let (path, parent) = resolve(location)?;
        if path.starts_with(data.path()) || data.path().starts_with(&path) {
            return Err(OutsideError::Overlaps {
                path,
                data: data.path().to_owned(),
            });
        }
        check_place(&path)?;
        let state = match parent {
            Some(parent) => {
                check_writable(&parent, false)?;
                OutsideState::Absent
            }
            None => look_inside(&path, &kind)?,
        };
        Ok(Self {
            path,
            kind,
            state,
            data: data.clone(),
        })
    }

    /// The real path: absolute, symbolic links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    pub fn state(&self) -> &OutsideState {
        &self.state
    }

    /// Creates the directory or corrects its mode, and deals with content of ours.
    ///
    /// # Errors
    /// When it has content that was not there when it was looked at, or content of ours under
    /// [`OldContent::Refuse`].
    pub fn prepare<'a>(
        &self,
        permissions: Permissions,
        existing: OldContent,
        erasing: impl Into<Erasing<'a>>,
        announce: &mut dyn FnMut(Preparation<'_>),
    ) -> Result<Tree, PrepareError> {
        let path = self.path.as_path();
        let failed = |path: &Path, source| PrepareError::Create {
            path: path.to_owned(),
            source,
        };
        let now = Self::inspect(path, &self.data, self.kind.clone())?;
        if now.state == OutsideState::Ours
            && (existing == OldContent::Refuse || self.state != OutsideState::Ours)
        {
            let names = names_in(path).map_err(|error| failed(path, error))?;
            return Err(OutsideError::NotEmpty {
                path: path.to_owned(),
                names: first(names),
            }
            .into());
        }
        if now.state == OutsideState::Absent {
            announce(Preparation::CreatingDirectory(path));
            sys::make_dirs(path, permissions.directory()).map_err(|(at, error)| failed(&at, error))?;
        } else {
            announce(Preparation::CorrectingPermissions(path));
            correct_mode(path, permissions).map_err(|error| failed(path, error))?;
        }
        if existing == OldContent::Erase {
            let root = sys::open_root(path).map_err(|error| failed(path, error))?;
            remove_children(root.as_fd(), path, &|name| !self.kind.owns(name), erasing.into())?;
        }
        Ok(Tree::open(path, permissions)?)
    }
}

impl OutsideKind {
    /// Whether an entry is ours to keep or to erase.
    fn owns(&self, name: &CStr) -> bool {
        let name = name.to_bytes();
        match self {
            Self::Tablespace { ours: Some(major) } => {
                let prefix = format!("PG_{major}_");
                name.strip_prefix(prefix.as_bytes())
                    .is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit))
            }
            Self::Tablespace { ours: None } => false,
            Self::Wal { ours } => *ours && is_wal_name(name),
        }
    }
}

/// What PostgreSQL keeps in `pg_wal`: segments, partial ones, backup and timeline history, its two
/// subdirectories and temporary files.
fn is_wal_name(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else {
        return false;
    };
    let hex = |text: &str, digits| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    match extension {
        "" => hex(stem, 24) || matches!(stem, "archive_status" | "summaries"),
        "partial" => hex(stem, 24),
        "history" => hex(stem, 8),
        _ if stem == "xlogtemp" => extension.bytes().all(|b| b.is_ascii_digit()),
        _ => {
            hex(stem, 24)
                && extension
                    .strip_suffix(".backup")
                    .is_some_and(|offset| hex(offset, 8))
        }
    }
}

fn look_inside(path: &Path, kind: &OutsideKind) -> Result<OutsideState, OutsideError> {
    check_own(path)?;
    let not_accessible = |source| InspectError::NotAccessible {
        path: path.to_owned(),
        source,
    };
    let names = names_in(path).map_err(not_accessible)?;
    check_writable(path, true)?;
    if names.is_empty() {
        return Ok(OutsideState::Empty);
    }
    let is_ours = |name: &OsString| {
        // Names from a directory have no NUL in them.
        std::ffi::CString::new(name.as_bytes()).is_ok_and(|name| kind.owns(&name))
    };
    if names.iter().all(is_ours) {
        replaceable::check(path, Owner::Outside, &|name| kind.owns(name))?;
        return Ok(OutsideState::Ours);
    }
    Err(OutsideError::NotEmpty {
        path: path.to_owned(),
        names: first(names),
    })
}

fn first(mut names: Vec<OsString>) -> Vec<OsString> {
    names.truncate(5);
    names
}

fn correct_mode(path: &Path, permissions: Permissions) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    let correct = permissions.correct_directory(mode);
    if correct == mode {
        Ok(())
    } else {
        fs::set_permissions(path, fs::Permissions::from_mode(correct))
    }
}
