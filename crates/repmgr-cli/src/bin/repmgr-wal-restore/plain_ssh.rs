//! The Barman host through the `ssh` program, as `barman-wal-restore` uses it: a forced command
//! (`command="..."` in `authorized_keys`) may let pass nothing but plain `barman get-wal` lines, which
//! leaves no room for the marks around our commands.

use std::sync::Arc;

use repmgr_remote::{
    ConnectError, Connection, Host, LocalHost, Process, RemoteError, ShellCommand, SshHost, StartOptions,
};
use repmgr_types::CancelToken;

use crate::arguments::Arguments;

/// Runs each command by one call of `ssh`. A file that was cut shows by its size.
pub(crate) struct PlainSsh {
    host: Arc<SshHost>,
    options: String,
    port: Option<u16>,
    local: LocalHost,
}

impl PlainSsh {
    pub(crate) fn new(host: Arc<SshHost>, arguments: &Arguments, cancel: &CancelToken) -> Self {
        Self {
            host,
            options: arguments.ssh_options.clone(),
            port: arguments.port(),
            local: LocalHost::new(cancel.clone()),
        }
    }
}

impl Host for PlainSsh {
    fn name(&self) -> &str {
        self.host.name()
    }

    fn connect(&self) -> Result<Box<dyn Connection>, ConnectError> {
        // The options are shell words already.
        let mut ssh = ShellCommand::script(r#"options=$1; shift; eval "exec ssh $options \"\$@\"""#).args([
            self.options.as_str(),
            "-T",
            "-o",
            "BatchMode=yes",
            "-l",
            &self.host.user()?,
        ]);
        if let Some(port) = self.port {
            ssh = ssh.args(["-p", &port.to_string()]);
        }
        Ok(Box::new(Line {
            ssh: ssh.args(["--", self.host.name()]),
            name: self.host.name().to_owned(),
            local: self.local.clone(),
        }))
    }
}

struct Line {
    ssh: ShellCommand,
    name: String,
    local: LocalHost,
}

impl Connection for Line {
    fn host(&self) -> &str {
        &self.name
    }

    fn start<'c>(
        &'c mut self,
        command: &ShellCommand,
        options: StartOptions,
    ) -> Result<Box<dyn Process + 'c>, RemoteError> {
        self.local.start(&self.ssh.clone().arg(command.line()), options)
    }
}
