//! Trying servers in turn until one gives a session.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use postgres_openssl::MakeTlsConnector;
use repmgr_types::Conninfo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode as WireMode;
use tokio_postgres::{Client, Connection, NoTls};

use crate::event_loop::EventLoop;
use crate::params::{Place, Request, Target, Wanted};
use crate::passfile::Passfile;
use crate::replication::startup;
use crate::session::{QUERY_TIMEOUT, Session};
use crate::tls::{self, SslMode};
use crate::upstream::Upstream;
use crate::{ConnectError, Endpoint, Environment, Failure, NoConnection};

/// Connects as libpq 15 would: the same defaults, environment variables, service and password
/// files, order of hosts, and meaning of `sslmode`.
///
/// What differs: `connect_timeout` is 2 s unless set (as in repmgr) and covers name look-up, TLS
/// and authentication, for every address anew; 0 means 60 s instead of for ever. `options`, `replication` and
/// `client_encoding` have no effect, and the search path is empty. A certificate or revocation
/// list that is named but missing is an error. A parameter that demands a protection which
/// cannot be given is refused ([`ConnectError::Unsupported`]).
pub fn connect(conninfo: &Conninfo, env: &Environment) -> Result<Upstream, ConnectError> {
    let request = Request::new(conninfo, env)?;
    Connector::new(&request, env)?.first(|session, target, wanted| {
        session.batch(&format!(
            "SET synchronous_commit TO 'local'; SET statement_timeout TO {}",
            QUERY_TIMEOUT.as_millis()
        ))?;
        let upstream = Upstream::new(
            session,
            target.endpoint(),
            request.user.clone(),
            request.dbname.clone(),
        )?;
        match upstream.is_wanted(wanted)? {
            true => Ok(upstream),
            false => Err(Failure::WrongRole(wanted.name())),
        }
    })
}

/// libpq goes on to the next host if one cannot be reached or takes no sessions now, but not if
/// it refuses ours.
fn is_conclusive(failure: &Failure) -> bool {
    match failure {
        Failure::Server(error) => error.code != "57P03",
        Failure::PasswordMissing | Failure::Authentication(_) => true,
        _ => false,
    }
}

fn failed(request: &Request, mut failures: Vec<(Endpoint, Failure)>) -> ConnectError {
    let Some((endpoint, failure)) = failures.pop() else {
        return ConnectError::Parameter {
            keyword: "host".to_owned(),
            reason: "no host is given".to_owned(),
        };
    };
    ConnectError::Failed(Box::new(NoConnection {
        endpoint,
        user: request.user.clone(),
        dbname: request.dbname.clone(),
        others: failures,
        passfile_ignored: match &request.passfile {
            Passfile::Ignored(why) => Some(why.clone()),
            _ => None,
        },
        failure,
    }))
}

pub(crate) struct Connector<'a> {
    request: &'a Request,
    /// Connections to WAL senders are wanted.
    replication: bool,
    /// Only there if some target can use TLS.
    tls: Option<MakeTlsConnector>,
}

impl<'a> Connector<'a> {
    fn new(request: &'a Request, env: &Environment) -> Result<Self, ConnectError> {
        let tcp = |target: &Target| matches!(target.place, Place::Tcp { .. });
        let tls = if request.sslmode > SslMode::Disable && request.targets.iter().any(tcp) {
            Some(tls::connector(request.sslmode, &request.params, env)?)
        } else {
            None
        };
        let nameless = |target: &Target| matches!(target.place, Place::Tcp { host: None, .. });
        if request.sslmode == SslMode::VerifyFull && request.targets.iter().any(nameless) {
            let reason = "must be given to verify the server's certificate against it".to_owned();
            return Err(ConnectError::Parameter {
                keyword: "host".to_owned(),
                reason,
            });
        }
        Ok(Self {
            request,
            replication: false,
            tls,
        })
    }

    pub(crate) fn for_replication(request: &'a Request, env: &Environment) -> Result<Self, ConnectError> {
        Ok(Self {
            replication: true,
            ..Self::new(request, env)?
        })
    }

    /// Goes through the servers in libpq's order until `accept` takes a session with one.
    pub(crate) fn first<T>(
        &self,
        accept: impl Fn(Session, &Target, Wanted) -> Result<T, Failure>,
    ) -> Result<T, ConnectError> {
        let request = self.request;
        let mut failures = Vec::new();
        let wishes: &[Wanted] = match request.wanted {
            Wanted::PreferStandby => &[Wanted::Standby, Wanted::Any],
            _ => &[request.wanted],
        };
        for wanted in wishes {
            failures.clear();
            for target in &request.targets {
                let event_loop = EventLoop::new().map_err(ConnectError::Runtime)?;
                let open = event_loop.wait(self.any_address(target));
                let session = open
                    .map_err(ConnectError::Runtime)?
                    .map(|(client, driver)| Session::new(event_loop, client, driver));
                match session.and_then(|session| accept(session, target, *wanted)) {
                    Ok(accepted) => return Ok(accepted),
                    Err(failure) => {
                        let conclusive = is_conclusive(&failure);
                        failures.push((target.endpoint(), failure));
                        if conclusive {
                            return Err(failed(request, failures));
                        }
                    }
                }
            }
        }
        Err(failed(request, failures))
    }

    /// Tries every address of `target`.
    async fn any_address(&self, target: &Target) -> Result<(Client, JoinHandle<()>), Failure> {
        let limit = self.request.timeout;
        let mut last = Failure::Network(io::ErrorKind::AddrNotAvailable.into());
        for address in addresses(target, limit).await? {
            match self.address(target, address).await {
                Ok(open) => return Ok(open),
                Err(failure) if is_conclusive(&failure) => return Err(failure),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// `sslmode` decides what is tried, and what is tried next if the server does not want it.
    async fn address(
        &self,
        target: &Target,
        address: Option<IpAddr>,
    ) -> Result<(Client, JoinHandle<()>), Failure> {
        let tls = self.tls.as_ref().filter(|_| address.is_some());
        let Some(tls) = tls else {
            return self.attempt(target, address, None).await;
        };
        match self.request.sslmode {
            SslMode::Disable => self.attempt(target, address, None).await,
            SslMode::Allow => match self.attempt(target, address, None).await {
                Err(failure) if is_refusal(&failure) => {
                    self.attempt(target, address, Some((tls, WireMode::Require)))
                        .await
                }
                other => other,
            },
            SslMode::Prefer => match self.attempt(target, address, Some((tls, WireMode::Prefer))).await {
                Err(failure) if is_refusal(&failure) || matches!(failure, Failure::Tls(_)) => {
                    self.attempt(target, address, None).await
                }
                other => other,
            },
            _ => {
                self.attempt(target, address, Some((tls, WireMode::Require)))
                    .await
            }
        }
    }

    async fn attempt(
        &self,
        target: &Target,
        address: Option<IpAddr>,
        tls: Option<(&MakeTlsConnector, WireMode)>,
    ) -> Result<(Client, JoinHandle<()>), Failure> {
        let mut config = self.request.base.clone();
        config
            .user(&self.request.user)
            .dbname(&self.request.dbname)
            .port(target.port);
        match (&target.place, address) {
            (Place::Socket(dir), _) => config.host_path(dir),
            // The name is for the certificate; the address is where we go.
            (Place::Tcp { host, .. }, Some(address)) => config
                .host(host.clone().unwrap_or_else(|| address.to_string()))
                .hostaddr(address),
            (Place::Tcp { host, .. }, None) => config.host(host.clone().unwrap_or_default()),
        };
        if let Some(password) = self.request.password(target) {
            config.password(password);
        }
        let limit = self.request.timeout;
        let open = async {
            if self.replication {
                return startup::open(config, target, address, tls.map(|(tls, _)| tls)).await;
            }
            match tls {
                Some((tls, mode)) => {
                    let (client, connection) = config.ssl_mode(mode).connect(tls.clone()).await?;
                    Ok((client, drive(connection)))
                }
                None => {
                    let (client, connection) = config.ssl_mode(WireMode::Disable).connect(NoTls).await?;
                    Ok((client, drive(connection)))
                }
            }
        };
        // Not only the socket: also a server that accepts and says nothing must not hold us.
        timeout(limit, open).await.unwrap_or(Err(Failure::Timeout(limit)))
    }
}

/// Where to go: `None` for a Unix-domain socket.
async fn addresses(target: &Target, limit: Duration) -> Result<Vec<Option<IpAddr>>, Failure> {
    match &target.place {
        Place::Socket(_) => Ok(vec![None]),
        Place::Tcp { addr: Some(addr), .. } => Ok(vec![Some(*addr)]),
        Place::Tcp { host, addr: None } => {
            let host = host.as_deref().unwrap_or_default();
            let found = timeout(limit, tokio::net::lookup_host((host, target.port))).await;
            let found = found
                .map_err(|_| Failure::Timeout(limit))?
                .map_err(Failure::Network)?;
            Ok(found.map(|address| Some(address.ip())).collect())
        }
    }
}

/// No entry of pg_hba.conf lets this kind of connection in; another kind may fare better.
fn is_refusal(failure: &Failure) -> bool {
    failure.sqlstate() == Some("28000")
}

pub(crate) fn drive<S, T>(connection: Connection<S, T>) -> JoinHandle<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async {
        // Whoever waits for an answer is told by the client; this only says when it happened.
        if let Err(error) = connection.await {
            log::debug!("connection to the upstream node lost: {}", Failure::from(error));
        }
    })
}
