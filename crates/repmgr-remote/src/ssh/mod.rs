//! A host behind SSH.

mod agent;
mod algorithms;
mod auth;
mod channel;
mod config;
mod hostkey;
mod keyfile;
mod link;
mod options;
mod own;
mod revoked;
mod settings;
mod socket;

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use repmgr_types::Cancelled;

use crate::error::{ConnectErrorKind as Kind, SSH_OPTIONS};
use crate::{ConnectError, Connection, Host, quote};

use self::channel::{RoundTrip, SshConnection};
use self::config::ClientConfig;
use self::hostkey::KnownKey;
use self::link::Link;
use self::own::{Call, OwnConnection};

pub use self::options::{Prompt, SshClient, SshOptions};
pub use self::own::PlainSsh;

/// A host behind SSH, reached as the user's own `ssh` would reach it.
///
/// `ssh -G` says what the user's configuration means for the destination, so `~/.ssh/config`
/// with its `Match` and `Include` counts: HostName, Port, User, IdentityFile, IdentitiesOnly,
/// IdentityAgent, CertificateFile, known hosts files, HostKeyAlias, StrictHostKeyChecking,
/// RevokedHostKeys, HashKnownHosts, ConnectTimeout, ServerAlive*, TCPKeepAlive, ProxyJump, ProxyCommand,
/// AddressFamily, BindAddress, BatchMode, and the algorithm lists when they are set.
///
/// What libssh2 cannot do is left to the user's own `ssh` ([`SshClient`]): GSSAPI and host-based login, security
/// keys, host certificates, newer algorithms, a connection that is shared already. It is turned to where the
/// configuration asks for such a thing, or where libssh2 fails in the key exchange or the login; never after a
/// host key that is not the known one, or revoked.
///
/// A host key must be known, or be accepted by StrictHostKeyChecking. One difference to OpenSSH,
/// on the safe side: a host that offers a key other than the known ones is always refused, where
/// `StrictHostKeyChecking no` would let `ssh` connect with a warning.
pub struct SshHost {
    way: Arc<Way>,
    ahead: Mutex<Vec<JoinHandle<Result<LoggedIn, Kind>>>>,
}

/// A connection of either kind.
enum LoggedIn {
    Libssh2(Box<SshConnection>),
    Own(Box<OwnConnection>),
}

impl LoggedIn {
    fn is_open(&mut self) -> bool {
        match self {
            Self::Libssh2(connection) => connection.is_open(),
            Self::Own(connection) => connection.is_open(),
        }
    }

    fn into_connection(self) -> Box<dyn Connection> {
        match self {
            Self::Libssh2(connection) => connection,
            Self::Own(connection) => connection,
        }
    }
}

/// What it takes to connect.
struct Way {
    destination: String,
    words: Vec<String>,
    options: SshOptions,
    /// Read once: a clone of many workers must not depend on edits in between.
    config: Mutex<Option<Arc<ClientConfig>>>,
    /// Answers of the user, so that each question is asked once and not by each worker.
    answers: Mutex<HashMap<String, String>>,
    /// Whether the user was ever asked; not all answers are kept.
    asked: AtomicBool,
    /// Only `ssh` gets there, as was found out.
    only_ssh: AtomicBool,
    round_trip: Arc<RoundTrip>,
}

impl SshHost {
    /// A host by alias, `host`, `user@host` or `ssh://user@host:port`. Touches nothing yet.
    pub fn new(destination: &str, options: SshOptions) -> Result<Self, ConnectError> {
        let bad = |what, text: &str, reason| {
            Err(Kind::BadSetting {
                what,
                text: text.to_owned(),
                reason,
            }
            .at(destination))
        };
        let host = destination.rsplit('@').next().unwrap_or_default();
        if host.is_empty() {
            return bad("host", destination, "the name is empty");
        }
        if destination.starts_with('-') || host.starts_with('-') {
            return bad("host", destination, "a name cannot begin with \"-\"");
        }
        if destination.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return bad(
                "host",
                destination,
                "a name holds no blanks and control characters",
            );
        }
        let Some(words) = split_words(&options.ssh_options) else {
            return bad(SSH_OPTIONS, &options.ssh_options, "a quote is not closed");
        };
        Ok(Self {
            way: Arc::new(Way {
                destination: destination.to_owned(),
                words,
                options,
                config: Mutex::new(None),
                answers: Mutex::new(HashMap::new()),
                asked: AtomicBool::new(false),
                only_ssh: AtomicBool::new(false),
                round_trip: Arc::default(),
            }),
            ahead: Mutex::default(),
        })
    }

    /// The user to log in as, by all that may name one. Reads the configuration; connects nowhere.
    ///
    /// # Errors
    /// If the configuration cannot be read.
    pub fn user(&self) -> Result<String, ConnectError> {
        let config = self.way.config();
        let config = config.map_err(|kind| self.way.failed(kind))?;
        Ok(config.user.clone())
    }

    /// The same host by the program `ssh` for plain command lines, without marks around their output.
    pub fn plain(&self) -> PlainSsh {
        let way = Arc::clone(&self.way);
        PlainSsh {
            call: self.way.call(),
            cancel: self.way.options.cancel.clone(),
            config: Box::new(move || match way.config() {
                Ok(config) => Ok((*config).clone()),
                Err(kind) => Err(way.failed(kind)),
            }),
        }
    }

    /// A connection that was begun ahead, if it is any good.
    fn take_ahead(&self) -> Result<Option<LoggedIn>, Cancelled> {
        loop {
            let begun = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(begun) = begun else { return Ok(None) };
            // An agent that waits for its user holds the thread, which is then left behind.
            while !begun.is_finished() {
                self.way.options.cancel.check()?;
                sleep(Duration::from_millis(5));
            }
            match begun.join().unwrap_or_else(|panic| resume_unwind(panic)) {
                Ok(mut connection) => {
                    if connection.is_open() {
                        return Ok(Some(connection));
                    }
                    log::debug!("a connection made ahead was closed meanwhile");
                }
                Err(kind) => log::debug!("no connection ahead: {kind}"),
            }
        }
    }
}

impl Way {
    fn failed(&self, kind: Kind) -> ConnectError {
        ConnectError {
            ssh_options: self.typed(),
            ..kind.at(&self.destination)
        }
    }

    /// Options as one would type them, user and port included.
    fn typed(&self) -> String {
        let SshOptions { user, port, .. } = &self.options;
        let user = user.as_ref().filter(|_| !self.destination.contains('@'));
        let port = port.filter(|_| !config::names_port(&self.destination));
        let mut words = self.words.clone();
        words.extend(user.iter().flat_map(|user| ["-l".to_owned(), user.to_string()]));
        words.extend(port.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
        words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
    }

    fn config(&self) -> Result<Arc<ClientConfig>, Kind> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*config {
            return Ok(Arc::clone(known));
        }
        let resolved = Arc::new(config::resolve(&self.destination, &self.words, &self.options)?);
        Ok(Arc::clone(config.insert(resolved)))
    }

    /// Whether somebody had to answer questions, and may have to again.
    fn asks(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    fn call(&self) -> Call {
        Call {
            program: self.options.ssh_program.clone(),
            words: self.words.clone(),
            destination: self.destination.clone(),
        }
    }

    fn log_in(&self, may_ask: bool) -> Result<LoggedIn, Kind> {
        self.options.cancel.check()?;
        let config = self.config()?;
        let only_ssh = self.options.client == SshClient::OpenSsh || self.only_ssh.load(Ordering::SeqCst);
        if only_ssh {
            return self.by_ssh(&config);
        }
        let result = match config.demand {
            Some(what) => Err(Kind::Unsupported { what }),
            None => self.by_libssh2(&config, may_ask),
        };
        match result {
            Ok(connection) => Ok(LoggedIn::Libssh2(Box::new(connection))),
            Err(kind) if self.options.client == SshClient::Auto && self.ssh_may(&kind, &config, may_ask) => {
                self.by_ssh_instead(&config, kind)
            }
            Err(kind) => Err(kind),
        }
    }

    fn by_ssh(&self, config: &ClientConfig) -> Result<LoggedIn, Kind> {
        let connection = OwnConnection::log_in(self.call(), config, &self.options.cancel)?;
        Ok(LoggedIn::Own(Box::new(connection)))
    }

    /// Whether `ssh` may get there where libssh2 did not. It makes up its own mind on the host's key.
    fn ssh_may(&self, kind: &Kind, config: &ClientConfig, may_ask: bool) -> bool {
        match kind {
            // Perhaps an answer of the user is all that is missing.
            Kind::HostKeyUnknown { .. } | Kind::Authentication { .. } | Kind::Incomplete { .. } => may_ask,
            Kind::Unsupported { .. }
            | Kind::Handshake { .. }
            | Kind::HungUp { .. }
            | Kind::BadSetting { .. } => true,
            // A connection that is open already needs no way to the host.
            Kind::Network { .. } | Kind::Resolve { .. } | Kind::TimedOut { .. } => {
                self.call().is_shared(config, &self.options.cancel)
            }
            _ => false,
        }
    }

    fn by_ssh_instead(&self, config: &ClientConfig, why: Kind) -> Result<LoggedIn, Kind> {
        log::debug!("libssh2 does not get in: {why}");
        match self.by_ssh(config) {
            Ok(connection) => {
                if !self.only_ssh.swap(true, Ordering::SeqCst) {
                    log::info!("connecting to \"{}\" with \"ssh\": {why}", self.destination);
                }
                Ok(connection)
            }
            Err(Kind::Cancelled(cancelled)) => Err(cancelled.into()),
            Err(Kind::Ssh { message, .. }) if matches!(why, Kind::Handshake { .. }) => {
                let reason = config.algorithms.with_our_offer(message);
                Err(Kind::Handshake { reason })
            }
            Err(failed) if matches!(why, Kind::Unsupported { .. }) => Err(failed),
            // What was found out here says more.
            Err(failed) => {
                log::debug!("\"ssh\" does not get in either: {failed}");
                Err(why)
            }
        }
    }

    fn by_libssh2(&self, config: &ClientConfig, may_ask: bool) -> Result<SshConnection, Kind> {
        let cancel = &self.options.cancel;
        let prompt = self.options.prompt.as_deref();
        // With a user to ask, or while logins are made ahead, an empty answer would only be a wrong one.
        let unattended = prompt.is_none() && may_ask && !config.batch_mode;
        let prompt = prompt.filter(|_| may_ask && !config.batch_mode);
        let noting = prompt.map(|prompt| Noting {
            prompt,
            asked: &self.asked,
        });
        let prompt = noting.as_ref().map(|n| n as &dyn Prompt);
        let known = hostkey::known_keys(config, cancel)?;
        if self.options.client == SshClient::Auto && known.iter().any(KnownKey::is_authority) {
            let what = "a certificate of the host (@cert-authority)";
            return Err(Kind::Unsupported { what });
        }
        let (socket, proxy, connected_in) = socket::open(config, cancel)?;
        let link = Link::new(socket, proxy, cancel.clone(), config.connect_timeout)?;
        let plain = known.iter().filter(|k| !k.is_marked());
        let types: Vec<&str> = plain.map(|k| k.key_type.as_str()).collect();
        config.algorithms.prefer(&link.session, &types)?;
        link.drive("exchanging keys", |session| session.clone().handshake())
            .map_err(|stop| link.handshake_error(stop))?;
        log::debug!("\"{}\": {}", self.destination, link.negotiated());
        {
            // One worker at a time, so that a new key is asked for and written down once.
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            hostkey::verify(&link.session, config, known, prompt, &mut answers, cancel)?;
        }
        let first_answer = auth::log_in(&link, config, prompt, unattended, &self.answers)?;
        let guess = connected_in.unwrap_or(first_answer);
        Ok(SshConnection::new(
            self.destination.clone(),
            link,
            config,
            Arc::clone(&self.round_trip),
            guess,
        ))
    }
}

/// The user's prompt, and the note that it was used.
struct Noting<'w> {
    prompt: &'w dyn Prompt,
    asked: &'w AtomicBool,
}

impl Prompt for Noting<'_> {
    fn secret(&self, question: &str) -> Option<String> {
        self.asked.store(true, Ordering::SeqCst);
        self.prompt.secret(question)
    }

    fn confirm(&self, question: &str) -> bool {
        self.asked.store(true, Ordering::SeqCst);
        self.prompt.confirm(question)
    }
}

impl Host for SshHost {
    fn name(&self) -> &str {
        &self.way.destination
    }

    fn connect(&self) -> Result<Box<dyn Connection>, ConnectError> {
        let connection = match self.take_ahead() {
            Ok(Some(connection)) => Ok(connection),
            Ok(None) => self.way.log_in(true),
            Err(cancelled) => Err(cancelled.into()),
        };
        match connection {
            Ok(connection) => Ok(connection.into_connection()),
            Err(kind) => Err(self.way.failed(kind)),
        }
    }

    fn round_trip(&self) -> Option<Duration> {
        self.way.round_trip.get()
    }

    fn connect_ahead(&self, count: usize) {
        if self.way.asks() {
            return;
        }
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of an attempt that came to nothing are still there.
        for _ in ahead.len()..count {
            let way = Arc::clone(&self.way);
            let builder = thread::Builder::new().name("ssh-ahead".to_owned());
            match builder.spawn(move || way.log_in(false)) {
                Ok(begun) => ahead.push(begun),
                Err(e) => log::debug!("no connection ahead: {e}"),
            }
        }
    }
}

/// Splits like a POSIX shell without expansions; `None` when a quote stays open.
fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        end if end == c => break,
                        '\\' if c == '"' => word.push(chars.next()?),
                        inner => word.push(inner),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_split_like_in_a_shell() {
        let split = |t| split_words(t).unwrap();
        assert_eq!(
            split(r#" -q -o 'IdentityFile="/a b/k"'  -o "User=x\"y" -F a\ b '' "#),
            [
                "-q",
                "-o",
                "IdentityFile=\"/a b/k\"",
                "-o",
                "User=x\"y",
                "-F",
                "a b",
                ""
            ]
        );
        assert!(split("  ").is_empty());
        assert_eq!(split_words("-o 'x"), None);
        assert_eq!(split_words("x\\"), None);
    }

    #[test]
    fn names_that_ssh_would_take_for_something_else_are_refused() {
        for bad in ["", "-oProxyCommand=x", "user@", "user@-x", "a b", "a\nb", "a\0"] {
            assert!(SshHost::new(bad, SshOptions::default()).is_err(), "{bad:?}");
        }
        for good in ["barman", "barman@10.0.0.5", "ssh://b@[::1]:22", "a@b@host"] {
            assert!(SshHost::new(good, SshOptions::default()).is_ok(), "{good:?}");
        }
    }
}
