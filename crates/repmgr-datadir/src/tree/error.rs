use std::io;
use std::path::PathBuf;

use repmgr_types::Hint;

/// Something below a tree could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The relative path is absolute, empty, has `..` in it, or the like.
    #[error("the path {path:?} does not stay inside its directory")]
    BadPath {
        /// As it came in.
        path: PathBuf,
    },
    /// A symbolic link or file stands where a directory should be. Links are not followed.
    #[error("{at:?} is a link or a file, where {path:?} needs a directory")]
    NotADirectory {
        /// What was to be reached.
        path: PathBuf,
        /// What is in the way.
        at: PathBuf,
    },
    /// Something of that name is there already.
    #[error("{path:?} exists already")]
    Exists {
        /// The full path.
        path: PathBuf,
    },
    /// Fewer bytes came than were announced.
    #[error("{path:?} is incomplete: {got} of {expected} bytes")]
    ShortFile {
        /// The full path.
        path: PathBuf,
        /// Announced bytes.
        expected: u64,
        /// Bytes that came.
        got: u64,
    },
    /// More bytes came than were announced.
    #[error("more than the announced {expected} bytes came for {path:?}")]
    LongFile {
        /// The full path.
        path: PathBuf,
        /// Announced bytes.
        expected: u64,
    },
    /// A file to be read into memory is larger than it may be.
    #[error("{path:?} is larger than {max} bytes")]
    TooLarge {
        /// The full path.
        path: PathBuf,
        /// The most that would have been read.
        max: u64,
    },
    /// The operating system refused.
    #[error("could not {action} {path:?}")]
    Io {
        /// What was tried, as a verb: "create".
        action: &'static str,
        /// The full path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl TreeError {
    /// Whether the file system, or the user's share of it, is full.
    pub fn is_no_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Io { path, .. } if self.is_no_space() => Some(
                format!("free some space on the file system of {path:?}, then run the same command again")
                    .into(),
            ),
            Self::NotADirectory { at, .. } => Some(format!("move {at:?} out of the way").into()),
            Self::ShortFile { .. } | Self::LongFile { .. } => Some(
                "the file changed at its source, or the transfer was cut; run the same command again".into(),
            ),
            _ => None,
        }
    }
}
