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
/// More names than a message can make use of.
const MOST_LINES: usize = 1000;
/// Where calls only make an error clearer, they must not take long.
const SIDE_CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// With backup_compression (Barman 3.0 and later), bandwidth_limit or primary_conninfo (3.12 and later)
/// every command first connects to the primary, once or twice, and works without it. libpq takes this
/// limit in seconds from the environment where the connection string sets none, or it waits for minutes.
const PRIMARY_CONNECT_TIMEOUT: &str = "3";

/// Arguments: none, or a command of sudo that only asks whether another is allowed. Prints the locale to use and, if
/// the other is allowed, a second line.
///
/// Messages of the shell and its tools must come in one language and names sort by bytes; but with the plain "C",
/// Python 3.6 cannot read a configuration that is not ASCII.
const SETTINGS: &str = r#"
if locale -a 2>/dev/null | grep -Eqix 'C\.utf-?8'; then echo C.UTF-8; else echo C; fi
if [ $# -gt 0 ] && "$@" >/dev/null 2>&1 </dev/null; then echo allowed; fi
"#;

/// How to call Barman for one Barman server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// The name of the Barman server: a section of Barman's configuration.
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

    /// The command line of Barman with its global options and `words`: nothing else, so that it passes a forced
    /// command of an SSH key.
    pub fn call(&self, words: &[&str]) -> ShellCommand {
        let words = self.words(words);
        ShellCommand::new(&words[0]).args(&words[1..])
    }

    /// As [`call`](Self::call), with a limit in the environment for connections to the primary, which some Barmans
    /// make in every command.
    pub fn limited_call(&self, words: &[&str]) -> ShellCommand {
        self.call(words).env("PGCONNECT_TIMEOUT", PRIMARY_CONNECT_TIMEOUT)
    }
}

/// A session with Barman on its host, for one Barman server.
///
/// Only calls that change nothing there, and none that asks the primary when Barman can do without.
/// After [`BarmanError::TimedOut`] the connection is given up; connect again.
pub struct Barman {
    pub(crate) connection: Box<dyn Connection>,
    pub(crate) address: ServerAddress,
    pub(crate) call_timeout: Duration,
    /// As `address`, but so that the environment reaches Barman.
    pub(crate) calling: ServerAddress,
    /// The locale for all commands.
    locale: &'static str,
    /// Where the archive is, once Barman has told.
    pub(crate) wals_directory: Option<String>,
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
    /// Logs in. Whether Barman and the Barman server exist shows with the first question.
    ///
    /// # Errors
    /// [`BarmanError::Connect`], or [`BarmanError::BadWord`] for the name of the Barman server.
    pub fn connect(host: &dyn Host, address: ServerAddress) -> Result<Self, BarmanError> {
        check_word("Barman server", &address.server)?;
        let mut barman = Self {
            connection: host.connect()?,
            calling: address.clone(),
            address,
            call_timeout: CALL_TIMEOUT,
            locale: "C",
            wals_directory: None,
        };
        barman.settle()?;
        Ok(barman)
    }

    /// Finds out with which locale commands are to run, and whether sudo, which drops the environment, lets us hand
    /// it on. Sudo is asked first, because an attempt in vain is reported to the administrator.
    fn settle(&mut self) -> Result<(), BarmanError> {
        let variable = format!("PGCONNECT_TIMEOUT={PRIMARY_CONNECT_TIMEOUT}");
        let through = self.address.command.through_sudo(&variable);
        let question = through.iter().flat_map(|command| {
            let (sudo, rest) = command.words().split_at(1);
            sudo.iter()
                .cloned()
                .chain(["-n".to_owned(), "-l".to_owned()])
                .chain(rest.to_vec())
        });
        let script = ShellCommand::script(SETTINGS).args(question.collect::<Vec<_>>());
        let output = self.run(&script, &ShellCommand::new("locale").arg("-a"), self.call_timeout)?;
        let answer = String::from_utf8_lossy(&output.stdout);
        let says = |word| answer.lines().any(|line| line == word);
        if says("C.UTF-8") {
            self.locale = "C.UTF-8";
        }
        if let Some(command) = through.filter(|_| says("allowed")) {
            self.calling.command = command;
        }
        Ok(())
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
        self.calling.call(words)
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
        self.run_up_to(command, named, limit, MAX_OUTPUT)
    }

    /// The same for more or less output.
    pub(crate) fn run_up_to(
        &mut self,
        command: &ShellCommand,
        named: &ShellCommand,
        limit: Duration,
        max_output: usize,
    ) -> Result<Output, BarmanError> {
        let options = StartOptions {
            idle_timeout: limit,
            total_timeout: Some(limit),
            ..Default::default()
        };
        let command = command
            .clone()
            .env("LC_ALL", self.locale)
            .env("PGCONNECT_TIMEOUT", PRIMARY_CONNECT_TIMEOUT);
        run(&mut *self.connection, &command, options, max_output).map_err(|e| match e.kind {
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
                .take(MOST_LINES)
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
        assert_eq!(
            address.limited_call(&["check"]).line(),
            "export PGCONNECT_TIMEOUT=3; barman check"
        );
        address.config = Some("/etc/b.conf".into());
        for (command, expected) in [
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
            assert_eq!(address.call(&["check"]).line(), expected);
        }
    }

    /// Does not ask PAM, and drops the environment, as sudo does.
    fn sudo(dir: &std::path::Path, allows: &str) -> Barman {
        let program = dir.join("sudo");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *-l*) {allows} ;; esac\nshift\nexec env -i PATH=\"$PATH\" \"$@\"\n"
        );
        repmgr_lab::write_program(&program, &script).unwrap();
        let shown = dir.join("barman");
        repmgr_lab::write_program(&shown, "#!/bin/sh\necho \"limit=$PGCONNECT_TIMEOUT\"\n").unwrap();
        let address = ServerAddress {
            command: format!("{} -n {}", program.display(), shown.display())
                .parse()
                .unwrap(),
            ..ServerAddress::new("main")
        };
        Barman::connect(&LocalHost::default(), address).unwrap()
    }

    #[test]
    fn the_limit_for_the_primary_passes_sudo_where_sudo_allows_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sudo(dir.path(), "exit 0").side_call(&["x"]), ["limit=3"]);
        assert_eq!(sudo(dir.path(), "exit 1").side_call(&["x"]), ["limit="]);
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
