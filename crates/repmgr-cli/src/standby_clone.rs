//! `standby clone`: a request, handed to `repmgr-clone`.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use repmgr_clone::{CloneError, CloneRequest, Context, Environment, Observer, plan, prepare};
use repmgr_config::{LogLevel, Settings};
use repmgr_remote::{Host, LocalHost, Prompt, SshHost, SshOptions};
use repmgr_types::CancelToken;

use crate::failure::Failure;
use crate::log::Log;
use crate::observer::{All, Bar, Json, Lines, ProgressLines};
use crate::prompt::TerminalPrompt;

/// The value of `barman_host` that means this host, without SSH. No name of a host ends so, and
/// `localhost` has to stay a host behind SSH, where Barman's own user logs in.
const THIS_HOST: &str = "local:";

/// Clones, or with `dry_run` finds out whether that could be done.
pub(crate) fn run(
    request: &CloneRequest,
    dry_run: bool,
    log: &Log,
    json: Option<&Json>,
    cancel: &CancelToken,
) -> Result<(), Failure> {
    let lines = Lines(log.clone());
    let bar = (io::stderr().is_terminal() && log.shows(LogLevel::Notice)).then(|| Bar::new(log.clone()));
    let progress = bar.is_none().then(|| ProgressLines::new(log.clone()));
    let mut observers: Vec<&dyn Observer> = vec![&lines];
    observers.extend(bar.iter().map(|bar| bar as &dyn Observer));
    observers.extend(progress.iter().map(|lines| lines as &dyn Observer));
    observers.extend(json.map(|json| json as &dyn Observer));
    let context = Context {
        observer: &All(observers),
        cancel,
        environment: &Environment::from_process(),
    };
    let failed = |error: CloneError| Failure::Clone {
        error: Box::new(error),
        unfinished: None,
    };
    if dry_run {
        return plan(request, &context).map(drop).map_err(failed);
    }
    let prepared = prepare(request, &context).map_err(failed)?;
    prepared
        .execute(&context)
        .map(drop)
        .map_err(|error| Failure::Clone {
            error: Box::new(error),
            unfinished: Some(request.data_directory.clone()),
        })
}

/// The host that `barman_host` names.
pub(crate) fn barman_host(
    settings: &Settings,
    name: &str,
    log: &Log,
    cancel: &CancelToken,
) -> Result<Arc<dyn Host>, Failure> {
    if name == THIS_HOST {
        return Ok(Arc::new(LocalHost::new(cancel.clone())));
    }
    let prompt =
        TerminalPrompt::new(log.clone(), cancel.clone()).map(|prompt| Arc::new(prompt) as Arc<dyn Prompt>);
    let options = SshOptions {
        prompt,
        cancel: cancel.clone(),
        ..ssh_options(settings)
    };
    let host = SshHost::new(name, options).map_err(|error| Failure::Refused {
        text: error.to_string(),
        detail: None,
        hint: error.hint(),
    })?;
    Ok(Arc::new(host))
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
            let host = barman_host(
                &Settings::default(),
                name,
                &in_memory(LogLevel::Info),
                &CancelToken::new(),
            );
            host.map(|host| host.name().to_owned())
        };
        assert_eq!(host("localhost").unwrap(), "localhost");
        assert_eq!(host("barman@barmansrv").unwrap(), "barman@barmansrv");
        assert_eq!(host("local:").unwrap(), "localhost (no ssh)");
        assert!(host("-oProxyCommand=x").is_err());
    }
}
