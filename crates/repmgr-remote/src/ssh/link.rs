//! A libssh2 session that never blocks, and the socket it talks through.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use repmgr_types::{CancelToken, Cancelled};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown};
use ssh2::{BlockDirections, ErrorCode, MethodType, Session};

use super::socket::Proxy;
use crate::error::ConnectErrorKind as Kind;
use crate::local::wait_for;
use crate::process::LOOK_EVERY;
use crate::text::printable;

// Names as in libssh2.h.
const ERROR_SOCKET_NONE: i32 = -1;
const ERROR_SOCKET_SEND: i32 = -7;
const ERROR_SOCKET_DISCONNECT: i32 = -13;
const ERROR_EAGAIN: i32 = -37;
const ERROR_SOCKET_RECV: i32 = -43;

pub(super) struct Link {
    pub(super) session: Session,
    /// A duplicate of the session's: for `poll`, and to hang up before the session is freed.
    socket: OwnedFd,
    proxy: Option<Proxy>,
    cancel: CancelToken,
    limit: Duration,
}

/// Why a call of libssh2 did not come to its end.
#[derive(Debug)]
pub(super) enum Stop {
    Ssh(ssh2::Error),
    System(io::Error),
    TimedOut { stage: &'static str, after: Duration },
    Cancelled(Cancelled),
}

impl Stop {
    /// Whether the connection itself is gone.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Stop::Ssh(e) => is_lost(e),
            Stop::System(_) => true,
            Stop::TimedOut { .. } | Stop::Cancelled(_) => false,
        }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Stop::Ssh(e) => printable(e.message().as_bytes()),
            Stop::System(e) => e.to_string(),
            Stop::TimedOut { stage, after } => format!("timed out after {} s while {stage}", after.as_secs()),
            Stop::Cancelled(c) => c.to_string(),
        }
    }
}

fn is_lost(error: &ssh2::Error) -> bool {
    const LOST: [i32; 4] = [
        ERROR_SOCKET_NONE,
        ERROR_SOCKET_SEND,
        ERROR_SOCKET_DISCONNECT,
        ERROR_SOCKET_RECV,
    ];
    matches!(error.code(), ErrorCode::Session(code) if LOST.contains(&code))
}

pub(super) fn would_block(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(ERROR_EAGAIN)
}

impl Link {
    pub(super) fn new(
        socket: OwnedFd,
        proxy: Option<Proxy>,
        cancel: CancelToken,
        limit: Duration,
    ) -> Result<Self, Kind> {
        let reason = |e: &dyn std::fmt::Display| Kind::Handshake {
            reason: e.to_string(),
        };
        let mut session = Session::new().map_err(|e| reason(&e))?;
        let duplicate = socket.try_clone().map_err(|e| reason(&e))?;
        session.set_tcp_stream(socket);
        session.set_blocking(false);
        Ok(Self {
            session,
            socket: duplicate,
            proxy,
            cancel,
            limit,
        })
    }

    /// Repeats a call until it is done. Each has the connect timeout to itself.
    pub(super) fn drive<T>(
        &self,
        stage: &'static str,
        mut call: impl FnMut(&Session) -> Result<T, ssh2::Error>,
    ) -> Result<T, Stop> {
        self.drive_within(stage, self.limit, &self.cancel, &mut call)
    }

    pub(super) fn drive_within<T>(
        &self,
        stage: &'static str,
        limit: Duration,
        also: &CancelToken,
        mut call: impl FnMut(&Session) -> Result<T, ssh2::Error>,
    ) -> Result<T, Stop> {
        let started = Instant::now();
        loop {
            self.cancel
                .check()
                .and_then(|()| also.check())
                .map_err(Stop::Cancelled)?;
            match call(&self.session) {
                Err(e) if would_block(&e) => {}
                result => return result.map_err(Stop::Ssh),
            }
            let left = limit.checked_sub(started.elapsed());
            let left = left.ok_or(Stop::TimedOut { stage, after: limit })?;
            self.wait(left.min(LOOK_EVERY), false).map_err(Stop::System)?;
        }
    }

    pub(super) fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    /// What both sides agreed on in the key exchange, and the server's name for itself.
    pub(super) fn negotiated(&self) -> String {
        let agreed = [
            ("key exchange", MethodType::Kex),
            ("host key", MethodType::HostKey),
            ("cipher to the server", MethodType::CryptCs),
            ("and back", MethodType::CryptSc),
            ("MAC to the server", MethodType::MacCs),
            ("and back", MethodType::MacSc),
        ];
        let agreed =
            agreed.map(|(what, kind)| format!("{what} {}", self.session.methods(kind).unwrap_or("none")));
        let server = self.session.banner().unwrap_or("a server without name");
        format!("{} ({})", agreed.join(", "), printable(server.as_bytes()))
    }

    /// Waits for what libssh2 waits for; whether something can be read.
    pub(super) fn wait(&self, at_most: Duration, also_writable: bool) -> io::Result<bool> {
        let mut flags = match self.session.block_directions() {
            BlockDirections::None | BlockDirections::Inbound => PollFlags::IN,
            BlockDirections::Outbound => PollFlags::OUT,
            BlockDirections::Both => PollFlags::IN | PollFlags::OUT,
        };
        if also_writable {
            flags |= PollFlags::OUT;
        }
        self.acknowledge_at_once();
        Ok(self.poll(flags, at_most)?.contains(PollFlags::IN))
    }

    /// Lets the kernel acknowledge what comes next without delay.
    ///
    /// sshd's small answers wait for it (Nagle's algorithm is on until a session runs), and the kernel
    /// waits up to 40 ms for something to send along. It forgets the wish with the next packet sent.
    fn acknowledge_at_once(&self) {
        // A proxy's socket has no such option.
        #[cfg(target_os = "linux")]
        let _ = rustix::net::sockopt::set_tcp_quickack(&self.socket, true);
    }

    /// Whether a small packet can leave at once.
    pub(super) fn is_writable(&self) -> bool {
        self.poll(PollFlags::OUT, Duration::ZERO)
            .is_ok_and(|f| f.contains(PollFlags::OUT))
    }

    fn poll(&self, flags: PollFlags, at_most: Duration) -> io::Result<PollFlags> {
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), flags)];
        wait_for(&mut fds, at_most)?;
        Ok(fds[0].revents())
    }

    /// Whether the far side has hung up and nothing of it is left to read.
    pub(super) fn is_closed(&self) -> bool {
        match rustix::net::recv(&self.socket, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((read, _)) => read == 0,
            Err(e) => e != Errno::AGAIN,
        }
    }

    /// Whether the far side has hung up, perhaps with something left to read.
    pub(super) fn is_hung_up(&self) -> bool {
        #[cfg(target_os = "linux")]
        let flags = PollFlags::HUP | PollFlags::RDHUP;
        #[cfg(not(target_os = "linux"))]
        let flags = PollFlags::HUP;
        self.poll(flags, Duration::ZERO)
            .is_ok_and(|seen| !seen.is_empty())
    }

    /// Ends the connection now: libssh2 would rather wait for the far side when freed.
    pub(super) fn hang_up(&self) {
        // An error means that it is not connected any more.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    pub(super) fn handshake_error(&self, stop: Stop) -> Kind {
        let reason = || match self.proxy.as_ref().map(Proxy::said) {
            Some(said) if !said.is_empty() => format!("{} (the proxy said: {said})", stop.message()),
            _ => stop.message(),
        };
        match stop {
            Stop::TimedOut { stage, after } => Kind::TimedOut { stage, after },
            Stop::Cancelled(c) => Kind::Cancelled(c),
            ref lost if lost.is_lost() => Kind::HungUp { reason: reason() },
            _ => Kind::Handshake { reason: reason() },
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.hang_up();
    }
}
