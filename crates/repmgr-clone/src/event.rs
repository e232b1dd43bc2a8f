//! What a clone tells while it works.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use repmgr_datadir::Preparation;
use serde::{Serialize, Serializer};

use crate::Method;

/// Hears what a clone does. Called from several threads.
pub trait Observer: Sync {
    /// Something happened, in the order in which it did.
    fn event(&self, event: Event);

    /// How far the copy is; about ten times a second.
    fn progress(&self, progress: &Progress) {
        let _ = progress;
    }
}

/// How much a message matters, as repmgr grades it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What is being done.
    Info,
    /// What the user should know.
    Notice,
    /// What may be wrong.
    Warning,
}

/// An event in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// How much it matters.
    pub level: Level,
    /// One line.
    pub text: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

/// Something that happened. [`Event::message`] has the words, those of repmgr where repmgr has any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The directory to clone into.
    DestinationProvided {
        /// As the user gave it.
        path: PathBuf,
    },
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
    /// The Barman server is asked for what the server is like.
    FetchingServerParameters,
    /// It has told.
    ServerParametersFetched,
    /// A connection to the source node is being made.
    ConnectingToSource {
        /// How the base backup will come here; `None` when there will be none.
        method: Option<Method>,
    },
    /// It is there.
    ConnectedToSource,
    /// The source node is fit to be cloned.
    SourceChecked {
        /// The size of its databases in words, where it may be known.
        size: Option<String>,
    },
    /// The extension with repmgr's metadata is there.
    ExtensionInstalled {
        /// The database.
        database: String,
        /// The extension's version.
        version: String,
    },
    /// The node that will be followed.
    UpstreamChosen {
        /// Its `node_id`, when it has a record.
        node_id: Option<i32>,
        /// How it will be reached, without secrets.
        conninfo: String,
    },
    /// Settings of the source node that were looked at and are right.
    SettingChecked {
        /// In words.
        text: String,
    },
    /// Everything that can be known beforehand is right.
    PrerequisitesMet {
        /// The plan in words, several lines.
        plan: String,
    },
    /// A replication slot was created on the upstream node.
    SlotCreated {
        /// Its name.
        name: String,
        /// The upstream node.
        node_id: Option<i32>,
    },
    /// What would be written to configure the instance anew.
    ConfigurationPlanned {
        /// The file, relative to the data directory.
        file: String,
        /// The data directory.
        directory: PathBuf,
        /// Lines of the file, without secrets.
        lines: Vec<String>,
    },
    /// The instance was configured anew.
    ConfigurationWritten {
        /// The file, relative to the data directory.
        file: String,
        /// The data directory.
        directory: PathBuf,
        /// Lines of the file, without secrets.
        lines: Vec<String>,
        /// When it counts.
        effective: Effective,
    },
    /// An unfinished clone of the same backup is continued.
    Resuming,
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
    /// Old content is erased (`-F`).
    Erasing {
        /// The directory.
        path: PathBuf,
    },
    /// The backup is an increment and will be combined with others.
    ChainFound {
        /// Their ids: the full backup first, the one that was asked for last.
        backups: Vec<String>,
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
    /// A configuration file outside the data directory was copied.
    ExternalFileCopied {
        /// Where it is here.
        path: PathBuf,
    },
    /// Something that may be wrong and does not stop the clone.
    Warning {
        /// One line.
        text: String,
        /// More about it.
        detail: Option<String>,
        /// What to do.
        hint: Option<String>,
    },
    /// Something to know.
    Notice {
        /// One line.
        text: String,
        /// More about it.
        detail: Option<String>,
        /// What to do.
        hint: Option<String>,
    },
    /// All files are here and verified.
    CopyFinished {
        /// Figures of the copy.
        summary: CopySummary,
    },
    /// The standby is complete.
    Complete {
        /// How the base backup came here.
        method: Method,
    },
    /// What to do next.
    NextSteps {
        /// A command that starts PostgreSQL.
        start: String,
        /// Whether this node has a record already, and must be registered with `--force`.
        registered: Option<bool>,
    },
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
    /// How the content was verified, in words: "sizes, backup_manifest (CRC32C)".
    pub verified: String,
    /// Parallel sessions.
    pub jobs: usize,
    /// How most bytes were compressed on the wire: "zstd", "none"; empty when nothing was fetched.
    pub compression: String,
    /// Connections that were lost and made anew.
    pub retries: u32,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Files that are complete.
    pub files_done: u64,
    /// Files in all.
    pub files_total: u64,
    /// Bytes that are here, those of reused files among them.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Bytes that need no fetching; they say nothing about the rate.
    pub bytes_reused: u64,
    /// Bytes received over the network.
    pub wire_bytes: u64,
    /// Since the copy began.
    #[serde(rename = "elapsed_seconds", serialize_with = "seconds")]
    pub elapsed: Duration,
}

impl Progress {
    /// Nothing is done yet.
    pub(crate) fn to_do(files: u64, bytes: u64) -> Self {
        Self {
            files_done: 0,
            files_total: files,
            bytes_done: 0,
            bytes_total: bytes,
            bytes_reused: 0,
            wire_bytes: 0,
            elapsed: Duration::ZERO,
        }
    }
}

/// When a new replication configuration counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effective {
    /// When the server is started, which it is not now.
    OnStart,
    /// When the running server is told to read its configuration anew.
    OnReload,
    /// When the running server is restarted.
    OnRestart,
}

impl Effective {
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::OnStart => None,
            Self::OnReload => {
                Some("configuration must be reloaded for the configuration changes to take effect")
            }
            Self::OnRestart => Some("server must be restarted for the configuration changes to take effect"),
        }
    }
}

impl Event {
    /// The event in words; `None` for one that only programs want to know.
    pub fn message(&self) -> Option<Message> {
        let (level, text) = match self {
            Self::DestinationProvided { path } => (
                Level::Notice,
                format!("destination directory \"{}\" provided", path.display()),
            ),
            Self::VerifyingBackup { server } => (
                Level::Info,
                format!("connecting to Barman server to verify backup for {server}"),
            ),
            Self::BackupFound {
                server,
                backup,
                bytes,
                files,
            } => {
                return Some(Message {
                    level: Level::Info,
                    text: format!("valid backup for server \"{server}\" found in the Barman catalogue"),
                    detail: Some(format!("backup {backup}: {files} files, {}", ByteSize(*bytes))),
                    hint: None,
                });
            }
            Self::CheckingPermissions { path } => (
                Level::Info,
                format!(
                    "checking and correcting permissions on existing directory \"{}\"",
                    path.display()
                ),
            ),
            Self::CreatingDirectory { path } => (
                Level::Info,
                format!("creating directory \"{}\"...", path.display()),
            ),
            Self::FetchingServerParameters => (
                Level::Info,
                "connecting to Barman server to fetch server parameters".to_owned(),
            ),
            Self::ServerParametersFetched => (
                Level::Info,
                "server parameters were successfully fetched from Barman server".to_owned(),
            ),
            Self::ConnectingToSource {
                method: Some(Method::Barman),
            } => (Level::Info, "connecting to upstream node".to_owned()),
            Self::ConnectingToSource { .. } => (Level::Info, "connecting to source node".to_owned()),
            Self::ConnectedToSource => (
                Level::Info,
                "connected to source node, checking its state".to_owned(),
            ),
            Self::SourceChecked { size } => {
                return Some(Message {
                    level: Level::Info,
                    text: "successfully connected to source node".to_owned(),
                    detail: size
                        .as_ref()
                        .map(|size| format!("current installation size is {size}")),
                    hint: None,
                });
            }
            Self::ExtensionInstalled { database, .. } => (
                Level::Info,
                format!("\"repmgr\" extension is installed in database \"{database}\""),
            ),
            Self::UpstreamChosen {
                node_id: Some(id), ..
            } => (
                Level::Notice,
                format!("standby will attach to upstream node {id}"),
            ),
            Self::UpstreamChosen {
                node_id: None,
                conninfo,
            } => (Level::Notice, format!("standby will attach to \"{conninfo}\"")),
            Self::SettingChecked { text } => (Level::Info, text.clone()),
            Self::PrerequisitesMet { plan } => {
                return Some(Message {
                    level: Level::Info,
                    text: "all prerequisites for \"standby clone\" are met".to_owned(),
                    detail: Some(plan.clone()),
                    hint: None,
                });
            }
            Self::SlotCreated { name, node_id } => (
                Level::Notice,
                match node_id {
                    Some(id) => format!("replication slot \"{name}\" created on upstream node (ID: {id})"),
                    None => format!("replication slot \"{name}\" created on upstream node"),
                },
            ),
            Self::ConfigurationPlanned {
                file,
                directory,
                lines,
            } => {
                return Some(Message {
                    level: Level::Info,
                    text: format!(
                        "following items would be added to \"{file}\" in \"{}\"",
                        directory.display()
                    ),
                    detail: Some(lines.join("\n")),
                    hint: None,
                });
            }
            Self::ConfigurationWritten { file, effective, .. } => {
                return Some(Message {
                    level: Level::Notice,
                    text: format!("replication configuration written to \"{file}\""),
                    detail: None,
                    hint: effective.hint().map(str::to_owned),
                });
            }
            Self::Resuming => (
                Level::Notice,
                "continuing an interrupted clone of the same backup".to_owned(),
            ),
            Self::Reusing {
                files,
                bytes,
                old_files,
                old_bytes,
            } => {
                return Some(Message {
                    level: Level::Info,
                    text: format!(
                        "{files} files ({}) are here already and need not be fetched",
                        ByteSize(*bytes)
                    ),
                    detail: (*old_files > 0).then(|| {
                        format!(
                            "{old_files} others ({}) are compared with those of the backup block by block",
                            ByteSize(*old_bytes)
                        )
                    }),
                    hint: None,
                });
            }
            Self::Erasing { path } => (
                Level::Notice,
                format!("erasing the old content of directory \"{}\"", path.display()),
            ),
            Self::ChainFound { backups } => {
                return Some(Message {
                    level: Level::Info,
                    text: format!(
                        "the backup is incremental and will be combined from {} backups",
                        backups.len()
                    ),
                    detail: Some(backups.join(", ")),
                    hint: None,
                });
            }
            Self::Combining { backups, command } => {
                return Some(Message {
                    level: Level::Notice,
                    text: format!("combining {backups} backups (using pg_combinebackup)..."),
                    detail: Some(format!("executing: {command}")),
                    hint: None,
                });
            }
            Self::RetrievingBackup { backup, files, bytes } => {
                return Some(Message {
                    level: Level::Notice,
                    text: "retrieving backup from Barman...".to_owned(),
                    detail: Some(format!("backup {backup}: {files} files, {}", ByteSize(*bytes))),
                    hint: None,
                });
            }
            Self::Warning { text, detail, hint } => return message(Level::Warning, text, detail, hint),
            Self::Notice { text, detail, hint } => return message(Level::Notice, text, detail, hint),
            Self::CopyFinished { summary } => (Level::Info, summary.to_string()),
            Self::Complete {
                method: Method::Barman,
            } => (Level::Notice, "standby clone (from Barman) complete".to_owned()),
            Self::Complete { method } => (Level::Notice, format!("standby clone (using {method}) complete")),
            Self::StartingBaseBackup {
                command,
                waits_for_checkpoint,
            } => {
                return Some(Message {
                    level: Level::Notice,
                    text: "starting backup (using pg_basebackup)...".to_owned(),
                    detail: Some(format!("executing: {command}")),
                    hint: waits_for_checkpoint.then(|| {
                        "this may take some time; consider using the -c/--fast-checkpoint option".to_owned()
                    }),
                });
            }
            Self::ExternalFileCopied { path } => (
                Level::Info,
                format!("configuration file copied to \"{}\"", path.display()),
            ),
            Self::NextSteps { start, .. } => {
                return Some(Message {
                    level: Level::Notice,
                    text: "you can now start your PostgreSQL server".to_owned(),
                    detail: None,
                    hint: Some(format!("for example: {start}")),
                });
            }
            // rsync printed this line, without a level.
            Self::ReceivingFileList => return None,
        };
        Some(Message {
            level,
            text,
            detail: None,
            hint: None,
        })
    }

    pub(crate) fn preparing(preparation: Preparation<'_>) -> Self {
        match preparation {
            Preparation::CreatingDirectory(path) => Self::CreatingDirectory {
                path: path.to_owned(),
            },
            Preparation::CorrectingPermissions(path) => Self::CheckingPermissions {
                path: path.to_owned(),
            },
        }
    }

    pub(crate) fn warning(text: impl Into<String>) -> Self {
        Self::Warning {
            text: text.into(),
            detail: None,
            hint: None,
        }
    }
}

fn message(level: Level, text: &str, detail: &Option<String>, hint: &Option<String>) -> Option<Message> {
    Some(Message {
        level,
        text: text.to_owned(),
        detail: detail.clone(),
        hint: hint.clone(),
    })
}

/// As a number with milliseconds, which every program can read.
fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1000.0).round() / 1000.0)
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

/// A number of bytes as PostgreSQL's `pg_size_pretty` prints it: "29 MB".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
        let (mut value, mut unit) = (self.0, 0);
        // As in pg_size_pretty: up to 10239 of one unit, then half a unit rounds up.
        while value >= 10 * 1024 && unit + 1 < UNITS.len() {
            value = (value + 512) / 1024;
            unit += 1;
        }
        write!(f, "{value} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_postgresql_prints_them() {
        let text = |bytes| ByteSize(bytes).to_string();
        assert_eq!(text(0), "0 bytes");
        assert_eq!(text(10_239), "10239 bytes");
        assert_eq!(text(10_240), "10 kB");
        assert_eq!(text(30_408_704), "29 MB");
        assert_eq!(text(1 << 42), "4096 GB");
    }

    #[test]
    fn times_are_seconds_for_programs() {
        let progress = Progress {
            files_done: 1,
            files_total: 2,
            bytes_done: 3,
            bytes_total: 4,
            bytes_reused: 0,
            wire_bytes: 0,
            elapsed: Duration::from_micros(1_234_567),
        };
        assert_eq!(serde_json::to_value(progress).unwrap()["elapsed_seconds"], 1.235);
    }

    #[test]
    fn events_are_tagged_for_programs() {
        let event = Event::VerifyingBackup {
            server: "main".into(),
        };
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            serde_json::json!({"event": "verifying_backup", "server": "main"})
        );
    }
}
