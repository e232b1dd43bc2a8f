//! Reading the archive's directories: one script finds them out, another sends files; a fresh
//! connection runs both at once.

use std::io::{self, Read};

use repmgr_remote::{Process, RemoteError, ShellCommand, StartOptions};
use repmgr_types::SystemId;

use super::location::{Configuration, Location, identity};
use super::stream::{Chunks, End, Record, Records, pumped};
use super::{Archive, IDLE_TIMEOUT, Transport, Way};
use crate::receive::ReceiveError;
use crate::{FetchError, WalFileName};

/// What the configuration files hold that matters.
const MAX_TEXT: u64 = 4 << 20;

/// How sending files ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendEnd {
    /// All were sent.
    Complete,
    /// The next one is not there.
    Missing,
    /// The next one is not there, and no WAL at all: this need not be the archive.
    Empty,
    /// We may not look there, or not read it.
    Denied,
    /// Nobody knows where the archive is.
    NoLocation,
}

#[derive(Debug)]
pub(super) enum SendError {
    Fetch(FetchError),
    Receive(ReceiveError),
}

impl SendError {
    fn named(self, server: &str) -> Self {
        match self {
            Self::Fetch(FetchError::Remote(e)) => Self::Fetch(FetchError::Remote(named(e, server))),
            other => other,
        }
    }
}

/// What the script does, for messages, instead of the script.
fn named(mut error: RemoteError, server: &str) -> RemoteError {
    error.command = format!("read the WAL archive of server {server}");
    error
}

impl From<FetchError> for SendError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(error)
    }
}

impl From<RemoteError> for SendError {
    fn from(error: RemoteError) -> Self {
        Self::Fetch(error.into())
    }
}

impl From<ReceiveError> for SendError {
    fn from(error: ReceiveError) -> Self {
        Self::Receive(error)
    }
}

/// Gets files as they come: name, place, bytes.
pub(super) type Each<'e> = dyn FnMut(WalFileName, &str, &mut dyn Read) -> Result<(), ReceiveError> + 'e;

/// What `locate.sh` told.
struct Located {
    /// Unless there is a doubt.
    location: Option<Location>,
    system_id: Option<SystemId>,
    /// The server's directory in which the script looked for identity and model.
    directory: String,
    /// Whether files follow, from the default directories below `directory`.
    sends: bool,
}

impl Archive {
    /// Lets the far side send `names`; `each` gets them in order.
    pub(super) fn send(&mut self, names: &[WalFileName], each: &mut Each<'_>) -> Result<SendEnd, SendError> {
        if self.way.is_none()
            && let Some(end) = self.locate("", names, each)?
        {
            return Ok(end);
        }
        let Some(Way::Files(location)) = &self.way else {
            return Ok(SendEnd::NoLocation);
        };
        let transport = if location.compressed {
            Transport::Stored
        } else {
            self.transport()
        };
        let places = [&location.wals, &location.incoming, &location.streaming];
        let command = ShellCommand::script(include_str!("send.sh"))
            .args([transport.programs(), self.partial_places()])
            .args(places);
        let process = self.start(&with_names(command, names))?;
        read_records(process, |chunks| receive_all(Records::new(chunks), names, each))
    }

    /// Finds out where the archive is, by reading Barman's configuration, and lets the far side send
    /// at once if that is where it is by default. `None` when nothing was sent.
    fn locate(
        &mut self,
        directory: &str,
        names: &[WalFileName],
        each: &mut Each<'_>,
    ) -> Result<Option<SendEnd>, SendError> {
        let server = self.options.address.server.clone();
        let config = self.options.address.config.clone().unwrap_or_default();
        let command = ShellCommand::script(concat!(include_str!("locate.sh"), include_str!("send.sh")))
            .args([server.as_str(), &config, directory])
            .args([self.transport().programs(), self.partial_places()]);
        let process = self.start(&with_names(command, names))?;
        let (located, sent) = read_records(process, |chunks| {
            let mut records = Records::new(&mut *chunks);
            let located = Located::read(&mut records, &server)?;
            let default = |l: &Location| l.is_default() && l.backup_directory == located.directory;
            if !located.sends || !located.location.as_ref().is_some_and(default) {
                return Ok((located, None));
            }
            let end = receive_all(records, names, each)?;
            Ok((located, Some(end)))
        })
        .map_err(|e| e.named(&server))?;
        match located.location {
            Some(location) if location.backup_directory == located.directory => {
                self.proven = self.options.system_id.is_some() && located.system_id == self.options.system_id;
                self.way = Some(Way::Files(location));
                Ok(sent)
            }
            // One more look, for identity and model lie in the server's own directory.
            Some(location) if directory.is_empty() => self.locate(&location.backup_directory, names, each),
            _ => {
                self.way = Some(Way::GetWal);
                Ok(None)
            }
        }
    }

    /// How plain files travel; on this host they do not.
    fn transport(&self) -> Transport {
        if self.host.is_local() {
            Transport::Stored
        } else {
            self.options.transport
        }
    }

    fn partial_places(&self) -> &'static str {
        if self.options.partial {
            "streaming.partial streaming wals.partial incoming.partial"
        } else {
            ""
        }
    }

    fn start(&mut self, command: &ShellCommand) -> Result<Box<dyn Process + '_>, FetchError> {
        let options = StartOptions {
            idle_timeout: IDLE_TIMEOUT,
            bulk: true,
            cancel: self.cancel.clone(),
            ..Default::default()
        };
        let server = self.options.address.server.clone();
        let started = self.connection()?.start(command, options);
        started.map_err(|e| FetchError::Remote(named(e, &server)))
    }
}

fn with_names(mut command: ShellCommand, names: &[WalFileName]) -> ShellCommand {
    for name in names {
        command = command.args([name.archive_path(), name.to_string()]);
    }
    command
}

impl Located {
    fn read(records: &mut Records<impl Read>, server: &str) -> Result<Self, ReceiveError> {
        let mut texts: [String; 5] = Default::default();
        let [paths, text, home, files, directory] = &mut texts;
        let sends = loop {
            let (size, what) = match records.next()? {
                Record::Text { size, what } => (size, what),
                Record::End { why: End::Done, .. } => break false,
                // There is no configuration, or we may not read all of it.
                Record::End { .. } => return Ok(Self::nowhere()),
                Record::Next { .. } => return Err(garbled("a file among the texts")),
            };
            let text_of = match what.as_str() {
                "paths" => &mut *paths,
                "text" => &mut *text,
                "home" => &mut *home,
                "files" => &mut *files,
                "directory" => &mut *directory,
                "guess" => {
                    records.text(size, 0)?;
                    break true;
                }
                _ => return Err(garbled("an unknown kind of text")),
            };
            *text_of = String::from_utf8_lossy(&records.text(size, MAX_TEXT)?).into_owned();
        };
        let mut configuration = Configuration::default();
        let (mut system_id, mut model) = (None, false);
        for (kind, path) in paths.lines().filter_map(|line| line.split_once(' ')) {
            let prefix = format!("{path}:");
            let lines: Vec<&str> = text
                .lines()
                .filter_map(|line| line.strip_prefix(&prefix))
                .collect();
            match kind {
                "identity" => system_id = identity(lines.concat().as_bytes()),
                "model" => model = true,
                _ => configuration.add(&lines.join("\n")),
            }
        }
        let same = |key, used: &str| configuration.global(key).unwrap_or_default() == used;
        let understood = same("barman_home", home) && same("configuration_files_directory", files) && !model;
        Ok(Self {
            location: configuration.location(server).filter(|_| understood),
            system_id,
            directory: std::mem::take(directory),
            sends,
        })
    }

    fn nowhere() -> Self {
        Self {
            location: None,
            system_id: None,
            directory: String::new(),
            sends: false,
        }
    }
}

fn receive_all(
    mut records: Records<impl Read>,
    names: &[WalFileName],
    each: &mut Each<'_>,
) -> Result<SendEnd, ReceiveError> {
    let mut listed = Vec::new();
    let (why, compressor) = loop {
        match records.next()? {
            Record::Next { size, place } if listed.len() < names.len() => listed.push((size, place)),
            Record::End { why, compressor } => break (why, compressor),
            _ => return Err(garbled("more than was asked for")),
        }
    };
    let complete = listed.len() == names.len();
    let mut contents = records.into_contents(if listed.is_empty() { "-" } else { &compressor })?;
    for (name, (size, place)) in names.iter().zip(listed) {
        each(*name, &place, &mut contents.next(size)?)?;
    }
    contents.end()?;
    match (why, complete) {
        (End::Done, true) => Ok(SendEnd::Complete),
        (End::Missing, false) => Ok(SendEnd::Missing),
        (End::Empty, false) => Ok(SendEnd::Empty),
        (End::Denied, false) => Ok(SendEnd::Denied),
        _ => Err(garbled("less than was asked for")),
    }
}

fn garbled(what: &str) -> ReceiveError {
    ReceiveError::Source(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Reads what `process` sends, and then the rest of it, or the connection would be given up with it.
fn read_records<T>(
    process: Box<dyn Process + '_>,
    work: impl FnOnce(&mut Chunks) -> Result<T, ReceiveError>,
) -> Result<T, SendError> {
    let (result, end) = pumped(process, |chunks: &mut Chunks| {
        let result = work(chunks)?;
        io::copy(chunks, &mut io::sink())?;
        Ok(result)
    });
    match (result, end) {
        // What went wrong with the command explains what went wrong with its output.
        (Err(ReceiveError::Source(_)), Err(error)) => Err(error.into()),
        (Err(error), _) => Err(SendError::Receive(error)),
        (Ok(_), Err(error)) => Err(error.into()),
        (Ok(value), Ok(_)) => Ok(value),
    }
}
