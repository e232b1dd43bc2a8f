use std::time::Duration;

use repmgr_remote::{ConnectError, RemoteError};
use repmgr_types::{Hint, Remedy};

use crate::{ContentError, FileError, WalFileName};

/// A WAL file was not had.
///
/// Three kinds that a caller must tell apart: an archive answered and does not have it
/// ([`NotInArchive`](Self::NotInArchive)), the archive gave something else
/// ([`Refused`](Self::Refused)), and everything else, where nobody knows whether it is there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The archive does not hold it, at least not yet.
    #[error("WAL file {name} is not in the archive of server \"{server}\" on \"{host}\"")]
    NotInArchive {
        /// The file asked for.
        name: WalFileName,
        /// Barman's name of the server.
        server: String,
        /// The Barman host.
        host: String,
    },
    /// It was not found, and neither was anything else: what was asked is no archive, or an archive that
    /// is not mounted. Never the end of it.
    #[error(
        "WAL file {name} was not found on \"{host}\", where the archive of server \"{server}\" shows no WAL at all"
    )]
    NothingThere {
        /// The file asked for.
        name: WalFileName,
        /// Barman's name of the server.
        server: String,
        /// The Barman host.
        host: String,
    },
    /// What the archive holds is not what the name demands.
    #[error("WAL file {name} from \"{host}\" ({place}) is refused: {source}")]
    Refused {
        /// The file asked for.
        name: WalFileName,
        /// The Barman host.
        host: String,
        /// "wals", "incoming", "streaming" or "barman get-wal".
        place: String,
        /// What is wrong with it.
        source: ContentError,
    },
    /// No connection to the Barman host.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A command there went wrong.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// Nobody was asked, since the last call waited in vain.
    #[error("the archive is not asked: {} s ago there was no answer ({said})", ago.as_secs())]
    NoAnswer {
        /// How long ago that was.
        ago: Duration,
        /// How it failed.
        said: String,
    },
    /// Barman ran and refused.
    #[error("\"{command}\" on \"{host}\" failed ({status}): {message}")]
    Barman {
        /// The Barman host.
        host: String,
        /// The command line, shortened.
        command: String,
        /// "exit code 1"
        status: String,
        /// What it said.
        message: String,
    },
    /// A command ended well, and its answer is none of Barman's.
    #[error(
        "nothing that looks like Barman answered to \"{command}\" on \"{host}\": {}",
        if said.is_empty() { "an empty answer".to_owned() } else { format!("\"{said}\"") }
    )]
    NotBarman {
        /// The Barman host.
        host: String,
        /// The command line, shortened.
        command: String,
        /// What came instead, shortened.
        said: String,
    },
    /// The far side answered in another form than our script does.
    #[error("unexpected answer from \"{host}\": {reason}")]
    Garbled {
        /// The Barman host.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Barman would take this word for an option or for nothing.
    #[error("\"{word}\" cannot be a {what}")]
    BadWord {
        /// "Barman server"
        what: &'static str,
        /// As it was given.
        word: String,
    },
    /// It could not be written here.
    #[error(transparent)]
    File(#[from] FileError),
}

impl FetchError {
    /// Whether the same attempt may well succeed a little later. Not asked for
    /// [`NotInArchive`](Self::NotInArchive): that is for the caller to decide.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(e) => e.is_transient(),
            Self::Remote(e) => e.is_transient(),
            Self::Garbled { .. } | Self::NoAnswer { .. } => true,
            _ => false,
        }
    }

    /// Whether the Barman host was waited for in vain.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Remote(_)) && self.is_transient()
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<Hint> {
        Some(match self {
            Self::Connect(e) => return e.hint(),
            Self::Remote(e) => return e.hint(),
            Self::NothingThere { .. } => "check on the Barman host that the directory with the server's WAL is mounted, and whether any WAL was archived yet; recovery goes on when it is there".into(),
            Self::NotBarman { host, command, .. } => {
                format!("compare with \"ssh {host} {command}\": the login shell of that user may run no commands, or a forced command (command=\"...\" in authorized_keys, ForceCommand of the server) may do something else").into()
            }
            Self::Refused { source, .. } => match source {
                ContentError::SystemId { .. } => {
                    "this standby was not made from a backup of that Barman server: check the server's name, or clone the standby again".into()
                }
                ContentError::Size { .. } | ContentError::Short { .. } => {
                    "if archive_command is writing it just now, the next attempt will find it whole; otherwise the archive holds a damaged file".into()
                }
                ContentError::Compression { .. } => {
                    "the archive holds a damaged file: restore it on the Barman host, or clone the standby again".into()
                }
                _ => "the file under that name in the archive is another one: look at it on the Barman host".into(),
            },
            Self::Barman { message, .. } if message.contains("Unknown server") => {
                "compare the server's name with the output of \"barman list-server\" on the Barman host".into()
            }
            Self::Barman { message, .. } if message.contains("please run barman as") => {
                Hint::new("log in as Barman's user (")
                    .remedy(Remedy::BarmanUser)
                    .words("), or set ")
                    .remedy(Remedy::BarmanCommand)
                    .words(" \"sudo -n -u barman barman\"")
            }
            Self::Barman { message, .. } if message.contains("not found") => {
                Hint::new("if Barman is not on the PATH of that user, give its path with ")
                    .remedy(Remedy::BarmanCommand)
            }
            _ => return None,
        })
    }
}
