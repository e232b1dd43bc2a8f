use std::fmt;

use repmgr_remote::{ConnectError, Exit, RemoteError};
use repmgr_types::Cancelled;

use crate::path::shown;
use crate::sink::SinkError;

/// A file on the far side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarFile {
    /// The host, as the user named it.
    pub host: String,
    /// The listed directory.
    pub directory: String,
    /// The path below it.
    pub path: Vec<u8>,
}

impl fmt::Display for FarFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            directory,
            path,
        } = self;
        write!(f, "\"{directory}/{}\" on \"{host}\"", shown(path))
    }
}

/// Why files did not arrive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// No connection, after all attempts.
    #[error("no connection for the transfer (attempts: {attempts})")]
    Connect {
        /// How often it was tried without any progress.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<ConnectError>,
    },
    /// A connection or a command broke, after all attempts.
    #[error("the transfer of \"{directory}\" failed (attempts: {attempts})")]
    Remote {
        /// The directory.
        directory: String,
        /// How often it was tried without any progress.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<RemoteError>,
    },
    /// The programs of the far side ended before their output was whole, and gave no reason that would last:
    /// they were killed, or a pipe between them was cut.
    #[error(
        "the programs that read \"{directory}\" on \"{host}\" ended early (attempts: {attempts}): {message}"
    )]
    EndedEarly {
        /// The host.
        host: String,
        /// The directory, or the archive.
        directory: String,
        /// How often it was tried without any progress.
        attempts: u32,
        /// What they said, or how they ended.
        message: String,
    },
    /// The far side has no GNU tar, or not the compressor that was asked for.
    #[error("there is no {program} on \"{host}\"")]
    NoProgram {
        /// The host.
        host: String,
        /// "GNU tar", "zstd".
        program: String,
    },
    /// A file that cannot be read there.
    #[error("cannot read {file}: {message}")]
    Unreadable {
        /// The file.
        file: FarFile,
        /// What the far side said.
        message: String,
    },
    /// A file is not what it was in the listing any more.
    #[error("{file} has changed: {message}")]
    Changed {
        /// The file.
        file: FarFile,
        /// In which way.
        message: String,
    },
    /// The far side's programs failed, for no reason that names a file.
    #[error("cannot read \"{directory}\" on \"{host}\": {message}")]
    Failed {
        /// The host.
        host: String,
        /// The directory.
        directory: String,
        /// What they said, or the exit status.
        message: String,
    },
    /// The stream is not the archive that was asked for.
    #[error("the stream of \"{directory}\" from \"{host}\" is not valid: {reason}")]
    Malformed {
        /// The host.
        host: String,
        /// The directory, or the archive.
        directory: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The sink did not take a file.
    #[error("cannot store the copy of {file}")]
    Sink {
        /// The file.
        file: FarFile,
        /// Why not.
        #[source]
        source: SinkError,
    },
    /// Somebody asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl TransferError {
    /// Whether the same transfer may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.is_transient(),
            Self::Remote { source, .. } => source.is_transient(),
            Self::EndedEarly { .. } => true,
            _ => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Connect { source, .. } => return source.hint().map(|h| h.to_string()),
            Self::Remote { source, .. } => return source.hint().map(|h| h.to_string()),
            Self::NoProgram { host, program } => {
                format!("install {program} on \"{host}\", where the PATH of a non-interactive shell finds it")
            }
            Self::EndedEarly { host, .. } => format!(
                "look on \"{host}\" for what ends programs: a lack of memory (the kernel's log tells), limits, or a restart of its services"
            ),
            Self::Unreadable { file, .. } => format!(
                "check the file and its permissions with \"ssh {}\"; a damaged one needs another backup",
                file.host
            ),
            Self::Changed { .. } => {
                "something writes to these files, or removes them; try again when it is done".to_owned()
            }
            _ => return None,
        })
    }

    /// A break that may have been a passing one.
    pub(crate) fn broken(directory: &str, source: RemoteError) -> Self {
        if source.is_cancelled() {
            return Self::Cancelled(Cancelled);
        }
        Self::Remote {
            directory: directory.to_owned(),
            attempts: 1,
            source: Box::new(source),
        }
    }

    pub(crate) fn with_attempts(mut self, count: u32) -> Self {
        if let Self::Connect { attempts, .. }
        | Self::Remote { attempts, .. }
        | Self::EndedEarly { attempts, .. } = &mut self
        {
            *attempts = count;
        }
        self
    }
}

/// Whether a signal ended the command, or one that a shell reports as 128 and more.
pub(crate) fn was_killed(exit: &Exit) -> bool {
    exit.signal.is_some() || exit.code.is_some_and(|code| (129..=192).contains(&code))
}

/// The line of standard error that tells most: the first of `program`, or the last one.
pub(crate) fn said(exit: &Exit, program: &str) -> String {
    let text = exit.stderr_text();
    let by_program = text.lines().find(|l| l.starts_with(program));
    let line = by_program.or_else(|| text.lines().last());
    line.map_or_else(|| exit.status(), str::to_owned)
}
