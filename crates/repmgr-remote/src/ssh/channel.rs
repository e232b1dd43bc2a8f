//! One command at a time on one session.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use repmgr_types::CancelToken;
use ssh2::{Channel, ErrorCode};

use super::config::ClientConfig;
use super::link::{Link, Stop, would_block};
use crate::error::{RemoteErrorKind as Kind, TimeLimit};
use crate::frame::Frame;
use crate::process::{Flow, Running, Status, Wire};
use crate::text::printable;
use crate::{Connection, Process, RemoteError, ShellCommand, StartOptions};

/// The channel window libssh2 would choose itself.
const SMALL_WINDOW: u32 = 2 << 20;
/// The largest packet libssh2 takes.
const PACKET_SIZE: u32 = 32 * 1024;
/// A longer line does not fit into one packet of libssh2 with all that goes around it.
const MAX_LINE: usize = 32_000;

// Names as in libssh2.h.
const ERROR_CHANNEL_FAILURE: i32 = -21;
const ERROR_CHANNEL_REQUEST_DENIED: i32 = -22;

/// The shortest time that a question and its answer took so far.
#[derive(Default)]
pub(super) struct RoundTrip(Mutex<Option<Duration>>);

impl RoundTrip {
    pub(super) fn get(&self) -> Option<Duration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took(&self, time: Duration) {
        let mut shortest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *shortest = Some(shortest.map_or(time, |before| before.min(time)));
    }
}

pub(super) struct SshConnection {
    host: String,
    link: Link,
    /// Interval and number of unanswered signs of life, when wanted.
    alive: Option<(Duration, u32)>,
    heard: Instant,
    unanswered: u32,
    given_up: bool,
    /// Of the host, by all its connections.
    round_trip: Arc<RoundTrip>,
    /// As long as no channel was opened.
    guess: Duration,
}

impl SshConnection {
    pub(super) fn new(
        host: String,
        link: Link,
        config: &ClientConfig,
        round_trip: Arc<RoundTrip>,
        guess: Duration,
    ) -> Self {
        if config.server_alive.is_some() {
            // The interval is ours; libssh2 only must not hold a message back.
            link.session.set_keepalive(true, 1);
        }
        Self {
            host,
            link,
            alive: config.server_alive,
            heard: Instant::now(),
            unanswered: 0,
            given_up: false,
            round_trip,
            guess,
        }
    }

    /// Whether the far side has not hung up.
    pub(super) fn is_open(&self) -> bool {
        !self.given_up && !self.link.is_hung_up()
    }

    fn open(
        &mut self,
        command: &ShellCommand,
        frame: &Frame,
        options: &StartOptions,
    ) -> Result<Channel, Kind> {
        if command.has_nul() {
            return Err(Kind::NulByte);
        }
        if self.given_up {
            return Err(Kind::GivenUp);
        }
        let line = frame.wrap(&command.line());
        if line.len() > MAX_LINE {
            return Err(Kind::Refused {
                reason: format!("the line has {} bytes, too many for SSH", line.len()),
            });
        }
        let limit = options
            .total_timeout
            .map_or(options.idle_timeout, |t| t.min(options.idle_timeout));
        let cancel = &options.cancel;
        let window = |connection: &Self| match options.bulk {
            true => bulk_window(connection.round_trip.get().unwrap_or(connection.guess)),
            false => SMALL_WINDOW,
        };
        let guessed = window(self);
        let mut channel = self.open_channel_patiently(guessed, limit, cancel)?;
        if window(self) > guessed {
            // What accepted our connection is nearer than the server: a forwarded port, a load balancer. A server
            // that has one channel at a time for us leaves us the first.
            match self.open_channel(window(self), limit, cancel) {
                Err(Kind::Refused { reason }) => log::debug!("no channel with a larger window: {reason}"),
                opened => channel = opened?,
            }
        }
        self.link
            .drive_within("starting it", limit, cancel, |_| channel.exec(&line))
            .map_err(start_error)?;
        Ok(channel)
    }

    /// The server may not have done away with the earlier channel, and allow only one at a time (MaxSessions).
    fn open_channel_patiently(
        &mut self,
        window: u32,
        limit: Duration,
        cancel: &CancelToken,
    ) -> Result<Channel, Kind> {
        const PAUSES: [u64; 6] = [5, 20, 50, 100, 200, 500];
        for pause in PAUSES {
            match self.open_channel(window, limit, cancel) {
                Err(Kind::Refused { reason }) => log::debug!("{reason}; once more in {pause} ms"),
                opened => return opened,
            }
            sleep(Duration::from_millis(pause));
        }
        self.open_channel(window, limit, cancel)
    }

    fn open_channel(&mut self, window: u32, limit: Duration, cancel: &CancelToken) -> Result<Channel, Kind> {
        let asked = Instant::now();
        let opened = self
            .link
            .drive_within("opening a channel", limit, cancel, |session| {
                session.channel_open("session", window, PACKET_SIZE, None)
            });
        let channel = opened.map_err(start_error)?;
        self.round_trip.took(asked.elapsed());
        Ok(channel)
    }

    fn give_up(&mut self) {
        self.given_up = true;
        self.link.hang_up();
    }

    /// Sends a sign of life after enough silence; an error after too much.
    fn stay_alive(&mut self) -> Result<(), Kind> {
        let Some((interval, most)) = self.alive else {
            return Ok(());
        };
        if self.heard.elapsed() < interval {
            return Ok(());
        }
        if self.unanswered >= most {
            let reason = format!(
                "no answer to {most} signs of life, one each {} s",
                interval.as_secs()
            );
            return Err(Kind::ConnectionLost { reason });
        }
        // libssh2 keeps this packet on its stack, so it must leave in one go or not at all.
        if self.link.is_writable() {
            self.link.session.keepalive_send().map_err(|e| lost(&e.into()))?;
            self.unanswered += 1;
            self.heard = Instant::now();
        }
        Ok(())
    }
}

/// How much the server may have under way in a bulk stream, so that latency does not limit it.
///
/// No more than needed: sshd fills what it is given, and above 8 MiB that makes it slow (9.2 on
/// loopback: 300 MB/s with 2 to 8 MiB, 180 with 12, 150 with 32; it spends the time moving its
/// buffer). Far away the larger window is the lesser evil.
fn bulk_window(round_trip: Duration) -> u32 {
    const FAR: Duration = Duration::from_millis(50);
    if round_trip >= FAR {
        return 32 << 20;
    }
    // 400 MB/s is more than libssh2 can decrypt in one thread.
    let wanted = round_trip.as_micros() * 400;
    u32::try_from(wanted)
        .unwrap_or(u32::MAX)
        .clamp(SMALL_WINDOW, 8 << 20)
}

fn start_error(stop: Stop) -> Kind {
    match stop {
        Stop::TimedOut { after, .. } => Kind::TimedOut {
            limit: TimeLimit::Idle,
            after,
        },
        Stop::Cancelled(c) => Kind::Cancelled(c),
        Stop::Ssh(e)
            if [ERROR_CHANNEL_FAILURE, ERROR_CHANNEL_REQUEST_DENIED]
                .map(ErrorCode::Session)
                .contains(&e.code()) =>
        {
            Kind::Refused {
                reason: printable(e.message().as_bytes()),
            }
        }
        stop => Kind::ConnectionLost {
            reason: stop.message(),
        },
    }
}

fn lost(error: &io::Error) -> Kind {
    Kind::ConnectionLost {
        reason: printable(error.to_string().as_bytes()),
    }
}

impl Connection for SshConnection {
    fn host(&self) -> &str {
        &self.host
    }

    fn start<'c>(
        &'c mut self,
        command: &ShellCommand,
        options: StartOptions,
    ) -> Result<Box<dyn Process + 'c>, RemoteError> {
        let frame = Frame::new();
        let host = self.host.clone();
        match self.open(command, &frame, &options) {
            Ok(channel) => {
                let cancel = self.link.cancel().clone();
                let wire = ChannelWire {
                    connection: self,
                    channel,
                    want_to_write: false,
                };
                Ok(Box::new(Running::new(
                    wire,
                    &host,
                    command,
                    options,
                    cancel,
                    Some(frame),
                )))
            }
            Err(kind) => {
                // Half-made channels stay behind in libssh2, except when the server just said no.
                if !matches!(kind, Kind::NulByte | Kind::Refused { .. }) {
                    self.give_up();
                }
                Err(RemoteError {
                    host,
                    command: command.shown(),
                    kind,
                })
            }
        }
    }
}

struct ChannelWire<'c> {
    connection: &'c mut SshConnection,
    channel: Channel,
    /// Something of ours waits for room in the socket, unknown to libssh2.
    want_to_write: bool,
}

fn read_some(stream: &mut impl Read, at_end: impl Fn() -> bool, buffer: &mut [u8]) -> Result<Flow, Kind> {
    match stream.read(buffer) {
        Ok(0) if at_end() => Ok(Flow::End),
        // libssh2 read packets, none of them for this stream.
        Ok(0) => Ok(Flow::Blocked),
        Ok(n) => Ok(Flow::Bytes(n)),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(Flow::Blocked),
        Err(e) => Err(lost(&e)),
    }
}

/// The flow of a call that has no count of bytes.
fn done(result: Result<(), ssh2::Error>) -> Result<Flow, Kind> {
    match result {
        Ok(()) => Ok(Flow::End),
        Err(e) if would_block(&e) => Ok(Flow::Blocked),
        Err(e) => Err(lost(&e.into())),
    }
}

impl Wire for ChannelWire<'_> {
    fn read_stdout(&mut self, buffer: &mut [u8]) -> Result<Flow, Kind> {
        let channel = &self.channel;
        read_some(&mut channel.stream(0), || channel.eof(), buffer)
    }

    fn read_stderr(&mut self, buffer: &mut [u8]) -> Result<Flow, Kind> {
        let channel = &self.channel;
        read_some(&mut channel.stderr(), || channel.eof(), buffer)
    }

    fn write_stdin(&mut self, data: &[u8]) -> Result<Flow, Kind> {
        if self.channel.eof() {
            return Ok(Flow::End);
        }
        match self.channel.write(data) {
            Ok(0) => Ok(Flow::Blocked),
            Ok(n) => Ok(Flow::Bytes(n)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(Flow::Blocked),
            Err(e) => Err(lost(&e)),
        }
    }

    fn end_stdin(&mut self) -> Result<Flow, Kind> {
        // As with signs of life: the packet is on libssh2's stack.
        self.want_to_write = !self.connection.link.is_writable();
        if self.want_to_write {
            return Ok(Flow::Blocked);
        }
        match done(self.channel.send_eof()) {
            // The command is gone and cannot be told.
            Err(_) if self.channel.eof() => Ok(Flow::End),
            result => result,
        }
    }

    fn status(&mut self) -> Result<Option<Status>, Kind> {
        // Closing first would cut off a status that is still under way.
        if matches!(done(self.channel.wait_close())?, Flow::Blocked) {
            return Ok(None);
        }
        if matches!(done(self.channel.close())?, Flow::Blocked) {
            return Ok(None);
        }
        let signal = self
            .channel
            .exit_signal()
            .map_err(|e| lost(&e.into()))?
            .exit_signal;
        // Without any status from the server this is 0: the end mark tells.
        let code = self.channel.exit_status().map_err(|e| lost(&e.into()))?;
        Ok(Some(Status {
            code: Some(code).filter(|_| signal.is_none()),
            signal,
        }))
    }

    fn wait(&mut self, at_most: Duration) -> Result<(), Kind> {
        let connection = &mut *self.connection;
        if connection
            .link
            .wait(at_most, self.want_to_write)
            .map_err(|e| lost(&e))?
        {
            connection.heard = Instant::now();
            connection.unanswered = 0;
        }
        connection.stay_alive()
    }

    fn abandon(&mut self) {
        self.connection.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_with_the_way() {
        let window = |micros| bulk_window(Duration::from_micros(micros)) >> 10;
        assert_eq!([0, 200, 5_000].map(window), [2048; 3]);
        assert_eq!(
            [15_000, 21_000, 49_000, 50_000, 9_000_000].map(window),
            [5859, 8192, 8192, 32768, 32768]
        );
    }
}
