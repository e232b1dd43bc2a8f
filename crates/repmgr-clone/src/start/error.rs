use std::path::PathBuf;
use std::time::Duration;

use repmgr_types::{Hint, Remedy};

use crate::error::{ErrorKind, Explain};

/// The standby is complete, and does not stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The command failed, and no server runs.
    #[error("the standby could not be started")]
    Command {
        /// How it ended, as a clause.
        reason: String,
        /// What it said.
        said: String,
        /// The first errors in the server's log.
        log: Vec<String>,
    },
    /// The server ran, and ended.
    #[error("the standby was started, and has ended")]
    Ended {
        /// The first errors in its log.
        log: Vec<String>,
    },
    /// It is no standby.
    #[error("the server in \"{}\" is not in recovery: it is no standby", directory.display())]
    NotAStandby {
        /// Its data directory.
        directory: PathBuf,
    },
    /// It runs, and does not stream.
    #[error("the standby runs, but does not stream: {why}")]
    NotInTime {
        /// "not within 600 s", "no progress for 300 s".
        why: String,
        /// Where it is.
        position: Option<String>,
        /// The first errors in its log.
        log: Vec<String>,
    },
}

impl StartError {
    pub(super) fn too_late(limit: Duration, position: Option<String>, log: Vec<String>) -> Self {
        Self::NotInTime {
            why: format!("not within {} s", limit.as_secs()),
            position,
            log,
        }
    }

    pub(super) fn stuck(since: Duration, position: Option<String>, log: Vec<String>) -> Self {
        Self::NotInTime {
            why: format!("no progress for {} s", since.as_secs()),
            position,
            log,
        }
    }
}

impl Explain for StartError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotInTime { .. } => ErrorKind::NotStreaming,
            _ => ErrorKind::Start,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Command { .. } => "start_failed",
            Self::Ended { .. } => "server_ended",
            Self::NotAStandby { .. } => "not_a_standby",
            Self::NotInTime { .. } => "not_streaming",
        }
    }

    fn detail(&self) -> Option<String> {
        let (first, log) = match self {
            Self::Command { reason, said, log } => {
                (vec![format!("the command: {reason}"), said.clone()], log)
            }
            Self::Ended { log } => (Vec::new(), log),
            Self::NotAStandby { .. } => return None,
            Self::NotInTime { position, log, .. } => (
                position
                    .iter()
                    .map(|position| format!("it has replayed up to {position}"))
                    .collect(),
                log,
            ),
        };
        let lines: Vec<String> = first
            .into_iter()
            .filter(|line| !line.is_empty())
            .chain(log.iter().map(|line| format!("the server's log: {line}")))
            .collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn hint(&self) -> Option<Hint> {
        Some(match self {
            Self::Command { .. } => {
                let words = "the standby is complete and was not changed: look into the server's log, mend what it says, \
                             and start it; how it is started here, and with which rights, can be said by ";
                Hint::new(words).remedy(Remedy::StartCommand)
            }
            Self::Ended { .. } => Hint::from(
                "the standby is complete and was not changed: look into the server's log, mend what it says, and start it",
            ),
            Self::NotAStandby { .. } => Hint::from(
                "stop it at once, and see which data directory the command starts; do not let anybody write to it",
            ),
            Self::NotInTime { .. } => Hint::from(
                "the server goes on: look into its log, and see \"pg_stat_wal_receiver\" there and \
                 \"pg_stat_replication\" on the upstream node",
            ),
        })
    }
}
