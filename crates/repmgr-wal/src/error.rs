use repmgr_remote::{ConnectError, RemoteError};

use crate::{ContentError, FileError, WalFileName};

/// A WAL file was not had.
///
/// Three kinds that a caller must tell apart: the archive answered and does not have it
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
            Self::Garbled { .. } => true,
            _ => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Connect(e) => return e.hint(),
            Self::Remote(e) => return e.hint(),
            Self::Refused { source, .. } => match source {
                ContentError::SystemId { .. } => {
                    "this standby was not made from a backup of that Barman server: check the server's name, or clone the standby again".to_owned()
                }
                ContentError::Size { .. } | ContentError::Short { .. } => {
                    "if archive_command is writing it just now, the next attempt will find it whole; otherwise the archive holds a damaged file".to_owned()
                }
                ContentError::Compression { .. } => {
                    "the archive holds a damaged file: restore it on the Barman host, or clone the standby again".to_owned()
                }
                _ => "the file under that name in the archive is another one: look at it on the Barman host".to_owned(),
            },
            Self::Barman { message, .. } if message.contains("Unknown server") => {
                "compare the server's name with the output of \"barman list-server\" on the Barman host".to_owned()
            }
            Self::Barman { message, .. } if message.contains("please run barman as") => {
                "log in as Barman's user (--user), or set --barman-command \"sudo -n -u barman barman\"".to_owned()
            }
            Self::Barman { message, .. } if message.contains("not found") => {
                "if Barman is not on the PATH of that user, give its path with --barman-command".to_owned()
            }
            _ => return None,
        })
    }
}
