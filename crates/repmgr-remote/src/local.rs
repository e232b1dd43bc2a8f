use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use repmgr_program::Group;
use repmgr_types::CancelToken;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::error::RemoteErrorKind as Kind;
use crate::frame::Frame;
use crate::host::{Connection, Host, Output, Process, StartOptions, read_bounded};
use crate::process::{Flow, Running, Status, Wire};
use crate::{ConnectError, RemoteError, ShellCommand};

/// This host: commands run by `sh -c`, without SSH.
///
/// Each command gets its own process group, which is killed when its process is dropped or
/// fails; the exit status is the one the system reports.
#[derive(Debug, Clone, Default)]
pub struct LocalHost {
    cancel: CancelToken,
}

impl LocalHost {
    /// Commands end early once `cancel` says so.
    pub fn new(cancel: CancelToken) -> Self {
        Self { cancel }
    }
}

const NAME: &str = "localhost (no ssh)";

impl Host for LocalHost {
    fn name(&self) -> &str {
        NAME
    }

    fn is_local(&self) -> bool {
        true
    }

    fn connect(&self) -> Result<Box<dyn Connection>, ConnectError> {
        Ok(Box::new(self.clone()))
    }
}

impl Connection for LocalHost {
    fn host(&self) -> &str {
        NAME
    }

    fn start<'c>(
        &'c mut self,
        command: &ShellCommand,
        options: StartOptions,
    ) -> Result<Box<dyn Process + 'c>, RemoteError> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command.line());
        let running = start(shell, NAME, command, options, &self.cancel, None)?;
        Ok(Box::new(running))
    }
}

/// Runs a program of this host, with a limit in time and output.
pub(crate) fn run_program(
    program: Command,
    timeout: Duration,
    cancel: &CancelToken,
) -> Result<Output, RemoteError> {
    const MAX_STDOUT: usize = 4 << 20;
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let words: Vec<_> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    let shown = ShellCommand::new(&words[0]).args(&words[1..]);
    let options = StartOptions {
        idle_timeout: timeout,
        total_timeout: Some(timeout),
        ..Default::default()
    };
    let process = Box::new(start(program, NAME, &shown, options, cancel, None)?);
    read_bounded(process, NAME, &shown, MAX_STDOUT)
}

/// Starts a program of this host, which may stand for a command on `host`.
pub(crate) fn start(
    mut program: Command,
    host: &str,
    shown: &ShellCommand,
    options: StartOptions,
    cancel: &CancelToken,
    frame: Option<Frame>,
) -> Result<Running<LocalWire>, RemoteError> {
    let fail = |kind| RemoteError {
        host: host.to_owned(),
        command: shown.shown(),
        kind,
    };
    if shown.has_nul() {
        return Err(fail(Kind::NulByte));
    }
    cancel
        .check()
        .and_then(|()| options.cancel.check())
        .map_err(|c| fail(c.into()))?;
    program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let group = Group::start(program).map_err(|source| {
        fail(Kind::System {
            action: "start it",
            source,
        })
    })?;
    let wire = LocalWire::new(group).map_err(|source| {
        fail(Kind::System {
            action: "prepare its pipes",
            source,
        })
    })?;
    Ok(Running::new(wire, host, shown, options, cancel.clone(), frame))
}

pub(crate) struct LocalWire {
    /// Killed when dropped.
    group: Group,
    stdin: Option<ChildStdin>,
    /// Whether the pipe was full when we last wrote.
    stdin_full: bool,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl LocalWire {
    fn new(mut group: Group) -> io::Result<Self> {
        let (stdin, stdout, stderr) = group.take_pipes();
        let wire = Self {
            group,
            stdin,
            stdin_full: false,
            stdout,
            stderr,
        };
        let fds = [
            wire.stdin.as_ref().map(AsFd::as_fd),
            wire.stdout.as_ref().map(AsFd::as_fd),
            wire.stderr.as_ref().map(AsFd::as_fd),
        ];
        for fd in fds.into_iter().flatten() {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        Ok(wire)
    }
}

fn read_some(stream: &mut Option<impl Read>, buffer: &mut [u8]) -> Result<Flow, Kind> {
    let Some(pipe) = stream else { return Ok(Flow::End) };
    match pipe.read(buffer) {
        Ok(0) => {
            *stream = None;
            Ok(Flow::End)
        }
        Ok(n) => Ok(Flow::Bytes(n)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(Flow::Blocked),
        Err(source) => Err(Kind::System {
            action: "read its output",
            source,
        }),
    }
}

impl Wire for LocalWire {
    fn read_stdout(&mut self, buffer: &mut [u8]) -> Result<Flow, Kind> {
        read_some(&mut self.stdout, buffer)
    }

    fn read_stderr(&mut self, buffer: &mut [u8]) -> Result<Flow, Kind> {
        read_some(&mut self.stderr, buffer)
    }

    fn write_stdin(&mut self, data: &[u8]) -> Result<Flow, Kind> {
        let Some(pipe) = &mut self.stdin else {
            return Ok(Flow::End);
        };
        let result = pipe.write(data);
        self.stdin_full = matches!(&result, Err(e) if e.kind() == ErrorKind::WouldBlock);
        match result {
            Ok(n) => Ok(Flow::Bytes(n)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(Flow::Blocked),
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(Flow::End),
            Err(source) => Err(Kind::System {
                action: "write its input",
                source,
            }),
        }
    }

    fn end_stdin(&mut self) -> Result<Flow, Kind> {
        self.stdin = None;
        self.stdin_full = false;
        Ok(Flow::End)
    }

    fn status(&mut self) -> Result<Option<Status>, Kind> {
        let waited = self.group.try_wait();
        let status = waited.map_err(|source| Kind::System {
            action: "wait for it",
            source,
        })?;
        Ok(status.map(|s| Status {
            code: s.code(),
            signal: s.signal().map(signal_name),
        }))
    }

    fn wait(&mut self, at_most: Duration) -> Result<(), Kind> {
        let stdin = self.stdin.as_ref().filter(|_| self.stdin_full);
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(3);
        fds.extend(self.stdout.iter().map(|s| PollFd::new(s, PollFlags::IN)));
        fds.extend(self.stderr.iter().map(|s| PollFd::new(s, PollFlags::IN)));
        fds.extend(stdin.map(|s| PollFd::new(s, PollFlags::OUT)));
        if fds.is_empty() {
            // Both outputs ended: only the exit is missing, and that has no descriptor.
            std::thread::sleep(at_most.min(Duration::from_millis(2)));
            return Ok(());
        }
        wait_for(&mut fds, at_most).map_err(|source| Kind::System {
            action: "wait for its output",
            source,
        })
    }

    fn abandon(&mut self) {
        // Only one that cannot be waited for fails here, and nothing more can be done about that.
        let _ = self.group.kill();
    }
}

/// `poll`; an interruption by a signal is a wake-up like any other.
pub(crate) fn wait_for(fds: &mut [PollFd<'_>], at_most: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// As SSH names signals: without SIG.
fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        6 => "ABRT",
        9 => "KILL",
        11 => "SEGV",
        13 => "PIPE",
        15 => "TERM",
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
