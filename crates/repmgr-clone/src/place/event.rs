use std::path::PathBuf;
use std::time::Duration;

use repmgr_datadir::Preparation;
use serde::Serialize;

use crate::event::{Message, seconds};

/// What happens to the directories on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlaceEvent {
    /// The directory to clone into.
    DestinationProvided {
        /// As the user gave it.
        path: PathBuf,
    },
    /// An existing directory gets the mode it must have.
    CheckingPermissions {
        /// The directory.
        path: PathBuf,
    },
    /// A directory is created.
    CreatingDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// An unfinished clone of the same backup is continued.
    Resuming,
    /// The old instance or unfinished clone is erased.
    Erasing {
        /// The directory.
        path: PathBuf,
    },
    /// Erasing lasts; told about once a second.
    StillErasing {
        /// The directory, or the one of it or of a tablespace that is erased just now.
        path: PathBuf,
        /// Files and directories that are gone.
        removed: u64,
        /// Since it began.
        #[serde(rename = "elapsed_seconds", serialize_with = "seconds")]
        elapsed: Duration,
    },
    /// All is written and is being brought to disk, which lasts; told about once a second.
    StillFlushing {
        /// Since it began.
        #[serde(rename = "elapsed_seconds", serialize_with = "seconds")]
        elapsed: Duration,
    },
}

impl PlaceEvent {
    pub(crate) fn lasts(&self) -> Option<Duration> {
        match self {
            Self::StillErasing { elapsed, .. } | Self::StillFlushing { elapsed } => Some(*elapsed),
            _ => None,
        }
    }

    pub(crate) fn message(&self) -> Message {
        match self {
            Self::DestinationProvided { path } => {
                Message::notice(format!("destination directory \"{}\" provided", path.display()))
            }
            Self::CheckingPermissions { path } => Message::info(format!(
                "checking and correcting permissions on existing directory \"{}\"",
                path.display()
            )),
            Self::CreatingDirectory { path } => {
                Message::info(format!("creating directory \"{}\"...", path.display()))
            }
            Self::Resuming => Message::notice("continuing an interrupted clone of the same backup"),
            Self::Erasing { path } => Message::notice(format!(
                "erasing the old content of directory \"{}\"",
                path.display()
            )),
            Self::StillErasing { path, removed, .. } => Message::info(format!(
                "erasing \"{}\": {removed} files and directories are gone",
                path.display()
            )),
            Self::StillFlushing { elapsed } => Message::info(format!(
                "bringing the standby to disk, for {} s now",
                elapsed.as_secs()
            )),
        }
    }
}

impl From<Preparation<'_>> for PlaceEvent {
    fn from(preparation: Preparation<'_>) -> Self {
        match preparation {
            Preparation::CreatingDirectory(path) => Self::CreatingDirectory {
                path: path.to_owned(),
            },
            Preparation::CorrectingPermissions(path) => Self::CheckingPermissions {
                path: path.to_owned(),
            },
        }
    }
}
