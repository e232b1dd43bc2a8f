use std::path::PathBuf;

use serde::Serialize;

use crate::event::Message;
use crate::start::in_words;
use crate::{Method, Plan};

/// What becomes of the standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum StandbyEvent {
    /// Everything that can be known beforehand is right.
    PrerequisitesMet {
        /// What would be done.
        plan: Box<Plan>,
    },
    /// A standby can be made of the backup: all of it was read and is right.
    BackupVerified {
        /// What a clone would do.
        plan: Box<Plan>,
    },
    /// The standby's server is being started.
    Starting {
        /// The command, for a shell.
        command: String,
    },
    /// It replays WAL; told now and then.
    Replaying {
        /// Up to where.
        position: String,
        /// Where the source node was when the server was started.
        target: Option<String>,
        /// Between the two.
        bytes_left: Option<u64>,
        /// How fast.
        bytes_per_second: u64,
    },
    /// It streams from its upstream node.
    Streaming {
        /// From where on.
        position: String,
    },
    /// The standby is complete.
    Complete {
        /// How the base backup came here.
        method: Method,
    },
    /// What to do next.
    NextSteps {
        /// A command that starts PostgreSQL; `None` if it runs.
        start: Option<String>,
        /// Whether this node has a record already, and must be registered with `--force`.
        registered: Option<bool>,
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

impl StandbyEvent {
    pub(crate) fn message(&self) -> Message {
        match self {
            Self::PrerequisitesMet { plan } => {
                Message::info("all prerequisites for \"standby clone\" are met").detail(plan.to_string())
            }
            Self::BackupVerified { plan } => {
                let backup = plan.source.backup().unwrap_or_default();
                Message::notice(format!(
                    "a standby can be made of backup {backup}: all of it was read and is right"
                ))
                .detail(plan.to_string())
            }
            Self::Starting { command } => {
                Message::notice("starting the standby").detail(format!("by: {command}"))
            }
            Self::Replaying {
                position,
                bytes_left,
                bytes_per_second,
                ..
            } => Message::info(format!("the standby has replayed WAL up to {position}"))
                .detail(in_words(*bytes_left, *bytes_per_second)),
            Self::Streaming { position } => Message::notice(format!(
                "the standby streams from its upstream node, from {position} on"
            )),
            Self::Complete {
                method: Method::Barman,
            } => Message::notice("standby clone (from Barman) complete"),
            Self::Complete { method } => Message::notice(format!("standby clone (using {method}) complete")),
            Self::NextSteps {
                start: Some(start), ..
            } => {
                let example = format!("for example: {start}");
                Message::notice("you can now start your PostgreSQL server").hint(Some(example.into()))
            }
            Self::NextSteps { start: None, .. } => {
                Message::notice("the standby is running and can be registered")
            }
            Self::ConfigurationPlanned {
                file,
                directory,
                lines,
            } => Message::info(format!(
                "following items would be added to \"{file}\" in \"{}\"",
                directory.display()
            ))
            .detail(lines.join("\n")),
            Self::ConfigurationWritten { file, effective, .. } => {
                Message::notice(format!("replication configuration written to \"{file}\""))
                    .hint(effective.hint().map(Into::into))
            }
        }
    }
}
