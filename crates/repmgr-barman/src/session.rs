use std::fmt;
use std::time::Duration;

use repmgr_remote::{
    Connection, Host, Output, RemoteError, RemoteErrorKind, ShellCommand, StartOptions, one_line, run,
};

use crate::command::BarmanCommand;
use crate::complaint::{Meaning, complaint, meaning};
use crate::error::BarmanError;
use crate::info::shown;
use crate::version::BarmanVersion;

/// The longest a call of Barman may take, unless [`Barman::set_call_timeout`] says otherwise. Barman may
/// start slowly and wait for a lock, but also for a primary that never answers.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// More than any answer asked for here.
const MAX_OUTPUT: usize = 4 << 20;
/// Where calls only make an error clearer, they must not take long.
const SIDE_CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// With backup_compression (Barman 3.0 and later), bandwidth_limit or primary_conninfo (3.12 and later)
/// every command first connects to the primary, once or twice, and works without it. libpq takes this
/// limit in seconds from the environment where the connection string sets none, or it waits for minutes.
const PRIMARY_CONNECT_TIMEOUT: &str = "3";

/// How to call Barman for one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// The section of Barman's configuration.
    pub server: String,
    /// How Barman is called on its host.
    pub command: BarmanCommand,
    /// Barman's configuration file there, when it is not where Barman looks.
    pub config: Option<String>,
}

impl ServerAddress {
    /// `barman` on the PATH, with its usual configuration.
    pub fn new(server: &str) -> Self {
        Self {
            server: server.to_owned(),
            command: BarmanCommand::default(),
            config: None,
        }
    }

    /// Barman with its global options, for further words.
    pub(crate) fn words(&self, words: &[&str]) -> Vec<String> {
        let mut all = self.command.words().to_vec();
        if let Some(config) = &self.config {
            all.extend(["-c".to_owned(), config.clone()]);
        }
        all.extend(words.iter().map(|word| (*word).to_owned()));
        all
    }

    /// The command line of Barman with its global options and `words`.
    pub fn call(&self, words: &[&str]) -> ShellCommand {
        let words = self.words(words);
        ShellCommand::new(&words[0]).args(&words[1..])
    }
}

/// A session with Barman on its host, for one server.
///
/// Only calls that change nothing there, and none that asks the primary when Barman can do without.
/// After [`BarmanError::TimedOut`] the connection is given up; connect again.
pub struct Barman {
    pub(crate) connection: Box<dyn Connection>,
    pub(crate) address: ServerAddress,
    pub(crate) call_timeout: Duration,
}

impl fmt::Debug for Barman {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barman")
            .field("host", &self.host())
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Barman {
    /// Logs in. Whether Barman and the server exist turns out with the first question.
    ///
    /// # Errors
    /// [`BarmanError::Connect`], or [`BarmanError::BadWord`] for the server.
    pub fn connect(host: &dyn Host, address: ServerAddress) -> Result<Self, BarmanError> {
        check_word("Barman server", &address.server)?;
        Ok(Self {
            connection: host.connect()?,
            address,
            call_timeout: CALL_TIMEOUT,
        })
    }

    /// Asks for Barman's version there, which takes as long as any other call of Barman: 0.2 s and more.
    ///
    /// # Errors
    /// As for any call.
    pub fn version(&mut self) -> Result<BarmanVersion, BarmanError> {
        let words = self.address.command.words();
        let command = ShellCommand::new(&words[0]).args(&words[1..]).arg("--version");
        let output = self.run(&command, &command, self.call_timeout)?;
        // With Python 2 it goes to standard error.
        let (out, err) = (String::from_utf8_lossy(&output.stdout), output.exit.stderr_text());
        if !output.exit.success() {
            return Err(self.failed(&command, output.exit.code, &output.exit.status(), &err));
        }
        let version = BarmanVersion::read(&out).or_else(|| BarmanVersion::read(&err));
        version.ok_or_else(|| {
            let what = if output.stdout.trim_ascii().is_empty() {
                err.as_bytes()
            } else {
                &output.stdout
            };
            self.unexpected(&command, format!("no version in \"{}\"", shown(what)))
        })
    }

    /// The name of the host this leads to.
    pub fn host(&self) -> &str {
        self.connection.host()
    }

    /// How Barman is called.
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// The connection, for further commands in the same session.
    pub fn connection(&mut self) -> &mut dyn Connection {
        &mut *self.connection
    }

    /// Logs in once more, for when the session is gone.
    ///
    /// # Errors
    /// [`BarmanError::Connect`].
    pub fn reconnect(&mut self, host: &dyn Host) -> Result<(), BarmanError> {
        self.connection = host.connect()?;
        Ok(())
    }

    /// Another limit than [`CALL_TIMEOUT`] for each call.
    pub fn set_call_timeout(&mut self, limit: Duration) {
        self.call_timeout = limit;
    }

    pub(crate) fn command(&self, words: &[&str]) -> ShellCommand {
        self.address.call(words)
    }

    /// Runs a Barman command that must succeed; what it prints.
    pub(crate) fn call(&mut self, command: &ShellCommand) -> Result<String, BarmanError> {
        self.call_within(command, self.call_timeout)
    }

    fn call_within(&mut self, command: &ShellCommand, limit: Duration) -> Result<String, BarmanError> {
        let output = self.run(command, command, limit)?;
        if !output.exit.success() {
            let message = output.exit.stderr_text();
            return Err(self.failed(command, output.exit.code, &output.exit.status(), &message));
        }
        let text = String::from_utf8(output.stdout);
        let text = text.map_err(|_| self.unexpected(command, "it is not UTF-8".to_owned()))?;
        self.refuse_inactive(text.as_bytes())?;
        Ok(text)
    }

    /// Up to 3.16 Barman says that a server is inactive on standard output and exits with 0.
    pub(crate) fn refuse_inactive(&self, output: &[u8]) -> Result<(), BarmanError> {
        if output.starts_with(b"Skipping inactive server") {
            return Err(BarmanError::Inactive {
                host: self.host().to_owned(),
                server: self.address.server.clone(),
            });
        }
        Ok(())
    }

    /// Runs a script within the limit for Barman's commands; errors show `instead` of its text.
    pub(crate) fn run_script(
        &mut self,
        script: &ShellCommand,
        instead: &ShellCommand,
    ) -> Result<Output, BarmanError> {
        self.run(script, instead, self.call_timeout)
    }

    pub(crate) fn run(
        &mut self,
        command: &ShellCommand,
        named: &ShellCommand,
        limit: Duration,
    ) -> Result<Output, BarmanError> {
        let options = StartOptions {
            idle_timeout: limit,
            total_timeout: Some(limit),
            ..Default::default()
        };
        // Messages of the shell and its tools in one language.
        let command = command
            .clone()
            .env("LC_ALL", "C")
            .env("PGCONNECT_TIMEOUT", PRIMARY_CONNECT_TIMEOUT);
        run(&mut *self.connection, &command, options, MAX_OUTPUT).map_err(|e| match e.kind {
            RemoteErrorKind::TimedOut { after, .. } => BarmanError::TimedOut {
                host: e.host,
                call: named.shown(),
                after,
            },
            kind => BarmanError::Remote(RemoteError {
                host: e.host,
                command: named.shown(),
                kind,
            }),
        })
    }

    pub(crate) fn unexpected(&self, command: &ShellCommand, what: String) -> BarmanError {
        BarmanError::Unexpected {
            host: self.host().to_owned(),
            call: command.shown(),
            what,
        }
    }

    /// What a failed call means, from its exit code and what it said on standard error.
    pub(crate) fn failed(
        &mut self,
        command: &ShellCommand,
        code: Option<i32>,
        status: &str,
        stderr: &str,
    ) -> BarmanError {
        let (host, server) = (self.host().to_owned(), self.address.server.clone());
        let message = complaint(stderr);
        match meaning(code, &message) {
            Meaning::NoCommand => BarmanError::CommandNotFound {
                host,
                command: self.address.command.to_string(),
                message,
            },
            Meaning::WrongUser => BarmanError::WrongUser { host, message },
            Meaning::Configuration => BarmanError::Configuration {
                host,
                file: self.address.config.clone(),
                message,
            },
            Meaning::UnknownServer => {
                let known = self.side_call(&["list-server", "--minimal"]);
                BarmanError::UnknownServer { host, server, known }
            }
            Meaning::Inactive => BarmanError::Inactive { host, server },
            Meaning::Other => BarmanError::Failed {
                host,
                call: command.shown(),
                status: status.to_owned(),
                message,
            },
        }
    }

    /// The lines a command prints that only makes an error clearer; none if it fails.
    pub(crate) fn side_call(&mut self, words: &[&str]) -> Vec<String> {
        let command = self.command(words);
        let limit = self.call_timeout.min(SIDE_CALL_TIMEOUT);
        match self.call_within_quietly(&command, limit) {
            Ok(text) => text
                .lines()
                .map(|line| one_line(line.trim()))
                .filter(|line| !line.is_empty())
                .collect(),
            Err(e) => {
                log::debug!("{e}");
                Vec::new()
            }
        }
    }

    /// As `call_within`, but without making errors clearer, which would call again.
    fn call_within_quietly(
        &mut self,
        command: &ShellCommand,
        limit: Duration,
    ) -> Result<String, BarmanError> {
        let output = self.run(command, command, limit)?;
        if !output.exit.success() {
            return Err(self.unexpected(command, output.exit.status()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Refuses words that the shell would pass on, but Barman would take for an option or for nothing.
pub(crate) fn check_word(what: &'static str, word: &str) -> Result<(), BarmanError> {
    let reason = if word.trim().is_empty() {
        "it is empty"
    } else if word.starts_with('-') {
        "it begins with \"-\""
    } else if word.chars().any(char::is_control) {
        "it holds a control character"
    } else {
        return Ok(());
    };
    Err(BarmanError::BadWord {
        what,
        word: word.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use repmgr_remote::LocalHost;

    use super::*;

    #[test]
    fn words_that_barman_would_misread_are_refused() {
        for bad in ["", "  ", "-c", "a\nb", "a\0"] {
            assert!(check_word("Barman server", bad).is_err(), "{bad:?}");
        }
        check_word("Barman server", "my server's").unwrap();
    }

    #[test]
    fn global_options_come_first() {
        let mut address = ServerAddress::new("main");
        assert_eq!(address.call(&["check", "x"]).line(), "barman check x");
        address.config = Some("/etc/b.conf".into());
        for (command, line) in [
            (
                "sudo -n -u barman barman",
                "sudo -n -u barman barman -c /etc/b.conf check",
            ),
            (
                "\"/opt/my barman/bin/barman\"",
                "'/opt/my barman/bin/barman' -c /etc/b.conf check",
            ),
        ] {
            address.command = command.parse().unwrap();
            assert_eq!(address.call(&["check"]).line(), line);
        }
    }

    #[test]
    fn a_command_of_several_words_and_one_with_blanks_are_run() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("my barman");
        symlink("/bin/echo", &program).unwrap();
        let path = format!("\"{}\"", program.display());
        for command in [path.clone(), format!("env A=b {path}")] {
            let address = ServerAddress {
                command: command.parse().unwrap(),
                ..ServerAddress::new("main")
            };
            let mut barman = Barman::connect(&LocalHost::default(), address).unwrap();
            assert_eq!(barman.side_call(&["list-server"]), ["list-server"], "{command}");
        }
    }
}
