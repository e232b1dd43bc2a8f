//! What the user's SSH configuration means for one destination, by `ssh -G`.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use openssl::hash::{MessageDigest, hash};
use repmgr_types::CancelToken;
use rustix::process::getuid;
use rustix::system::uname;
use ssh2::{MethodType, Session};

use super::SshOptions;
use super::hostkey::KnownKey;
use crate::error::{ConnectErrorKind as Kind, RemoteErrorKind};
use crate::local::run_program;
use crate::text::{printable, shorten};
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
    /// Lists the user set, by their names in `ssh -G`.
    algorithms: HashMap<&'static str, String>,
    /// What `ssh` would offer, by its name in OpenSSH's message when nothing of it is common.
    offers: HashMap<&'static str, String>,
    /// Whether types that are known go before the order of the list of host key algorithms.
    known_types_first: bool,
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

/// Lines of `ssh -G`: lower-case keyword and value.
struct Settings(HashMap<String, Vec<String>>);

impl Settings {
    fn parse(text: &str) -> Self {
        let mut map: HashMap<String, Vec<String>> = HashMap::new();
        for line in text.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            map.entry(key.to_ascii_lowercase())
                .or_default()
                .push(value.trim().to_owned());
        }
        Self(map)
    }

    fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// The value, unless it is missing, empty or "none".
    fn get(&self, key: &str) -> Option<&str> {
        self.all(key)
            .first()
            .map(String::as_str)
            .filter(|v| !v.is_empty() && *v != "none")
    }

    /// Yes or no, as old and new versions of OpenSSH write it.
    fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).map_or(default, |v| matches!(v, "yes" | "true"))
    }

    fn seconds(&self, key: &str) -> Option<Duration> {
        self.get(key)?
            .parse()
            .ok()
            .filter(|s| *s > 0)
            .map(Duration::from_secs)
    }
}

/// The `%` tokens of ssh_config(5), and home for `~`.
struct Tokens {
    home: String,
    tokens: Vec<(char, String)>,
}

impl Tokens {
    /// Expands `%` tokens only; `Err` names the one that is not known.
    fn percent(&self, text: &str) -> Result<String, char> {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match (c, c == '%') {
                (_, true) => {
                    let token = chars.next().unwrap_or('%');
                    let found = self.tokens.iter().find(|(t, _)| *t == token);
                    out.push_str(&found.ok_or(token)?.1);
                }
                (c, false) => out.push(c),
            }
        }
        Ok(out)
    }

    /// A path with `~`, `~account`, `${NAME}` and `%` expanded; `None` (and a message in the log) for
    /// what cannot be.
    fn path(&self, text: &str) -> Option<PathBuf> {
        let expanded = self
            .percent(text)
            .ok()
            .and_then(|t| expand_environment(&t))
            .and_then(|t| match t.strip_prefix('~') {
                Some(rest) => {
                    let (account, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                    let home = match account {
                        "" => Some(self.home.clone()),
                        account => home_of(account),
                    };
                    home.map(|home| home + below)
                }
                None => Some(t),
            });
        if expanded.is_none() {
            log::warn!("cannot expand \"{text}\" of the SSH configuration; it is left out");
        }
        expanded.map(PathBuf::from)
    }

    /// `ssh -G` joins files by blanks and does not quote: one existing path with a blank is one path.
    fn paths(&self, value: Option<&str>) -> Vec<PathBuf> {
        let Some(value) = value else { return Vec::new() };
        match self.path(value) {
            Some(whole) if whole.exists() => vec![whole],
            _ => value
                .split_whitespace()
                .filter_map(|part| self.path(part))
                .collect(),
        }
    }
}

/// The home of an account of this machine.
fn home_of(account: &str) -> Option<String> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut lines = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.find(|fields| fields.first() == Some(&account))?;
    found.get(5).map(|home| (*home).to_owned())
}

fn expand_environment(text: &str) -> Option<String> {
    let Some((before, rest)) = text.split_once("${") else {
        return Some(text.to_owned());
    };
    let (name, after) = rest.split_once('}')?;
    Some(format!(
        "{before}{}{}",
        std::env::var(name).ok()?,
        expand_environment(after)?
    ))
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
    let original = settings
        .get("host")
        .unwrap_or_else(|| destination.rsplit('@').next().unwrap_or(destination));
    let host = settings.get("hostname").unwrap_or(original);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port: u16 = settings.get("port").and_then(|p| p.parse().ok()).unwrap_or(22);
    let home = defaults
        .get("userknownhostsfile")
        .filter(|h| h.starts_with('/'))
        .map(PathBuf::from);
    let home = home
        .or_else(std::env::home_dir)
        .unwrap_or_else(|| PathBuf::from("/"));
    let local_user = defaults
        .get("identityagent")
        .filter(|u| !u.starts_with('%'))
        .unwrap_or_default();
    let user = settings.get("user").unwrap_or(local_user).to_owned();
    let mut tokens = Tokens {
        home: home.to_string_lossy().into_owned(),
        tokens: vec![
            ('%', "%".to_owned()),
            ('d', home.to_string_lossy().into_owned()),
            ('h', host.clone()),
            ('n', original.to_owned()),
            ('p', port.to_string()),
            ('r', user.clone()),
            ('u', local_user.to_owned()),
            ('i', getuid().to_string()),
        ],
    };
    tokens.tokens.extend(machine_tokens(settings, &host, port, &user));
    // No token counts here.
    let alias = settings.get("hostkeyalias").map(str::to_owned);
    tokens
        .tokens
        .push(('k', alias.clone().unwrap_or_else(|| original.to_owned())));
    let (known_hosts_name, known_hosts_fallback) = known_hosts_names(alias, &host, port);
    let agent = match settings.get("identityagent").unwrap_or("SSH_AUTH_SOCK") {
        _ if settings.all("identityagent").iter().any(|a| a == "none") => None,
        "SSH_AUTH_SOCK" => std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from),
        variable if variable.starts_with('$') && !variable.starts_with("${") => {
            std::env::var_os(&variable[1..]).map(PathBuf::from)
        }
        path => tokens.path(path),
    };
    let files = |key| -> Vec<PathBuf> {
        let given = settings.all(key).iter().filter(|v| *v != "none");
        given.filter_map(|v| tokens.path(v.trim_matches('"'))).collect()
    };
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
        server_alive: settings.seconds("serveraliveinterval").map(|interval| {
            let count = settings.get("serveralivecountmax").and_then(|c| c.parse().ok());
            (interval, count.unwrap_or(3))
        }),
        batch_mode: settings.flag("batchmode", false),
        strict: match settings.get("stricthostkeychecking") {
            Some("yes" | "true") => Strict::Yes,
            Some("accept-new") => Strict::AcceptNew,
            Some("no" | "false" | "off") => Strict::No,
            _ => Strict::Ask,
        },
        known_hosts_name,
        known_hosts_fallback,
        user_known_hosts: tokens.paths(settings.get("userknownhostsfile")),
        global_known_hosts: tokens.paths(settings.get("globalknownhostsfile")),
        revoked_host_keys: revoked_host_keys(settings, &tokens)?,
        hash_known_hosts: settings.flag("hashknownhosts", false),
        identity_files: files("identityfile"),
        certificate_files: files("certificatefile"),
        identities_only: settings.flag("identitiesonly", false),
        agent,
        login_methods: login_methods(settings),
        algorithms: ["ciphers", "macs", "kexalgorithms", "hostkeyalgorithms"]
            .into_iter()
            .filter_map(|key| {
                let set = settings.get(key)?;
                (defaults.get(key) != Some(set)).then(|| (key, set.to_owned()))
            })
            .collect(),
        offers: offers(settings),
        known_types_first: known_types_first(settings, defaults),
        keygen_program: keygen_beside(&options.ssh_program),
        connection_attempts: settings
            .get("connectionattempts")
            .and_then(|n| n.parse().ok())
            .unwrap_or(1),
        has_control_path: settings.get("controlpath").is_some(),
        has_remote_command: settings.get("remotecommand").is_some(),
        demand: demand(settings, defaults),
    })
}

/// The lists of `ssh -G` by what "no matching ... found" calls them.
fn offers(settings: &Settings) -> HashMap<&'static str, String> {
    let names = [
        ("key exchange method", "kexalgorithms"),
        ("host key type", "hostkeyalgorithms"),
        ("cipher", "ciphers"),
        ("MAC", "macs"),
    ];
    let list = |(name, key)| Some((name, settings.get(key)?.to_owned()));
    names.into_iter().filter_map(list).collect()
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

/// `ssh` orders host key types by what is known, unless the user set a list. One that was made of the default by
/// `+` or `-` is none, and `ssh -G` shows only what came of it.
fn known_types_first(settings: &Settings, defaults: &Settings) -> bool {
    const KEY: &str = "hostkeyalgorithms";
    let (Some(set), Some(default)) = (settings.get(KEY), defaults.get(KEY)) else {
        return true;
    };
    let default: Vec<&str> = default.split(',').collect();
    let set: Vec<&str> = set.split(',').collect();
    let mut rest = default.iter();
    let in_order = set.iter().all(|name| rest.any(|known| known == name));
    set.starts_with(&default) || in_order && set.len() * 2 > default.len()
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

impl ClientConfig {
    /// OpenSSH's message with our list beside the server's, where the two hold nothing in common.
    pub(super) fn with_our_offer(&self, message: String) -> String {
        let named = |name: &str| message.contains(&format!("no matching {name} found"));
        match self.offers.iter().find(|(name, _)| named(name)) {
            Some((_, list)) => format!("{message}; our offer: {}", shorten(list, 600)),
            None => message,
        }
    }

    /// Sets what must be set before the handshake: lists of the user's, and host key types we know.
    pub(super) fn prefer_algorithms(&self, session: &Session, known: &[KnownKey]) -> Result<(), Kind> {
        let lists = [
            ("ciphers", &[MethodType::CryptCs, MethodType::CryptSc][..]),
            ("macs", &[MethodType::MacCs, MethodType::MacSc][..]),
            ("kexalgorithms", &[MethodType::Kex][..]),
        ];
        for (key, methods) in lists {
            let Some(list) = self.algorithms.get(key) else {
                continue;
            };
            for method in methods {
                set_preference(session, *method, key, list)?;
            }
        }
        let all = session
            .supported_algs(MethodType::HostKey)
            .map_err(|e| handshake(&e))?;
        let types: Vec<&str> = known
            .iter()
            .filter(|k| !k.is_marked())
            .map(|k| k.key_type.as_str())
            .collect();
        let list = host_key_order(
            &all,
            self.algorithms.get("hostkeyalgorithms").map(String::as_str),
            if self.known_types_first { &types } else { &[] },
        );
        set_preference(session, MethodType::HostKey, "hostkeyalgorithms", &list)
    }
}

fn handshake(error: &ssh2::Error) -> Kind {
    Kind::Handshake {
        reason: printable(error.message().as_bytes()),
    }
}

fn set_preference(session: &Session, method: MethodType, what: &'static str, list: &str) -> Result<(), Kind> {
    session.method_pref(method, list).map_err(|_| Kind::BadSetting {
        what,
        text: shorten(list, 200),
        reason: "none of these algorithms is supported here",
    })
}

/// Host key algorithms to offer: types that known hosts files hold come first (or the server
/// chooses one we cannot compare, which looks like an attack), unless the user set an order.
/// No certificates: nobody here would check the authority's signature.
fn host_key_order(supported: &[&str], user_set: Option<&str>, known_types: &[&str]) -> String {
    let base: Vec<&str> = match user_set {
        Some(list) => list.split(',').filter(|a| supported.contains(a)).collect(),
        None => supported.to_vec(),
    };
    let mut base: Vec<&str> = base
        .into_iter()
        .filter(|a| !a.contains("-cert-") && *a != "ssh-rsa")
        .collect();
    let known = |algorithm: &str| {
        known_types
            .iter()
            .any(|t| *t == algorithm || *t == "ssh-rsa" && algorithm.starts_with("rsa-sha2-"))
    };
    base.sort_by_key(|algorithm| !known(algorithm));
    base.join(",")
}

#[cfg(test)]
mod tests;
