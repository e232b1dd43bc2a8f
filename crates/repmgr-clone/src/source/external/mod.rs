//! Configuration files outside the source's data directory, with all that they refer to.

mod follow;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use repmgr_datadir::{Tree, TreeError};
use repmgr_remote::{ConnectError, Connection, Output, RemoteError, ShellCommand, StartOptions, run};

use self::follow::{Search, SourceFiles};
use crate::error::said;
use crate::nodes::node::Nodes;
use crate::request::ExternalFiles;
use crate::{CloneError, CloneRequest, Context, CopyError, CopyEvent, Hint, Remark, RemarkCode, Remedy};

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
    /// A file that is copied, or lies in the data directory, refers to it by a name that leads elsewhere here.
    #[error("\"{}\" refers to it, and would look for it in another place", by.display())]
    Elsewhere {
        /// The file, or the directory that it lies in.
        by: PathBuf,
    },
    /// Files refer to each other without end.
    #[error("more than {} files refer to each other", follow::MAX_FILES)]
    TooMany,
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
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Connect(error) => said(error.hint()),
            Self::Remote(error) => said(error.hint()),
            Self::Unreadable { .. } => Some("check the permissions of the user that logs in there".into()),
            Self::Twice => Some(
                Hint::new("copy them to their own paths: ").remedy_with(Remedy::ExternalFiles, "samepath"),
            ),
            Self::Elsewhere { .. } => Some(
                Hint::new("copy them to their own paths: ")
                    .remedy_with(Remedy::ExternalFiles, "samepath")
                    .words("; or let the source have its settings in fewer files"),
            ),
            Self::TooMany => Some("let the source have its settings in fewer files".into()),
            Self::Write { .. } => Some(
                Hint::new("create the directory and give it to the user that runs this command, or use ")
                    .remedy_with(Remedy::ExternalFiles, "pgdata"),
            ),
            Self::Tree(error) => said(error.hint()),
        }
    }
}

/// Files that were read from the source node's host.
#[derive(Debug, Default)]
pub(crate) struct Fetched(Vec<Fetch>);

/// One of them.
#[derive(Debug)]
struct Fetch {
    /// On the source node's host.
    path: PathBuf,
    target: Target,
    content: Vec<u8>,
}

/// Where it goes here.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    At(PathBuf),
    /// Below the data directory.
    Within(PathBuf),
}

impl Target {
    fn path(&self, data_dir: &Path) -> PathBuf {
        match self {
            Self::At(path) => path.clone(),
            Self::Within(rel) => data_dir.join(rel),
        }
    }
}

/// Reads configuration files outside the source's data directory, if they are wanted.
pub(crate) fn find(
    request: &CloneRequest,
    nodes: &Nodes,
    context: &Context<'_>,
) -> Result<Option<Fetched>, CloneError> {
    let (Some(wanted), Some(_)) = (&request.external_files, nodes.source()) else {
        return Ok(None);
    };
    match fetch(request, wanted, nodes, context) {
        Ok(fetched) => Ok(Some(fetched)),
        Err(error) if request.force => {
            let remark = Remark::warning(RemarkCode::ExternalFile, error.to_string());
            context.tell(remark.detail(error.detail()).hint(error.hint()));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads the files, and makes sure that they can be written here; writes nothing.
fn fetch(
    request: &CloneRequest,
    wanted: &ExternalFiles,
    nodes: &Nodes,
    context: &Context<'_>,
) -> Result<Fetched, CloneError> {
    let source = nodes.configuration(request.upstream.superuser.as_deref(), context)?;
    let mut host = OnHost {
        request: wanted,
        connection: None,
    };
    let search = Search {
        files: &mut host,
        placement: wanted.placement,
        data_dir: &source.data_directory,
        same_data_dir: source.data_directory == request.data_directory,
    };
    let found = search.run(&source.files)?;
    for file in &found {
        file.check_place().map_err(|source| file.failed(source))?;
    }
    Ok(Fetched(found))
}

/// The source node's host, connected to when it is first needed.
struct OnHost<'a> {
    request: &'a ExternalFiles,
    connection: Option<Box<dyn Connection>>,
}

impl OnHost<'_> {
    fn run(&mut self, command: ShellCommand) -> Result<(Output, String), ExternalFileError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            connection => connection.insert(self.request.host.connect()?),
        };
        let limit = Duration::from_secs(30);
        let options = StartOptions {
            idle_timeout: limit,
            total_timeout: Some(limit),
            ..StartOptions::default()
        };
        let output = run(&mut **connection, &command.env("LC_ALL", "C"), options, MAX_SIZE)?;
        Ok((output, connection.host().to_owned()))
    }

    fn output(&mut self, command: ShellCommand) -> Result<Vec<u8>, ExternalFileError> {
        let (output, host) = self.run(command)?;
        if output.exit.success() {
            return Ok(output.stdout);
        }
        let message = output.exit.stderr_text();
        Err(ExternalFileError::Unreadable { host, message })
    }
}

impl SourceFiles for OnHost<'_> {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, ExternalFileError> {
        self.output(ShellCommand::new("cat").arg("--").arg(path.to_string_lossy()))
    }

    fn is_there(&mut self, path: &Path) -> Result<bool, ExternalFileError> {
        let (output, _) = self.run(ShellCommand::new("test").arg("-e").arg(path.to_string_lossy()))?;
        Ok(output.exit.success())
    }

    fn list(&mut self, dir: &Path) -> Result<Vec<String>, ExternalFileError> {
        let command = [
            "-maxdepth",
            "1",
            "-type",
            "f",
            "-name",
            "*.conf",
            "!",
            "-name",
            ".*",
            "-print0",
        ];
        // PostgreSQL follows links, to the directory and in it.
        let find = ShellCommand::new("find").arg("-L").arg(dir.to_string_lossy());
        let listed = self.output(find.args(command))?;
        let mut names: Vec<String> = listed
            .split(|byte| *byte == 0)
            .filter_map(|path| path.rsplit(|byte| *byte == b'/').next())
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        names.sort();
        Ok(names)
    }
}

impl Fetch {
    fn failed(&self, source: ExternalFileError) -> CloneError {
        let path = self.path.clone();
        CopyError::ExternalFile { path, source }.into()
    }

    fn check_place(&self) -> Result<(), ExternalFileError> {
        let Target::At(path) = &self.target else {
            return Ok(());
        };
        let dir = path.parent().unwrap_or(Path::new("/"));
        let probe = tempfile::Builder::new().prefix(".repmgr-").tempfile_in(dir);
        probe.map(drop).map_err(|source| ExternalFileError::Write {
            path: path.clone(),
            source,
        })
    }

    fn is(&self, name: &str) -> bool {
        match &self.target {
            Target::At(path) => path.file_name().is_some_and(|own| own == name),
            Target::Within(rel) => rel == Path::new(name),
        }
    }
}

impl Fetched {
    /// Where the file of this name goes, if that is outside the data directory.
    pub(crate) fn brought_outside(&self, name: &str) -> Option<&Path> {
        self.0.iter().find_map(|file| match &file.target {
            Target::At(path) if file.is(name) => Some(&**path),
            _ => None,
        })
    }

    /// What will be at this place here, if it is one of them.
    pub(crate) fn content(&self, data_dir: &Path, path: &Path) -> Option<&[u8]> {
        let mut files = self.0.iter();
        let file = files.find(|file| file.target.path(data_dir) == path)?;
        Some(&file.content)
    }

    /// What PostgreSQL will read of this directory.
    pub(crate) fn conf_files<'a>(
        &'a self,
        data_dir: &'a Path,
        dir: &'a Path,
    ) -> impl Iterator<Item = PathBuf> + 'a {
        let is_conf = |path: &Path| path.extension().is_some_and(|extension| extension == "conf");
        let targets = self.0.iter().map(|file| file.target.path(data_dir));
        targets.filter(move |path| path.parent() == Some(dir) && is_conf(path))
    }

    /// Whether a file of this name is among them.
    pub(crate) fn brings(&self, name: &str) -> bool {
        self.0.iter().any(|file| file.is(name))
    }

    /// Writes them to their places.
    pub(crate) fn write(&self, tree: &Tree, context: &Context<'_>) -> Result<(), CloneError> {
        for file in &self.0 {
            let path = file.target.path(tree.path());
            let written = match &file.target {
                Target::Within(rel) => write_within(tree, rel, &file.content),
                Target::At(path) => write_durable(path, &file.content),
            };
            written.map_err(|source| file.failed(source))?;
            context.tell(CopyEvent::ExternalFileCopied { path });
        }
        Ok(())
    }
}

fn write_within(tree: &Tree, rel: &Path, content: &[u8]) -> Result<(), ExternalFileError> {
    if let Some(dir) = rel.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        tree.create_dir(dir)?;
    }
    Ok(tree.write_durable(rel, content, MODE)?)
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
