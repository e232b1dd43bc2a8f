use repmgr_barman::{Backup, BarmanError, HoldError, Unreadable, UnreadableReason};
use repmgr_datadir::ControlError;
use repmgr_transfer::{ListError, PushError, ReadFileError};
use repmgr_types::{BackupId, Hint, Remedy, WalSegmentName};
use repmgr_upstream::{CombineBackupError, ProgramError};
use repmgr_verify::{ControlFileError, ManifestError, ScanError};

use crate::error::{ErrorKind, Explain, causes, count_of_files, said};

/// Barman, its host, or the backup stand against a clone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Barman, or the way to it.
    #[error(transparent)]
    Barman(#[from] BarmanError),
    /// Files are gone from the backup since it was taken.
    #[error("files are missing in backup {backup}: it has {missing} bytes less than when it was taken")]
    Shrunken {
        /// The backup.
        backup: BackupId,
        /// Bytes.
        missing: u64,
    },
    /// Barman itself is at work on the backup.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The backup is of a kind that cannot be read here.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The files of the backup could not be listed.
    #[error(transparent)]
    List(#[from] ListError),
    /// The backup has more files than can be handled.
    #[error("the files of the backup cannot be listed")]
    Listing(#[from] PushError),
    /// A file of the backup cannot be read there.
    #[error("backup {backup} has {count} that cannot be read by the user we are on its host, for example \"{path}\"", count = count_of_files(*.count))]
    NotReadable {
        /// The backup.
        backup: BackupId,
        /// How many.
        count: usize,
        /// The first of them.
        path: String,
    },
    /// The backup lacks what every base backup has.
    #[error("backup {backup} is not whole: it has no \"{path}\"")]
    Incomplete {
        /// The backup.
        backup: BackupId,
        /// What it lacks.
        path: String,
    },
    /// A file of the backup could not be read.
    #[error(transparent)]
    Read(#[from] ReadFileError),
    /// The backup's control file is damaged.
    #[error("the control file of backup {backup} is damaged")]
    Control {
        /// The backup.
        backup: BackupId,
        /// What is wrong.
        #[source]
        source: ControlError,
    },
    /// The backup's control file is damaged, more deeply.
    #[error("the control file of backup {backup} is damaged")]
    ControlFile {
        /// The backup.
        backup: BackupId,
        /// What is wrong.
        #[source]
        source: ControlFileError,
    },
    /// WAL of the backup is not what it should be.
    #[error("WAL segment {segment} of the backup is damaged")]
    Wal {
        /// The segment.
        segment: WalSegmentName,
        /// What is wrong.
        #[source]
        source: ScanError,
    },
    /// The backup's manifest is damaged.
    #[error("the manifest of backup {backup} is damaged")]
    Manifest {
        /// The backup.
        backup: BackupId,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// The backup has no manifest, and one is required.
    #[error("backup {backup} has no backup_manifest to verify it by")]
    NoManifest {
        /// The backup.
        backup: BackupId,
    },
    /// An incremental backup cannot be combined with what it builds upon, or that failed.
    #[error("incremental backup {} cannot be made whole", unreadable.id)]
    Combine {
        /// What Barman can do about it.
        unreadable: Box<Unreadable>,
        /// Why not.
        #[source]
        source: Box<CombineBackupError>,
    },
}

impl BackupError {
    pub(crate) fn combine(backup: &Backup, source: CombineBackupError) -> Self {
        let parent = backup.parent.clone();
        Self::Combine {
            unreadable: Box::new(Unreadable {
                server: backup.server.clone(),
                id: backup.id.clone(),
                reason: UnreadableReason::Incremental {
                    // Only increments are combined.
                    parent: parent.unwrap_or_else(|| backup.id.clone()),
                },
            }),
            source: Box::new(source),
        }
    }
}

impl Explain for BackupError {
    fn kind(&self) -> ErrorKind {
        let cancelled = match self {
            Self::Barman(error) => error.is_cancelled(),
            Self::List(error) => error.is_cancelled(),
            Self::Read(error) => error.is_cancelled(),
            Self::Combine { source, .. } => {
                matches!(**source, CombineBackupError::Program(ProgramError::Cancelled))
            }
            _ => false,
        };
        match self {
            _ if cancelled => ErrorKind::Interrupted,
            Self::Combine { source, .. } => match **source {
                CombineBackupError::Failed(_) | CombineBackupError::Incomplete { .. } => ErrorKind::Copy,
                _ => ErrorKind::Barman,
            },
            _ => ErrorKind::Barman,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Barman(_) => "barman",
            Self::Shrunken { .. } => "backup_shrunken",
            Self::Hold(_) => "backup_busy",
            Self::Unreadable(_) => "backup_unreadable",
            Self::List(_) | Self::Listing(_) => "backup_not_listed",
            Self::NotReadable { .. } => "files_not_readable",
            Self::Incomplete { .. } => "backup_incomplete",
            Self::Read(_) => "file_not_read",
            Self::Control { .. } | Self::ControlFile { .. } => "control_file_damaged",
            Self::Manifest { .. } => "manifest_damaged",
            Self::Wal { .. } => "wal_damaged",
            Self::NoManifest { .. } => "no_manifest",
            Self::Combine { .. } => "not_combined",
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Barman(error) => error.is_transient(),
            Self::Hold(error) => error.is_transient(),
            Self::List(error) => error.is_transient(),
            Self::Read(error) => error.is_transient(),
            _ => false,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Barman(error) => error.detail().map(str::to_owned).or_else(|| causes(self)),
            _ => causes(self),
        }
    }

    fn hint(&self) -> Option<Hint> {
        let another = || Hint::new("choose another backup with ").remedy(Remedy::Backup);
        match self {
            Self::Barman(error) => said(error.hint()),
            Self::Hold(error) => said(error.hint()),
            Self::List(error) => said(error.hint()),
            Self::Read(error) => said(error.hint()),
            Self::Unreadable(error) => said(Some(error.hint())),
            Self::Listing(_) => None,
            Self::Shrunken { .. } => Some(
                another()
                    .words(", or take a new one; ")
                    .remedy(Remedy::AcceptDamage)
                    .words(" copies what is left"),
            ),
            Self::NotReadable { .. } => Some(
                Hint::new("log in to the Barman host as Barman's own user (")
                    .remedy_with(Remedy::BarmanHost, "barman@HOST")
                    .words("), or repair the permissions there"),
            ),
            Self::Incomplete { .. }
            | Self::Control { .. }
            | Self::ControlFile { .. }
            | Self::Wal { .. }
            | Self::Manifest { .. } => Some(another().words(", or take a new one")),
            Self::NoManifest { backup } => Some(
                Hint::new("leave out ")
                    .remedy(Remedy::RequireManifest)
                    .words(format!(
                        ", or make one on the Barman host with \"barman generate-manifest SERVER {backup}\" (Barman \
                         2.18 and later)"
                    )),
            ),
            Self::Combine { unreadable, source } => {
                let restore = unreadable.hint();
                Some(match said(source.hint()) {
                    Some(hint) => hint.words("; or ").then(restore),
                    None => restore,
                })
            }
        }
    }
}
