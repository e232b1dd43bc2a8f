//! From a connection string and an environment to what is to be tried: parameters merged in
//! libpq's order (string, service file, environment, default), each one honoured or refused.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use repmgr_types::Conninfo;
use tokio_postgres::config::{ChannelBinding, SslNegotiation};

use crate::environment::VARIABLES;
use crate::passfile::Passfile;
use crate::tls::SslMode;
use crate::{ConnectError, Endpoint, Environment, ParamOrigin, service};

/// What repmgr sets where nobody else does; libpq itself would wait for ever.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For `connect_timeout=0`, which in libpq means no limit: no connection is worth more.
const LONGEST_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Where Debian's packages, then PostgreSQL's own default, put the server's socket.
const SOCKET_DIRS: &[&str] = &["/var/run/postgresql", "/tmp"];
const DEFAULT_PORT: u16 = 5432;

/// Parameters that demand a protection this client does not have. Each is refused unless it has
/// one of the values that demand nothing.
const UNSUPPORTED: &[(&str, &[&str], &str)] = &[
    (
        "gssencmode",
        &["disable", "prefer"],
        "GSSAPI encryption is not available",
    ),
    (
        "require_auth",
        &[],
        "the server's way of authenticating cannot be restricted",
    ),
    (
        "requirepeer",
        &[],
        "the owner of the server process cannot be checked",
    ),
    (
        "sslcrldir",
        &[],
        "revocation lists can only be read from one file (sslcrl)",
    ),
    (
        "sslcertmode",
        &["disable", "allow"],
        "the server cannot be made to ask for a certificate",
    ),
    (
        "scram_client_key",
        &[],
        "SCRAM keys cannot stand in for a password",
    ),
    (
        "scram_server_key",
        &[],
        "SCRAM keys cannot stand in for a password",
    ),
    (
        "min_protocol_version",
        &["3.0"],
        "only protocol version 3.0 is spoken",
    ),
];

/// Merged parameters, each with where it comes from. An empty value counts as none.
pub(crate) struct Params(BTreeMap<String, (String, ParamOrigin)>);

impl Params {
    /// Those of the string alone.
    fn of_string(conninfo: &Conninfo) -> Self {
        let values = conninfo.iter().filter(|(_, value)| !value.is_empty());
        Self(
            values
                .map(|(keyword, value)| (keyword.to_owned(), (value.to_owned(), ParamOrigin::String)))
                .collect(),
        )
    }

    fn merge(conninfo: &Conninfo, env: &Environment) -> Result<Self, ConnectError> {
        let mut params = Self::of_string(conninfo);
        if let Some(service) = params.explicit("service", env)? {
            let file = params.explicit("servicefile", env)?;
            for (keyword, value) in service::lookup(&service, file.as_deref(), env)? {
                params.add(&keyword, value, ParamOrigin::Service(service.clone()));
            }
        }
        for (keyword, name) in VARIABLES {
            if let Some(value) = env.variable(name)? {
                params.add(keyword, value.to_owned(), ParamOrigin::Variable(name));
            }
        }
        Ok(params)
    }

    /// What the string says, or else the environment.
    fn explicit(&self, keyword: &str, env: &Environment) -> Result<Option<String>, ConnectError> {
        if let Some(value) = self.get(keyword) {
            return Ok(Some(value.to_owned()));
        }
        let name = VARIABLES.iter().find(|(known, _)| *known == keyword);
        name.map_or(Ok(None), |(_, name)| env.variable(name))
            .map(|value| value.map(str::to_owned))
    }

    /// Unless somebody has set it before.
    fn add(&mut self, keyword: &str, value: String, origin: ParamOrigin) {
        self.0.entry(keyword.to_owned()).or_insert((value, origin));
    }

    pub(crate) fn get(&self, keyword: &str) -> Option<&str> {
        let (value, _) = self.0.get(keyword)?;
        (!value.is_empty()).then_some(value)
    }

    fn origin(&self, keyword: &str) -> ParamOrigin {
        self.0
            .get(keyword)
            .map_or(ParamOrigin::String, |(_, origin)| origin.clone())
    }

    pub(crate) fn invalid(keyword: &str, reason: String) -> ConnectError {
        ConnectError::Parameter {
            keyword: keyword.to_owned(),
            reason,
        }
    }

    fn number<T: FromStr>(&self, keyword: &str) -> Result<Option<T>, ConnectError> {
        let parse = |text: &str| {
            text.trim()
                .parse()
                .map_err(|_| Self::invalid(keyword, format!("\"{text}\" is not a valid number")))
        };
        self.get(keyword).map(parse).transpose()
    }

    /// One of the values in `table`.
    fn choice<T: Copy>(&self, keyword: &str, table: &[(&str, T)]) -> Result<Option<T>, ConnectError> {
        let Some(text) = self.get(keyword) else {
            return Ok(None);
        };
        match table.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => Err(Self::invalid(keyword, format!("unknown value \"{text}\""))),
        }
    }

    fn refuse_unsupported(&self) -> Result<(), ConnectError> {
        let refused = UNSUPPORTED
            .iter()
            .find(|(keyword, harmless, _)| self.get(keyword).is_some_and(|value| !harmless.contains(&value)));
        match refused {
            Some((keyword, _, reason)) => Err(ConnectError::Unsupported {
                keyword,
                origin: self.origin(keyword),
                reason,
            }),
            None => Ok(()),
        }
    }

    fn list(&self, keyword: &str) -> Vec<&str> {
        self.get(keyword)
            .map_or_else(Vec::new, |text| text.split(',').map(str::trim).collect())
    }
}

/// One server to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) place: Place,
    pub(crate) port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The directory of a Unix-domain socket.
    Socket(PathBuf),
    /// A host by name, by address, or by an address that is to be reached under a name.
    Tcp {
        host: Option<String>,
        addr: Option<IpAddr>,
    },
}

impl Target {
    /// Where a string by itself leads, without service files and environment; `None` if it names no server.
    pub(crate) fn of_string(conninfo: &Conninfo) -> Option<Vec<Self>> {
        let named = ["host", "hostaddr"].map(|keyword| conninfo.get(keyword));
        named.iter().flatten().find(|value| !value.is_empty())?;
        targets(&Params::of_string(conninfo)).ok()
    }

    /// Whether both are the same server, as far as can be told without looking names up.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.port == other.port
            && match (&self.place, &other.place) {
                (Place::Socket(a), Place::Socket(b)) => a == b,
                (Place::Tcp { host: a, addr: x }, Place::Tcp { host: b, addr: y }) => match (x, y) {
                    (Some(x), Some(y)) => x == y,
                    _ => {
                        let ours = [named_address(a.as_deref()), *x];
                        let theirs = [named_address(b.as_deref()), *y];
                        let same_address = ours.iter().flatten().any(|x| theirs.contains(&Some(*x)));
                        let same_name = || {
                            let (a, b) = (a.as_deref()?, b.as_deref()?);
                            Some(
                                a.trim_end_matches('.')
                                    .eq_ignore_ascii_case(b.trim_end_matches('.')),
                            )
                        };
                        same_address || same_name().unwrap_or(false)
                    }
                },
                _ => false,
            }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        let host = match &self.place {
            Place::Socket(dir) => dir.display().to_string(),
            Place::Tcp { host: Some(host), .. } => host.clone(),
            Place::Tcp { host: None, addr } => addr.map_or_else(String::new, |addr| addr.to_string()),
        };
        Endpoint {
            host,
            port: self.port,
        }
    }

    /// The name a password file knows this server by.
    fn passfile_host(&self) -> String {
        match &self.place {
            Place::Socket(dir) if SOCKET_DIRS.iter().any(|known| Path::new(known) == dir) => {
                "localhost".to_owned()
            }
            _ => self.endpoint().host,
        }
    }
}

/// The address that a host's name says by itself.
fn named_address(host: Option<&str>) -> Option<IpAddr> {
    match host? {
        name if name.eq_ignore_ascii_case("localhost") => Some(Ipv4Addr::LOCALHOST.into()),
        name => name.parse().ok(),
    }
}

/// libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl Wanted {
    const TABLE: &[(&str, Wanted)] = &[
        ("any", Wanted::Any),
        ("read-write", Wanted::ReadWrite),
        ("read-only", Wanted::ReadOnly),
        ("primary", Wanted::Primary),
        ("standby", Wanted::Standby),
        ("prefer-standby", Wanted::PreferStandby),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::TABLE
            .iter()
            .find(|(_, wanted)| *wanted == self)
            .map_or("any", |(name, _)| name)
    }
}

/// Everything needed to connect.
pub(crate) struct Request {
    pub(crate) targets: Vec<Target>,
    pub(crate) user: String,
    pub(crate) dbname: String,
    pub(crate) timeout: Duration,
    pub(crate) wanted: Wanted,
    pub(crate) sslmode: SslMode,
    /// Kept for the TLS settings, which are only read if TLS is used.
    pub(crate) params: Params,
    pub(crate) passfile: Passfile,
    /// Where the password file is, or would be.
    pub(crate) passfile_path: Option<PathBuf>,
    /// Host, port, user, database and password are still to be set.
    pub(crate) base: tokio_postgres::Config,
}

impl Request {
    pub(crate) fn new(conninfo: &Conninfo, env: &Environment) -> Result<Self, ConnectError> {
        let params = Params::merge(conninfo, env)?;
        params.refuse_unsupported()?;
        let user = match (params.get("user"), env.os_user()) {
            (Some(user), _) | (None, Some(user)) => user.to_owned(),
            (None, None) => {
                return Err(Params::invalid(
                    "user",
                    "not given, and this process's user has no name".to_owned(),
                ));
            }
        };
        let sslmode = SslMode::from_params(&params, env)?;
        if params.get("sslnegotiation") == Some("direct") && sslmode < SslMode::Require {
            let reason = "\"direct\" needs sslmode=require or stronger".to_owned();
            return Err(Params::invalid("sslnegotiation", reason));
        }
        let passfile_path = match params.get("passfile") {
            Some(path) => Some(PathBuf::from(path)),
            None => env.home().map(|home| home.join(".pgpass")),
        };
        let passfile = passfile_path.as_deref().map_or(Passfile::Absent, Passfile::read);
        Ok(Self {
            targets: targets(&params)?,
            dbname: params.get("dbname").unwrap_or(&user).to_owned(),
            timeout: connect_timeout(&params)?,
            wanted: params
                .choice("target_session_attrs", Wanted::TABLE)?
                .unwrap_or(Wanted::Any),
            sslmode,
            base: base_config(&params)?,
            user,
            passfile,
            passfile_path,
            params,
        })
    }

    /// The password to offer to `target`.
    pub(crate) fn password(&self, target: &Target) -> Option<Vec<u8>> {
        match self.params.get("password") {
            Some(password) => Some(password.as_bytes().to_vec()),
            None => self
                .passfile
                .password(&target.passfile_host(), target.port, &self.dbname, &self.user),
        }
    }
}

/// The hosts in order, paired with addresses and ports as libpq pairs them.
fn targets(params: &Params) -> Result<Vec<Target>, ConnectError> {
    let (hosts, addrs, ports) = (params.list("host"), params.list("hostaddr"), params.list("port"));
    let count = hosts.len().max(addrs.len()).max(1);
    if !hosts.is_empty() && !addrs.is_empty() && hosts.len() != addrs.len() {
        let reason = format!(
            "{} host names do not match {} addresses",
            hosts.len(),
            addrs.len()
        );
        return Err(Params::invalid("hostaddr", reason));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(Params::invalid(
            "port",
            format!("{} ports do not match {count} hosts", ports.len()),
        ));
    }
    let target = |i: usize| {
        let port = port(ports.get(i).or(ports.first()).copied().unwrap_or(""))?;
        let host = hosts.get(i).copied().unwrap_or("");
        let addr = addrs.get(i).copied().filter(|addr| !addr.is_empty());
        let addr = addr
            .map(|text| {
                text.parse()
                    .map_err(|_| Params::invalid("hostaddr", format!("\"{text}\" is not an address")))
            })
            .transpose()?;
        let place = match (host, addr) {
            (path, None) if path.starts_with('@') => {
                return Err(Params::invalid(
                    "host",
                    "abstract sockets are not supported".to_owned(),
                ));
            }
            (path, None) if path.starts_with('/') => Place::Socket(path.into()),
            ("", None) => Place::Socket(default_socket_dir(port)),
            (host, addr) => Place::Tcp {
                host: (!host.is_empty()).then(|| host.to_owned()),
                addr,
            },
        };
        Ok(Target { place, port })
    };
    (0..count).map(target).collect()
}

fn port(text: &str) -> Result<u16, ConnectError> {
    match text {
        "" => Ok(DEFAULT_PORT),
        _ => text
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| Params::invalid("port", format!("\"{text}\" is not a port number"))),
    }
}

/// libpq has one directory built in; which one depends on who built it, so look for the socket.
fn default_socket_dir(port: u16) -> PathBuf {
    let mut dirs = SOCKET_DIRS.iter().map(Path::new);
    let file = format!(".s.PGSQL.{port}");
    dirs.clone()
        .find(|dir| dir.join(&file).exists())
        .or_else(|| dirs.find(|dir| dir.is_dir()))
        .unwrap_or(Path::new("/tmp"))
        .to_owned()
}

fn connect_timeout(params: &Params) -> Result<Duration, ConnectError> {
    Ok(match params.number::<i32>("connect_timeout")? {
        None => DEFAULT_CONNECT_TIMEOUT,
        Some(..=0) => LONGEST_CONNECT_TIMEOUT,
        // libpq before 17 rounds 1 s up to 2 s.
        Some(seconds @ 1..) => Duration::from_secs(seconds.max(2).unsigned_abs().into()),
    })
}

fn base_config(params: &Params) -> Result<tokio_postgres::Config, ConnectError> {
    let mut config = tokio_postgres::Config::new();
    let name = params
        .get("application_name")
        .or(params.get("fallback_application_name"));
    config.application_name(name.unwrap_or("repmgr"));
    // As repmgr: no schema of the database can put itself before the catalogue.
    config.options("-csearch_path=");
    let binding = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    config.channel_binding(
        params
            .choice("channel_binding", &binding)?
            .unwrap_or(ChannelBinding::Prefer),
    );
    let negotiation = [
        ("postgres", SslNegotiation::Postgres),
        ("direct", SslNegotiation::Direct),
    ];
    config.ssl_negotiation(
        params
            .choice("sslnegotiation", &negotiation)?
            .unwrap_or(SslNegotiation::Postgres),
    );

    config.keepalives(params.number::<i32>("keepalives")?.unwrap_or(1) != 0);
    let seconds = |keyword| {
        Ok(params
            .number::<u64>(keyword)?
            .filter(|n| *n > 0)
            .map(Duration::from_secs))
    };
    // A dead peer is noticed within a minute where the user says nothing else.
    config.keepalives_idle(seconds("keepalives_idle")?.unwrap_or(Duration::from_secs(30)));
    config.keepalives_interval(seconds("keepalives_interval")?.unwrap_or(Duration::from_secs(10)));
    config.keepalives_retries(
        params
            .number::<u32>("keepalives_count")?
            .filter(|n| *n > 0)
            .unwrap_or(3),
    );
    let unacknowledged = params.number::<u64>("tcp_user_timeout")?.filter(|n| *n > 0);
    config.tcp_user_timeout(unacknowledged.map_or(Duration::from_secs(30), Duration::from_millis));
    Ok(config)
}

#[cfg(test)]
#[path = "params/tests.rs"]
mod tests;
