//! `repmgr-wal-restore`: PostgreSQL's `restore_command` for a Barman archive.
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program for PostgreSQL's log and the terminal"
)]

mod arguments;
mod background;

use std::borrow::Cow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use clap::Parser;
use repmgr_barman::ServerAddress;
use repmgr_remote::{Host, LocalHost, SshHost, SshOptions};
use repmgr_types::text::escape;
use repmgr_types::{CancelToken, Remedy, SystemId};
use repmgr_wal::{
    Archive, ArchiveOptions, Cluster, FetchError, Spool, WalFileName, is_recovery_file, restore,
};

use self::arguments::Arguments;

/// The limit for each step of connecting, where the SSH configuration sets none: a standby that waits
/// for us does not try to stream.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before the next attempt where failing would end the recovery.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// How the program ends. Never above 125: PostgreSQL would give up the recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    NotInArchive = 1,
    NoAnswer = 2,
    Destination = 3,
    Refused = 4,
}

impl From<&FetchError> for Exit {
    fn from(error: &FetchError) -> Self {
        match error {
            FetchError::NotInArchive { .. } => Self::NotInArchive,
            FetchError::Refused { .. } => Self::Refused,
            FetchError::File(_) => Self::Destination,
            _ => Self::NoAnswer,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

fn main() -> ExitCode {
    tell_warnings();
    let arguments = Arguments::parse();
    if let Some(behind) = arguments.behind {
        return background::run(&arguments, behind);
    }
    let ended = if arguments.test {
        test(&arguments)
    } else {
        deliver(&arguments)
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            sleep(arguments.sleep());
            exit.into()
        }
    }
}

/// What the libraries warn of explains what fails, so it goes to PostgreSQL's log too, and by what the host is
/// reached if not as usual. RUST_LOG tells more.
fn tell_warnings() {
    use std::io::Write as _;
    if std::env::var_os("RUST_LOG").is_some() {
        return env_logger::init();
    }
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .filter_module("repmgr_remote", log::LevelFilter::Info)
        .format(|out, record| {
            let level = match record.level() {
                log::Level::Warn => "WARNING",
                other => other.as_str(),
            };
            writeln!(out, "{level}: {}", record.args())
        })
        .init();
}

fn deliver(arguments: &Arguments) -> Result<(), Exit> {
    // clap has seen to it that both are there, unless for --test.
    let (Some(text), Some(destination)) = (&arguments.name, &arguments.destination) else {
        return Err(Exit::NoAnswer);
    };
    let name = arguments::wal_name(text).map_err(|error| {
        say(&format!("ERROR: {error}"));
        Exit::Destination
    })?;
    if destination.is_dir() {
        say(&format!(
            "ERROR: WAL_DEST \"{}\" is a directory",
            destination.display()
        ));
        return Err(Exit::Destination);
    }
    let cluster = Cluster::of_destination(destination);
    loop {
        let Err(error) = attempt(arguments, name, destination, &cluster) else {
            return Ok(());
        };
        if matches!(error, FetchError::NotInArchive { .. }) {
            say(&format!("NOTICE: {error}"));
            return Err(Exit::NotInArchive);
        }
        report(&error);
        if !(is_recovery_file(destination) && cluster.recovery_ends_with_archive()) {
            return Err((&error).into());
        }
        eprintln!(
            "NOTICE: failing now would end the recovery before the end of the archive; trying again in {} s",
            TRY_AGAIN.as_secs()
        );
        sleep(TRY_AGAIN);
    }
}

fn attempt(
    arguments: &Arguments,
    name: WalFileName,
    destination: &Path,
    cluster: &Cluster,
) -> Result<(), FetchError> {
    let system_id = cluster.system_id();
    // Also where nothing runs ahead: it remembers a host that gave no answer.
    let spool = is_recovery_file(destination).then(|| spool(arguments, cluster, system_id));
    let open = || archive(arguments, system_id, cluster, &CancelToken::new());
    let restored = restore(name, destination, spool.as_ref(), arguments.partial, open)?;
    if let Some(start) = restored.prefetch
        && arguments.ahead().is_some()
        && let Err(error) = background::start(start)
    {
        say(&format!(
            "WARNING: could not start to run ahead of replay: {error}"
        ));
    }
    Ok(())
}

fn test(arguments: &Arguments) -> Result<(), Exit> {
    let cluster = Cluster::of_destination(Path::new("pg_wal/RECOVERYXLOG"));
    let tested =
        archive(arguments, None, &cluster, &CancelToken::new()).and_then(|mut archive| archive.test());
    match tested {
        Ok(said) => {
            println!("{}", shown(&said));
            Ok(())
        }
        Err(error) => {
            report(&error);
            // As barman-wal-restore, which passes Barman's own code on.
            Err(if matches!(error, FetchError::Barman { .. }) {
                Exit::NotInArchive
            } else {
                (&error).into()
            })
        }
    }
}

fn spool(arguments: &Arguments, cluster: &Cluster, system_id: Option<SystemId>) -> Spool {
    let key = arguments.archive_key();
    let key = key.each_ref().map(|part| part.as_ref());
    Spool::new(arguments.spool_dir.as_deref(), cluster, system_id, &key)
}

fn archive(
    arguments: &Arguments,
    system_id: Option<SystemId>,
    cluster: &Cluster,
    cancel: &CancelToken,
) -> Result<Archive, FetchError> {
    let mut plain_host: Option<Arc<dyn Host>> = None;
    let host: Arc<dyn Host> = if arguments.local {
        Arc::new(LocalHost::new(cancel.clone()))
    } else {
        let options = SshOptions {
            ssh_options: arguments.ssh_options.clone(),
            user: arguments.user(),
            default_user: Some("barman".to_owned()),
            port: arguments.port(),
            connect_timeout: CONNECT_TIMEOUT,
            cancel: cancel.clone(),
            client: arguments.ssh_client.into(),
            ..SshOptions::default()
        };
        let ssh = SshHost::new(&arguments.host, options)?;
        plain_host = Some(Arc::new(ssh.plain()));
        Arc::new(ssh)
    };
    let options = ArchiveOptions {
        address: ServerAddress {
            server: arguments.server.clone(),
            command: arguments.barman_command.clone(),
            config: arguments.config.clone(),
        },
        plain_host,
        system_id,
        partial: arguments.partial,
        transport: arguments.transport(),
        local_wal: Some(cluster.wal_dir().to_owned()),
    };
    Archive::new(host, options)
}

/// What comes from afar must not drive the terminal, or the one on which PostgreSQL's log is read.
fn shown(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\n' || c == '\t')
}

fn say(line: &str) {
    eprintln!("{}", shown(line));
}

fn report(error: &FetchError) {
    let mut line = format!("ERROR: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        // Some errors show their source already.
        let text = cause.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        source = cause.source();
    }
    say(&line);
    if let Some(hint) = error.hint() {
        let hint = hint.render(|remedy, _| option(remedy).to_owned());
        say(&format!("HINT: {hint}"));
    }
}

/// How this program calls what would help.
fn option(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::BarmanUser => "--user",
        Remedy::BarmanCommand => "--barman-command",
        Remedy::BarmanConfig => "--config",
        Remedy::SshOptions => "--ssh-options",
        other => other.name(),
    }
}
