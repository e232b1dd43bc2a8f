//! The way to the server's SSH port: TCP, or a proxy's standard input and output.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use repmgr_types::CancelToken;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::config::{ClientConfig, Route};
use crate::error::ConnectErrorKind as Kind;
use crate::local::wait_for;
use crate::process::{Collector, LOOK_EVERY};
use crate::text::{printable, shorten};

/// A process that carries our bytes. Killed and reaped when dropped.
pub(super) struct Proxy {
    child: Child,
    stderr: Arc<Mutex<Collector>>,
    /// Reads `stderr` until its end.
    reader: Option<JoinHandle<()>>,
}

/// How long the last words of a proxy that has hung up are waited for; what it started may hold them open.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Proxy {
    /// What it printed on standard error, on one line. For one that has hung up: it may still be printing why.
    pub(super) fn said(&self) -> String {
        let until = Instant::now() + LAST_WORDS;
        let reads = |reader: &JoinHandle<()>| !reader.is_finished();
        while self.reader.as_ref().is_some_and(reads) && Instant::now() < until {
            sleep(Duration::from_millis(5));
        }
        let bytes = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).text();
        shorten(&printable(&bytes), 300)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself; then both fail or do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The socket, what serves it, and how long a direct connection took: one round trip.
type Opened = (OwnedFd, Option<Proxy>, Option<Duration>);

pub(super) fn open(config: &ClientConfig, cancel: &CancelToken) -> Result<Opened, Kind> {
    let (mut command, shown) = match &config.route {
        Route::Direct { bind } => {
            let (socket, took) = connect_patiently(config, bind.as_deref(), cancel)?;
            return Ok((socket, None, Some(took)));
        }
        Route::Proxy { line } => {
            let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
            let mut command = Command::new(shell);
            command.arg("-c").arg(format!("exec {line}"));
            (command, shorten(line, 200))
        }
        Route::Jump { words } => {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]);
            (command, words.join(" "))
        }
    };
    log::debug!("connecting through \"{shown}\"");
    spawn(&mut command)
        .map(|(socket, proxy)| (socket, Some(proxy), None))
        .map_err(|source| Kind::Proxy {
            command: shown,
            source,
        })
}

fn spawn(command: &mut Command) -> io::Result<(OwnedFd, Proxy)> {
    // libssh2 speaks to sockets only, not to pipes.
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    command
        .stdin(Stdio::from(theirs.try_clone()?))
        .stdout(Stdio::from(theirs))
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // The command still holds their end; it must be gone for the proxy's end to be noticed.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let stderr = Arc::new(Mutex::new(Collector::default()));
    let reader = child.stderr.take().map(|mut pipe| {
        let stderr = Arc::clone(&stderr);
        // Ends with the last holder of the pipe.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                stderr
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .add(&buffer[..n]);
            }
        })
    });
    let proxy = Proxy {
        child,
        stderr,
        reader,
    };
    Ok((ours, proxy))
}

/// As often as `ConnectionAttempts` says.
fn connect_patiently(
    config: &ClientConfig,
    bind: Option<&str>,
    cancel: &CancelToken,
) -> Result<(OwnedFd, Duration), Kind> {
    const PAUSE: Duration = Duration::from_secs(1);
    for _ in 1..config.connection_attempts {
        match connect(config, bind, cancel) {
            Err(Kind::Network { address, source }) => log::debug!("no connection to {address}: {source}"),
            result => return result,
        }
        let until = Instant::now() + PAUSE;
        while Instant::now() < until {
            cancel.check()?;
            sleep(LOOK_EVERY);
        }
    }
    connect(config, bind, cancel)
}

fn connect(
    config: &ClientConfig,
    bind: Option<&str>,
    cancel: &CancelToken,
) -> Result<(OwnedFd, Duration), Kind> {
    let addresses = lookup(&config.host, config.port, config.connect_timeout, cancel)?;
    let wanted = |a: &SocketAddr| match config.address_family.as_str() {
        "inet" => a.is_ipv4(),
        "inet6" => a.is_ipv6(),
        _ => true,
    };
    let mut last = Kind::Resolve {
        name: config.host.clone(),
        source: io::Error::new(io::ErrorKind::NotFound, "no address of the wanted family"),
    };
    for address in addresses.into_iter().filter(wanted) {
        let from = match bind {
            Some(name) => lookup(name, 0, config.connect_timeout, cancel)?
                .into_iter()
                .find(|b| b.is_ipv4() == address.is_ipv4()),
            None => None,
        };
        log::debug!("connecting to {address}");
        let started = Instant::now();
        match connect_one(address, from, config, cancel)? {
            Ok(socket) => return Ok((socket, started.elapsed())),
            Err(source) => {
                last = Kind::Network {
                    address: address.to_string(),
                    source,
                }
            }
        }
    }
    Err(last)
}

/// The resolver of the system cannot be interrupted, so it works in a thread that is left behind.
fn lookup(name: &str, port: u16, limit: Duration, cancel: &CancelToken) -> Result<Vec<SocketAddr>, Kind> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (sender, receiver) = mpsc::channel();
    let owned = name.to_owned();
    thread::spawn(move || {
        let result = (owned.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Nobody listens any more after a timeout.
        let _ = sender.send(result);
    });
    let started = Instant::now();
    loop {
        cancel.check()?;
        match receiver.recv_timeout(LOOK_EVERY) {
            Ok(result) => {
                return result.map_err(|source| Kind::Resolve {
                    name: name.to_owned(),
                    source,
                });
            }
            Err(_) if started.elapsed() < limit => {}
            Err(_) => {
                return Err(Kind::TimedOut {
                    stage: "resolving the host name",
                    after: limit,
                });
            }
        }
    }
}

/// The inner error lets the next address have a try.
fn connect_one(
    address: SocketAddr,
    from: Option<SocketAddr>,
    config: &ClientConfig,
    cancel: &CancelToken,
) -> Result<io::Result<OwnedFd>, Kind> {
    let socket = match start_connecting(address, from) {
        Ok(socket) => socket,
        Err(e) => return Ok(Err(e.into())),
    };
    let started = Instant::now();
    loop {
        cancel.check()?;
        let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)];
        if let Err(e) = wait_for(&mut fds, LOOK_EVERY) {
            return Ok(Err(e));
        }
        if !fds[0].revents().is_empty() {
            break;
        }
        if started.elapsed() >= config.connect_timeout {
            return Ok(Err(Errno::TIMEDOUT.into()));
        }
    }
    let result = sockopt::socket_error(&socket).and_then(|r| r).and_then(|()| {
        sockopt::set_tcp_nodelay(&socket, true)?;
        sockopt::set_socket_keepalive(&socket, config.tcp_keepalive)?;
        // A peer that vanished is noticed after a minute and a half, not after two hours.
        sockopt::set_tcp_keepidle(&socket, Duration::from_secs(30))?;
        sockopt::set_tcp_keepintvl(&socket, Duration::from_secs(10))?;
        sockopt::set_tcp_keepcnt(&socket, 6)
    });
    Ok(result.map(|()| socket).map_err(io::Error::from))
}

fn start_connecting(address: SocketAddr, from: Option<SocketAddr>) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if let Some(from) = from {
        rustix::net::bind(&socket, &from)?;
    }
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(e) => Err(e),
    }
}
