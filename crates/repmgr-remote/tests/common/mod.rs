//! A real sshd on a free loopback port, with keys and client configuration in a scratch directory.
//! Works as root and as an ordinary user; needs openssh-server and openssh-client.

// Each test file is a program of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use repmgr_remote::{Connection, Host, SshHost, SshOptions};
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";

pub struct Server {
    dir: TempDir,
    pub port: u16,
    child: Child,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with("", &["ed25519"])
    }

    /// `extra` lines for sshd_config come first, where they win; one host key of each type.
    pub fn start_with(extra: &str, host_keys: &[&str]) -> Self {
        assert!(
            Path::new(SSHD).exists(),
            "{SSHD} is missing: install the package openssh-server"
        );
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut config = format!("{extra}\n");
        for kind in host_keys {
            keygen(&["-t", kind, "-N", "", "-f", &path(&format!("host_{kind}"))]);
            config += &format!("HostKey {}\n", path(&format!("host_{kind}")));
        }
        keygen(&["-t", "ed25519", "-N", "", "-f", &path("id")]);
        fs::copy(path("id.pub"), path("authorized_keys")).unwrap();
        if rustix::process::getuid().is_root() {
            // The service makes it at boot; without it a root-started sshd refuses to run.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = free_port();
        config += &format!(
            "ListenAddress 127.0.0.1\nPort {port}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin yes\nMaxStartups 100\n",
            path("authorized_keys")
        );
        fs::write(path("sshd_config"), config).unwrap();
        let child = launch(dir.path());
        let mut server = Self { dir, port, child };
        server.wait_until_up();
        server.trust(host_keys[0]);
        server.configure("");
        server
    }

    /// Again, by what its configuration holds now.
    pub fn restarted(mut self) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = launch(self.dir.path());
        self.wait_until_up();
        self
    }

    fn wait_until_up(&mut self) {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.try_wait().unwrap();
            let log = fs::read_to_string(self.path("sshd.log")).unwrap();
            assert!(
                ended.is_none() && started.elapsed() < Duration::from_secs(20),
                "sshd: {log}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// "type base64" of a public key file.
    pub fn public_key(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Makes this the only key known for the server.
    pub fn trust(&self, kind: &str) {
        self.known_hosts(&format!(
            "[127.0.0.1]:{} {}\n",
            self.port,
            self.public_key(&format!("host_{kind}"))
        ));
    }

    pub fn known_hosts(&self, text: &str) {
        fs::write(self.path("known_hosts"), text).unwrap();
    }

    /// Writes the client's configuration; lines in `extra` win.
    pub fn configure(&self, extra: &str) {
        let text = format!(
            "{extra}\nHost srv\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n\
             \x20 IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {}\n\
             \x20 GlobalKnownHostsFile /dev/null\n",
            self.port,
            user(),
            self.path("id").display(),
            self.path("known_hosts").display()
        );
        fs::write(self.path("config"), text).unwrap();
    }

    pub fn options(&self) -> SshOptions {
        SshOptions {
            ssh_options: format!("-F '{}'", self.path("config").display()),
            connect_timeout: Duration::from_secs(20),
            ..Default::default()
        }
    }

    pub fn host(&self) -> SshHost {
        SshHost::new("srv", self.options()).unwrap()
    }

    pub fn host_with(&self, ssh_options: &str) -> SshHost {
        let mut options = self.options();
        options.ssh_options += " ";
        options.ssh_options += ssh_options;
        SshHost::new("srv", options).unwrap()
    }

    pub fn connect(&self) -> Box<dyn Connection> {
        match self.host().connect() {
            Ok(connection) => connection,
            Err(e) => panic!(
                "{e}\nsshd: {}",
                fs::read_to_string(self.path("sshd.log")).unwrap()
            ),
        }
    }
}

fn launch(dir: &Path) -> Child {
    let log = fs::File::create(dir.join("sshd.log")).unwrap();
    let mut sshd = Command::new(SSHD);
    sshd.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config"));
    sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    sshd.spawn().unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn user() -> String {
    let out = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

pub fn keygen(args: &[&str]) {
    let out = Command::new("ssh-keygen").arg("-q").args(args).output();
    let out = out.expect("ssh-keygen is missing: install the package openssh-client");
    assert!(out.status.success(), "{out:?}");
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Polls until `what` holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "never happened: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A TCP relay in front of the server that can fall silent or hang up.
pub struct Relay {
    port: u16,
    mode: Arc<AtomicU8>,
    accepted: Arc<AtomicUsize>,
}

const FORWARD: u8 = 0;
const SILENT: u8 = 1;
const CUT: u8 = 2;

impl Relay {
    /// In front of `server`, whose only way it is for clients from now on; lines in `extra` are added.
    pub fn before(server: &Server, extra: &str) -> Self {
        let relay = Self::start(server.port);
        server.configure(&format!(
            "Host srv\n  Port {}\n  HostKeyAlias k\n{extra}",
            relay.port
        ));
        server.known_hosts(&format!("k {}\n", server.public_key("host_ed25519")));
        relay
    }

    fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU8::new(FORWARD));
        let shared = Arc::clone(&mode);
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        // The threads end with the test program.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(("127.0.0.1", target)).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let mode = Arc::clone(&shared);
                    std::thread::spawn(move || pass_on(from, to, &mode));
                }
            }
        });
        Self { port, mode, accepted }
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn fall_silent(&self) {
        self.mode.store(SILENT, Ordering::SeqCst);
    }

    pub fn cut(&self) {
        self.mode.store(CUT, Ordering::SeqCst);
    }

    /// Every connection so far is cut, the next are not.
    pub fn cut_once(&self) {
        self.cut();
        // Each looks every 50 ms.
        std::thread::sleep(Duration::from_millis(200));
        self.mode.store(FORWARD, Ordering::SeqCst);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8) {
    let mut buffer = [0; 16 * 1024];
    from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    loop {
        match mode.load(Ordering::SeqCst) {
            FORWARD => {}
            SILENT => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            _ => break,
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
