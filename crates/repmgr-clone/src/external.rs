//! Configuration files outside the source's data directory.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use repmgr_datadir::{Tree, TreeError};
use repmgr_remote::{ConnectError, Connection, RemoteError, ShellCommand, StartOptions, run};
use repmgr_upstream::ConfigFile;

use crate::request::{ExternalFiles, Placement};
use crate::{CloneError, Context, Event};

/// No configuration file is larger.
const MAX_SIZE: usize = 16 << 20;
/// They may hold secrets of the server.
const MODE: u32 = 0o640;

/// Why a configuration file was not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExternalFileError {
    /// No connection to the source node's host.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// It cannot be read there.
    #[error("cannot read it on \"{host}\": {message}")]
    Unreadable {
        /// The host.
        host: String,
        /// What was said.
        message: String,
    },
    /// Two files of one name would go to the same place.
    #[error("another file of that name is copied there as well")]
    Twice,
    /// It cannot be written here.
    #[error("cannot write \"{}\"", path.display())]
    Write {
        /// The file here.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be written into the data directory.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl ExternalFileError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.hint(),
            Self::Remote(error) => error.hint(),
            Self::Unreadable { .. } => {
                Some("check the permissions of the user that logs in there".to_owned())
            }
            Self::Twice => Some("copy them to their own paths, without \"=pgdata\"".to_owned()),
            Self::Write { .. } => Some(
                "create the directory and give it to the user that runs this command, or use \
                 --copy-external-config-files=pgdata"
                    .to_owned(),
            ),
            Self::Tree(error) => error.hint(),
        }
    }
}

/// Files that were read from the source node's host.
pub(crate) struct Fetched {
    placement: Placement,
    files: Vec<(ConfigFile, Vec<u8>)>,
}

/// Reads the files, and makes sure that they can be written here; writes nothing.
pub(crate) fn fetch(request: &ExternalFiles, files: Vec<ConfigFile>) -> Result<Fetched, CloneError> {
    let mut fetched = Fetched {
        placement: request.placement,
        files: Vec::new(),
    };
    let mut connection = None;
    for file in files.into_iter().filter(|file| !file.in_data_directory) {
        let path = file.path.clone();
        let content = fetched
            .check_place(&file)
            .and_then(|()| {
                let connection = match &mut connection {
                    Some(connection) => connection,
                    None => connection.insert(request.host.connect()?),
                };
                read(&mut **connection, &file.path)
            })
            .map_err(|source| CloneError::ExternalFile { path, source })?;
        fetched.files.push((file, content));
    }
    Ok(fetched)
}

fn read(connection: &mut dyn Connection, path: &Path) -> Result<Vec<u8>, ExternalFileError> {
    let command = ShellCommand::new("cat")
        .arg("--")
        .arg(path.to_string_lossy())
        .env("LC_ALL", "C");
    let limit = Duration::from_secs(30);
    let options = StartOptions {
        idle_timeout: limit,
        total_timeout: Some(limit),
        ..StartOptions::default()
    };
    let output = run(connection, &command, options, MAX_SIZE)?;
    if output.exit.success() {
        return Ok(output.stdout);
    }
    Err(ExternalFileError::Unreadable {
        host: connection.host().to_owned(),
        message: output.exit.stderr_text(),
    })
}

impl Fetched {
    fn check_place(&self, file: &ConfigFile) -> Result<(), ExternalFileError> {
        match self.placement {
            Placement::DataDirectory => match self.files.iter().any(|(other, _)| other.name == file.name) {
                true => Err(ExternalFileError::Twice),
                false => Ok(()),
            },
            Placement::SamePath => {
                let dir = file.path.parent().unwrap_or(Path::new("/"));
                let probe = tempfile::Builder::new().prefix(".repmgr-").tempfile_in(dir);
                probe.map(drop).map_err(|source| ExternalFileError::Write {
                    path: file.path.clone(),
                    source,
                })
            }
        }
    }

    /// Whether a file of this name is among them.
    pub(crate) fn brings(&self, name: &str) -> bool {
        self.files.iter().any(|(file, _)| file.name == name)
    }

    /// Writes them to their places.
    pub(crate) fn write(&self, tree: &Tree, context: &Context<'_>) -> Result<(), CloneError> {
        for (file, content) in &self.files {
            let (path, written) = match self.placement {
                Placement::DataDirectory => {
                    let written = tree.write_durable(&file.name, content, MODE);
                    (
                        tree.path().join(&file.name),
                        written.map_err(ExternalFileError::from),
                    )
                }
                Placement::SamePath => (file.path.clone(), write_durable(&file.path, content)),
            };
            written.map_err(|source| CloneError::ExternalFile {
                path: file.path.clone(),
                source,
            })?;
            context.observer.event(Event::ExternalFileCopied { path });
        }
        Ok(())
    }
}

/// A file outside any tree of ours: whole or not at all, with the mode it had if it is there.
fn write_durable(path: &Path, content: &[u8]) -> Result<(), ExternalFileError> {
    let failed = |source| ExternalFileError::Write {
        path: path.to_owned(),
        source,
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mode = fs::metadata(path).map_or(MODE, |meta| meta.permissions().mode() & 0o7777);
    let mut file = tempfile::Builder::new()
        .prefix(".repmgr-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(dir)
        .map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    fs::OpenOptions::new()
        .read(true)
        .open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed)
}
