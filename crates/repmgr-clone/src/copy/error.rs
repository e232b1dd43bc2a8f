use std::path::PathBuf;

use repmgr_transfer::TransferError;
use repmgr_types::{BackupId, Hint, Remedy};
use repmgr_upstream::{BaseBackupError, ProgramError, VerifyBackupError};

use crate::ExternalFileError;
use crate::error::{ErrorKind, Explain, causes, count_of_files, said};

/// The base backup could not be copied, or is damaged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// `pg_basebackup` cannot be used, or failed.
    #[error("no base backup from the source node")]
    BaseBackup(#[from] BaseBackupError),
    /// `pg_verifybackup` cannot be used, or does not accept the backup.
    #[error("the base backup could not be verified")]
    VerifyBackup(#[from] VerifyBackupError),
    /// A configuration file outside the data directory could not be copied.
    #[error("configuration file \"{}\" cannot be copied", path.display())]
    ExternalFile {
        /// The file on the source.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ExternalFileError,
    },
    /// The files could not be copied.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Files failed their checksums.
    #[error("{} of backup {backup} failed verification", count_of_files(*.count))]
    Damaged {
        /// The backup.
        backup: BackupId,
        /// How many.
        count: usize,
        /// Which, and how; one line each, of the first of them.
        damages: Vec<String>,
    },
}

impl Explain for CopyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::BaseBackup(BaseBackupError::Program(ProgramError::Cancelled))
            | Self::VerifyBackup(VerifyBackupError::Program(ProgramError::Cancelled))
            | Self::Transfer(TransferError::Cancelled(_)) => ErrorKind::Interrupted,
            // Nothing is wrong over there: the disk here is full.
            Self::Transfer(TransferError::Sink { .. }) => ErrorKind::Target,
            Self::Transfer(_) => ErrorKind::Barman,
            // As in repmgr: without a way there nothing was tried.
            Self::ExternalFile {
                source: ExternalFileError::Connect(_),
                ..
            } => ErrorKind::Prerequisite,
            Self::ExternalFile { .. } => ErrorKind::ExternalFile,
            Self::Damaged { .. } | Self::BaseBackup(_) | Self::VerifyBackup(_) => ErrorKind::Copy,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::BaseBackup(_) => "base_backup_failed",
            Self::VerifyBackup(_) => "base_backup_not_verified",
            Self::ExternalFile { .. } => "external_file",
            Self::Transfer(_) => "transfer_failed",
            Self::Damaged { .. } => "backup_damaged",
        }
    }

    fn is_transient(&self) -> bool {
        matches!(self, Self::Transfer(error) if error.is_transient())
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Damaged { damages, .. } => Some(damages.join("\n")),
            _ => causes(self),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::BaseBackup(error) => said(error.hint()),
            Self::VerifyBackup(error) => said(error.hint()),
            Self::ExternalFile { source, .. } => source.hint(),
            Self::Transfer(error) => said(error.hint()),
            Self::Damaged { .. } => Some(
                Hint::new("check the disks of the Barman host and take a new backup; ")
                    .remedy(Remedy::AcceptDamage)
                    .words(" clones nevertheless"),
            ),
        }
    }
}
