//! Running one of PostgreSQL's client programs: its lines as they come, its end, and nothing left
//! of it afterwards.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, PipeReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use repmgr_types::{CancelToken, PgVersion};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// The longest time between two looks at the cancellation token and at the program.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a program may take to end once asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How long output may still come after the program and its group have ended.
const DRAIN: Duration = Duration::from_secs(2);
/// Asking for the version takes milliseconds.
const VERSION_LIMIT: Duration = Duration::from_secs(20);
/// A longer line is given in pieces.
const MAX_LINE: usize = 4096;

/// Why one of PostgreSQL's programs could not be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The program is not there.
    #[error("program \"{}\" not found", .0.display())]
    NotFound(PathBuf),
    /// It cannot be started, or not be followed.
    #[error("could not run \"{}\"", program.display())]
    System {
        /// The program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It did not end in time, and was killed.
    #[error("\"{}\" did not end within {} s", program.display(), limit.as_secs())]
    TimedOut {
        /// The program.
        program: PathBuf,
        /// The time it was given.
        limit: Duration,
    },
    /// Asked for its version, it says something else.
    #[error("could not determine the version of \"{}\": {answer}", program.display())]
    Version {
        /// The program.
        program: PathBuf,
        /// What it said, and how it ended.
        answer: String,
    },
    /// The token was cancelled, and the program ended.
    #[error("interrupted")]
    Cancelled,
}

impl ProgramError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            ProgramError::NotFound(_) | ProgramError::Version { .. } => Some(
                "install PostgreSQL's client programs, and name their directory with \"pg_bindir\""
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// A program ran and failed.
#[derive(Debug, thiserror::Error)]
#[error("\"{}\" failed ({status}){}", program.display(), headline(.lines))]
pub struct ProgramFailure {
    /// The program.
    pub program: PathBuf,
    /// How it ended: "exit code 1", "killed by signal 9".
    pub status: String,
    /// The last hundred lines it wrote, in English.
    pub lines: Vec<String>,
}

/// What the programs and the server say, and what to do about it.
const HINTS: &[(&str, &str)] = &[
    (
        "no pg_hba.conf entry",
        "add a line for database \"replication\" and this user and host to the server's pg_hba.conf, and reload it",
    ),
    (
        "password authentication failed",
        "check the user's password: in the connection string, PGPASSWORD, or a line for database \"replication\" \
         in ~/.pgpass",
    ),
    (
        "no password supplied",
        "supply the user's password with PGPASSWORD, or a line for database \"replication\" in ~/.pgpass (mode 0600)",
    ),
    (
        "max_wal_senders",
        "increase \"max_wal_senders\" on the server and restart it, or wait until a WAL sender is free",
    ),
    (
        "No space left on device",
        "free some space, and run the command again",
    ),
];

impl ProgramFailure {
    pub(crate) fn new(program: &Path, status: ExitStatus, lines: Lines) -> Self {
        Self {
            program: program.to_owned(),
            status: describe(status),
            lines: lines.into_vec(),
        }
    }

    /// What to do next, if that can be told from what the program said.
    pub fn hint(&self) -> Option<String> {
        let said = |text: &str| self.lines.iter().any(|line| line.contains(text));
        let known = HINTS.iter().find(|(text, _)| said(text));
        known.map(|(_, hint)| (*hint).to_owned())
    }
}

/// The first line that speaks of an error, else the last of all.
fn headline(lines: &[String]) -> String {
    let of_error = |line: &&String| line.contains("error: ") || line.contains("FATAL: ");
    let line = lines.iter().find(of_error).or(lines.last());
    line.map_or_else(String::new, |line| format!(": {line}"))
}

/// The last lines a program wrote.
#[derive(Debug, Default)]
pub(crate) struct Lines(VecDeque<String>);

impl Lines {
    const KEPT: usize = 100;

    pub(crate) fn add(&mut self, line: &str) {
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    pub(crate) fn into_vec(self) -> Vec<String> {
        self.0.into()
    }
}

/// Runs `command` with messages in English and no input, and gives `on_line` each line of its two
/// outputs, where a carriage return ends a line too. Returns once it has ended and been waited
/// for; whatever it left in its process group is killed. When cancelled, or at the `limit`, the
/// whole group gets SIGTERM, and SIGKILL a few seconds later.
pub(crate) fn run(
    mut command: Command,
    limit: Option<Duration>,
    cancel: &CancelToken,
    on_line: &mut dyn FnMut(&str),
) -> Result<ExitStatus, ProgramError> {
    if cancel.is_cancelled() {
        return Err(ProgramError::Cancelled);
    }
    let program = PathBuf::from(command.get_program());
    let failed = |source: io::Error| ProgramError::System {
        program: program.clone(),
        source,
    };
    let (output, input) = io::pipe().map_err(failed)?;
    command
        .env("LC_ALL", "C")
        .env("PG_COLOR", "never")
        .stdin(Stdio::null())
        .stdout(input.try_clone().map_err(failed)?)
        .stderr(input)
        .process_group(0);
    let child = command.spawn().map_err(|source| match source.kind() {
        ErrorKind::NotFound => ProgramError::NotFound(program.clone()),
        _ => failed(source),
    })?;
    // It holds our ends of the pipe, without which the output would never end.
    drop(command);
    let mut running = Running { child, reaped: false };
    let outcome = running.follow(output, limit, cancel, on_line);
    let status = running.end();
    match outcome.map_err(failed)? {
        Outcome::Ended => status.map_err(failed),
        Outcome::Cancelled => Err(ProgramError::Cancelled),
        Outcome::TimedOut(limit) => Err(ProgramError::TimedOut { program, limit }),
    }
}

/// The version of `program`, a client program of PostgreSQL 10 or later.
pub(crate) fn version(program: &Path, cancel: &CancelToken) -> Result<PgVersion, ProgramError> {
    let mut command = Command::new(program);
    command.arg("--version");
    let mut lines = Lines::default();
    let status = run(command, Some(VERSION_LIMIT), cancel, &mut |line| lines.add(line))?;
    let answer = lines.into_vec().into_iter().next().unwrap_or_default();
    read_version(&answer)
        .filter(|_| status.success())
        .ok_or_else(|| ProgramError::Version {
            program: program.to_owned(),
            answer: format!("\"{answer}\", {}", describe(status)),
        })
}

/// "pg_basebackup (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"; a test version has no minor number.
fn read_version(answer: &str) -> Option<PgVersion> {
    let number = answer.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    let (major, rest) = number.split_at(number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len()));
    let minor = match rest.strip_prefix('.') {
        Some(minor) => minor.parse().ok().filter(|minor| *minor < 10_000)?,
        None => 0,
    };
    let major: u32 = major.parse().ok().filter(|major| (10..1000).contains(major))?;
    PgVersion::from_num(major * 10_000 + minor)
}

/// "exit code 1", "killed by signal 9".
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

enum Outcome {
    Ended,
    Cancelled,
    TimedOut(Duration),
}

/// A program in a process group of its own.
struct Running {
    child: Child,
    reaped: bool,
}

impl Running {
    fn follow(
        &self,
        mut output: PipeReader,
        limit: Option<Duration>,
        cancel: &CancelToken,
        on_line: &mut dyn FnMut(&str),
    ) -> io::Result<Outcome> {
        let begin = Instant::now();
        let mut splitter = Splitter::default();
        let mut stopping: Option<(Instant, Outcome)> = None;
        let mut ended: Option<Instant> = None;
        let mut open = true;
        while open || ended.is_none() {
            if open {
                open = read_some(&mut output, &mut splitter, on_line)?;
            } else {
                // The output ended, the program is about to.
                std::thread::sleep(Duration::from_millis(2));
            }
            match (ended, &stopping) {
                (None, _) if self.has_ended()? => {
                    // What it started may hold the output open.
                    self.signal(Signal::KILL);
                    ended = Some(Instant::now());
                }
                (Some(at), _) if at.elapsed() > DRAIN => break,
                (None, Some((asked, _))) if asked.elapsed() > GRACE => self.signal(Signal::KILL),
                (None, None) => {
                    let why = match limit {
                        _ if cancel.is_cancelled() => Outcome::Cancelled,
                        Some(limit) if begin.elapsed() > limit => Outcome::TimedOut(limit),
                        _ => continue,
                    };
                    self.signal(Signal::TERM);
                    stopping = Some((Instant::now(), why));
                }
                _ => {}
            }
        }
        splitter.finish(on_line);
        Ok(stopping.map_or(Outcome::Ended, |(_, why)| why))
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Whether it is there to be waited for. It is left so: until then its number is nobody else's.
    fn has_ended(&self) -> io::Result<bool> {
        let Some(pid) = self.pid() else { return Ok(true) };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(pid), look) {
            Ok(status) => Ok(status.is_some()),
            Err(Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.pid().filter(|_| !self.reaped) {
            // An error means that the group is gone.
            let _ = kill_process_group(group, signal);
        }
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        let status = self.child.wait();
        self.reaped = true;
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.end();
        }
    }
}

/// Waits a moment for output and takes it; false when there will be no more.
fn read_some(
    output: &mut PipeReader,
    splitter: &mut Splitter,
    on_line: &mut dyn FnMut(&str),
) -> io::Result<bool> {
    let timeout = Timespec::try_from(LOOK_EVERY).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(&*output, PollFlags::IN)], Some(&timeout)) {
        Ok(0) | Err(Errno::INTR) => return Ok(true),
        Ok(_) => {}
        Err(e) => return Err(e.into()),
    }
    let mut buffer = [0; 8192];
    match output.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(n) => {
            splitter.add(&buffer[..n], on_line);
            Ok(true)
        }
        Err(e) if e.kind() == ErrorKind::Interrupted => Ok(true),
        Err(e) => Err(e),
    }
}

/// Makes lines of bytes: without blanks at the end, empty ones left out, printable.
#[derive(Default)]
struct Splitter(Vec<u8>);

impl Splitter {
    fn add(&mut self, bytes: &[u8], on_line: &mut dyn FnMut(&str)) {
        for &byte in bytes {
            if byte == b'\n' || byte == b'\r' || self.0.len() == MAX_LINE {
                self.finish(on_line);
            }
            if byte != b'\n' && byte != b'\r' {
                self.0.push(byte);
            }
        }
    }

    fn finish(&mut self, on_line: &mut dyn FnMut(&str)) {
        let line: String = String::from_utf8_lossy(&self.0)
            .trim_end()
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '?' } else { c })
            .collect();
        self.0.clear();
        if !line.is_empty() {
            on_line(&line);
        }
    }
}

#[cfg(test)]
mod tests;
