//! An sshd of our own on a loopback port, and the client configuration that reaches it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::cache;
use crate::run::{check, is_alive, poll, signal_family, with_log};
use crate::scratch::Scratch;
use crate::tools::{self, PATH};

/// The names under which the client configuration knows the one sshd.
pub const HOST_ALIASES: [&str; 2] = ["barmansrv", "primary"];

const LIMIT: Duration = Duration::from_secs(30);

/// sshd as the lab's account: only that account can log in, with the lab's key.
///
/// `ssh` in the scratch directory's `bin` reads the lab's configuration as if it were `~/.ssh/config`, so
/// `ssh barmansrv` works for every child of the lab. Dropping stops it.
#[derive(Debug)]
pub struct Sshd {
    scratch: Arc<Scratch>,
    port: u16,
    /// The text of the client configuration.
    hosts: Mutex<String>,
}

impl Sshd {
    /// Makes keys and configuration, and starts it on a free port.
    ///
    /// # Errors
    /// If a program is missing or sshd does not accept a login.
    pub fn start(scratch: &Arc<Scratch>) -> Result<Self> {
        let sshd = Self {
            scratch: Arc::clone(scratch),
            port: cache::free_port()?,
            hosts: Mutex::default(),
        };
        sshd.make_keys()?;
        sshd.write_configuration()?;
        sshd.launch()?;
        Ok(sshd)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What would be the user's `~/.ssh/config`.
    pub fn client_config(&self) -> PathBuf {
        self.file("config")
    }

    /// The known-hosts file named in it, with three key types of this host.
    pub fn known_hosts(&self) -> PathBuf {
        self.file("known_hosts")
    }

    /// The private key that may log in.
    pub fn client_key(&self) -> PathBuf {
        self.file("id_ed25519")
    }

    /// The server's configuration; changes need a [`restart`](Self::restart).
    pub fn server_config(&self) -> PathBuf {
        self.file("sshd_config")
    }

    /// Where clients that share a connection have their sockets.
    pub(crate) fn control_dir(&self) -> PathBuf {
        self.scratch.join("run")
    }

    /// `ssh ALIAS …` as a child of the lab would run it.
    pub fn ssh(&self, alias: &str, remote: &str) -> Command {
        let mut command = self.scratch.command(self.scratch.join("bin/ssh"));
        command.args([alias, remote]);
        command
    }

    /// Ends it and all its sessions at once, as a crash of the host would.
    ///
    /// # Errors
    /// If a process cannot be signalled.
    pub fn kill(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// Ends it, with the programs its sessions run, by SIGTERM.
    ///
    /// # Errors
    /// As [`kill`](Self::kill), or if it does not end.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::TERM)
    }

    /// Stops it if it runs and starts it again on the same port.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start`](Self::start).
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.launch()
    }

    /// Sets an environment variable for all sessions; restarts the server. A second value changes nothing.
    ///
    /// # Errors
    /// If the configuration cannot be written, or as [`restart`](Self::restart).
    pub fn set_env(&self, name: &str, value: &str) -> Result<()> {
        let config = std::fs::read_to_string(self.server_config())?;
        let set = format!("SetEnv {name}={value} ");
        std::fs::write(self.server_config(), config.replacen("SetEnv ", &set, 1))?;
        self.restart()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.join("ssh").join(name)
    }

    fn make_keys(&self) -> Result<()> {
        self.scratch.dir("ssh")?;
        let mut known = String::new();
        for (kind, bits) in [("ed25519", "256"), ("ecdsa", "256"), ("rsa", "2048")] {
            self.keygen(&format!("host_{kind}"), kind, bits)?;
            known += &format!(
                "[127.0.0.1]:{} {}",
                self.port,
                self.public_key(&format!("host_{kind}"))?
            );
        }
        self.scratch.write("ssh/known_hosts", &known, 0o600)?;
        self.keygen("id_ed25519", "ed25519", "256")?;
        self.scratch
            .write("ssh/authorized_keys", &self.public_key("id_ed25519")?, 0o600)?;
        Ok(())
    }

    fn keygen(&self, name: &str, kind: &str, bits: &str) -> Result<()> {
        let mut keygen = self.scratch.command("ssh-keygen");
        keygen
            .args(["-q", "-t", kind, "-b", bits, "-N", "", "-C", "repmgr-lab", "-f"])
            .arg(self.file(name));
        check(&mut keygen, LIMIT).map(drop)
    }

    fn public_key(&self, name: &str) -> Result<String> {
        let path = self.file(&format!("{name}.pub"));
        std::fs::read_to_string(&path).with_context(|| format!("no \"{}\"", path.display()))
    }

    fn write_configuration(&self) -> Result<()> {
        let (dir, port) = (self.scratch.join("ssh"), self.port);
        let dir = dir.display();
        // MaxSessions is per connection; its default of 10 is less than what a parallel client may open.
        let server = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/host_ed25519\nHostKey {dir}/host_ecdsa\n\
             HostKey {dir}/host_rsa\nAuthorizedKeysFile {dir}/authorized_keys\nPidFile {dir}/sshd.pid\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\n\
             MaxSessions 50\nMaxStartups 100\nPermitUserRC no\nSetEnv {} PATH={PATH} HOME={}\nSubsystem sftp internal-sftp\n",
            self.scratch.mark(),
            self.scratch.join("home").display()
        );
        self.scratch.write("ssh/sshd_config", &server, 0o600)?;
        self.add_host(&HOST_ALIASES.join(" "), &[])?;
        self.scratch
            .script("ssh", &format!("exec /usr/bin/ssh -F {dir}/config \"$@\""))?;
        Ok(())
    }

    /// Adds a section to the client configuration for further names of this server; `settings` replace
    /// its own.
    ///
    /// # Errors
    /// If a name is taken, for ssh would go by the older section, or the file cannot be written.
    pub fn add_host(&self, names: &str, settings: &[(&str, &str)]) -> Result<()> {
        let (dir, port, user) = (self.scratch.join("ssh"), self.port, &self.scratch.account().name);
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names.split(' ') {
            let mut taken = hosts.lines().filter_map(|line| line.strip_prefix("Host "));
            ensure!(
                !taken.any(|names| names.split(' ').any(|taken| taken == name)),
                "there is a host \"{name}\" already"
            );
        }
        writeln!(hosts, "Host {names}")?;
        let own = [
            ("HostName", "127.0.0.1".to_owned()),
            ("Port", port.to_string()),
            ("User", user.clone()),
            ("IdentityFile", format!("{}/id_ed25519", dir.display())),
            ("IdentitiesOnly", "yes".to_owned()),
            ("IdentityAgent", "none".to_owned()),
            ("UserKnownHostsFile", format!("{}/known_hosts", dir.display())),
            ("GlobalKnownHostsFile", "/dev/null".to_owned()),
            ("BatchMode", "yes".to_owned()),
        ];
        for (key, value) in &own {
            // Not all are decided by the first: identity files add up.
            if settings.iter().all(|(given, _)| given != key) {
                writeln!(hosts, "  {key} {value}")?;
            }
        }
        for (key, value) in settings {
            writeln!(hosts, "  {key} {value}")?;
        }
        self.scratch.write("ssh/config", &hosts, 0o600).map(drop)
    }

    fn launch(&self) -> Result<()> {
        let log = self.scratch.join("log/sshd.log");
        let program = tools::find("sshd").context("no program \"sshd\" (package openssh-server)")?;
        // By its whole path: it executes itself anew for each connection.
        let mut sshd = self.scratch.command(program);
        with_log(
            check(
                sshd.arg("-f").arg(self.server_config()).arg("-E").arg(&log),
                LIMIT,
            ),
            &log,
        )?;
        let mut login = Ok(String::new());
        let accepted = poll(Duration::from_secs(10), || {
            login = check(&mut self.ssh(HOST_ALIASES[0], "true"), LIMIT);
            Ok(login.is_ok())
        })?;
        if accepted {
            Ok(())
        } else {
            with_log(login.map(drop), &log).context("sshd lets nobody in")
        }
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let Ok(pid) = std::fs::read_to_string(self.file("sshd.pid")) else {
            return Ok(());
        };
        let pid = pid
            .trim()
            .parse()
            .with_context(|| format!("sshd.pid holds \"{pid}\""))?;
        signal_family(pid, signal)?;
        let gone = poll(LIMIT, || Ok(!is_alive(pid)))?;
        ensure!(gone, "sshd (process {pid}) does not end");
        match std::fs::remove_file(self.file("sshd.pid")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if !self.scratch.is_detached() {
            // What is left the guard ends.
            let _ = self.stop();
        }
    }
}
