//! Running a program to its end.

use std::io::{self, ErrorKind, PipeReader, Read};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use repmgr_types::CancelToken;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::Group;

/// The longest time between two looks at the cancellation token and at the program.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The same once there is no output to wait for: the program is about to end, most likely.
const LOOK_EVERY_IN_SILENCE: Duration = Duration::from_millis(5);

/// What a program may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long it may take.
    pub limit: Option<Duration>,
    /// How long it may take to end, once asked to by SIGTERM, before its group is killed. With zero it is
    /// killed at once.
    pub grace: Duration,
    /// What becomes of processes it leaves.
    pub leftovers: Leftovers,
}

/// What becomes of what a program leaves in its group when it ends. Where the program has to be stopped, the
/// whole group is killed in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// They are killed.
    Kill,
    /// They live on. What they write is read away, as long as this process lives.
    Keep,
}

impl Leftovers {
    /// How long to wait, once the program has ended, for what was written last.
    fn drain(self) -> Duration {
        match self {
            // Only what has left the group can still hold the output open.
            Leftovers::Kill => Duration::from_secs(2),
            Leftovers::Keep => Duration::from_millis(200),
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It did not end within the limit, and was stopped.
    TimedOut {
        /// The time it was given.
        limit: Duration,
    },
    /// The token was cancelled; it was stopped, or not started at all.
    Cancelled,
}

/// A program cannot be started, or not be followed.
#[derive(Debug, thiserror::Error)]
#[error("could not run \"{}\"", program.display())]
pub struct RunError {
    /// The program.
    pub program: PathBuf,
    /// Why not; of kind [`NotFound`](ErrorKind::NotFound) if it is not there.
    pub source: io::Error,
}

/// Runs `command` without input, and gives `on_output` what it writes to its two outputs. Returns once the
/// program has ended and been waited for, soon after it even where somebody else holds its output open.
///
/// # Errors
/// It cannot be started, or not be followed; then its group was killed.
pub fn run(
    command: Command,
    rules: &Rules,
    cancel: &CancelToken,
    on_output: &mut dyn FnMut(&[u8]),
) -> Result<End, RunError> {
    if cancel.is_cancelled() {
        return Ok(End::Cancelled);
    }
    let program = PathBuf::from(command.get_program());
    Running::start(command)
        .and_then(|running| running.follow(rules, cancel, on_output))
        .map_err(|source| RunError { program, source })
}

struct Running {
    group: Group,
    /// As long as there may be more.
    output: Option<PipeReader>,
    /// When and why it was told to end.
    stopped: Option<(Instant, End)>,
}

impl Running {
    fn start(mut command: Command) -> io::Result<Self> {
        let (output, input) = io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(input.try_clone()?)
            .stderr(input);
        Ok(Self {
            group: Group::start(command)?,
            output: Some(output),
            stopped: None,
        })
    }

    fn follow(
        mut self,
        rules: &Rules,
        cancel: &CancelToken,
        on_output: &mut dyn FnMut(&[u8]),
    ) -> io::Result<End> {
        let begin = Instant::now();
        while !self.group.has_ended()? {
            self.stop_if_due(begin, rules, cancel);
            self.take(LOOK_EVERY, on_output)?;
        }
        if rules.leftovers == Leftovers::Kill || self.stopped.is_some() {
            self.group.signal(Signal::KILL);
        }
        let status = self
            .take_rest(rules.leftovers, on_output)
            .and_then(|()| self.group.wait())?;
        Ok(self.stopped.map_or(End::Exited(status), |(_, why)| why))
    }

    fn stop_if_due(&mut self, begin: Instant, rules: &Rules, cancel: &CancelToken) {
        if self.stopped.is_none() {
            let why = match rules.limit {
                _ if cancel.is_cancelled() => End::Cancelled,
                Some(limit) if begin.elapsed() > limit => End::TimedOut { limit },
                _ => return,
            };
            self.stopped = Some((Instant::now(), why));
            if !rules.grace.is_zero() {
                self.group.signal(Signal::TERM);
            }
        }
        if self.stopped.is_some_and(|(at, _)| at.elapsed() >= rules.grace) {
            self.group.signal(Signal::KILL);
        }
    }

    /// Waits a moment for output and takes it.
    fn take(&mut self, at_most: Duration, on_output: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let Some(output) = &mut self.output else {
            thread::sleep(LOOK_EVERY_IN_SILENCE.min(at_most));
            return Ok(());
        };
        let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let mut buffer = [0; 8192];
        match output.read(&mut buffer) {
            Ok(0) => self.output = None,
            Ok(n) => on_output(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Takes what the program wrote last, and leaves what others write later.
    fn take_rest(&mut self, leftovers: Leftovers, on_output: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let end = Instant::now() + leftovers.drain();
        while let Some(left) = end.checked_duration_since(Instant::now())
            && self.output.is_some()
        {
            self.take(left, on_output)?;
        }
        if let Some(output) = self.output.take().filter(|_| leftovers == Leftovers::Keep) {
            read_away(output);
        }
        Ok(())
    }
}

/// Reads to the end what nobody wants any more.
fn read_away(mut output: PipeReader) {
    let reader = thread::Builder::new().name("leftover output".to_owned());
    // Where it fails, the output is closed, as it would be at our end.
    let _ = reader.spawn(move || io::copy(&mut output, &mut io::sink()));
}

#[cfg(test)]
pub(crate) mod tests;
