//! Does the agent answer? libssh2 talks to it on a blocking socket, without a limit and deaf to
//! cancellation, so this is found out on a socket of our own first.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use repmgr_types::{CancelToken, Cancelled};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::local::wait_for;
use crate::process::LOOK_EVERY;

/// Long enough for an agent that must look at a smart card first.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
// Names as in the protocol (draft-ietf-sshm-ssh-agent).
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
/// libssh2 takes no longer answer.
const LONGEST: usize = 256 * 1024;

/// Asks for the keys once; the inner error tells why the agent is of no use.
pub(super) fn probe(path: &Path, limit: Duration, cancel: &CancelToken) -> Result<io::Result<()>, Cancelled> {
    let result = Line::connect(path, limit, cancel).and_then(Line::ask);
    cancel.check()?;
    Ok(result)
}

struct Line<'c> {
    socket: UnixStream,
    started: Instant,
    limit: Duration,
    cancel: &'c CancelToken,
}

impl<'c> Line<'c> {
    fn connect(path: &Path, limit: Duration, cancel: &'c CancelToken) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let line = Self {
            socket: UnixStream::from(socket),
            started: Instant::now(),
            limit,
            cancel,
        };
        loop {
            match rustix::net::connect(&line.socket, &address) {
                Ok(()) | Err(Errno::INPROGRESS) => return Ok(line),
                // Too many wait for it already; there is nothing to poll for.
                Err(Errno::AGAIN) => sleep(line.left()?.min(LOOK_EVERY)),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn ask(mut self) -> io::Result<()> {
        self.write_all(&[0, 0, 0, 1, REQUEST_IDENTITIES])?;
        let mut head = [0; 5];
        self.read_exact(&mut head)?;
        let [length @ .., kind] = head;
        if kind != IDENTITIES_ANSWER {
            return Err(io::Error::other(format!(
                "it does not list its keys: answer {kind}"
            )));
        }
        // An agent that stops halfway would hold libssh2 as well.
        match usize::try_from(u32::from_be_bytes(length)) {
            Ok(length @ 1..=LONGEST) => self.read_exact(&mut vec![0; length - 1]),
            _ => Err(io::Error::other("its answer has an impossible length")),
        }
    }

    fn left(&self) -> io::Result<Duration> {
        self.cancel.check().map_err(io::Error::other)?;
        let left = self.limit.checked_sub(self.started.elapsed());
        left.ok_or_else(|| {
            let message = format!("no answer within {} s", self.limit.as_secs());
            io::Error::new(ErrorKind::TimedOut, message)
        })
    }

    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        loop {
            let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), flags)];
            wait_for(&mut fds, self.left()?.min(LOOK_EVERY))?;
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
        }
    }
}

impl Read for Line<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::IN)?;
        match self.socket.read(buffer) {
            Ok(0) if !buffer.is_empty() => Err(io::Error::new(ErrorKind::UnexpectedEof, "it hung up")),
            result => result,
        }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.wait(PollFlags::OUT)?;
        self.socket.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// What comes of an agent that sends `parts`, each a little later, and hangs up or just falls silent.
    fn probed(parts: &'static [&'static [u8]], hangs_up: bool) -> io::Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 5];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(request, [0, 0, 0, 1, 11]);
            for part in parts {
                stream.write_all(part).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
            if !hangs_up {
                // Until the other side has had enough.
                let _ = stream.read(&mut request);
            }
        });
        probe(&path, Duration::from_secs(1), &CancelToken::new()).unwrap()
    }

    #[test]
    fn only_an_agent_that_lists_its_keys_is_of_use() {
        probed(&[&[0, 0, 0, 5, 12, 0, 0, 0, 0]], false).unwrap();
        probed(&[&[0, 0], &[0, 5, 12, 0], &[0, 0, 0]], true).unwrap();
        type Case = (&'static [&'static [u8]], bool, &'static str);
        let useless: [Case; 7] = [
            (&[], false, "no answer within 1 s"),
            (&[&[0, 0, 0, 5, 12, 0]], false, "no answer"),
            (&[], true, "hung up"),
            (&[&[0, 0, 0, 5, 12, 0]], true, "hung up"),
            (&[&[0, 0, 0, 1, 5]], false, "answer 5"),
            (&[&[0, 0, 0, 0, 12]], false, "impossible length"),
            (&[&[255, 0, 0, 0, 12]], false, "impossible length"),
        ];
        for (parts, hangs_up, says) in useless {
            let error = probed(parts, hangs_up).unwrap_err().to_string();
            assert!(error.contains(says), "{parts:?}: {error}");
        }
    }

    #[test]
    fn an_agent_that_does_not_even_accept_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        let cancel = CancelToken::new();
        let error = probe(&path, Duration::from_millis(300), &cancel)
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        cancel.cancel();
        assert!(probe(&path, Duration::from_secs(60), &cancel).is_err());
    }
}
