use serde::Serialize;

use crate::event::{ByteSize, Message};

/// What is found out about the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BackupEvent {
    /// The Barman server is asked for the backup.
    VerifyingBackup {
        /// Its name in Barman.
        server: String,
    },
    /// There is a usable backup.
    BackupFound {
        /// The Barman server's name.
        server: String,
        /// The backup's id.
        backup: String,
        /// Bytes to copy at most.
        bytes: u64,
        /// Files to copy at most.
        files: u64,
    },
    /// The Barman server is asked what the PostgreSQL server is like.
    FetchingServerParameters,
    /// It has told.
    ServerParametersFetched,
    /// The backup is an increment and will be combined with others.
    ChainFound {
        /// Their ids: the full backup first, the one that was asked for last.
        backups: Vec<String>,
    },
}

impl BackupEvent {
    pub(crate) fn message(&self) -> Message {
        match self {
            Self::VerifyingBackup { server } => Message::info(format!(
                "connecting to Barman server to verify backup for {server}"
            )),
            Self::BackupFound {
                server,
                backup,
                bytes,
                files,
            } => Message::info(format!(
                "valid backup for server \"{server}\" found in the Barman catalogue"
            ))
            .detail(figures(backup, *files, *bytes)),
            Self::FetchingServerParameters => {
                Message::info("connecting to Barman server to fetch server parameters")
            }
            Self::ServerParametersFetched => {
                Message::info("server parameters were successfully fetched from Barman server")
            }
            Self::ChainFound { backups } => Message::info(format!(
                "the backup is incremental and will be combined from {} backups",
                backups.len()
            ))
            .detail(backups.join(", ")),
        }
    }
}

/// How much there is of a backup, in words.
pub(crate) fn figures(backup: &str, files: u64, bytes: u64) -> String {
    format!("backup {backup}: {files} files, {}", ByteSize(bytes))
}
