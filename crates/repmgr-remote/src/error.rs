use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use repmgr_types::Cancelled;

/// No connection to a host.
#[derive(Debug)]
pub struct ConnectError {
    /// The host, as the user named it.
    pub host: String,
    /// What went wrong.
    pub kind: ConnectErrorKind,
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
    /// The key is marked `@revoked`.
    #[error("the host key of \"{name}\" ({fingerprint}) is revoked by {known_at}")]
    HostKeyRevoked {
        /// The name looked up in the known hosts files.
        name: String,
        /// "SHA256:..."
        fingerprint: String,
        /// Where the line stands: "/home/x/.ssh/known_hosts:3".
        known_at: String,
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
        matches!(
            self.kind,
            K::Resolve { .. } | K::Network { .. } | K::HungUp { .. } | K::TimedOut { .. }
        )
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        use ConnectErrorKind as K;
        let host = &self.host;
        Some(match &self.kind {
            K::Program { program, source } if source.kind() == io::ErrorKind::NotFound => {
                format!(
                    "install the OpenSSH client (package openssh-client or openssh-clients): \"{program}\" was not found"
                )
            }
            K::Configuration { .. } => format!("check the SSH configuration with \"ssh -G {host}\""),
            K::Resolve { .. }
            | K::Network { .. }
            | K::TimedOut { .. }
            | K::Proxy { .. }
            | K::HungUp { .. }
            | K::Handshake { .. } => {
                format!("check that \"ssh {host} true\" works for the user that runs this command")
            }
            K::HostKeyUnknown { .. } => {
                format!(
                    "run \"ssh {host}\" once as the same user and accept the key if its fingerprint is right"
                )
            }
            K::HostKeyChanged { name, .. } => format!(
                "if the host was really reinstalled, remove the old key with \"ssh-keygen -R '{name}'\"; otherwise somebody may be listening in"
            ),
            K::HostKeyRevoked { .. } => {
                "the host must get a new key; do not remove the @revoked line".to_owned()
            }
            K::Authentication { .. } => format!(
                "\"ssh -o BatchMode=yes {host} true\" must work without a password: install a key with ssh-copy-id, or set IdentityFile"
            ),
            K::BadSetting { .. } | K::Program { .. } | K::Cancelled(_) => return None,
        })
    }
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
    #[error("unexpected output instead of the start mark ({status}): \"{first}\"")]
    NoStartMark {
        /// The exit status the server reported, in words.
        status: String,
        /// The first bytes that came, on either stream.
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
    pub fn hint(&self) -> Option<String> {
        use RemoteErrorKind as K;
        let host = &self.host;
        Some(match &self.kind {
            K::NoStartMark { .. } => format!(
                "the login shell of that user prints something else than the command does, or a forced command (command=\"...\" in authorized_keys) replaces it: compare with \"ssh {host} echo ok\""
            ),
            K::Truncated { .. } => "the network, the server or its idle limit (ChannelTimeout) cut the connection, or the remote shell was killed; try again".to_owned(),
            K::ConnectionLost { .. } => "check the network and the SSH server, then try again".to_owned(),
            K::TimedOut { limit: TimeLimit::Idle, .. } => format!("check the load and the disks of \"{host}\", then try again"),
            K::Refused { .. } => format!("check that \"ssh {host} true\" works; the server limits sessions by MaxSessions and commands by authorized_keys"),
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
