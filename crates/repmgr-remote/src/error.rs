use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use repmgr_types::{Cancelled, Hint, Remedy};

use crate::text::shorten;

/// What [`ConnectErrorKind::BadSetting`] calls the options typed for `ssh`.
pub(crate) const SSH_OPTIONS: &str = "the line of SSH options";

/// No connection to a host.
#[derive(Debug)]
pub struct ConnectError {
    /// The host, as the user named it.
    pub host: String,
    /// What went wrong.
    pub kind: ConnectErrorKind,
    /// The options for `ssh` that go with the host, as one would type them; they may be none.
    pub ssh_options: String,
}

/// What keeps a key that is right from logging in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// The server hangs up after so many refused keys (MaxAuthTries).
    TooManyKeys,
    /// It has a passphrase, no agent holds it, and there was nobody to ask.
    Passphrase,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// The destination or an option cannot be one.
    #[error("{what} \"{text}\" is not valid: {reason}")]
    BadSetting {
        /// Which setting.
        what: &'static str,
        /// As it was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `ssh -G` or `ssh-keygen` could not be run.
    #[error("cannot run \"{program}\"")]
    Program {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `ssh -G` refused the user's SSH configuration.
    #[error("\"{program}\" does not accept its configuration: {message}")]
    Configuration {
        /// The program.
        program: String,
        /// What it said.
        message: String,
    },
    /// The name has no address.
    #[error("cannot resolve \"{name}\"")]
    Resolve {
        /// The name looked up.
        name: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// No address accepted a connection.
    #[error("no connection to {address}")]
    Network {
        /// Address and port tried last.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The `ProxyCommand` or `ProxyJump` could not be started.
    #[error("cannot start the proxy \"{command}\"")]
    Proxy {
        /// The command.
        command: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The far side hung up before anybody logged in.
    #[error("the far side hung up during the SSH handshake: {reason}")]
    HungUp {
        /// What libssh2 said, and the proxy.
        reason: String,
    },
    /// The two sides could not agree on how to talk.
    #[error("SSH handshake failed: {reason}")]
    Handshake {
        /// What libssh2 said.
        reason: String,
    },
    /// No key is known for this host, and the configuration does not allow to accept one.
    #[error("the host key of \"{name}\" is not known ({key_type} {fingerprint})")]
    HostKeyUnknown {
        /// The name looked up in the known hosts files.
        name: String,
        /// "ssh-ed25519"
        key_type: String,
        /// "SHA256:..."
        fingerprint: String,
    },
    /// Another key is known for this host.
    #[error(
        "the host key of \"{name}\" has changed: it offers {key_type} {fingerprint}, but {known_at} holds another"
    )]
    HostKeyChanged {
        /// The name looked up in the known hosts files.
        name: String,
        /// "ssh-ed25519"
        key_type: String,
        /// "SHA256:..."
        fingerprint: String,
        /// Where the other key stands: "/home/x/.ssh/known_hosts:3".
        known_at: String,
    },
    /// The key is marked `@revoked`, or `RevokedHostKeys` lists it.
    #[error("the host key of \"{name}\" ({fingerprint}) is revoked by {known_at}")]
    HostKeyRevoked {
        /// The name looked up in the known hosts files.
        name: String,
        /// "SHA256:..."
        fingerprint: String,
        /// Where that stands: "/home/x/.ssh/known_hosts:3", or a binary list.
        known_at: String,
    },
    /// The file of `RevokedHostKeys` cannot be read, so that no key can be trusted.
    #[error(
        "cannot tell whether the host key is revoked: \"{}\" (RevokedHostKeys) cannot be read",
        file.display()
    )]
    RevokedKeysUnreadable {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The server took none of our keys.
    #[error("permission denied for user \"{user}\" (tried: {tried}; the server accepts: {accepts})")]
    Authentication {
        /// The user on the far side.
        user: String,
        /// "agent (2 keys), /home/x/.ssh/id_ed25519"
        tried: String,
        /// "publickey,password"
        accepts: String,
        /// What may have kept the right key from being taken.
        obstacle: Option<Obstacle>,
    },
    /// The server took a proof of ours and wants another one that we do not have.
    #[error(
        "the login of user \"{user}\" is not complete: the server accepted {accepted} and wants {wanted} as well{}",
        if tried.is_empty() { String::new() } else { format!(" (tried: {tried})") }
    )]
    Incomplete {
        /// The user on the far side.
        user: String,
        /// "/home/x/.ssh/id_ed25519"
        accepted: String,
        /// "keyboard-interactive,password"
        wanted: String,
        /// What was refused.
        tried: String,
    },
    /// The configuration asks for what libssh2 lacks, and `ssh` is not to be used.
    #[error("the SSH configuration asks for {what}, which libssh2 cannot do")]
    Unsupported {
        /// As the configuration calls it.
        what: &'static str,
    },
    /// The program `ssh`, which was to connect in our place, did not.
    #[error("\"{program}\" says: {message}")]
    Ssh {
        /// The program.
        program: String,
        /// What it said.
        message: String,
    },
    /// It took too long.
    #[error("timed out after {} s while {stage}", after.as_secs())]
    TimedOut {
        /// What was going on: "logging in".
        stage: &'static str,
        /// The limit.
        after: Duration,
    },
    /// Somebody asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl ConnectErrorKind {
    pub(crate) fn at(self, host: &str) -> ConnectError {
        ConnectError {
            host: host.to_owned(),
            kind: self,
            ssh_options: String::new(),
        }
    }
}

// The kind is part of the line, so the chain of sources goes on below it.
impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to \"{}\": {}", self.host, self.kind)
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

impl ConnectError {
    /// Whether the same attempt may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        use ConnectErrorKind as K;
        match &self.kind {
            K::Ssh { message, .. } => !is_lasting(message),
            kind => matches!(
                kind,
                K::Resolve { .. } | K::Network { .. } | K::HungUp { .. } | K::TimedOut { .. }
            ),
        }
    }

    /// What follows `ssh` to get there.
    fn destination(&self) -> String {
        let Self {
            ssh_options, host, ..
        } = self;
        match ssh_options.as_str() {
            "" => host.clone(),
            options => format!("{} {host}", shorten(options, 300)),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<Hint> {
        use ConnectErrorKind as K;
        let host = self.destination();
        Some(match &self.kind {
            K::Program { program, source } if source.kind() == io::ErrorKind::NotFound => {
                format!(
                    "install the OpenSSH client (package openssh-client or openssh-clients): \"{program}\" was not found"
                ).into()
            }
            K::Configuration { .. } => format!("check the SSH configuration with \"ssh -G {host}\"").into(),
            K::Resolve { .. }
            | K::Network { .. }
            | K::TimedOut { .. }
            | K::Proxy { .. }
            | K::HungUp { .. }
            | K::Ssh { .. }
            | K::Handshake { .. } => {
                format!("check that \"ssh {host} true\" works for the user that runs this command").into()
            }
            K::HostKeyUnknown { .. } => format!(
                "run \"ssh {host}\" once as the same user and accept the key if its fingerprint is right"
            ).into(),
            K::HostKeyChanged { name, .. } => format!(
                "if the host was really reinstalled, remove the old key with \"ssh-keygen -R '{name}'\"; otherwise somebody may be listening in"
            ).into(),
            K::HostKeyRevoked { .. } => {
                "the host must get a new key; do not take the old one off the list of revoked keys".into()
            }
            K::RevokedKeysUnreadable { .. } => format!(
                "mend that file, or RevokedHostKeys in the SSH configuration (\"ssh -G {host}\" shows it): until then ssh accepts no host either"
            ).into(),
            K::Authentication { obstacle: Some(Obstacle::TooManyKeys), .. } => Hint::new(
                "the server hangs up after a few keys that it does not know (MaxAuthTries): name the right one with IdentityFile and set \"IdentitiesOnly yes\", in the SSH configuration or in "
            )
            .remedy(Remedy::SshOptions),
            K::Authentication { obstacle: Some(Obstacle::Passphrase), .. } => format!(
                "a key has a passphrase and nobody could be asked for it: put the key into an agent (ssh-agent and ssh-add) whose SSH_AUTH_SOCK this command gets, or use a key without a passphrase, so that \"ssh -o BatchMode=yes {host} true\" works"
            ).into(),
            K::Authentication { .. } => Hint::new(format!(
                "\"ssh -o BatchMode=yes {host} true\" must work without a password: install a key with ssh-copy-id, or set IdentityFile in the SSH configuration or in "
            ))
            .remedy(Remedy::SshOptions),
            K::Incomplete { wanted, .. } => format!(
                "\"ssh -o BatchMode=yes {host} true\" must work without a question: the key alone must be enough for this user (AuthenticationMethods of the server), or {wanted} must be answered where this command is typed"
            ).into(),
            K::BadSetting { what: SSH_OPTIONS, .. } => Hint::new("correct ").remedy(Remedy::SshOptions),
            K::BadSetting { .. } | K::Program { .. } | K::Unsupported { .. } | K::Cancelled(_) => return None,
        })
    }
}

/// Whether what `ssh` says does not go away by itself.
fn is_lasting(message: &str) -> bool {
    const LASTING: [&str; 5] = [
        "Permission denied",
        "Host key verification failed",
        "Unable to negotiate",
        "Bad configuration",
        "command-line",
    ];
    LASTING.iter().any(|sign| message.contains(sign))
}

/// A command on a host went wrong, apart from its own exit code.
#[derive(Debug)]
pub struct RemoteError {
    /// The host, as the user named it.
    pub host: String,
    /// The command line, shortened.
    pub command: String,
    /// What went wrong.
    pub kind: RemoteErrorKind,
}

/// Which limit of [`StartOptions`](crate::StartOptions) was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLimit {
    /// Nothing came for so long.
    Idle,
    /// The whole run.
    Total,
}

/// What went wrong with a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteErrorKind {
    /// The line holds a NUL byte, which no shell can carry.
    #[error("a word of the command holds a NUL byte")]
    NulByte,
    /// The server does not let us run commands, or no shell could be started.
    #[error("cannot start it: {reason}")]
    Refused {
        /// What the server or the system said.
        reason: String,
    },
    /// A limit was reached.
    #[error("{}", match limit {
        TimeLimit::Idle => format!("nothing received for {} s", after.as_secs()),
        TimeLimit::Total => format!("not done after {} s", after.as_secs()),
    })]
    TimedOut {
        /// Which one.
        limit: TimeLimit,
        /// How long it is.
        after: Duration,
    },
    /// The connection broke, possibly in the middle of the output.
    #[error("connection lost: {reason}")]
    ConnectionLost {
        /// What the system or libssh2 said.
        reason: String,
    },
    /// The connection cannot be used any more because an earlier process was abandoned.
    #[error("the connection was given up with an earlier command")]
    GivenUp,
    /// The far side closed the stream without the mark that ends every complete output.
    #[error("the output ended early: no end mark from the remote shell ({status}{})", if stderr.is_empty() {
        String::new() } else { format!("; it said: {stderr}") })]
    Truncated {
        /// The exit status the server reported, in words.
        status: String,
        /// Standard error, shortened.
        stderr: String,
    },
    /// A command that was to run on (to hold a lock) ended by itself.
    #[error("it ended by itself ({status}{})", if stderr.is_empty() { String::new() } else { format!("; it said: {stderr}") })]
    Ended {
        /// How, in words.
        status: String,
        /// Standard error, shortened.
        stderr: String,
    },
    /// The output does not begin with the mark our shell line prints.
    #[error("{} ({status}){}", match first.is_empty() {
        true => "the far side did not run it and said nothing",
        false => "unexpected output instead of the start mark",
    }, if first.is_empty() { String::new() } else { format!(": \"{first}\"") })]
    NoStartMark {
        /// The exit status the server reported, in words.
        status: String,
        /// The first lines that came, on either stream, in one.
        first: String,
    },
    /// More output than the caller allows.
    #[error("more than {limit} bytes of output")]
    OutputTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The system refused an operation on a pipe or process of ours.
    #[error("cannot {action}")]
    System {
        /// What we were doing.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "command \"{}\" on \"{}\": {}",
            self.command, self.host, self.kind
        )
    }
}

impl Error for RemoteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

impl RemoteError {
    /// The error that a [`Process`](crate::Process) put into an [`io::Error`]. One that did not
    /// come from a process is kept as [`RemoteErrorKind::System`] without host and command.
    pub fn from_io(error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(|source| Self {
            host: String::new(),
            command: String::new(),
            kind: RemoteErrorKind::System {
                action: "read the output",
                source,
            },
        })
    }

    /// Whether the same command on a new connection may well succeed.
    pub fn is_transient(&self) -> bool {
        use RemoteErrorKind as K;
        matches!(
            self.kind,
            K::ConnectionLost { .. } | K::TimedOut { .. } | K::Truncated { .. } | K::GivenUp
        )
    }

    /// Whether it ended because somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.kind, RemoteErrorKind::Cancelled(_))
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<Hint> {
        use RemoteErrorKind as K;
        let host = &self.host;
        Some(match &self.kind {
            K::NoStartMark { .. } => format!(
                "the login shell of that user runs no commands (nologin) or prints something else than the command does, or a forced command (command=\"...\" in authorized_keys, ForceCommand of the server) replaces it: compare with \"ssh {host} echo ok\""
            ).into(),
            K::Truncated { .. } => "the network, the server or its idle limit (ChannelTimeout) cut the connection, or the remote shell was killed; try again".into(),
            K::ConnectionLost { .. } => "check the network and the SSH server, then try again".into(),
            K::TimedOut { limit: TimeLimit::Idle, .. } => format!("check the load and the disks of \"{host}\", then try again").into(),
            K::Refused { .. } => format!("check that \"ssh {host} true\" works; the server limits sessions by MaxSessions and commands by authorized_keys").into(),
            _ => return None,
        })
    }
}

impl From<RemoteError> for io::Error {
    fn from(error: RemoteError) -> Self {
        io::Error::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_that_means_our_options_leaves_their_name_open() {
        let refused = crate::SshHost::new(
            "h",
            crate::SshOptions {
                ssh_options: "-o 'x".into(),
                ..Default::default()
            },
        );
        let error = refused.err().unwrap();
        assert_eq!(
            error.to_string(),
            "cannot connect to \"h\": the line of SSH options \"-o 'x\" is not valid: a quote is not closed"
        );
        let hint = error.hint().unwrap();
        assert_eq!(hint.render(|_, _| "--ssh".into()), "correct --ssh");
        let kind = ConnectErrorKind::Authentication {
            user: "u".into(),
            tried: String::new(),
            accepts: String::new(),
            obstacle: None,
        };
        let hint = kind.at("h").hint().unwrap();
        assert_eq!(hint.remedies().collect::<Vec<_>>(), [Remedy::SshOptions]);
    }

    #[test]
    fn advice_to_call_ssh_holds_the_options() {
        let error = ConnectError {
            ssh_options: "-F 'my config' -p 2222".into(),
            ..ConnectErrorKind::HungUp {
                reason: String::new(),
            }
            .at("h")
        };
        let hint = error.hint().unwrap().to_string();
        assert!(hint.contains("\"ssh -F 'my config' -p 2222 h true\""), "{hint}");
    }

    #[test]
    fn silence_is_told_from_other_output() {
        let says = |first: &str| RemoteErrorKind::NoStartMark {
            status: "exit code 1".into(),
            first: first.into(),
        };
        assert_eq!(
            says("").to_string(),
            "the far side did not run it and said nothing (exit code 1)"
        );
        assert_eq!(
            says("no").to_string(),
            "unexpected output instead of the start mark (exit code 1): \"no\""
        );
    }

    #[test]
    fn errors_survive_the_trip_through_io_error() {
        let kind = RemoteErrorKind::TimedOut {
            limit: TimeLimit::Idle,
            after: Duration::from_secs(9),
        };
        let error = RemoteError {
            host: "h".into(),
            command: "cat x".into(),
            kind,
        };
        let back = RemoteError::from_io(io::Error::from(error));
        assert_eq!(
            back.to_string(),
            "command \"cat x\" on \"h\": nothing received for 9 s"
        );
        assert!(back.is_transient() && back.hint().is_some());
        let foreign = RemoteError::from_io(io::Error::from(io::ErrorKind::UnexpectedEof));
        assert!(matches!(foreign.kind, RemoteErrorKind::System { .. }));
    }
}
