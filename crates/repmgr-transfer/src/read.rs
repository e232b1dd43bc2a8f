use std::time::Duration;

use repmgr_remote::{Connection, RemoteError, RemoteErrorKind, ShellCommand, StartOptions, run};
use repmgr_types::CancelToken;

use crate::error::{FarFile, said};
use crate::path::is_sound;

/// A small file that was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFileError {
    /// The path leads out of the directory, or the directory is no absolute path.
    #[error("{file} is not a plain path below an absolute one")]
    Path {
        /// The file.
        file: FarFile,
    },
    /// There is no such file.
    #[error("there is no {file}")]
    NotFound {
        /// The file.
        file: FarFile,
    },
    /// It is larger than allowed.
    #[error("{file} has more than {max} bytes")]
    TooLarge {
        /// The file.
        file: FarFile,
        /// How much is allowed.
        max: usize,
    },
    /// It cannot be read there.
    #[error("cannot read {file}: {message}")]
    Failed {
        /// The file.
        file: FarFile,
        /// What the far side said, or the exit status.
        message: String,
    },
    /// The connection or the command broke, or the work was cancelled.
    #[error("cannot read {file}")]
    Remote {
        /// The file.
        file: FarFile,
        /// What broke.
        #[source]
        source: Box<RemoteError>,
    },
}

impl ReadFileError {
    /// Whether the same call on a new connection may well succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Remote { source, .. } if source.is_transient())
    }

    /// Whether it ended because somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Remote { source, .. } if source.is_cancelled())
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Remote { source, .. } => source.hint().map(|h| h.to_string()),
            Self::Failed { file, .. } => {
                Some(format!("check the file and its permissions on \"{}\"", file.host))
            }
            _ => None,
        }
    }
}

const SCRIPT: &str = r#"cd -- "$1" && exec cat "./$2""#;

/// Reads one small file below `directory`, an absolute path, whole: a control file, a label, a manifest.
///
/// # Errors
/// See [`ReadFileError`]; [`ReadFileError::NotFound`] only if the directory is there and the file is not.
pub fn read_file(
    connection: &mut dyn Connection,
    directory: &str,
    path: &str,
    max: usize,
    cancel: &CancelToken,
) -> Result<Vec<u8>, ReadFileError> {
    let file = FarFile {
        host: connection.host().to_owned(),
        directory: directory.to_owned(),
        path: path.as_bytes().to_vec(),
    };
    if !directory.starts_with('/') || !is_sound(path.as_bytes()) {
        return Err(ReadFileError::Path { file });
    }
    let command = ShellCommand::script(SCRIPT)
        .arg(directory)
        .arg(path)
        .env("LC_ALL", "C");
    let options = StartOptions {
        idle_timeout: Duration::from_secs(60),
        cancel: cancel.clone(),
        ..Default::default()
    };
    let output = match run(connection, &command, options, max) {
        Ok(output) => output,
        Err(e) if matches!(e.kind, RemoteErrorKind::OutputTooLong { .. }) => {
            return Err(ReadFileError::TooLarge { file, max });
        }
        Err(e) => {
            let source = Box::new(e);
            return Err(ReadFileError::Remote { file, source });
        }
    };
    if output.exit.success() {
        return Ok(output.stdout);
    }
    let message = said(&output.exit, "cat: ");
    // In the C locale every cat ends so.
    if message.starts_with("cat: ") && message.ends_with("No such file or directory") {
        return Err(ReadFileError::NotFound { file });
    }
    Err(ReadFileError::Failed { file, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use repmgr_remote::{Host, LocalHost};
    use std::fs;

    fn read(directory: &str, path: &str, max: usize) -> Result<Vec<u8>, ReadFileError> {
        let mut connection = LocalHost::default().connect().unwrap();
        read_file(&mut *connection, directory, path, max, &CancelToken::new())
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/-a b\n"), b"\x00\xff\n").unwrap();
        assert_eq!(read(directory, "sub/-a b\n", 3).unwrap(), b"\x00\xff\n");
        let error = read(directory, "sub/-a b\n", 2).unwrap_err();
        assert!(matches!(error, ReadFileError::TooLarge { max: 2, .. }), "{error}");
    }

    #[test]
    fn what_is_missing_and_what_cannot_be_read_differ() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for missing in ["x", "sub/x"] {
            let error = read(directory, missing, 10).unwrap_err();
            assert!(matches!(error, ReadFileError::NotFound { .. }), "{error}");
        }
        let error = read(directory, "sub", 10).unwrap_err();
        assert!(matches!(&error, ReadFileError::Failed { .. }) && error.to_string().contains("directory"));
        let error = read(&format!("{directory}/nowhere"), "x", 10).unwrap_err();
        assert!(matches!(error, ReadFileError::Failed { .. }), "{error}");
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for (directory, path) in [
            ("/tmp", "../etc/passwd"),
            ("/tmp", "/etc/passwd"),
            ("tmp", "x"),
            ("/tmp", ""),
        ] {
            let error = read(directory, path, 10).unwrap_err();
            assert!(matches!(error, ReadFileError::Path { .. }), "{error}");
        }
    }
}
