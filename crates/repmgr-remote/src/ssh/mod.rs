//! A host behind SSH.

mod agent;
mod auth;
mod channel;
mod config;
mod hostkey;
mod link;
mod socket;

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use repmgr_types::{CancelToken, Cancelled};

use crate::error::ConnectErrorKind as Kind;
use crate::{ConnectError, Connection, Host};

use self::channel::{RoundTrip, SshConnection};
use self::config::ClientConfig;
use self::link::Link;

/// Asks the user while a connection is made. Without one nothing is ever asked.
pub trait Prompt: Send + Sync {
    /// A passphrase, password or code; `None` when the user gives up.
    fn secret(&self, question: &str) -> Option<String>;

    /// A question whose answer is yes or no.
    fn confirm(&self, question: &str) -> bool;
}

/// How to reach a host, beyond its name.
#[derive(Clone)]
pub struct SshOptions {
    /// Options as one would type them after `ssh`, split like a shell does: `-F file -o 'A=b c'`.
    pub ssh_options: String,
    /// The user to log in as, unless the destination names one.
    pub user: Option<String>,
    /// The user where neither the destination, [`user`](Self::user) nor the configuration names one
    /// (instead of this account's own).
    pub default_user: Option<String>,
    /// The port, unless the destination names one.
    pub port: Option<u16>,
    /// Who to ask for passphrases, passwords and new host keys.
    pub prompt: Option<Arc<dyn Prompt>>,
    /// The limit for each step of connecting, where `ConnectTimeout` sets none.
    pub connect_timeout: Duration,
    /// Ends connecting and all commands early.
    pub cancel: CancelToken,
    /// The OpenSSH client that reads the user's configuration, and connects through a `ProxyJump`.
    pub ssh_program: String,
}

impl Default for SshOptions {
    fn default() -> Self {
        Self {
            ssh_options: String::new(),
            user: None,
            default_user: None,
            port: None,
            prompt: None,
            connect_timeout: Duration::from_secs(30),
            cancel: CancelToken::new(),
            ssh_program: "ssh".to_owned(),
        }
    }
}

/// A host behind SSH, reached as the user's own `ssh` would reach it.
///
/// `ssh -G` says what the user's configuration means for the destination, so `~/.ssh/config`
/// with its `Match` and `Include` counts: HostName, Port, User, IdentityFile, IdentitiesOnly,
/// IdentityAgent, CertificateFile, known hosts files, HostKeyAlias, StrictHostKeyChecking,
/// HashKnownHosts, ConnectTimeout, ServerAlive*, TCPKeepAlive, ProxyJump, ProxyCommand,
/// AddressFamily, BindAddress, BatchMode, and the algorithm lists when they are set. Not
/// supported: GSSAPI and host-based login, host certificates, connection sharing, forwarding.
///
/// A host key must be known, or be accepted by StrictHostKeyChecking. One difference to OpenSSH,
/// on the safe side: a host that offers a key other than the known ones is always refused, where
/// `StrictHostKeyChecking no` would let `ssh` connect with a warning.
pub struct SshHost {
    way: Arc<Way>,
    ahead: Mutex<Vec<JoinHandle<Result<SshConnection, Kind>>>>,
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
            return bad("ssh_options", &options.ssh_options, "a quote is not closed");
        };
        Ok(Self {
            way: Arc::new(Way {
                destination: destination.to_owned(),
                words,
                options,
                config: Mutex::new(None),
                answers: Mutex::new(HashMap::new()),
                asked: AtomicBool::new(false),
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
        let config = config.map_err(|kind| kind.at(&self.way.destination))?;
        Ok(config.user.clone())
    }

    /// A connection that was begun ahead, if it is any good.
    fn take_ahead(&self) -> Result<Option<SshConnection>, Cancelled> {
        loop {
            let begun = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(begun) = begun else { return Ok(None) };
            // An agent that waits for its user holds the thread, which is then left behind.
            while !begun.is_finished() {
                self.way.options.cancel.check()?;
                sleep(Duration::from_millis(5));
            }
            match begun.join().unwrap_or_else(|panic| resume_unwind(panic)) {
                Ok(connection) if connection.is_open() => return Ok(Some(connection)),
                Ok(_) => log::debug!("a connection made ahead was closed meanwhile"),
                Err(kind) => log::debug!("no connection ahead: {kind}"),
            }
        }
    }
}

impl Way {
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

    fn log_in(&self, may_ask: bool) -> Result<SshConnection, Kind> {
        let cancel = &self.options.cancel;
        cancel.check()?;
        let config = self.config()?;
        let prompt = self.options.prompt.as_deref();
        let prompt = prompt.filter(|_| may_ask && !config.batch_mode);
        let noting = prompt.map(|prompt| Noting {
            prompt,
            asked: &self.asked,
        });
        let prompt = noting.as_ref().map(|n| n as &dyn Prompt);
        let (socket, proxy, connected_in) = socket::open(&config, cancel)?;
        let link = Link::new(socket, proxy, cancel.clone(), config.connect_timeout)?;
        let known = hostkey::known_keys(&config, cancel)?;
        config.prefer_algorithms(&link.session, &known)?;
        link.drive("exchanging keys", |session| session.clone().handshake())
            .map_err(|stop| link.handshake_error(stop))?;
        {
            // One worker at a time, so that a new key is asked for and written down once.
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            hostkey::verify(&link.session, &config, known, prompt, &mut answers, cancel)?;
        }
        let first_answer = auth::log_in(&link, &config, prompt, &self.answers)?;
        let guess = connected_in.unwrap_or(first_answer);
        Ok(SshConnection::new(
            self.destination.clone(),
            link,
            &config,
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
            Ok(connection) => Ok(Box::new(connection)),
            Err(kind) => Err(kind.at(&self.way.destination)),
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
