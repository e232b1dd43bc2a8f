use std::io;
use std::path::{Path, PathBuf};

use repmgr_types::{Hint, Remedy};

use crate::replaceable::{Found, Stubborn};
use crate::server::{RunningError, StalePidFile};

/// Something to mention that does not stand in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InspectWarning {
    /// A `postmaster.pid` without its server.
    #[error(transparent)]
    StalePidFile(StalePidFile),
    /// The state of a clone that was finished, but could not tidy up.
    #[error("{0:?} is left over from a clone that was finished or not begun")]
    LeftoverState(PathBuf),
}

/// A directory that a clone cannot go to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// The path, or a parent, is something else than a directory.
    #[error("{0:?} is not a directory")]
    NotADirectory(PathBuf),
    /// A symbolic link to nothing.
    #[error("{path:?} is a symbolic link to {target:?}, which does not exist")]
    DanglingLink {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// `..` behind a directory that does not exist yet.
    #[error("{0:?} has \"..\" in its part that does not exist yet")]
    BadPath(PathBuf),
    /// It cannot be looked into.
    #[error("could not access {path:?}")]
    NotAccessible {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be written or created.
    #[error("no write access to {path:?}")]
    NotWritable {
        /// The directory, or its nearest existing parent.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It belongs to another user; PostgreSQL would refuse to start on it.
    #[error("{path:?} belongs to user id {owner}, but this process runs as user id {us}")]
    OwnedByOther {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// It is no data directory that PostgreSQL could be started on.
    #[error("{path:?} holds no PostgreSQL instance that can be configured: {why}")]
    NotAnInstance {
        /// The directory.
        path: PathBuf,
        /// Why not, as a clause.
        why: &'static str,
    },
    /// A server runs on it.
    #[error("PostgreSQL appears to be running in {path:?} (process {pid}{})", .command.as_ref().map(|c| format!(", {c:?}")).unwrap_or_default())]
    Running {
        /// The directory.
        path: PathBuf,
        /// The server's process.
        pid: i32,
        /// Its program.
        command: Option<String>,
    },
    /// It could not be found out whether a server runs on it.
    #[error(transparent)]
    Unknown(#[from] RunningError),
    /// Another clone is being made in it at this moment.
    #[error("another clone into {path:?} is in progress{}", in_process(*.pid))]
    CloneInProgress {
        /// The directory.
        path: PathBuf,
        /// The process that does so, where known.
        pid: Option<u32>,
    },
    /// It is never replaced by a clone, forced or not.
    #[error("no clone can be made in {path:?}: it {found}")]
    NotReplaceable {
        /// The directory.
        path: PathBuf,
        /// What was found there.
        found: Found,
    },
    /// Something in it cannot be removed.
    #[error("{path:?} cannot be replaced: it {why}")]
    Stubborn {
        /// What cannot be removed.
        path: PathBuf,
        /// Why not.
        why: Stubborn,
    },
}

pub(crate) fn in_process(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl InspectError {
    pub(crate) fn not_accessible(path: &Path, source: io::Error) -> Self {
        Self::NotAccessible {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn refused(path: &Path, found: Found) -> Self {
        Self::NotReplaceable {
            path: path.to_owned(),
            found,
        }
    }

    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<Hint> {
        Some(match self {
            Self::Running { path, pid, command } => match command {
                Some(command) if command.contains("postgres") => {
                    format!("stop the server first, for example: pg_ctl -D {path:?} stop").into()
                }
                _ => format!(
                    "stop the server first; if process {pid} is certainly not PostgreSQL, remove {:?}",
                    path.join("postmaster.pid")
                )
                .into(),
            },
            Self::OwnedByOther { owner, .. } => format!(
                "run this command as user id {owner}, or give the directory to the user who runs PostgreSQL"
            )
            .into(),
            Self::NotWritable { path, .. } => {
                format!("create the data directory beforehand, or let this user write to {path:?}").into()
            }
            Self::DanglingLink { target, .. } => format!("create {target:?} or remove the link").into(),
            Self::NotAnInstance { .. } => {
                Hint::new("clone the standby first, or check ").remedy(Remedy::DataDirectory)
            }
            Self::CloneInProgress { .. } => "wait for it to end, or stop it".into(),
            Self::NotReplaceable { found, .. } => found.hint(),
            Self::Stubborn { path, why } => why.hint(path),
            _ => return None,
        })
    }
}
