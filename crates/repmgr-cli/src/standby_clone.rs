//! `standby clone`: a request, handed to `repmgr-clone`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use repmgr_clone::{
    CloneError, CloneRequest, CloneState, Context, Environment, Observer, ReconfigureRequest, plan, prepare,
    verify, write_replication_configuration,
};
use repmgr_config::{LogLevel, Settings, SshClient};
use repmgr_remote::{Host, LocalHost, Prompt, SshHost, SshOptions};
use repmgr_types::CancelToken;

use crate::failure::Failure;
use crate::log::Log;
use crate::observer::{All, Bar, Json, Lines, ProgressLines};
use crate::prompt::TerminalPrompt;
use crate::request::Hosts;
use crate::signals::Signals;
use crate::values::Depth;

/// The value of `barman_host` that means this host, without SSH. No name of a host ends so, and
/// `localhost` has to stay a host behind SSH, where Barman's own user logs in.
pub(crate) const THIS_HOST: &str = "local:";

/// Clones, or finds out whether that could be done.
pub(crate) fn run(
    request: &CloneRequest,
    depth: Depth,
    log: &Log,
    json: Option<&Json>,
    signals: &Signals,
) -> Result<(), Failure> {
    observed(log, json, signals, |context| {
        match depth {
            Depth::Plan => return plan(request, context).map(drop).map_err(|error| (error, None)),
            Depth::Verify => return verify(request, context).map(drop).map_err(|error| (error, None)),
            Depth::Clone => {}
        }
        let prepared = prepare(request, context).map_err(|error| (error, None))?;
        let done = prepared.execute(context);
        let directory = request.data_directory.as_path();
        done.map(drop).map_err(|error| {
            let is_unfinished = matches!(CloneState::of(directory), Ok(CloneState::Unfinished));
            (error, is_unfinished.then_some(directory))
        })
    })
}

/// Writes the replication configuration alone.
pub(crate) fn reconfigure(
    request: &ReconfigureRequest,
    dry_run: bool,
    log: &Log,
    json: Option<&Json>,
    signals: &Signals,
) -> Result<(), Failure> {
    observed(log, json, signals, |context| {
        write_replication_configuration(request, context, dry_run)
            .map(drop)
            .map_err(|error| (error, None))
    })
}

/// Does something under the eyes of all observers. With its error may come the directory that it left
/// unfinished.
fn observed<'r>(
    log: &Log,
    json: Option<&Json>,
    signals: &Signals,
    work: impl FnOnce(&Context<'_>) -> Result<(), (CloneError, Option<&'r Path>)>,
) -> Result<(), Failure> {
    let lines = Lines(log.clone());
    let bar = (io::stderr().is_terminal() && log.shows(LogLevel::Notice)).then(|| Bar::new(log.clone()));
    let progress = bar.is_none().then(|| ProgressLines::new(log.clone()));
    // The bar first: it goes away before the line that says that the copy is done.
    let mut observers: Vec<&dyn Observer> = Vec::new();
    observers.extend(bar.iter().map(|bar| bar as &dyn Observer));
    observers.extend(progress.iter().map(|lines| lines as &dyn Observer));
    observers.push(&lines);
    observers.extend(json.map(|json| json as &dyn Observer));
    let context = Context {
        observer: &All(observers),
        cancel: &signals.token(),
        environment: &Environment::from_process(),
    };
    work(&context).map_err(|(error, unfinished)| Failure::Clone {
        error: Box::new(error),
        unfinished: unfinished.map(Path::to_owned),
        signal: signals.received(),
    })
}

/// Hosts as this program reaches them.
pub(crate) struct Reach<'a> {
    pub(crate) log: &'a Log,
    pub(crate) cancel: CancelToken,
    /// Instead of the one in the settings.
    pub(crate) client: Option<SshClient>,
}

impl Reach<'_> {
    fn ssh(&self, settings: &Settings, name: &str, user: Option<&str>) -> Result<Arc<dyn Host>, Failure> {
        let prompt = TerminalPrompt::new(self.log.clone(), self.cancel.clone());
        let options = SshOptions {
            prompt: prompt.map(|prompt| Arc::new(prompt) as Arc<dyn Prompt>),
            cancel: self.cancel.clone(),
            user: user.map(str::to_owned),
            client: match self.client.unwrap_or(settings.ssh_client) {
                SshClient::Auto => repmgr_remote::SshClient::Auto,
                SshClient::Libssh2 => repmgr_remote::SshClient::Libssh2,
                SshClient::Ssh => repmgr_remote::SshClient::OpenSsh,
            },
            ..ssh_options(settings)
        };
        let host = SshHost::new(name, options).map_err(|error| Failure::Refused {
            text: error.to_string(),
            detail: None,
            hint: error.hint(),
        })?;
        Ok(Arc::new(host))
    }
}

impl Hosts for Reach<'_> {
    fn barman(&self, settings: &Settings, name: &str) -> Result<Arc<dyn Host>, Failure> {
        if name == THIS_HOST {
            return Ok(Arc::new(LocalHost::new(self.cancel.clone())));
        }
        self.ssh(settings, name, None)
    }

    fn source(&self, settings: &Settings, name: &str, user: Option<&str>) -> Result<Arc<dyn Host>, Failure> {
        self.ssh(settings, name, user)
    }
}

/// repmgr gives `ssh_options` to `ssh` for other purposes only; a user who sets them means them
/// for this host too. The default must not win over the `ConnectTimeout` of the user's own
/// configuration, as an option would.
fn ssh_options(settings: &Settings) -> SshOptions {
    if settings.ssh_options == Settings::default().ssh_options {
        return SshOptions {
            connect_timeout: Duration::from_secs(10),
            ..SshOptions::default()
        };
    }
    SshOptions {
        ssh_options: settings.ssh_options.clone(),
        ..SshOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::in_memory;

    #[test]
    fn the_users_ssh_options_are_for_barman_too() {
        let mut settings = Settings::default();
        assert_eq!(ssh_options(&settings).ssh_options, "");
        assert_eq!(ssh_options(&settings).connect_timeout, Duration::from_secs(10));
        settings.ssh_options = "-F /my/config".to_owned();
        assert_eq!(ssh_options(&settings).ssh_options, "-F /my/config");
    }

    #[test]
    fn only_a_name_that_no_host_has_means_this_host() {
        let host = |name| {
            let reach = Reach {
                log: &in_memory(LogLevel::Info),
                cancel: CancelToken::new(),
                client: None,
            };
            let host = reach.barman(&Settings::default(), name);
            host.map(|host| host.name().to_owned())
        };
        assert_eq!(host("localhost").unwrap(), "localhost");
        assert_eq!(host("barman@barmansrv").unwrap(), "barman@barmansrv");
        assert_eq!(host("local:").unwrap(), "localhost (no ssh)");
        assert!(host("-oProxyCommand=x").is_err());
    }
}
