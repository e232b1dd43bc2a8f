//! What the user's SSH configuration means for one destination, by `ssh -G`.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use openssl::hash::{MessageDigest, hash};
use repmgr_types::CancelToken;
use rustix::process::getuid;
use rustix::system::uname;

use super::algorithms::Algorithms;
use super::options::SshOptions;
use super::settings::{Settings, Tokens};
use crate::error::{ConnectErrorKind as Kind, RemoteErrorKind};
use crate::local::run_program;
use crate::text::shorten;
use crate::{Output, RemoteError};

/// `StrictHostKeyChecking`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strict {
    Ask,
    Yes,
    AcceptNew,
    No,
}

/// How the bytes get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// By TCP, optionally from this address.
    Direct { bind: Option<String> },
    /// Over standard input and output of this shell line.
    Proxy { line: String },
    /// Over standard input and output of these words.
    Jump { words: Vec<String> },
}

#[derive(Debug, Clone)]
pub(super) struct ClientConfig {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) route: Route,
    /// "any", "inet" or "inet6".
    pub(super) address_family: String,
    pub(super) connect_timeout: Duration,
    pub(super) tcp_keepalive: bool,
    /// Interval and number of unanswered signs of life, when wanted.
    pub(super) server_alive: Option<(Duration, u32)>,
    pub(super) batch_mode: bool,
    pub(super) strict: Strict,
    pub(super) known_hosts_name: String,
    /// Where the name without port may stand as well.
    pub(super) known_hosts_fallback: Option<String>,
    pub(super) user_known_hosts: Vec<PathBuf>,
    pub(super) global_known_hosts: Vec<PathBuf>,
    /// The list of keys that no host may have.
    pub(super) revoked_host_keys: Option<PathBuf>,
    pub(super) hash_known_hosts: bool,
    pub(super) identity_files: Vec<PathBuf>,
    pub(super) certificate_files: Vec<PathBuf>,
    pub(super) identities_only: bool,
    pub(super) agent: Option<PathBuf>,
    /// Ways to log in that the user allows, by their names in the protocol.
    pub(super) login_methods: Vec<&'static str>,
    pub(super) algorithms: Algorithms,
    pub(super) keygen_program: String,
    /// How often to try to connect, a second apart.
    pub(super) connection_attempts: u32,
    /// `ControlPath` is set: a connection may be open that can be shared.
    pub(super) has_control_path: bool,
    /// `RemoteCommand` is set, which would be in the way of a command of ours.
    pub(super) has_remote_command: bool,
    /// What libssh2 cannot do, nor this crate for it, by its name in the configuration.
    pub(super) demand: Option<&'static str>,
}

/// Asks `ssh -G`; `words` are the user's own options.
pub(super) fn resolve(
    destination: &str,
    words: &[String],
    options: &SshOptions,
) -> Result<ClientConfig, Kind> {
    let command = |more: &[&str]| {
        let mut command = Command::new(&options.ssh_program);
        command.args(["-T", "-G"]).args(more).args(words);
        // What is typed in front counts before the file, and `user@` and `ssh://` before these.
        if let Some(user) = options.user.as_ref().filter(|_| !destination.contains('@')) {
            command.args(["-l", user]);
        }
        if let Some(port) = options.port.filter(|_| !names_port(destination)) {
            command.args(["-p", &port.to_string()]);
        }
        command.args(["--", destination]);
        command
    };
    // The same program without any configuration tells the defaults from what somebody set, and
    // who and where OpenSSH thinks we are: the password file counts there, not $HOME.
    let mut bare = Command::new(&options.ssh_program);
    bare.args([
        "-T",
        "-G",
        "-F",
        "none",
        "-o",
        "UserKnownHostsFile=%d",
        "-o",
        "IdentityAgent=%u",
    ]);
    bare.args(["--", "localhost"]);
    // Two processes that need not wait for each other.
    let (settings, defaults) = thread::scope(|scope| {
        let defaults = scope.spawn(|| ask(bare, &options.cancel));
        let settings = ask(command(&[]), &options.cancel);
        (
            settings,
            defaults.join().unwrap_or_else(|panic| resume_unwind(panic)),
        )
    });
    let (mut settings, defaults) = (settings?, defaults?);
    if let Some(default) = &options.default_user
        && options.user.is_none()
        && !destination.contains('@')
        && settings.get("user") == defaults.get("user")
    {
        // `ssh -G` gives this account's user also when nobody named one; `-v` tells the files it read.
        let read = run_tool(command(&["-v"]), &options.cancel)?.exit.stderr;
        let account = defaults.get("user").unwrap_or_default();
        if !typed_user(words) && !files_name_user(&String::from_utf8_lossy(&read), account) {
            settings.0.insert("user".to_owned(), vec![default.clone()]);
        }
    }
    interpret(&settings, &defaults, destination, words, options)
}

/// Whether the user's options hold a user.
fn typed_user(words: &[String]) -> bool {
    let sets =
        |w: &String| w.starts_with("-l") || w.trim_start_matches("-o").to_lowercase().starts_with("user=");
    words.iter().any(sets)
}

/// Whether a configuration file that `ssh -v` says it read has a line `User` with this user.
fn files_name_user(said: &str, user: &str) -> bool {
    let files = said
        .lines()
        .filter_map(|l| l.strip_prefix("debug1: Reading configuration data "));
    files
        .filter_map(|file| std::fs::read_to_string(file.trim()).ok())
        .any(|text| {
            text.lines().any(|line| {
                let (key, value) = line.trim().split_once([' ', '\t', '=']).unwrap_or_default();
                let value = value.trim_start_matches([' ', '\t', '=']).trim();
                key.eq_ignore_ascii_case("user") && value.trim_matches('"') == user
            })
        })
}

pub(super) fn names_port(destination: &str) -> bool {
    let Some(rest) = destination.strip_prefix("ssh://") else {
        return false;
    };
    rest.rsplit(']')
        .next()
        .is_some_and(|tail| tail.rsplit('@').next().unwrap_or(tail).contains(':'))
}

fn ask(command: Command, cancel: &CancelToken) -> Result<Settings, Kind> {
    let output = run_tool(command, cancel)?;
    if output.exit.success() {
        Ok(Settings::parse(&String::from_utf8_lossy(&output.stdout)))
    } else {
        let message = shorten(&output.exit.stderr_text(), 300);
        Err(Kind::Configuration {
            program: "ssh -G".to_owned(),
            message,
        })
    }
}

/// Runs a tool of OpenSSH.
pub(super) fn run_tool(command: Command, cancel: &CancelToken) -> Result<Output, Kind> {
    // `Match exec` may run anything, so not too short.
    const LIMIT: Duration = Duration::from_secs(30);
    let program = command.get_program().to_string_lossy().into_owned();
    run_program(command, LIMIT, cancel).map_err(|error: RemoteError| match error.kind {
        RemoteErrorKind::Cancelled(c) => Kind::Cancelled(c),
        RemoteErrorKind::System { source, .. } => Kind::Program { program, source },
        RemoteErrorKind::TimedOut { after, .. } => Kind::TimedOut {
            stage: "reading the configuration",
            after,
        },
        _ => Kind::Program {
            program,
            source: error.into(),
        },
    })
}

fn interpret(
    settings: &Settings,
    defaults: &Settings,
    destination: &str,
    words: &[String],
    options: &SshOptions,
) -> Result<ClientConfig, Kind> {
    let Destination {
        host,
        port,
        user,
        alias,
        tokens,
    } = Destination::new(settings, defaults, destination);
    let (known_hosts_name, known_hosts_fallback) = known_hosts_names(alias, &host, port);
    Ok(ClientConfig {
        route: route(settings, &tokens, words, options)?,
        host,
        port,
        user,
        address_family: settings.get("addressfamily").unwrap_or("any").to_owned(),
        connect_timeout: settings
            .seconds("connecttimeout")
            .unwrap_or(options.connect_timeout),
        tcp_keepalive: settings.flag("tcpkeepalive", true),
        server_alive: server_alive(settings),
        batch_mode: settings.flag("batchmode", false),
        strict: strict(settings),
        known_hosts_name,
        known_hosts_fallback,
        user_known_hosts: tokens.paths(settings.get("userknownhostsfile")),
        global_known_hosts: tokens.paths(settings.get("globalknownhostsfile")),
        revoked_host_keys: revoked_host_keys(settings, &tokens)?,
        hash_known_hosts: settings.flag("hashknownhosts", false),
        identity_files: files(settings, &tokens, "identityfile"),
        certificate_files: files(settings, &tokens, "certificatefile"),
        identities_only: settings.flag("identitiesonly", false),
        agent: agent(settings, &tokens),
        login_methods: login_methods(settings),
        algorithms: Algorithms::new(settings, defaults),
        keygen_program: keygen_beside(&options.ssh_program),
        connection_attempts: settings.number("connectionattempts").unwrap_or(1),
        has_control_path: settings.get("controlpath").is_some(),
        has_remote_command: settings.get("remotecommand").is_some(),
        demand: demand(settings, defaults),
    })
}

/// Who and where, and what this means for the rest of the configuration.
struct Destination {
    host: String,
    port: u16,
    user: String,
    /// `HostKeyAlias`, where no token counts.
    alias: Option<String>,
    tokens: Tokens,
}

impl Destination {
    fn new(settings: &Settings, defaults: &Settings, destination: &str) -> Self {
        let original = settings
            .get("host")
            .unwrap_or_else(|| destination.rsplit('@').next().unwrap_or(destination));
        let host = settings.get("hostname").unwrap_or(original);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = settings.number("port").unwrap_or(22);
        let local_user = defaults.get("identityagent").filter(|u| !u.starts_with('%'));
        let local_user = local_user.unwrap_or_default();
        let user = settings.get("user").unwrap_or(local_user).to_owned();
        let alias = settings.get("hostkeyalias").map(str::to_owned);
        let home = home(defaults);
        let mut tokens = vec![
            ('%', "%".to_owned()),
            ('d', home.clone()),
            ('h', host.clone()),
            ('n', original.to_owned()),
            ('p', port.to_string()),
            ('r', user.clone()),
            ('u', local_user.to_owned()),
            ('i', getuid().to_string()),
            ('k', alias.clone().unwrap_or_else(|| original.to_owned())),
        ];
        tokens.extend(machine_tokens(settings, &host, port, &user));
        Self {
            host,
            port,
            user,
            alias,
            tokens: Tokens { home, tokens },
        }
    }
}

/// The home that OpenSSH thinks we have.
fn home(defaults: &Settings) -> String {
    let said = defaults.get("userknownhostsfile").filter(|h| h.starts_with('/'));
    let home = said.map(PathBuf::from).or_else(std::env::home_dir);
    let home = home.unwrap_or_else(|| PathBuf::from("/"));
    home.to_string_lossy().into_owned()
}

fn server_alive(settings: &Settings) -> Option<(Duration, u32)> {
    let interval = settings.seconds("serveraliveinterval")?;
    Some((interval, settings.number("serveralivecountmax").unwrap_or(3)))
}

fn strict(settings: &Settings) -> Strict {
    match settings.get("stricthostkeychecking") {
        Some("yes" | "true") => Strict::Yes,
        Some("accept-new") => Strict::AcceptNew,
        Some("no" | "false" | "off") => Strict::No,
        _ => Strict::Ask,
    }
}

/// The socket of the agent.
fn agent(settings: &Settings, tokens: &Tokens) -> Option<PathBuf> {
    let of_environment = |name: &str| std::env::var_os(name).map(PathBuf::from);
    match settings.get("identityagent").unwrap_or("SSH_AUTH_SOCK") {
        _ if settings.all("identityagent").iter().any(|a| a == "none") => None,
        "SSH_AUTH_SOCK" => of_environment("SSH_AUTH_SOCK"),
        path => match path.strip_prefix('$') {
            Some(name) if !name.starts_with('{') => of_environment(name),
            _ => tokens.path(path),
        },
    }
}

/// The files of a keyword that may stand more than once.
fn files(settings: &Settings, tokens: &Tokens, key: &str) -> Vec<PathBuf> {
    let given = settings.all(key).iter().filter(|v| *v != "none");
    given.filter_map(|v| tokens.path(v.trim_matches('"'))).collect()
}

/// What tells this machine, and the way from it, from others: `%l`, `%L` and `%C`.
fn machine_tokens(settings: &Settings, host: &str, port: u16, user: &str) -> Vec<(char, String)> {
    let system = uname();
    let local = system.nodename().to_string_lossy();
    let short = local.split('.').next().unwrap_or_default();
    let mut tokens = vec![('l', local.to_string()), ('L', short.to_owned())];
    // With a jump host it is another in OpenSSH 9.6 and later than before.
    if settings.get("proxyjump").is_none() {
        let way = format!("{local}{host}{port}{user}");
        let digest = hash(MessageDigest::sha1(), way.as_bytes());
        let hex = |digest: &[u8]| digest.iter().map(|b| format!("{b:02x}")).collect();
        tokens.extend(digest.ok().map(|digest| ('C', hex(&digest))));
    }
    tokens
}

/// Ways to log in that the user allows and this crate knows, in the user's order if there is one.
fn login_methods(settings: &Settings) -> Vec<&'static str> {
    let known = [
        ("publickey", "pubkeyauthentication"),
        ("keyboard-interactive", "kbdinteractiveauthentication"),
        ("password", "passwordauthentication"),
    ];
    // "unbound", "host-bound" are variants of yes.
    let allowed = known
        .iter()
        .filter(|(_, key)| !matches!(settings.get(key), Some("no" | "false")))
        .map(|(name, _)| *name);
    let Some(preferred) = settings.get("preferredauthentications") else {
        return allowed.collect();
    };
    let allowed: Vec<&str> = allowed.collect();
    let preferred = preferred.split(',').map(str::trim);
    preferred
        .filter_map(|method| allowed.iter().find(|name| **name == method).copied())
        .collect()
}

/// What the configuration asks for and only OpenSSH does.
fn demand(settings: &Settings, defaults: &Settings) -> Option<&'static str> {
    let local = |host: &str| host == "localhost" || host == "::1" || host.starts_with("127.");
    let host = settings.get("hostname").unwrap_or_default();
    if settings.flag("nohostauthenticationforlocalhost", false) && local(host) {
        return Some("NoHostAuthenticationForLocalhost");
    }
    if settings.flag("proxyusefdpass", false) && settings.get("proxycommand").is_some() {
        return Some("ProxyUseFdpass");
    }
    let set = [
        ("knownhostscommand", "KnownHostsCommand"),
        ("pkcs11provider", "PKCS11Provider"),
        ("bindinterface", "BindInterface"),
        ("pubkeyacceptedalgorithms", "PubkeyAcceptedAlgorithms"),
        ("pubkeyacceptedkeytypes", "PubkeyAcceptedKeyTypes"),
        ("requiredrsasize", "RequiredRSASize"),
    ];
    let differs = |key: &str| settings.get(key).is_some() && settings.get(key) != defaults.get(key);
    set.iter().find(|(key, _)| differs(key)).map(|(_, name)| *name)
}

/// One file, also when its name holds blanks. It is never left out: without it a revoked key is good.
fn revoked_host_keys(settings: &Settings, tokens: &Tokens) -> Result<Option<PathBuf>, Kind> {
    let Some(text) = settings.get("revokedhostkeys") else {
        return Ok(None);
    };
    let file = tokens.path(text).ok_or_else(|| Kind::BadSetting {
        what: "RevokedHostKeys",
        text: text.to_owned(),
        reason: "its ~, % or ${} cannot be expanded",
    })?;
    Ok(Some(file))
}

/// The name in known hosts files, and the one that counts as well when it matches: as `ssh` does,
/// which tries the plain name when the port is not 22.
fn known_hosts_names(alias: Option<String>, host: &str, port: u16) -> (String, Option<String>) {
    let host = host.to_ascii_lowercase();
    match (alias, port) {
        (Some(alias), _) => (alias, None),
        (None, 22) => (host, None),
        (None, port) => (format!("[{host}]:{port}"), Some(host)),
    }
}

fn keygen_beside(ssh_program: &str) -> String {
    match Path::new(ssh_program).parent() {
        Some(dir) if !dir.as_os_str().is_empty() && dir.join("ssh-keygen").exists() => {
            dir.join("ssh-keygen").to_string_lossy().into_owned()
        }
        _ => "ssh-keygen".to_owned(),
    }
}

fn route(
    settings: &Settings,
    tokens: &Tokens,
    words: &[String],
    options: &SshOptions,
) -> Result<Route, Kind> {
    let bad = |what, text: &str, reason| Kind::BadSetting {
        what,
        text: text.to_owned(),
        reason,
    };
    if let Some(line) = settings.get("proxycommand") {
        let line = tokens
            .percent(line)
            .map_err(|_| bad("ProxyCommand", line, "it holds an unknown % token"))?;
        return Ok(Route::Proxy { line });
    }
    let Some(jumps) = settings.get("proxyjump") else {
        return Ok(Route::Direct {
            bind: settings.get("bindaddress").map(str::to_owned),
        });
    };
    let jumps = tokens
        .percent(jumps)
        .map_err(|_| bad("ProxyJump", jumps, "it holds an unknown % token"))?;
    let (before, last) = match jumps.rsplit_once(',') {
        Some((before, last)) => (Some(before), last),
        None => (None, jumps.as_str()),
    };
    let last = if last.starts_with("ssh://") {
        last.to_owned()
    } else {
        format!("ssh://{last}")
    };
    let mut jump = vec![options.ssh_program.clone(), "-T".to_owned()];
    // As ssh does for its own jumps: the same file, none of the other options.
    if let Some(at) = words.iter().position(|w| w.starts_with("-F")) {
        jump.push(words[at].clone());
        jump.extend(words.get(at + 1).filter(|_| words[at] == "-F").cloned());
    }
    if options.prompt.is_none() {
        jump.extend(["-o".to_owned(), "BatchMode=yes".to_owned()]);
    }
    jump.extend(
        before
            .iter()
            .flat_map(|before| ["-J".to_owned(), (*before).to_owned()]),
    );
    let target = tokens.percent("[%h]:%p").unwrap_or_default();
    jump.extend(["-W".to_owned(), target, "--".to_owned(), last]);
    Ok(Route::Jump { words: jump })
}

#[cfg(test)]
mod tests;
