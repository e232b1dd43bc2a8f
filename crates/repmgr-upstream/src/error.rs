use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use openssl::error::ErrorStack;
use repmgr_types::Hint;

/// Where a server was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name, address, or directory of a Unix-domain socket.
    pub host: String,
    /// TCP port, or the number in the socket's name.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host \"{}\", port {}", self.host, self.port)
    }
}

/// An error message sent by the server.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{severity}: {message}")]
pub struct ServerError {
    /// `ERROR` or `FATAL`, in the server's language.
    pub severity: String,
    /// The five characters of the SQLSTATE.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// The server's DETAIL.
    pub detail: Option<String>,
    /// The server's HINT.
    pub hint: Option<String>,
}

/// What went wrong between asking and answering.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server answered with an error.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// Nothing came back in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The network, or the name service, failed.
    #[error("{0}")]
    Network(#[source] io::Error),
    /// The encrypted channel could not be made, or its other end could not be trusted.
    #[error("TLS: {0}")]
    Tls(String),
    /// A password is wanted, and neither parameters nor environment nor password file has one.
    #[error("the server asks for a password and none is supplied")]
    PasswordMissing,
    /// A way of authenticating that cannot be served, or a server that failed to prove itself.
    #[error("{0}")]
    Authentication(String),
    /// The server went away.
    #[error("the server closed the connection")]
    Closed,
    /// `target_session_attrs` asks for another kind of server.
    #[error("the server is not what target_session_attrs={0} asks for")]
    WrongRole(&'static str),
    /// The answer does not say what was asked.
    #[error("{0}")]
    Answer(String),
    /// Any other violation of the protocol.
    #[error("{0}")]
    Protocol(String),
}

/// admin_shutdown, crash_shutdown, cannot_connect_now, query_canceled, serialization_failure, deadlock_detected.
const TRANSIENT: &[&str] = &["57P01", "57P02", "57P03", "57014", "40001", "40P01"];

impl Failure {
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Failure::Server(e) => Some(&e.code),
            _ => None,
        }
    }

    /// The server's own HINT.
    fn server_hint(&self) -> Option<&str> {
        match self {
            Failure::Server(e) => e.hint.as_deref(),
            _ => None,
        }
    }

    /// Names of roles and functions are the same in all of the server's languages.
    fn mentions(&self, name: &str) -> bool {
        match self {
            Failure::Server(e) => [Some(&e.message), e.detail.as_ref()]
                .into_iter()
                .flatten()
                .any(|text| text.contains(name)),
            _ => false,
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            // Connection exceptions, too many connections, no memory or disk for the moment, the server
            // starts up or shuts down, a standby's conflict with replay.
            Failure::Server(e) => {
                e.code.starts_with("08") || e.code.starts_with("53") || TRANSIENT.contains(&e.code.as_str())
            }
            Failure::Timeout(_) | Failure::Closed => true,
            Failure::Network(e) => !matches!(
                e.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
            ),
            // A standby may be promoted, but not by waiting.
            Failure::WrongRole(_)
            | Failure::Tls(_)
            | Failure::PasswordMissing
            | Failure::Authentication(_)
            | Failure::Answer(_)
            | Failure::Protocol(_) => false,
        }
    }

    pub(crate) fn is_permission_denied(&self) -> bool {
        self.sqlstate() == Some("42501")
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return Failure::Server(Box::new(ServerError {
                severity: db.severity().to_owned(),
                code: db.code().code().to_owned(),
                message: db.message().to_owned(),
                detail: db.detail().map(str::to_owned),
                hint: db.hint().map(str::to_owned),
            }));
        }
        if error.is_closed() {
            return Failure::Closed;
        }
        // The client library keeps its kinds to itself; its texts are all there is to go by.
        let kind = error.to_string();
        let Some(cause) = error.into_source() else {
            return Failure::Protocol(kind);
        };
        match (kind.as_str(), cause.to_string()) {
            ("error performing TLS handshake", cause) => Failure::Tls(cause),
            ("invalid configuration", cause) if cause == "password missing" => Failure::PasswordMissing,
            ("authentication error", cause) => Failure::Authentication(cause),
            (_, text) => match cause.downcast::<io::Error>() {
                Ok(io) if io.kind() == io::ErrorKind::UnexpectedEof => Failure::Closed,
                Ok(io) => Failure::Network(*io),
                Err(_) => Failure::Protocol(format!("{kind}: {text}")),
            },
        }
    }
}

/// Which part of connecting failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectErrorKind {
    /// A parameter, or a file it names, cannot be used; no server was asked.
    Configuration,
    /// No server could be reached.
    Unreachable,
    /// The encrypted channel failed.
    Tls,
    /// The server does not let this user in.
    Authentication,
    /// The server answered, but serves no session: no such database, starting up, full.
    Rejected,
}

/// Where the value of a connection parameter comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParamOrigin {
    /// The connection string.
    String,
    /// The service that the string or the environment names.
    Service(String),
    /// The environment.
    Variable(&'static str),
}

impl fmt::Display for ParamOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String => f.write_str("connection string"),
            Self::Service(name) => write!(f, "service \"{name}\""),
            Self::Variable(name) => write!(f, "environment (variable {name})"),
        }
    }
}

/// Why there is no connection. No variant holds a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A parameter has a value libpq would refuse as well.
    #[error("invalid connection parameter \"{keyword}\": {reason}")]
    Parameter {
        /// The parameter, or the environment variable.
        keyword: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A parameter asks for a protection this client cannot give; ignoring it would weaken security.
    #[error("connection parameter \"{keyword}\" of the {origin} is not supported: {reason}")]
    Unsupported {
        /// The parameter.
        keyword: &'static str,
        /// Who set it.
        origin: ParamOrigin,
        /// What it asks for.
        reason: &'static str,
    },
    /// A file named by a parameter cannot be read.
    #[error("could not read {purpose} \"{}\"", path.display())]
    File {
        /// What the file is for.
        purpose: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file named by a parameter is readable by others, or not of the form it must have.
    #[error("cannot use {purpose} \"{}\": {reason}", path.display())]
    BadFile {
        /// What the file is for.
        purpose: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No service file defines the service.
    #[error("definition of service \"{service}\" not found")]
    UnknownService {
        /// The service's name.
        service: String,
    },
    /// OpenSSL refused the settings.
    #[error("could not set up TLS")]
    TlsSetup(#[source] ErrorStack),
    /// The operating system refused what a connection needs.
    #[error("could not prepare a connection")]
    Runtime(#[source] io::Error),
    /// No server took the connection.
    #[error(transparent)]
    Failed(Box<NoConnection>),
}

/// No server took the connection: the last one tried, and why.
#[derive(Debug, thiserror::Error)]
#[error("could not connect to {endpoint} as user \"{user}\" to database \"{dbname}\"{}", also(.others))]
pub struct NoConnection {
    /// The last server tried.
    pub endpoint: Endpoint,
    /// The PostgreSQL user.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// Servers tried before, and how each failed.
    pub others: Vec<(Endpoint, Failure)>,
    /// A password file that exists but was not used, and why.
    pub passfile_ignored: Option<String>,
    /// Why the last server did not take the connection.
    #[source]
    pub failure: Failure,
}

fn also(others: &[(Endpoint, Failure)]) -> String {
    let tried: Vec<_> = others.iter().map(|(at, why)| format!("{at}: {why}")).collect();
    match tried.is_empty() {
        true => String::new(),
        false => format!(" (tried before: {})", tried.join("; ")),
    }
}

impl ConnectError {
    /// Which part of connecting failed.
    pub fn kind(&self) -> ConnectErrorKind {
        use ConnectErrorKind as Kind;
        let ConnectError::Failed(failed) = self else {
            return Kind::Configuration;
        };
        match &failed.failure {
            Failure::Tls(_) => Kind::Tls,
            Failure::PasswordMissing | Failure::Authentication(_) => Kind::Authentication,
            Failure::Server(e) if e.code.starts_with("28") => Kind::Authentication,
            Failure::Timeout(_) | Failure::Network(_) | Failure::Closed => Kind::Unreachable,
            Failure::Server(_) | Failure::WrongRole(_) | Failure::Answer(_) | Failure::Protocol(_) => {
                Kind::Rejected
            }
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<Hint> {
        let ConnectError::Failed(failed) = self else {
            return self.configuration_hint();
        };
        let NoConnection {
            endpoint,
            user,
            dbname,
            failure,
            ..
        } = failed.as_ref();
        if let Some(hint) = failure.server_hint() {
            return Some(hint.to_owned().into());
        }
        let words = match self.kind() {
            ConnectErrorKind::Unreachable => format!(
                "check that PostgreSQL runs and listens (\"listen_addresses\", firewall) at {endpoint}; \
                 \"connect_timeout\" in the connection string allows more time"
            ),
            ConnectErrorKind::Tls => {
                "check \"sslmode\", \"sslrootcert\", \"sslcert\" and \"sslkey\", and the server's certificate"
                    .to_owned()
            }
            ConnectErrorKind::Authentication => match &failed.passfile_ignored {
                Some(why) => format!("the password file was not used: {why}"),
                None if matches!(failure, Failure::PasswordMissing) => format!(
                    "supply the password of user \"{user}\" with PGPASSWORD or a line in ~/.pgpass (mode 0600)"
                ),
                None => format!(
                    "check the password of user \"{user}\", and that the server's pg_hba.conf lets it connect \
                     to database \"{dbname}\" from this host"
                ),
            },
            ConnectErrorKind::Rejected | ConnectErrorKind::Configuration => return None,
        };
        Some(words.into())
    }

    /// Whether the same could work later, without anybody doing anything: the server starts up or shuts
    /// down, has no free connection, or the network failed. A server that refuses us will refuse us again.
    pub fn is_transient(&self) -> bool {
        match self {
            ConnectError::Failed(failed) => failed.failure.is_transient(),
            ConnectError::Runtime(_) => true,
            ConnectError::Parameter { .. }
            | ConnectError::Unsupported { .. }
            | ConnectError::File { .. }
            | ConnectError::BadFile { .. }
            | ConnectError::UnknownService { .. }
            | ConnectError::TlsSetup(_) => false,
        }
    }

    fn configuration_hint(&self) -> Option<Hint> {
        match self {
            ConnectError::Unsupported { keyword, origin, .. } => {
                Some(format!("remove \"{keyword}\" from the {origin}").into())
            }
            ConnectError::UnknownService { .. } => {
                Some("define it in ~/.pg_service.conf, or name the file with PGSERVICEFILE".into())
            }
            _ => None,
        }
    }
}

/// A question the server did not answer.
#[derive(Debug, thiserror::Error)]
#[error("could not {what} on {endpoint}")]
pub struct QueryError {
    /// What was asked, as a verb phrase: "read the server's settings".
    pub what: &'static str,
    /// Which server.
    pub endpoint: Endpoint,
    /// Why there is no answer.
    #[source]
    pub failure: Failure,
}

impl QueryError {
    /// The SQLSTATE, if the server sent an error.
    pub fn sqlstate(&self) -> Option<&str> {
        self.failure.sqlstate()
    }

    /// Whether the same could work later, without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        self.failure.is_transient()
    }

    /// What to do next.
    pub fn hint(&self) -> Option<Hint> {
        match &self.failure {
            failure if failure.server_hint().is_some() => {
                failure.server_hint().map(|hint| hint.to_owned().into())
            }
            failure if failure.is_permission_denied() && failure.mentions("pg_read_all_settings") => Some(
                "connect as a superuser, or grant \"pg_read_all_settings\" or \"pg_monitor\" to the role"
                    .into(),
            ),
            failure if failure.is_permission_denied() => {
                Some("connect as a user with the needed privilege, or grant it".into())
            }
            Failure::Timeout(_) | Failure::Closed | Failure::Network(_) => {
                Some("check that the server is still running and reachable, then try again".into())
            }
            _ => None,
        }
    }
}
