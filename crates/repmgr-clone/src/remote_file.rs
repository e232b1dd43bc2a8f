//! One small file of the backup.

use std::time::Duration;

use repmgr_remote::{Connection, RemoteError, ShellCommand, StartOptions, run};

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The connection or the command broke.
    #[error("cannot read \"{path}\"")]
    Remote {
        /// The file.
        path: String,
        /// What broke.
        #[source]
        source: RemoteError,
    },
    /// It cannot be read there.
    #[error("cannot read \"{path}\" on \"{host}\": {message}")]
    Failed {
        /// The host.
        host: String,
        /// The file.
        path: String,
        /// What was said.
        message: String,
    },
}

impl ReadError {
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Remote { source, .. } if source.is_cancelled())
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Remote { source, .. } => source.hint(),
            Self::Failed { .. } => None,
        }
    }
}

/// Reads a file of at most `max` bytes.
pub(crate) fn read_file(
    connection: &mut dyn Connection,
    directory: &str,
    name: &str,
    max: usize,
) -> Result<Vec<u8>, ReadError> {
    let path = format!("{directory}/{name}");
    let command = ShellCommand::new("cat").arg("--").arg(&path).env("LC_ALL", "C");
    let options = StartOptions {
        idle_timeout: Duration::from_secs(120),
        bulk: true,
        ..StartOptions::default()
    };
    let output = run(connection, &command, options, max).map_err(|source| ReadError::Remote {
        path: path.clone(),
        source,
    })?;
    if output.exit.success() {
        return Ok(output.stdout);
    }
    Err(ReadError::Failed {
        host: connection.host().to_owned(),
        path,
        message: output.exit.stderr_text(),
    })
}
