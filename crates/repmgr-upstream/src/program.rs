//! Running one of PostgreSQL's client programs: its lines as they come, its end, and nothing left
//! of it afterwards.

use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use repmgr_program::{End, LastLines, Leftovers, LineSplitter, Rules, RunError};
use repmgr_types::{CancelToken, Hint, PgVersion, Remedy};

/// How long a program may take to end once asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Asking for the version takes milliseconds.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

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
    pub fn hint(&self) -> Option<Hint> {
        match self {
            ProgramError::NotFound(_) | ProgramError::Version { .. } => Some(
                Hint::new("install PostgreSQL's client programs, and name their directory with ")
                    .remedy(Remedy::BinDir),
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
    pub(crate) fn new(program: &Path, status: ExitStatus, lines: LastLines) -> Self {
        Self {
            program: program.to_owned(),
            status: describe(status),
            lines: lines.into_vec(),
        }
    }

    /// What to do next, if that can be told from what the program said.
    pub fn hint(&self) -> Option<Hint> {
        let said = |text: &str| self.lines.iter().any(|line| line.contains(text));
        let known = HINTS.iter().find(|(text, _)| said(text));
        known.map(|(_, hint)| Hint::from(*hint))
    }
}

/// The first line that speaks of an error, else the last of all.
fn headline(lines: &[String]) -> String {
    let of_error = |line: &&String| line.contains("error: ") || line.contains("FATAL: ");
    let line = lines.iter().find(of_error).or(lines.last());
    line.map_or_else(String::new, |line| format!(": {line}"))
}

fn not_run(RunError { program, source }: RunError) -> ProgramError {
    match source.kind() {
        ErrorKind::NotFound => ProgramError::NotFound(program),
        _ => ProgramError::System { program, source },
    }
}

/// For what a program says last.
pub(crate) fn last_lines() -> LastLines {
    LastLines::new(100)
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
    let program = PathBuf::from(command.get_program());
    command.env("LC_ALL", "C").env("PG_COLOR", "never");
    let rules = Rules {
        limit,
        grace: GRACE,
        leftovers: Leftovers::Kill,
    };
    let mut splitter = LineSplitter::default();
    let end = repmgr_program::run(command, &rules, cancel, &mut |bytes| {
        splitter.add(bytes, on_line);
    })
    .map_err(not_run)?;
    splitter.finish(on_line);
    match end {
        End::Exited(status) => Ok(status),
        End::TimedOut { limit } => Err(ProgramError::TimedOut { program, limit }),
        End::Cancelled => Err(ProgramError::Cancelled),
    }
}

/// The version of `program`, a client program of PostgreSQL 10 or later.
pub(crate) fn version(program: &Path, cancel: &CancelToken) -> Result<PgVersion, ProgramError> {
    let mut command = Command::new(program);
    command.arg("--version");
    let mut lines = last_lines();
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

#[cfg(test)]
mod tests;
