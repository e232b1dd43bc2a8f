use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use repmgr_types::{Hint, Remedy};
use serde::Serialize;

use crate::event::{ByteSize, Message, seconds};
use crate::source::event::figures;

/// What happens while the base backup comes here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum CopyEvent {
    /// Files that are here already are those of the backup.
    Reusing {
        /// Files that need not be fetched again.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// Files of which only the blocks that differ will be fetched, if the far side can tell.
        old_files: u64,
        /// Their bytes.
        old_bytes: u64,
    },
    /// The copy begins.
    RetrievingBackup {
        /// The backup's id.
        backup: String,
        /// Files in it.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The files to copy are determined.
    ReceivingFileList,
    /// `pg_combinebackup` is started.
    Combining {
        /// Backups that become one.
        backups: usize,
        /// The command line.
        command: String,
    },
    /// `pg_basebackup` is started.
    StartingBaseBackup {
        /// The command line, without secrets.
        command: String,
        /// Whether the server waits for its next checkpoint first.
        waits_for_checkpoint: bool,
    },
    /// `pg_verifybackup` found nothing wrong.
    BaseBackupVerified,
    /// A configuration file outside the data directory was copied.
    ExternalFileCopied {
        /// Where it is here.
        path: PathBuf,
    },
    /// All files of the backup are read and judged, and nothing is written.
    VerifyingFiles {
        /// The backup's id.
        backup: String,
        /// Files in it.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// All files of the backup were read and are right.
    FilesVerified {
        /// Figures of the reading.
        summary: CopySummary,
    },
    /// All files are here and verified.
    CopyFinished {
        /// Figures of the copy.
        summary: CopySummary,
    },
}

impl CopyEvent {
    /// `None` for one that only programs want to know.
    pub(crate) fn message(&self) -> Option<Message> {
        Some(match self {
            Self::Reusing {
                files,
                bytes,
                old_files,
                old_bytes,
            } => Message::info(format!(
                "{files} files ({}) are here already and need not be fetched",
                ByteSize(*bytes)
            ))
            .detail((*old_files > 0).then(|| {
                format!(
                    "{old_files} others ({}) are compared with those of the backup block by block",
                    ByteSize(*old_bytes)
                )
            })),
            Self::RetrievingBackup { backup, files, bytes } => {
                Message::notice("retrieving backup from Barman...").detail(figures(backup, *files, *bytes))
            }
            // rsync printed this line, without a level.
            Self::ReceivingFileList => return None,
            Self::Combining { backups, command } => {
                Message::notice(format!("combining {backups} backups (using pg_combinebackup)..."))
                    .detail(format!("executing: {command}"))
            }
            Self::StartingBaseBackup {
                command,
                waits_for_checkpoint,
            } => Message::notice("starting backup (using pg_basebackup)...")
                .detail(format!("executing: {command}"))
                .hint(waits_for_checkpoint.then(|| {
                    Hint::new("this may take some time; consider using the ")
                        .remedy(Remedy::FastCheckpoint)
                        .words(" option")
                })),
            Self::BaseBackupVerified => Message::info("the base backup was verified by pg_verifybackup"),
            Self::ExternalFileCopied { path } => {
                Message::info(format!("configuration file copied to \"{}\"", path.display()))
            }
            Self::VerifyingFiles { backup, files, bytes } => {
                Message::notice("reading all of the backup, writing nothing...")
                    .detail(figures(backup, *files, *bytes))
            }
            Self::FilesVerified { summary } => Message::info(summary.to_string()),
            Self::CopyFinished { summary } => Message::info(summary.to_string()),
        })
    }
}

/// Figures of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopySummary {
    /// Files of the standby that came from the backup.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were here already and right.
    pub reused_files: u64,
    /// Their bytes.
    pub reused_bytes: u64,
    /// Bytes received over the network.
    pub wire_bytes: u64,
    /// Time from the first byte to the last.
    #[serde(rename = "elapsed_seconds", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// How the content was verified, in words: "sizes, backup_manifest checksums".
    pub verified: String,
    /// Whether data pages were held against their checksums.
    pub pages: PageChecks,
    /// Parallel sessions.
    pub jobs: usize,
    /// How most bytes were compressed on the wire: "zstd", "none"; empty when nothing was fetched.
    pub compression: String,
    /// Connections that were lost and made anew.
    pub retries: u32,
}

/// Whether the data pages of a backup were held against their checksums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PageChecks {
    /// All of them.
    Verified,
    /// They have none.
    NoChecksums,
    /// They were not.
    NotVerified {
        /// Why.
        reason: String,
    },
}

impl CopySummary {
    /// Of nothing yet.
    pub(crate) fn empty() -> Self {
        Self {
            files: 0,
            bytes: 0,
            reused_files: 0,
            reused_bytes: 0,
            wire_bytes: 0,
            elapsed: Duration::ZERO,
            verified: String::new(),
            pages: PageChecks::Verified,
            jobs: 0,
            compression: String::new(),
            retries: 0,
        }
    }
}

impl fmt::Display for CopySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        write!(
            f,
            "{} files, {} in {seconds:.1} s",
            self.files,
            ByteSize(self.bytes)
        )?;
        // Of little that was fetched, the time says nothing.
        if seconds > 0.1 && self.reused_bytes <= self.bytes / 2 {
            let fetched = (self.bytes - self.reused_bytes.min(self.bytes)) as f64;
            write!(f, " ({}/s)", ByteSize((fetched / seconds) as u64))?;
        }
        if self.jobs > 0 {
            let sessions = if self.jobs == 1 { "session" } else { "sessions" };
            write!(
                f,
                "; {} over the network ({}, {} {sessions})",
                ByteSize(self.wire_bytes),
                self.compression,
                self.jobs
            )?;
        }
        if self.reused_bytes > 0 {
            write!(
                f,
                "; {} were here already, {} files in full",
                ByteSize(self.reused_bytes),
                self.reused_files
            )?;
        }
        if self.retries > 0 {
            write!(f, "; {} lost connections", self.retries)?;
        }
        write!(f, "; verified: {}", self.verified)
    }
}
