use std::io::Read;
use std::time::Duration;

use repmgr_types::CancelToken;

use crate::text::printable;
use crate::{ConnectError, RemoteError, RemoteErrorKind, ShellCommand};

/// Where commands can run.
pub trait Host: Send + Sync {
    /// As the user named it: "barmansrv", "barman@10.0.0.5", "localhost (no ssh)".
    fn name(&self) -> &str;

    /// Whether it is this host, so that a path there is the same path here.
    fn is_local(&self) -> bool {
        false
    }

    /// The shortest time that a question and its answer took so far; nothing where there is no way to go,
    /// or nothing was asked.
    fn round_trip(&self) -> Option<Duration> {
        None
    }

    /// One more authenticated connection; a worker thread wants its own.
    fn connect(&self) -> Result<Box<dyn Connection>, ConnectError>;

    /// Has so many logins under way in the background, for the next calls of [`connect`](Self::connect): for a
    /// caller who will need that many and has something else to do first. These ask the user nothing;
    /// one that fails is made again by `connect`, which may ask, and tells why.
    fn connect_ahead(&self, count: usize) {
        let _ = count;
    }
}

/// An authenticated way to one host.
///
/// Dropping it is immediate; it does not wait for a command that still runs there.
pub trait Connection: Send {
    /// The name of the [`Host`] this leads to.
    fn host(&self) -> &str;

    /// Starts `command` through the login shell, one process at a time.
    ///
    /// A process that is dropped before [`Process::finish`] takes the connection with it: what
    /// the far side still sends cannot be told from the next answer, so later calls fail.
    fn start<'c>(
        &'c mut self,
        command: &ShellCommand,
        options: StartOptions,
    ) -> Result<Box<dyn Process + 'c>, RemoteError>;
}

/// A running command. `Read` gives its standard output.
///
/// While one waits for output, standard error is collected (the first and last 32 KiB are
/// kept) and standard input is fed, so it does not matter which stream is full. An
/// [`std::io::Error`] from `read` carries a [`RemoteError`], see [`RemoteError::from_io`].
///
/// End of file from `read` means that the far side ended the output; whether the command did
/// well is known from [`finish`](Self::finish) only.
pub trait Process: Read + Send {
    /// Reads the rest of the output away, waits for the end and tells how it was.
    ///
    /// Standard input is ended first, also a [`Input::Held`] one.
    fn finish(self: Box<Self>) -> Result<Exit, RemoteError>;

    /// Ends [`Input::Held`]; with other inputs nothing happens, they end by themselves.
    fn close_stdin(&mut self) -> Result<(), RemoteError>;

    /// Looks after the connection without waiting: takes in what has arrived, answers and
    /// sends signs of life. Whoever holds a process open without reading from it (a lock)
    /// calls this every few seconds. An error means that the command can no longer be
    /// assumed to run.
    fn check(&mut self) -> Result<(), RemoteError>;

    /// Bytes of output and standard error taken in so far.
    fn received(&self) -> u64;
}

/// What a command reads.
#[derive(Debug, Clone, Default)]
pub enum Input {
    /// Nothing: end of file at once.
    #[default]
    Empty,
    /// These bytes, then end of file.
    Bytes(Vec<u8>),
    /// Nothing, but no end of file before [`Process::close_stdin`], finish or drop: a command
    /// that waits for it lives exactly as long as its process (and its connection) here.
    Held,
}

/// How to start a command.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// What the command reads.
    pub input: Input,
    /// The longest silence while somebody waits for output.
    pub idle_timeout: Duration,
    /// The longest run from start to end.
    pub total_timeout: Option<Duration>,
    /// Much output is expected: a channel window that fits the latency of the way (up to 32 MiB)
    /// rather than 2 MiB. Costs that much memory at most.
    pub bulk: bool,
    /// Ends this command early, besides the token of its host.
    pub cancel: CancelToken,
}

impl Default for StartOptions {
    /// No input, a minute of silence, no limit in all, small output.
    fn default() -> Self {
        Self {
            input: Input::Empty,
            idle_timeout: Duration::from_secs(60),
            total_timeout: None,
            bulk: false,
            cancel: CancelToken::new(),
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; as in any shell 128+n when signal n ended the command itself.
    pub code: Option<i32>,
    /// The signal that ended the shell around it: "KILL".
    pub signal: Option<String>,
    /// Standard error: all of it, or its first and last 32 KiB.
    pub stderr: Vec<u8>,
}

impl Exit {
    /// Code 0 and no signal.
    pub fn success(&self) -> bool {
        self.code == Some(0) && self.signal.is_none()
    }

    /// Standard error for people: trimmed, never a control character except line feeds.
    pub fn stderr_text(&self) -> String {
        printable(&self.stderr)
    }

    /// "exit code 3", "killed by signal KILL".
    pub fn status(&self) -> String {
        match (self.code, &self.signal) {
            (_, Some(signal)) => format!("killed by signal {signal}"),
            (Some(code), None) => format!("exit code {code}"),
            (None, None) => "no exit code".to_owned(),
        }
    }
}

/// What [`run`] returns.
#[derive(Debug, Clone)]
pub struct Output {
    /// How the command ended.
    pub exit: Exit,
    /// All it printed.
    pub stdout: Vec<u8>,
}

/// Runs `command` to its end and keeps its output, `max_stdout` bytes at most.
///
/// A command that fails is not an error here: look at [`Output::exit`].
pub fn run(
    connection: &mut dyn Connection,
    command: &ShellCommand,
    options: StartOptions,
    max_stdout: usize,
) -> Result<Output, RemoteError> {
    let host = connection.host().to_owned();
    let process = connection.start(command, options)?;
    read_bounded(process, &host, command, max_stdout)
}

pub(crate) fn read_bounded(
    mut process: Box<dyn Process + '_>,
    host: &str,
    command: &ShellCommand,
    max_stdout: usize,
) -> Result<Output, RemoteError> {
    let mut stdout = Vec::new();
    let limit = u64::try_from(max_stdout).unwrap_or(u64::MAX).saturating_add(1);
    process
        .as_mut()
        .take(limit)
        .read_to_end(&mut stdout)
        .map_err(RemoteError::from_io)?;
    if stdout.len() > max_stdout {
        let kind = RemoteErrorKind::OutputTooLong { limit: max_stdout };
        return Err(RemoteError {
            host: host.to_owned(),
            command: command.shown(),
            kind,
        });
    }
    let exit = process.finish()?;
    Ok(Output { exit, stdout })
}
