//! The host through the user's own `ssh`, for what libssh2 cannot do.
//!
//! One call of `ssh` logs in and holds a socket (ControlMaster) through which further calls run their
//! commands without a login; where the server lets no second session in, `ssh` itself connects anew for each
//! command. Its session there is a command that reads its input, so it ends with this process, however this
//! ends. It never asks: a question would need the terminal, which is not this crate's.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use repmgr_types::CancelToken;
use tempfile::TempDir;

use super::config::ClientConfig;
use crate::error::{ConnectErrorKind as Kind, RemoteErrorKind};
use crate::frame::Frame;
use crate::local::{LocalWire, run_program, start};
use crate::process::Running;

use crate::{Connection, Input, Process, RemoteError, ShellCommand, StartOptions};

/// What the master's session says when it is there. Then it waits for the end of its input.
const READY: &str = "ready";
const WAIT: &str = "echo ready; cat >/dev/null";

/// How `ssh` is called for one destination.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) program: String,
    /// The user's options.
    pub(super) words: Vec<String>,
    pub(super) destination: String,
}

impl Call {
    /// `ssh` with all its options and those in `more`; the remote command follows.
    pub(super) fn command(&self, config: &ClientConfig, more: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-T", "-a", "-x"]);
        // What is typed first counts.
        for option in [
            "BatchMode=yes",
            "ClearAllForwardings=yes",
            "PermitLocalCommand=no",
        ] {
            command.args(["-o", option]);
        }
        if config.has_remote_command {
            command.args(["-o", "RemoteCommand=none"]);
        }
        let limit = config.connect_timeout.as_secs().max(1);
        command.args(["-o", &format!("ConnectTimeout={limit}")]);
        command.args(more).args(&self.words);
        command.args(["-l", &config.user, "-p", &config.port.to_string()]);
        command.args(["--", &self.destination]);
        command
    }

    /// Whether a connection of the user's own is open, through which commands go.
    pub(super) fn is_shared(&self, config: &ClientConfig, cancel: &CancelToken) -> bool {
        const LIMIT: Duration = Duration::from_secs(10);
        if !config.has_control_path {
            return false;
        }
        let command = self.command(config, &["-O", "check"]);
        run_program(command, LIMIT, cancel).is_ok_and(|output| output.exit.success())
    }
}

/// Logged in by `ssh`.
pub(super) struct OwnConnection {
    call: Call,
    config: ClientConfig,
    cancel: CancelToken,
    /// Holds the connection that commands share, if there is one.
    master: Option<Master>,
}

struct Master {
    /// Killed when dropped.
    process: Running<LocalWire>,
    /// Where its socket is.
    directory: TempDir,
}

impl Master {
    fn socket(&self) -> PathBuf {
        socket_in(&self.directory)
    }
}

fn socket_in(directory: &TempDir) -> PathBuf {
    directory.path().join("s")
}

/// Where sockets may be: their names hold some 100 bytes, and `ssh` adds 17 for a while.
fn socket_directory() -> io::Result<TempDir> {
    const LONGEST: usize = 50;
    let usual = std::env::temp_dir();
    let parent = if usual.as_os_str().len() > LONGEST {
        PathBuf::from("/tmp")
    } else {
        usual
    };
    // Mode 0700.
    tempfile::Builder::new().prefix("repmgr-ssh-").tempdir_in(parent)
}

impl OwnConnection {
    /// Logs in.
    pub(super) fn log_in(call: Call, config: &ClientConfig, cancel: &CancelToken) -> Result<Self, Kind> {
        let mut connection = Self {
            call,
            config: config.clone(),
            cancel: cancel.clone(),
            master: None,
        };
        if !connection.call.is_shared(config, cancel) {
            connection.master = connection.start_master()?;
        }
        Ok(connection)
    }

    /// `None` where the login shell does something else than it is asked to: the first command will tell.
    fn start_master(&self) -> Result<Option<Master>, Kind> {
        let no_directory = |source| Kind::Program {
            program: self.call.program.clone(),
            source,
        };
        let directory = socket_directory().map_err(no_directory)?;
        let socket = format!("ControlPath={}", socket_in(&directory).display());
        let more = [
            "-o",
            "ControlMaster=yes",
            "-o",
            &socket,
            "-o",
            "ControlPersist=no",
        ];
        let mut command = self.call.command(&self.config, &more);
        let frame = Frame::new();
        command.arg(frame.wrap(WAIT));
        let options = StartOptions {
            input: Input::Held,
            // Several steps, each with the limit of its own.
            idle_timeout: self.config.connect_timeout.saturating_mul(2),
            ..Default::default()
        };
        let shown = ShellCommand::new("true");
        let started = start(
            command,
            &self.call.destination,
            &shown,
            options,
            &self.cancel,
            Some(frame),
        );
        let mut process = started.map_err(|error| self.failed(error))?.by_ssh();
        let mut said = vec![0; READY.len()];
        match process.read_exact(&mut said).map_err(RemoteError::from_io) {
            Ok(()) => Ok(Some(Master { process, directory })),
            Err(error) => match error.kind {
                RemoteErrorKind::NoStartMark { .. } | RemoteErrorKind::Truncated { .. } => {
                    log::debug!("{error}");
                    Ok(None)
                }
                _ => Err(self.failed(error)),
            },
        }
    }

    fn failed(&self, error: RemoteError) -> Kind {
        let program = self.call.program.clone();
        match error.kind {
            RemoteErrorKind::Cancelled(cancelled) => cancelled.into(),
            RemoteErrorKind::ConnectionLost { reason } => Kind::Ssh {
                program,
                message: reason,
            },
            RemoteErrorKind::TimedOut { after, .. } => Kind::TimedOut {
                stage: "logging in with ssh",
                after,
            },
            RemoteErrorKind::System { source, .. } => Kind::Program { program, source },
            kind => Kind::Ssh {
                program,
                message: kind.to_string(),
            },
        }
    }

    /// Whether it was not lost meanwhile, as far as is known.
    pub(super) fn is_open(&mut self) -> bool {
        let checked = self.master.as_mut().map(|master| master.process.check());
        checked.is_none_or(|result| result.is_ok())
    }
}

impl Connection for OwnConnection {
    fn host(&self) -> &str {
        &self.call.destination
    }

    fn start<'c>(
        &'c mut self,
        command: &ShellCommand,
        options: StartOptions,
    ) -> Result<Box<dyn Process + 'c>, RemoteError> {
        let socket = self.master.as_ref().map(Master::socket);
        let socket = socket.map(|socket| format!("ControlPath={}", socket.display()));
        let mut more = vec!["-o", "ControlMaster=no"];
        more.extend(socket.iter().flat_map(|socket| ["-o", socket.as_str()]));
        let mut ssh = self.call.command(&self.config, &more);
        let frame = Frame::new();
        ssh.arg(frame.wrap(&command.line()));
        let host = &self.call.destination;
        let running = start(ssh, host, command, options, &self.cancel, Some(frame))?;
        Ok(Box::new(running.by_ssh()))
    }
}

/// The host through `ssh` for plain command lines, one call of it for each: a forced command
/// (`command="..."` in `authorized_keys`) may let nothing else pass, which leaves no room for the marks
/// around our commands. Whether an answer is whole must show by itself.
pub struct PlainSsh {
    pub(super) call: Call,
    pub(super) config: Box<dyn Fn() -> Result<ClientConfig, crate::ConnectError> + Send + Sync>,
    pub(super) cancel: CancelToken,
}

impl crate::Host for PlainSsh {
    fn name(&self) -> &str {
        &self.call.destination
    }

    fn connect(&self) -> Result<Box<dyn Connection>, crate::ConnectError> {
        let config = (self.config)()?;
        Ok(Box::new(Plain {
            call: self.call.clone(),
            config,
            cancel: self.cancel.clone(),
        }))
    }
}

struct Plain {
    call: Call,
    config: ClientConfig,
    cancel: CancelToken,
}

impl Connection for Plain {
    fn host(&self) -> &str {
        &self.call.destination
    }

    fn start<'c>(
        &'c mut self,
        command: &ShellCommand,
        options: StartOptions,
    ) -> Result<Box<dyn Process + 'c>, RemoteError> {
        let mut ssh = self.call.command(&self.config, &[]);
        ssh.arg(command.line());
        let running = start(ssh, &self.call.destination, command, options, &self.cancel, None)?;
        Ok(Box::new(running.by_ssh()))
    }
}
