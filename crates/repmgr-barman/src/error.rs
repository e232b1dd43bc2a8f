use std::time::Duration;

use repmgr_remote::{ConnectError, RemoteError};
use repmgr_types::{BackupId, Hint, Remedy};

use crate::form::Unreadable;
use crate::info::InfoError;
use crate::kind::BackupStatus;

/// A question to Barman failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BarmanError {
    /// No connection to the Barman host.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection failed under a command, or somebody asked to stop.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A name that Barman would take for something else; it was not asked.
    #[error("\"{word}\" cannot be a {what}: {reason}")]
    BadWord {
        /// "Barman server" or "backup".
        what: &'static str,
        /// As it was given.
        word: String,
        /// Why not.
        reason: &'static str,
    },
    /// There is no such program on the Barman host.
    #[error("cannot run \"{command}\" on \"{host}\"")]
    CommandNotFound {
        /// The Barman host.
        host: String,
        /// What was to be run.
        command: String,
        /// What the shell said.
        message: String,
    },
    /// Barman runs as its own user only.
    #[error("Barman on \"{host}\" does not run for the user we log in as")]
    WrongUser {
        /// The Barman host.
        host: String,
        /// What Barman said.
        message: String,
    },
    /// Barman's configuration is not there, not readable, or not valid.
    #[error("Barman on \"{host}\" cannot use its configuration{}", file.as_ref().map_or(String::new(), |f| format!(" file \"{f}\"")))]
    Configuration {
        /// The Barman host.
        host: String,
        /// The file we named; without one Barman looks for it.
        file: Option<String>,
        /// What Barman said.
        message: String,
    },
    /// No section of Barman's configuration has this name.
    #[error("Barman on \"{host}\" has no server \"{server}\"")]
    UnknownServer {
        /// The Barman host.
        host: String,
        /// The name looked for.
        server: String,
        /// The Barman servers there are, if Barman told.
        known: Vec<String>,
    },
    /// `active = false` (Barman up to 3.16 does not serve such a server).
    #[error("Barman server \"{server}\" on \"{host}\" is inactive")]
    Inactive {
        /// The Barman host.
        host: String,
        /// The Barman server.
        server: String,
    },
    /// The Barman server has no complete backup.
    #[error("Barman server \"{server}\" on \"{host}\" has no usable backup{}", match incomplete {
        0 => String::new(), n => format!(" ({n} incomplete)") })]
    NoBackup {
        /// The Barman host.
        host: String,
        /// The Barman server.
        server: String,
        /// Backups that are in the list, but not complete.
        incomplete: usize,
    },
    /// The Barman server has no backup of this id or name.
    #[error("Barman server \"{server}\" on \"{host}\" has no backup \"{wanted}\"")]
    UnknownBackup {
        /// The Barman host.
        host: String,
        /// The Barman server.
        server: String,
        /// The word looked for.
        wanted: String,
        /// The newest backups, complete or not, if Barman told.
        known: Vec<BackupId>,
    },
    /// The backup is not complete.
    #[error("backup \"{id}\" of Barman server \"{server}\" has status {status}")]
    NotDone {
        /// The Barman server.
        server: String,
        /// The backup.
        id: BackupId,
        /// Its status.
        status: BackupStatus,
        /// What went wrong when it was taken.
        error: Option<String>,
    },
    /// Barman is deleting the backup, or began to and crashed.
    #[error("backup \"{id}\" of Barman server \"{server}\" is being deleted")]
    BeingDeleted {
        /// The Barman server.
        server: String,
        /// The backup.
        id: BackupId,
    },
    /// The backup is not what it was when it was looked up.
    #[error("backup \"{id}\" of Barman server \"{server}\" has changed: {what}")]
    Changed {
        /// The Barman server.
        server: String,
        /// The backup.
        id: BackupId,
        /// What is different.
        what: String,
    },
    /// The backup that an incremental one builds upon is missing, or does not match it.
    #[error("backup \"{id}\" of Barman server \"{server}\" cannot be combined: {what}")]
    BrokenChain {
        /// The Barman server.
        server: String,
        /// The increment.
        id: BackupId,
        /// What is wrong with its parent.
        what: String,
    },
    /// backup.info is not where a Barman of any version would have it.
    #[error("no backup.info of backup \"{id}\" of Barman server \"{server}\" was found on \"{host}\"")]
    MetadataMissing {
        /// The Barman host.
        host: String,
        /// The Barman server.
        server: String,
        /// The backup.
        id: BackupId,
        /// Where it was looked for.
        looked_in: Vec<String>,
    },
    /// The user we are may not read backup.info or the directories above it.
    #[error("cannot read backup.info of backup \"{id}\" of Barman server \"{server}\" on \"{host}\"")]
    MetadataDenied {
        /// The Barman host.
        host: String,
        /// The Barman server.
        server: String,
        /// The backup.
        id: BackupId,
        /// What the system said.
        message: String,
    },
    /// The directory of all backups is not where Barman has it, or cannot be read.
    #[error("cannot list the backups of Barman server \"{server}\" in \"{directory}\" on \"{host}\"")]
    CatalogueDenied {
        /// The Barman host.
        host: String,
        /// The Barman server.
        server: String,
        /// The directory.
        directory: String,
        /// What the system said.
        message: String,
    },
    /// The WAL archive is not where Barman has it, or cannot be read.
    #[error("cannot list the WAL archive \"{directory}\" of Barman server \"{server}\" on \"{host}\"")]
    NoArchive {
        /// The Barman host.
        host: String,
        /// The Barman server.
        server: String,
        /// The directory.
        directory: String,
        /// What the system said.
        message: String,
    },
    /// backup.info does not say what it must.
    #[error("backup.info of backup \"{id}\" of Barman server \"{server}\" on \"{host}\" is not usable")]
    Metadata {
        /// The Barman host.
        host: String,
        /// The Barman server.
        server: String,
        /// The backup.
        id: BackupId,
        /// What is wrong with it.
        #[source]
        source: Box<InfoError>,
    },
    /// repmgr's metadata on the primary do not have the node.
    #[error("repmgr's metadata, asked through \"{host}\", have no {}", node_id.map_or("active primary".to_owned(), |id| format!("active node {id}")))]
    NoRecord {
        /// The Barman host.
        host: String,
        /// The node asked for; the primary without.
        node_id: Option<i32>,
    },
    /// Barman knows the backup, but nothing of it is on the Barman host.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Barman did not answer.
    #[error("\"{call}\" on \"{host}\" did not end within {} s", after.as_secs())]
    TimedOut {
        /// The Barman host.
        host: String,
        /// The command line, shortened.
        call: String,
        /// The limit.
        after: Duration,
    },
    /// Barman failed in a way not listed above.
    #[error("\"{call}\" on \"{host}\" failed: {status}")]
    Failed {
        /// The Barman host.
        host: String,
        /// The command line, shortened.
        call: String,
        /// "exit code 1".
        status: String,
        /// What it said.
        message: String,
    },
    /// The answer has another shape than any Barman known here gives.
    #[error("unexpected output of \"{call}\" on \"{host}\": {what}")]
    Unexpected {
        /// The Barman host.
        host: String,
        /// The command line, shortened.
        call: String,
        /// What is odd about it.
        what: String,
    },
}

impl BarmanError {
    /// What Barman or the system there said, when that is not part of the message.
    pub fn detail(&self) -> Option<&str> {
        let text = match self {
            Self::CommandNotFound { message, .. }
            | Self::WrongUser { message, .. }
            | Self::Configuration { message, .. }
            | Self::MetadataDenied { message, .. }
            | Self::NoArchive { message, .. }
            | Self::CatalogueDenied { message, .. }
            | Self::Failed { message, .. } => message,
            Self::NotDone { error, .. } => error.as_deref()?,
            _ => return None,
        };
        (!text.is_empty()).then_some(text)
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<Hint> {
        Some(match self {
            Self::Connect(e) => return e.hint(),
            Self::Remote(e) => return e.hint(),
            Self::BadWord { what: "backup", .. } => Hint::new("give the id of a backup, \"latest\" or \"oldest\", with ")
                .remedy(Remedy::Backup),
            Self::BadWord { .. } => Hint::new("set ")
                .remedy(Remedy::BarmanServer)
                .words(" to the name of a section in Barman's configuration"),
            Self::CommandNotFound { host, .. } => Hint::new(format!("install Barman on \"{host}\", or set "))
                .remedy(Remedy::BarmanCommand)
                .words(format!(
                    " to its full path; \"ssh {host} 'command -v barman'\" shows what a login there finds"
                )),
            Self::WrongUser { host, .. } => {
                let name = host.rsplit('@').next().unwrap_or(host);
                Hint::new("log in as the user that Barman names: ")
                    .remedy_with(Remedy::BarmanHost, format!("barman@{name}"))
                    .words(", or User in ~/.ssh/config")
            }
            Self::Configuration { file: Some(_), .. } => Hint::new("check ")
                .remedy(Remedy::BarmanConfig)
                .words(": it is a file on the Barman host, readable by the user we log in as"),
            Self::Configuration { file: None, host, .. } => Hint::new("set ")
                .remedy(Remedy::BarmanConfig)
                .words(format!(
                    " to Barman's configuration file on \"{host}\" if it is not one of ~/.barman.conf, /etc/barman.conf, /etc/barman/barman.conf"
                )),
            Self::UnknownServer { known, .. } if !known.is_empty() => Hint::new("check ")
                .remedy(Remedy::BarmanServer)
                .words(format!("; Barman has: {}", known.join(", "))),
            Self::UnknownServer { .. } => Hint::new("check ")
                .remedy(Remedy::BarmanServer)
                .words(" and ")
                .remedy(Remedy::BarmanConfig)
                .words("; \"barman list-server\" on the Barman host shows the names"),
            Self::Inactive { server, .. } => Hint::new(format!(
                "set \"active = true\" in the section [{server}] of Barman's configuration"
            )),
            Self::NoBackup { server, .. } => Hint::new(format!(
                "run \"barman check {server}\" and \"barman backup {server}\" on the Barman host first"
            )),
            Self::UnknownBackup { known, .. } if !known.is_empty() => {
                let known: Vec<_> = known.iter().map(BackupId::as_str).collect();
                Hint::new(format!("the newest are: {}", known.join(", ")))
            }
            Self::UnknownBackup { server, .. } => {
                Hint::new(format!("\"barman list-backup {server}\" shows what there is"))
            }
            Self::NotDone { server, .. } | Self::BeingDeleted { server, .. } => {
                Hint::new("choose another backup with ")
                    .remedy(Remedy::Backup)
                    .words(format!("; \"barman list-backup {server}\" shows what there is"))
            }
            Self::BrokenChain { server, .. } => Hint::new("choose a full backup with ")
                .remedy(Remedy::Backup)
                .words(format!(
                    " (\"barman list-backup {server}\" marks it F or R), or take a new one"
                )),
            Self::Changed { .. } => "start again; what was copied may be of two backups".into(),
            Self::MetadataMissing { server, id, .. } => Hint::new(format!(
                "\"barman show-backup {server} {id}\" on the Barman host should say more; the backup may have been deleted just now"
            )),
            Self::MetadataDenied { .. } | Self::CatalogueDenied { .. } | Self::NoArchive { .. } => {
                as_barmans_user()
            }
            Self::Metadata { server, id, .. } => Hint::new(format!(
                "look at the file and at \"barman show-backup {server} {id}\", or choose another backup with "
            ))
            .remedy(Remedy::Backup),
            Self::Unreadable(e) => e.hint(),
            Self::TimedOut { host, .. } => Hint::new(format!("Barman on \"{host}\" may be waiting for a lock of its own, or for a primary that does not answer; connect_timeout in that server's conninfo and streaming_conninfo limits the latter")),
            Self::NoRecord { .. } => Hint::new("give the upstream node's connection string with ")
                .remedy(Remedy::UpstreamConninfo)
                .words(", or check ")
                .remedy(Remedy::Database)
                .words(" and ")
                .remedy(Remedy::UpstreamNode),
            Self::Failed { host, .. } => Hint::new(format!(
                "run the same command on \"{host}\", and see Barman's log file there"
            )),
            Self::Unexpected { host, .. } => Hint::new(format!(
                "run the same command on \"{host}\" and look at what it prints"
            )),
        })
    }

    /// Whether the same may well succeed on a new connection.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(e) => e.is_transient(),
            Self::Remote(e) => e.is_transient(),
            Self::TimedOut { .. } => true,
            _ => false,
        }
    }

    /// Whether it ended because somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Connect(e) => matches!(e.kind, repmgr_remote::ConnectErrorKind::Cancelled(_)),
            Self::Remote(e) => e.is_cancelled(),
            _ => false,
        }
    }
}

/// Where permission is missing on the Barman host.
pub(crate) fn as_barmans_user() -> Hint {
    Hint::new("log in to the Barman host as the user that Barman runs as: ")
        .remedy_with(Remedy::BarmanHost, "barman@HOST")
}
