use std::path::PathBuf;

use repmgr_datadir::{
    AdoptError, ClaimError, EraseError, FinishError, InspectError, OutsideError, PrepareError, ResumeError,
    SpaceError, TreeError,
};
use repmgr_types::{Hint, Remedy, SystemId};

use crate::error::{ErrorKind, Explain, causes, said};
use crate::start::service::stop_command;

/// The data directory, a tablespace's place or the WAL directory cannot be used, or could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The data directory cannot be cloned into.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The data directory has content, and force was not asked for.
    #[error("specified data directory \"{}\" exists and is not empty{}", path.display(), holds(.what))]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// What it holds, in words; may be empty.
        what: String,
    },
    /// The data directory holds another cluster, or one that cannot be told, and that is not to be replaced.
    #[error("\"{}\" holds an instance {}", path.display(), whose(*.its_id, .what))]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Its system identifier, if it can be read.
        its_id: Option<SystemId>,
        /// What is copied: "backup 20261126T010513".
        what: String,
        /// The system identifier of that.
        copied_id: SystemId,
    },
    /// The instance to be configured is running, and force was not asked for.
    #[error("specified data directory \"{}\" appears to contain a running PostgreSQL instance", path.display())]
    Running {
        /// The directory.
        path: PathBuf,
        /// The server's process.
        pid: i32,
    },
    /// The instance to be configured has a `recovery.conf`, and force was not asked for.
    #[error("\"{}\" exists already", path.display())]
    RecoveryConf {
        /// The file.
        path: PathBuf,
    },
    /// The instance to be configured is of no version that is known.
    #[error("\"{}\" is of PostgreSQL \"{major}\", which is not known", path.display())]
    UnknownMajor {
        /// The directory.
        path: PathBuf,
        /// What its `PG_VERSION` says.
        major: String,
    },
    /// The data directory could not be taken.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// A tablespace's place or the WAL directory cannot be used.
    #[error("cannot use {purpose}")]
    Outside {
        /// What it is for: "the directory of tablespace \"fast\"".
        purpose: String,
        /// Why not.
        #[source]
        source: OutsideError,
    },
    /// Two tablespaces, or a tablespace and the WAL directory, would share a directory.
    #[error("{first} and {second} would overlap in \"{}\"", path.display())]
    Overlap {
        /// What goes there.
        first: String,
        /// What goes there as well.
        second: String,
        /// The directory.
        path: PathBuf,
    },
    /// A tablespace's place or the WAL directory could not be prepared.
    #[error("cannot prepare {purpose}")]
    Prepare {
        /// What it is for.
        purpose: String,
        /// Why not.
        #[source]
        source: PrepareError,
    },
    /// There is not enough room.
    #[error("not enough space for the clone in \"{}\": {needed} needed, {available} available", path.display())]
    Space {
        /// A directory on that file system.
        path: PathBuf,
        /// With its unit.
        needed: String,
        /// With its unit.
        available: String,
        /// Backups that are here at once before they are combined; 1 unless the backup is incremental.
        backups: usize,
    },
    /// The room could not be found out.
    #[error(transparent)]
    SpaceUnknown(#[from] SpaceError),
    /// The old content could not be erased.
    #[error(transparent)]
    Erase(#[from] EraseError),
    /// A clone that was begun could not be continued.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// Something in the data directory could not be written.
    #[error(transparent)]
    Write(#[from] TreeError),
    /// What `pg_basebackup` or `pg_combinebackup` wrote cannot be used.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The clone could not be brought to disk and completed.
    #[error(transparent)]
    Finish(#[from] FinishError),
}

fn whose(its_id: Option<SystemId>, what: &str) -> String {
    match its_id {
        Some(_) => format!("of another cluster than {what}"),
        None => "whose control file is missing or damaged, so that nobody can tell its cluster".to_owned(),
    }
}

fn holds(what: &str) -> String {
    match what {
        "" => String::new(),
        what => format!(" ({what})"),
    }
}

/// How this host stops the server that runs there.
fn stop_hint(error: &InspectError) -> Option<Hint> {
    match error {
        InspectError::Running {
            path,
            command: Some(command),
            ..
        } if command.contains("postgres") => {
            let stop = stop_command(path)?;
            Some(format!("stop the server first: {stop}").into())
        }
        _ => None,
    }
}

impl Explain for PlaceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Erase(EraseError::Cancelled(_))
            | Self::Prepare {
                source: PrepareError::Erase(EraseError::Cancelled(_)),
                ..
            } => ErrorKind::Interrupted,
            _ => ErrorKind::Target,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Inspect(_) => "directory_unusable",
            Self::NotEmpty { .. } => "directory_not_empty",
            Self::OtherCluster { .. } => "directory_of_other_cluster",
            Self::Running { .. } => "server_running",
            Self::RecoveryConf { .. } => "recovery_conf_exists",
            Self::UnknownMajor { .. } => "unknown_version",
            Self::Claim(_) => "directory_not_taken",
            Self::Outside { .. } => "outside_directory_unusable",
            Self::Overlap { .. } => "directories_overlap",
            Self::Prepare { .. } => "outside_directory_not_prepared",
            Self::Space { .. } => "no_space",
            Self::SpaceUnknown(_) => "space_unknown",
            Self::Erase(_) => "not_erased",
            Self::Resume(_) => "not_resumed",
            Self::Write(_) => "not_written",
            Self::Adopt(_) => "not_adopted",
            Self::Finish(_) => "not_finished",
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::OtherCluster {
                its_id: Some(id),
                copied_id,
                ..
            } => Some(format!("the system identifiers are {id} and {copied_id}")),
            _ => causes(self),
        }
    }

    fn hint(&self) -> Option<Hint> {
        let words = |words: &'static str| Some(Hint::from(words));
        let force = |why: &'static str| Some(Hint::new("use ").remedy(Remedy::Force).words(why));
        match self {
            Self::Inspect(error) => stop_hint(error).or_else(|| said(error.hint())),
            Self::NotEmpty { .. } => force(" to overwrite the existing data directory"),
            Self::OtherCluster { .. } => words("remove it, if it is not needed any more"),
            Self::Running { .. } => force(" to create replication configuration anyway"),
            Self::RecoveryConf { .. } => force(" to overwrite it"),
            Self::Claim(error) => said(error.hint()),
            Self::Outside { source, .. } => said(source.hint()),
            Self::Overlap { .. } => {
                Some(Hint::new("give each its own directory with ").remedy(Remedy::TablespaceMapping))
            }
            Self::Prepare { source, .. } => said(source.hint()),
            Self::Space { backups: 2.., .. } => Some(
                Hint::new(
                    "all backups of a chain must fit beside what is combined from them; free some space there, or \
                     choose a full backup with ",
                )
                .remedy(Remedy::Backup),
            ),
            Self::Space { .. } => words("free some space there, or choose another directory"),
            Self::Erase(error) => said(error.hint()),
            Self::Write(error) => said(error.hint()),
            Self::Adopt(error) => said(error.hint()),
            Self::Finish(error) => said(error.hint()),
            Self::SpaceUnknown(_) | Self::UnknownMajor { .. } | Self::Resume(_) => None,
        }
    }
}
