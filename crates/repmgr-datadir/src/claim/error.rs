use std::io;
use std::path::PathBuf;

use repmgr_types::{Hint, Remedy};

use crate::control::ControlError;
use crate::erase::EraseError;
use crate::target::{InspectError, in_process};
use crate::tree::TreeError;

/// A directory could not be taken. It is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// It has content, and force was not asked for.
    #[error("{0:?} exists and is not empty")]
    NotEmpty(PathBuf),
    /// It is never replaced, forced or not.
    #[error(transparent)]
    Refused(#[from] InspectError),
    /// It is not what it was when it was looked at.
    #[error("{0:?} was changed by somebody else since it was looked at")]
    Changed(PathBuf),
    /// Another clone is being made in it.
    #[error("another clone into {path:?} is in progress{}", in_process(*.pid))]
    InProgress {
        /// The directory.
        path: PathBuf,
        /// The process that does so, where known.
        pid: Option<u32>,
    },
    /// Something could not be created, opened, locked, or given its mode.
    #[error("could not {action} {path:?}")]
    Io {
        /// What was tried, as a verb: "create the directory".
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The directory could not be opened.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl ClaimError {
    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<Hint> {
        Some(match self {
            Self::NotEmpty(_) => Hint::new("use ").remedy(Remedy::Force).words(" to overwrite it"),
            Self::Changed(_) => "make sure that nothing else uses it, then run the same command again".into(),
            Self::InProgress { .. } => "wait for it to end, or stop it".into(),
            Self::Refused(error) => return error.hint(),
            Self::Tree(error) => return error.hint(),
            Self::Io { .. } => return None,
        })
    }
}

/// A clone that was begun cannot be continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// There is none, or what it left cannot be trusted.
    #[error("{0:?} holds no clone that can be continued")]
    NotResumable(PathBuf),
    /// The marker could not be written.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The clone could not be completed. PostgreSQL cannot start on the directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FinishError {
    /// That is no control file.
    #[error("the backup's control file is damaged")]
    Control(#[from] ControlError),
    /// Data could not be brought to disk. The directory is marked as useless.
    #[error("not all data could be brought to disk")]
    Flush(#[source] TreeError),
    /// The control file could not be moved into place.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Everything is in place, but the clone's own state below the directory could not be removed.
    #[error("the clone is complete, but its working files could not be removed")]
    TidyUp {
        /// The directory with it.
        state: PathBuf,
        /// Why.
        source: EraseError,
    },
}

impl FinishError {
    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Control(_) => Some("check the backup; another one may be whole".into()),
            Self::Flush(_) => Some("check the disk and the kernel's log before cloning again".into()),
            Self::Tree(error) => error.hint(),
            // Not that of the cause: the same clone again would find a whole instance. Where only the flush failed,
            // it is gone, and comes back at most with a crash.
            Self::TidyUp { state, .. } => {
                Some(format!("PostgreSQL does not need {state:?}: remove it where it is still there").into())
            }
        }
    }
}
