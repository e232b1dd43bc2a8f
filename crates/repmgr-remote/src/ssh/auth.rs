//! Logging in, with the keys `ssh` would use and in its order.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ssh2::{ErrorCode, KeyboardInteractivePrompt, Session};

use super::agent;
use super::config::ClientConfig;
use super::keyfile::{KeyFile, Lock, certificate_beside, certifies, key_file, public_blob_of};
use super::link::{Link, Stop};
use super::options::Prompt;
use crate::error::{ConnectErrorKind as Kind, Obstacle};
use crate::text::{printable, shorten};

const LOGGING_IN: &str = "logging in";
/// `LIBSSH2_ERROR_FILE`: the key file could not be read; a wrong passphrase looks the same.
const ERROR_FILE: i32 = -16;
/// `LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED`: the server knew the key, and its signature did not log in.
const ERROR_PUBLICKEY_UNVERIFIED: i32 = -19;
/// How many proofs a server may want one after the other.
const PROOFS: usize = 5;
/// How libssh2's message begins if the server's answer to a key never came.
const NO_ANSWER: &str = "Waiting for";
/// Passphrases and passwords one gets to type, as NumberOfPasswordPrompts of OpenSSH.
const PROMPTS: usize = 3;

/// Logs in; returns how long the server took for its first answer.
pub(super) fn log_in(
    link: &Link,
    config: &ClientConfig,
    prompt: Option<&dyn Prompt>,
    unattended: bool,
    answers: &Mutex<HashMap<String, String>>,
) -> Result<Duration, Kind> {
    let mut login = Login {
        link,
        config,
        prompt,
        unattended,
        answers,
        tried: Vec::new(),
        agent_keys: 0,
        obstacle: None,
        methods: String::new(),
        accepted: Vec::new(),
    };
    let asked = Instant::now();
    login.methods = login.ask_methods().map_err(|stop| link.handshake_error(stop))?;
    let answered_in = asked.elapsed();
    if link.session.authenticated() {
        return Ok(answered_in);
    }
    match login.prove() {
        Ok(true) => return Ok(answered_in),
        Ok(false) => {}
        Err(Stop::TimedOut { stage, after }) => return Err(Kind::TimedOut { stage, after }),
        Err(Stop::Cancelled(c)) => return Err(c.into()),
        // Most servers hang up after six refused keys (MaxAuthTries).
        Err(stop) => {
            login.obstacle = (login.offered() > 1).then_some(Obstacle::TooManyKeys);
            login
                .tried
                .push(format!("then the server hung up: {}", stop.message()));
        }
    }
    Err(login.refused())
}

struct Login<'a> {
    link: &'a Link,
    config: &'a ClientConfig,
    prompt: Option<&'a dyn Prompt>,
    /// Nobody will ever be there to ask.
    unattended: bool,
    answers: &'a Mutex<HashMap<String, String>>,
    /// For the error: what was tried, in words.
    tried: Vec<String>,
    agent_keys: usize,
    obstacle: Option<Obstacle>,
    /// What the server takes now, separated by commas.
    methods: String,
    /// What it has taken, in words; alone it was not enough.
    accepted: Vec<String>,
}

/// How one attempt went.
enum Attempt {
    Accepted,
    /// It was right, and the server wants one of these methods as well.
    Partly(String),
    Refused,
    /// The key could not be used, said libssh2.
    Unusable(String),
}

impl Login<'_> {
    /// The methods that the server takes now. This asks for the method "none" first, which some servers are
    /// content with.
    fn ask_methods(&self) -> Result<String, Stop> {
        let user = &self.config.user;
        self.link
            .drive(LOGGING_IN, |s| match s.auth_methods(user).map(str::to_owned) {
                Err(_) if s.authenticated() => Ok(String::new()),
                result => result,
            })
    }

    /// Proves who we are, as often as the server wants.
    fn prove(&mut self) -> Result<bool, Stop> {
        for _ in 0..PROOFS {
            if !self.prove_once()? {
                return Ok(false);
            }
            if self.link.session.authenticated() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the server took one of our proofs.
    fn prove_once(&mut self) -> Result<bool, Stop> {
        let methods = self.methods.clone();
        let config = self.config;
        for method in methods.split(',').filter(|m| config.login_methods.contains(m)) {
            let done = match method {
                "publickey" => self.with_keys(),
                "keyboard-interactive" => self.with_questions(),
                _ => self.with_password(),
            };
            if done? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes that the server took this and wants more.
    fn goes_on(&mut self, proof: String, methods: String) -> bool {
        log::debug!("the server accepted {proof} and asks for {methods} as well");
        self.accepted.push(proof);
        self.methods = methods;
        true
    }

    fn refused(self) -> Kind {
        let mut tried = self.tried;
        if self.agent_keys > 0 {
            tried.insert(0, format!("agent ({} keys)", self.agent_keys));
        }
        let accepts = shorten(&self.methods, 100);
        if !self.accepted.is_empty() {
            return Kind::Incomplete {
                user: self.config.user.clone(),
                accepted: self.accepted.join(", "),
                wanted: accepts,
                tried: tried.join(", "),
            };
        }
        if tried.is_empty() {
            tried.push("no key found".to_owned());
        }
        Kind::Authentication {
            user: self.config.user.clone(),
            tried: tried.join(", "),
            accepts,
            obstacle: self.obstacle,
        }
    }

    /// How many keys and other proofs the server has seen, at most.
    fn offered(&self) -> usize {
        self.agent_keys + self.tried.len()
    }

    fn attempt(&self, call: impl FnMut(&Session) -> Result<(), ssh2::Error>) -> Result<Attempt, Stop> {
        match self.link.drive(LOGGING_IN, call) {
            Ok(()) => Ok(Attempt::Accepted),
            Err(Stop::Ssh(e)) if e.code() == ErrorCode::Session(ERROR_FILE) => {
                Ok(Attempt::Unusable(printable(e.message().as_bytes())))
            }
            // libssh2 reports a server that hung up like one that refused the key; the connection may not
            // be closed yet when it has read the farewell.
            Err(Stop::Ssh(e)) if e.message().starts_with(NO_ANSWER) || self.link.is_closed() => {
                Err(Stop::System(ErrorKind::ConnectionAborted.into()))
            }
            Err(Stop::Ssh(e)) if e.code() == ErrorCode::Session(ERROR_PUBLICKEY_UNVERIFIED) => {
                self.refused_or_partly()
            }
            Err(stop @ Stop::Ssh(_)) if !stop.is_lost() => Ok(Attempt::Refused),
            Err(stop) => Err(stop),
        }
    }

    /// libssh2 does not tell a key that is not enough (a partial success) from one whose signature is wrong,
    /// but after the first the server takes other methods.
    fn refused_or_partly(&self) -> Result<Attempt, Stop> {
        let methods = self.ask_methods()?;
        Ok(match methods == self.methods {
            true => Attempt::Refused,
            false => Attempt::Partly(methods),
        })
    }

    /// Keys of the agent that are configured, the agent's other keys, then files; files that
    /// need a passphrase last, so that nobody is asked in vain.
    fn with_keys(&mut self) -> Result<bool, Stop> {
        let mut files: Vec<KeyFile> = self
            .config
            .identity_files
            .iter()
            .filter_map(|p| key_file(p))
            .collect();
        // Refused once, a key or certificate need not be offered again from its file.
        let mut refused = Vec::new();
        if let Some(agent) = self.config.agent.clone() {
            match self.with_agent(&agent, &files, &mut refused) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(stop @ Stop::Ssh(_)) if !stop.is_lost() => {
                    self.tried
                        .push(format!("agent at {} ({})", agent.display(), stop.message()));
                }
                Err(stop) => return Err(stop),
            }
        }
        files.sort_by_key(|f| f.private == Some(Lock::Passphrase));
        for file in files {
            let Some(lock) = file.private else { continue };
            for public in self.certificates_for(&file) {
                let offer = public.as_deref().map_or(file.public.clone(), public_blob_of);
                if offer.is_some_and(|blob| refused.contains(&blob)) {
                    continue;
                }
                if self.with_file(&file.path, public.as_deref(), lock)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn with_agent(
        &mut self,
        socket: &Path,
        files: &[KeyFile],
        refused: &mut Vec<Vec<u8>>,
    ) -> Result<bool, Stop> {
        let probed = agent::probe(socket, agent::LIMIT, self.link.cancel()).map_err(Stop::Cancelled)?;
        if let Err(why) = probed {
            // Whoever had to wait for it wants to know, also if another key logs in.
            if why.kind() == ErrorKind::TimedOut {
                log::warn!("the agent at \"{}\" is not used: {why}", socket.display());
            }
            self.tried.push(format!("agent at {} ({why})", socket.display()));
            return Ok(false);
        }
        let mut agent = self.link.session.agent().map_err(Stop::Ssh)?;
        agent.set_identity_path(socket).map_err(Stop::Ssh)?;
        agent.connect().map_err(Stop::Ssh)?;
        agent.list_identities().map_err(Stop::Ssh)?;
        let mut identities = agent.identities().map_err(Stop::Ssh)?;
        let certificates = self.certificates();
        let rank = |blob: &[u8]| {
            let of_file = files.iter().position(|f| f.public.as_deref() == Some(blob));
            of_file.or_else(|| certificates.iter().any(|c| c == blob).then_some(0))
        };
        if self.config.identities_only {
            identities.retain(|i| rank(i.blob()).is_some());
        }
        identities.sort_by_key(|i| rank(i.blob()).unwrap_or(usize::MAX));
        for identity in identities {
            self.agent_keys += 1;
            let user = &self.config.user;
            match self.attempt(|_| agent.userauth(user, &identity))? {
                Attempt::Accepted => return Ok(true),
                Attempt::Partly(methods) => {
                    let key = printable(identity.comment().as_bytes());
                    return Ok(self.goes_on(format!("a key of the agent ({key})"), methods));
                }
                Attempt::Refused | Attempt::Unusable(_) => {}
            }
            refused.push(identity.blob().to_vec());
        }
        Ok(false)
    }

    /// The certificates that the configuration names, or that lie beside the keys it names.
    fn certificates(&self) -> Vec<Vec<u8>> {
        let beside = self
            .config
            .identity_files
            .iter()
            .map(|key| certificate_beside(key));
        let named = self.config.certificate_files.iter().cloned();
        named
            .chain(beside)
            .filter_map(|file| public_blob_of(&file))
            .collect()
    }

    /// Public key files to offer with a private key: its certificates, then none (the plain key).
    fn certificates_for(&self, key: &KeyFile) -> Vec<Option<PathBuf>> {
        let beside = certificate_beside(&key.path);
        let configured = self.config.certificate_files.iter();
        let mut list: Vec<_> = configured
            .chain([&beside])
            .filter(|path| match (public_blob_of(path), &key.public) {
                (Some(certificate), Some(public)) => certifies(&certificate, public),
                (certificate, _) => certificate.is_some(),
            })
            .cloned()
            .map(Some)
            .collect();
        list.dedup();
        list.push(None);
        list
    }

    fn with_file(&mut self, key: &Path, public: Option<&Path>, lock: Lock) -> Result<bool, Stop> {
        let shown = public.unwrap_or(key).display().to_string();
        let question = format!("Passphrase for key \"{}\"", key.display());
        for _ in 0..PROMPTS {
            let passphrase = match lock {
                Lock::Open => None,
                Lock::Passphrase => match self.secret(&question) {
                    Some(passphrase) => Some(passphrase),
                    None => {
                        // Who was asked and gave up knows.
                        if self.prompt.is_none() {
                            self.obstacle = Some(Obstacle::Passphrase);
                        }
                        self.tried
                            .push(format!("{shown} (it has a passphrase, and nobody to ask)"));
                        return Ok(false);
                    }
                },
            };
            let user = &self.config.user;
            let passphrase = passphrase.as_deref();
            match self.attempt(|s| s.userauth_pubkey_file(user, public, key, passphrase))? {
                Attempt::Accepted => return Ok(true),
                Attempt::Partly(methods) => return Ok(self.goes_on(shown, methods)),
                Attempt::Refused => {
                    self.tried.push(shown);
                    return Ok(false);
                }
                Attempt::Unusable(_) if lock == Lock::Passphrase => self.forget(&question),
                Attempt::Unusable(why) => {
                    self.tried.push(format!("{shown} ({why})"));
                    return Ok(false);
                }
            }
        }
        self.tried.push(format!("{shown} (wrong passphrase)"));
        Ok(false)
    }

    fn with_password(&mut self) -> Result<bool, Stop> {
        let question = format!("Password of {}@{}", self.config.user, self.config.host);
        for _ in 0..PROMPTS {
            let Some(password) = self.secret(&question) else {
                return Ok(false);
            };
            let user = &self.config.user;
            if matches!(
                self.attempt(|s| s.userauth_password(user, &password))?,
                Attempt::Accepted
            ) {
                return Ok(true);
            }
            self.forget(&question);
        }
        self.tried.push("password".to_owned());
        Ok(false)
    }

    fn with_questions(&mut self) -> Result<bool, Stop> {
        // After a key many servers ask nothing here, or what is answered elsewhere (a button on a telephone).
        // Before, nobody but the user can answer, and an empty answer would count as a wrong one.
        let prompt: &dyn Prompt = match self.prompt {
            Some(prompt) => prompt,
            None if self.unattended && !self.accepted.is_empty() => &Nobody,
            None => return Ok(false),
        };
        for _ in 0..PROMPTS {
            let mut questions = Questions {
                login: self,
                prompt,
                gave_up: false,
                asked: Vec::new(),
            };
            let user = &self.config.user;
            let attempt = self.attempt(|s| s.userauth_keyboard_interactive(user, &mut questions))?;
            let (gave_up, asked) = (questions.gave_up, questions.asked);
            if matches!(attempt, Attempt::Accepted) {
                return Ok(true);
            }
            asked.iter().for_each(|question| self.forget(question));
            if gave_up {
                break;
            }
        }
        self.tried.push("keyboard-interactive".to_owned());
        Ok(false)
    }

    /// An answer given before, or a new one. One worker asks while the others wait for it.
    fn secret(&self, question: &str) -> Option<String> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = answers.get(question) {
            return Some(answer.clone());
        }
        let answer = self.prompt?.secret(question)?;
        answers.insert(question.to_owned(), answer.clone());
        Some(answer)
    }

    fn forget(&self, question: &str) {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(question);
    }
}

/// Stands in where there is no user.
struct Nobody;

impl Prompt for Nobody {
    fn secret(&self, _: &str) -> Option<String> {
        None
    }

    fn confirm(&self, _: &str) -> bool {
        false
    }
}

/// Passes the server's questions on.
struct Questions<'a> {
    login: &'a Login<'a>,
    prompt: &'a dyn Prompt,
    gave_up: bool,
    asked: Vec<String>,
}

impl KeyboardInteractivePrompt for Questions<'_> {
    fn prompt<'p>(&mut self, _: &str, instructions: &str, prompts: &[ssh2::Prompt<'p>]) -> Vec<String> {
        let config = self.login.config;
        prompts
            .iter()
            .map(|p| {
                let text = shorten(format!("{instructions} {}", p.text).trim(), 300);
                let question = format!("{}@{}: {text}", config.user, config.host);
                // Only a lone password is the same for each worker; a code is good for one login.
                let reusable = prompts.len() == 1 && p.text.to_ascii_lowercase().contains("password");
                let answer = if reusable {
                    self.asked.push(question.clone());
                    self.login.secret(&question)
                } else {
                    self.prompt.secret(&question)
                };
                self.gave_up |= answer.is_none();
                answer.unwrap_or_default()
            })
            .collect()
    }
}
