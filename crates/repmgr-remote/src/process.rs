//! What is the same for every running command: the three streams, the limits, the marks.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use repmgr_types::CancelToken;

use crate::error::{RemoteErrorKind as Kind, TimeLimit};
use crate::frame::{Ending, Frame, Stdout};
use crate::host::{Exit, Input, Process, StartOptions};
use crate::text::{gist, shorten};
use crate::{RemoteError, ShellCommand};

/// The longest time between two looks at the cancellation token.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a stream did.
pub(crate) enum Flow {
    /// So many bytes went through.
    Bytes(usize),
    /// Not now.
    Blocked,
    /// Never again.
    End,
}

/// How the outermost process ended, as far as it is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<String>,
}

/// The streams of one running command. No call waits, except `wait`.
pub(crate) trait Wire: Send {
    fn read_stdout(&mut self, buffer: &mut [u8]) -> Result<Flow, Kind>;
    fn read_stderr(&mut self, buffer: &mut [u8]) -> Result<Flow, Kind>;
    /// `End`: nobody reads it any more.
    fn write_stdin(&mut self, data: &[u8]) -> Result<Flow, Kind>;
    /// `End` when done, `Blocked` when it must be called again.
    fn end_stdin(&mut self) -> Result<Flow, Kind>;
    /// Asked after both outputs ended; `None` while the end is not there.
    fn status(&mut self) -> Result<Option<Status>, Kind>;
    /// Waits until one of the streams may move, and sends signs of life.
    fn wait(&mut self, at_most: Duration) -> Result<(), Kind>;
    /// Ends command or connection at once. Cannot fail, may be called twice.
    fn abandon(&mut self);
}

/// The first and the last part of standard error.
#[derive(Default)]
pub(crate) struct Collector {
    first: Vec<u8>,
    last: Vec<u8>,
    left_out: u64,
}

impl Collector {
    const PART: usize = 32 * 1024;

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let (first, rest) = bytes.split_at(bytes.len().min(Self::PART - self.first.len()));
        self.first.extend_from_slice(first);
        self.last.extend_from_slice(rest);
        // In steps of a part, so that a flood of small writes does not move it each time.
        if self.last.len() > 2 * Self::PART {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let excess = self.last.len().saturating_sub(Self::PART);
        self.last.drain(..excess);
        self.left_out += excess as u64;
    }

    pub(crate) fn text(&mut self) -> Vec<u8> {
        self.trim();
        let mut all = self.first.clone();
        if self.left_out > 0 {
            all.extend_from_slice(format!("\n[{} bytes left out]\n", self.left_out).as_bytes());
        }
        all.extend_from_slice(&self.last);
        all
    }
}

enum Feed {
    Bytes { data: Vec<u8>, sent: usize },
    Held,
    Ending,
    Ended,
}

/// A command that runs over some wire.
pub(crate) struct Running<W: Wire> {
    wire: W,
    host: String,
    command: String,
    /// The host's and the command's own.
    cancel: [CancelToken; 2],
    idle_timeout: Duration,
    total_timeout: Option<Duration>,
    started: Instant,
    feed: Feed,
    stdout: Stdout,
    stderr: Collector,
    stderr_ended: bool,
    received: u64,
    status: Option<Status>,
    /// Exit code 255 means that the connection failed, as `ssh` has it.
    by_ssh: bool,
}

impl<W: Wire> Running<W> {
    pub(crate) fn new(
        wire: W,
        host: &str,
        command: &ShellCommand,
        options: StartOptions,
        cancel: CancelToken,
        frame: Option<Frame>,
    ) -> Self {
        Self {
            wire,
            host: host.to_owned(),
            command: command.shown(),
            cancel: [cancel, options.cancel],
            idle_timeout: options.idle_timeout,
            total_timeout: options.total_timeout,
            started: Instant::now(),
            feed: match options.input {
                Input::Empty => Feed::Ending,
                Input::Bytes(data) => Feed::Bytes { data, sent: 0 },
                Input::Held => Feed::Held,
            },
            stdout: Stdout::new(frame),
            stderr: Collector::default(),
            stderr_ended: false,
            received: 0,
            status: None,
            by_ssh: false,
        }
    }

    /// The program is `ssh`, and runs the command elsewhere.
    pub(crate) fn by_ssh(mut self) -> Self {
        self.by_ssh = true;
        self
    }

    /// What `ssh` says of a connection that failed or was lost.
    fn lost_by_ssh(&mut self, exit: &Exit) -> Option<Kind> {
        let whole = matches!(self.stdout.ending(), Some(Ending::Marked(_)));
        let said_nothing = self.stdout.held().is_empty() || self.stdout.ending() == Some(&Ending::Cut);
        let lost = self.by_ssh && !whole && said_nothing && exit.code == Some(255);
        let reason = || shorten(&exit.stderr_text().replace('\n', "; "), 500);
        lost.then(|| Kind::ConnectionLost { reason: reason() })
    }

    fn stdout_ended(&self) -> bool {
        self.stdout.ending().is_some()
    }

    fn feed(&mut self) -> Result<bool, Kind> {
        let mut moved = false;
        if self.stdout_ended() && self.stderr_ended {
            self.feed = Feed::Ended;
        }
        if let Feed::Bytes { data, sent } = &mut self.feed {
            while *sent < data.len() {
                match self.wire.write_stdin(&data[*sent..])? {
                    Flow::Bytes(n) => *sent += n,
                    Flow::Blocked => return Ok(moved),
                    Flow::End => break,
                }
                moved = true;
            }
            self.feed = Feed::Ending;
        }
        if matches!(self.feed, Feed::Ending) && !matches!(self.wire.end_stdin()?, Flow::Blocked) {
            self.feed = Feed::Ended;
            moved = true;
        }
        Ok(moved)
    }

    /// One round over the three streams; whether anything moved.
    fn turn(&mut self) -> Result<bool, Kind> {
        let mut moved = self.feed()?;
        let Some(room) = self.stdout.room() else {
            return Ok(moved);
        };
        if !self.stderr_ended {
            match self.wire.read_stderr(room)? {
                Flow::Bytes(n) => {
                    self.stderr.add(&room[..n]);
                    self.received += n as u64;
                    moved = true;
                }
                Flow::End => (self.stderr_ended, moved) = (true, true),
                Flow::Blocked => {}
            }
        }
        if self.stdout.ending().is_none() {
            let Some(room) = self.stdout.room() else {
                return Ok(moved);
            };
            match self.wire.read_stdout(room)? {
                Flow::Bytes(n) => {
                    self.received += n as u64;
                    moved = true;
                    if self.stdout.filled(n).is_err() {
                        return Err(self.no_start_mark("still running"));
                    }
                }
                Flow::End => {
                    self.stdout.end();
                    moved = true;
                }
                Flow::Blocked => {}
            }
        }
        Ok(moved)
    }

    /// Keeps the streams moving until `done`.
    fn advance(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), Kind> {
        let mut moved_at = Instant::now();
        while !done(self) {
            if self.turn()? {
                moved_at = Instant::now();
                self.check_limits(moved_at)?;
            } else {
                let left = self.check_limits(moved_at)?;
                self.wire.wait(left.min(LOOK_EVERY))?;
            }
        }
        Ok(())
    }

    fn check_cancelled(&self) -> Result<(), Kind> {
        Ok(self.cancel.iter().try_for_each(CancelToken::check)?)
    }

    /// What is left until the next limit.
    fn check_limits(&self, moved_at: Instant) -> Result<Duration, Kind> {
        self.check_cancelled()?;
        let idle = self.idle_timeout.checked_sub(moved_at.elapsed());
        let idle = idle.ok_or(Kind::TimedOut {
            limit: TimeLimit::Idle,
            after: self.idle_timeout,
        })?;
        let Some(after) = self.total_timeout else {
            return Ok(idle);
        };
        let total = after.checked_sub(self.started.elapsed());
        Ok(total
            .ok_or(Kind::TimedOut {
                limit: TimeLimit::Total,
                after,
            })?
            .min(idle))
    }

    /// Waits for the end after the output ended.
    fn conclude(&mut self) -> Result<(), Kind> {
        self.advance(|s| s.stdout_ended() && s.stderr_ended)?;
        let since = Instant::now();
        while self.status.is_none() {
            self.status = self.wire.status()?;
            if self.status.is_none() {
                let left = self.check_limits(since)?;
                self.wire.wait(left.min(LOOK_EVERY))?;
            }
        }
        Ok(())
    }

    /// How it ended; an error when the stream is not known to be whole.
    fn verdict(&mut self) -> Result<Exit, Kind> {
        let status = self.status.clone().unwrap_or_default();
        let mut exit = Exit {
            code: status.code,
            signal: status.signal,
            stderr: self.stderr.text(),
        };
        if let Some(lost) = self.lost_by_ssh(&exit) {
            return Err(lost);
        }
        match self.stdout.ending() {
            Some(Ending::Marked(code)) => (exit.code, exit.signal) = (Some(*code), None),
            Some(Ending::Plain) => {}
            _ if exit.signal.is_some() => exit.code = None,
            Some(Ending::NeverStarted) => return Err(self.no_start_mark(&exit.status())),
            Some(Ending::Cut) | None => {
                let stderr = gist(&exit.stderr);
                return Err(Kind::Truncated {
                    status: exit.status(),
                    stderr,
                });
            }
        }
        Ok(exit)
    }

    fn no_start_mark(&mut self, status: &str) -> Kind {
        // Both: a shell may greet on the one and refuse on the other.
        let said = self.stdout.held();
        let mut said = said[..said.len().min(Collector::PART)].to_vec();
        said.push(b'\n');
        said.extend(self.stderr.text());
        let first = gist(&said);
        Kind::NoStartMark {
            status: status.to_owned(),
            first,
        }
    }

    fn run_to_end(&mut self) -> Result<Exit, Kind> {
        if !matches!(self.feed, Feed::Ended) {
            self.hang_up();
        }
        while !self.stdout_ended() {
            self.advance(|s| s.stdout_ended() || !s.stdout.ready().is_empty())?;
            self.stdout.consume(self.stdout.ready().len());
        }
        self.conclude()?;
        self.verdict()
    }

    fn hang_up(&mut self) {
        if matches!(self.feed, Feed::Held) {
            self.feed = Feed::Ending;
        }
    }

    fn look(&mut self) -> Result<(), Kind> {
        self.check_cancelled()?;
        self.wire.wait(Duration::ZERO)?;
        self.turn()?;
        if self.stdout_ended() && self.stderr_ended {
            self.conclude()?;
            let exit = self.verdict()?;
            return Err(Kind::Ended {
                status: exit.status(),
                stderr: gist(&exit.stderr),
            });
        }
        Ok(())
    }

    /// After an error nothing of this command is of use any more.
    fn fail<T>(&mut self, result: Result<T, Kind>) -> Result<T, RemoteError> {
        result.map_err(|kind| {
            self.wire.abandon();
            RemoteError {
                host: self.host.clone(),
                command: self.command.clone(),
                kind,
            }
        })
    }

    fn next_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, Kind> {
        self.advance(|s| s.stdout_ended() || !s.stdout.ready().is_empty())?;
        let ready = self.stdout.ready();
        let n = ready.len().min(buffer.len());
        buffer[..n].copy_from_slice(&ready[..n]);
        self.stdout.consume(n);
        let cut = matches!(self.stdout.ending(), Some(Ending::Cut | Ending::NeverStarted));
        if n == 0 && cut {
            // Never let a cut stream pass for the end of the file.
            self.conclude()?;
            self.verdict()?;
        }
        Ok(n)
    }
}

impl<W: Wire> Read for Running<W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let result = self.next_bytes(buffer);
        Ok(self.fail(result)?)
    }
}

impl<W: Wire> Process for Running<W> {
    fn finish(mut self: Box<Self>) -> Result<Exit, RemoteError> {
        let result = self.run_to_end();
        self.fail(result)
    }

    fn close_stdin(&mut self) -> Result<(), RemoteError> {
        self.hang_up();
        let result = self.turn().map(drop);
        self.fail(result)
    }

    fn check(&mut self) -> Result<(), RemoteError> {
        let result = self.look();
        self.fail(result)
    }

    fn received(&self) -> u64 {
        self.received
    }
}

impl<W: Wire> Drop for Running<W> {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.wire.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_error_keeps_its_first_and_last_part() {
        let mut c = Collector::default();
        for i in 0..100_000 {
            c.add(format!("line {i}\n").as_bytes());
        }
        let text = String::from_utf8(c.text()).unwrap();
        assert!(text.starts_with("line 0\n") && text.ends_with("line 99999\n"));
        assert!(text.contains(" bytes left out]") && text.len() < 2 * Collector::PART + 40);
    }

    #[test]
    fn short_standard_error_is_whole() {
        let mut c = Collector::default();
        let text: Vec<u8> = (0..Collector::PART * 2).map(|i| i as u8).collect();
        text.chunks(1000).for_each(|part| c.add(part));
        assert_eq!(c.text(), text);
    }
}
