//! Physical replication connections, as a WAL receiver or `pg_basebackup` opens them: whether they
//! are possible, and the few commands they know.

use std::str::FromStr;

use repmgr_types::{Conninfo, Hint, Lsn, SystemId, Timeline};
use tokio_postgres::SimpleQueryRow;

use crate::connect::Connector;
use crate::params::{Request, Wanted};
use crate::session::Session;
use crate::{ConnectError, Endpoint, Environment, Failure, QueryError};

pub(crate) mod startup;

/// A connection to one of the server's WAL senders. All methods block, at most
/// [`QUERY_TIMEOUT`](crate::QUERY_TIMEOUT) and a few seconds.
pub struct ReplicationConnection {
    session: Session,
    endpoint: Endpoint,
    user: String,
}

/// How a server identifies itself to its standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemIdentification {
    /// The identifier the cluster shares with its backups and standbys.
    pub system_identifier: SystemId,
    /// The timeline the server writes, or as a standby receives.
    pub timeline: Timeline,
    /// Up to where it has WAL safely on disk.
    pub lsn: Lsn,
}

/// Why the replication connections a clone needs cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationCheckError {
    /// One of them could not be opened.
    #[error("replication connections: {wanted} needed, {opened} could be opened")]
    Connect {
        /// How many are needed.
        wanted: u32,
        /// How many were open by then.
        opened: u32,
        /// Why there is not one more.
        #[source]
        source: ConnectError,
    },
    /// They could be opened, but the WAL sender did not say what it serves.
    #[error(transparent)]
    Identify(#[from] QueryError),
}

impl ReplicationCheckError {
    /// What to do next.
    pub fn hint(&self) -> Option<Hint> {
        let source = match self {
            ReplicationCheckError::Connect { source, .. } => source,
            ReplicationCheckError::Identify(e) => return e.hint(),
        };
        let ConnectError::Failed(failed) = source else {
            return source.hint();
        };
        let user = &failed.user;
        match &failed.failure {
            Failure::PasswordMissing => Some(Hint::from(format!(
                "supply the password of user \"{user}\" with PGPASSWORD or a line for database \"replication\" in \
                 ~/.pgpass (mode 0600)"
            ))),
            Failure::Server(e) => match e.code.as_str() {
                "28000" => Some(Hint::from(format!(
                    "check that role \"{user}\" exists and may log in, and that the server's pg_hba.conf has a line \
                     for database \"replication\", this role and this host"
                ))),
                "42501" => Some(Hint::from(format!(
                    "execute \"ALTER ROLE {user} REPLICATION\" on the primary"
                ))),
                "53300" => Some(
                    "increase \"max_wal_senders\" (and \"max_connections\") on the server and restart it, or end \
                     connections that are not needed"
                        .into(),
                ),
                _ => source.hint(),
            },
            _ => source.hint(),
        }
    }

    /// Whether the same could work later, without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            ReplicationCheckError::Connect { source, .. } => source.is_transient(),
            ReplicationCheckError::Identify(error) => error.is_transient(),
        }
    }
}

/// Opens a physical replication connection: hosts, user, password, TLS and time limits as for
/// [`connect`](crate::connect), but `dbname` has no effect. As for a WAL receiver the password
/// file is searched for database `replication`, and pg_hba.conf must have a line for that.
///
/// # Errors
/// As for [`connect`](crate::connect).
pub fn connect_replication(
    conninfo: &Conninfo,
    env: &Environment,
) -> Result<ReplicationConnection, ConnectError> {
    let mut conninfo = conninfo.clone();
    conninfo.set("dbname", "replication");
    let request = Request::new(&conninfo, env)?;
    Connector::for_replication(&request, env)?.first(|session, target, wanted| {
        let connection = ReplicationConnection {
            session,
            endpoint: target.endpoint(),
            user: request.user.clone(),
        };
        match connection.is_wanted(wanted)? {
            true => Ok(connection),
            false => Err(Failure::WrongRole(wanted.name())),
        }
    })
}

/// Checks that `how_many` replication connections (at least one) can be open at the same time,
/// and tells what is at their other end. A dry run can ask this: nothing is changed.
///
/// # Errors
/// If one cannot be opened, or the server does not identify itself.
pub fn check_replication(
    conninfo: &Conninfo,
    env: &Environment,
    how_many: u32,
) -> Result<SystemIdentification, ReplicationCheckError> {
    let wanted = how_many.max(1);
    let mut open = Vec::new();
    for opened in 0..wanted {
        let next = connect_replication(conninfo, env);
        open.push(next.map_err(|source| ReplicationCheckError::Connect {
            wanted,
            opened,
            source,
        })?);
    }
    Ok(open[0].identify_system()?)
}

impl ReplicationConnection {
    /// The server this connection is with.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The role we connected as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What the server says of itself.
    pub fn identify_system(&self) -> Result<SystemIdentification, QueryError> {
        const WHAT: &str = "identify the system";
        let row = self.only_row(WHAT, "IDENTIFY_SYSTEM")?;
        self.read(WHAT, || {
            Ok(SystemIdentification {
                system_identifier: parse(&row, 0)?,
                timeline: Timeline::new(parse(&row, 1)?)
                    .ok_or_else(|| Failure::Answer("there is no timeline 0".to_owned()))?,
                lsn: parse(&row, 2)?,
            })
        })
    }

    /// The history file of `timeline`; `None` if the server has none, as for the first.
    pub fn timeline_history(&self, timeline: Timeline) -> Result<Option<String>, QueryError> {
        const WHAT: &str = "read a timeline's history";
        if timeline.id() == 1 {
            return Ok(None);
        }
        match self.only_row(WHAT, &format!("TIMELINE_HISTORY {timeline}")) {
            // No such file.
            Err(e) if e.sqlstate() == Some("58P01") => Ok(None),
            row => {
                let row = row?;
                self.read(WHAT, || text(&row, 1).map(|text| Some(text.to_owned())))
            }
        }
    }

    /// Creates a physical slot that keeps WAL from now on. For a role that may only replicate;
    /// others use [`Upstream::create_physical_slot`](crate::Upstream::create_physical_slot).
    pub fn create_physical_slot(&self, name: &str) -> Result<(), QueryError> {
        self.read("create the replication slot", || {
            let command = format!("CREATE_REPLICATION_SLOT {} PHYSICAL RESERVE_WAL", quote(name)?);
            self.session.command(&command).map(drop)
        })
    }

    /// Drops a slot. The server refuses if it is in use.
    pub fn drop_slot(&self, name: &str) -> Result<(), QueryError> {
        self.read("drop the replication slot", || {
            let command = format!("DROP_REPLICATION_SLOT {}", quote(name)?);
            self.session.command(&command).map(drop)
        })
    }

    /// A WAL sender runs no queries: whether it is a standby's is seen by this setting alone.
    fn is_wanted(&self, wanted: Wanted) -> Result<bool, Failure> {
        let must_be_read_only = match wanted {
            Wanted::Any | Wanted::PreferStandby => return Ok(true),
            Wanted::ReadWrite | Wanted::Primary => false,
            Wanted::ReadOnly | Wanted::Standby => true,
        };
        let rows = self.session.command("SHOW transaction_read_only")?;
        let row = only(rows)?;
        Ok((text(&row, 0)? == "on") == must_be_read_only)
    }

    fn only_row(&self, what: &'static str, command: &str) -> Result<SimpleQueryRow, QueryError> {
        self.read(what, || only(self.session.command(command)?))
    }

    fn read<T>(
        &self,
        what: &'static str,
        read: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, QueryError> {
        read().map_err(|failure| QueryError {
            what,
            endpoint: self.endpoint.clone(),
            failure,
        })
    }
}

impl std::fmt::Debug for ReplicationConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicationConnection")
            .field("endpoint", &self.endpoint)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A slot's name as an identifier. The replication grammar has no way to write a quote in one.
fn quote(name: &str) -> Result<String, Failure> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match !name.is_empty() && name.chars().all(allowed) {
        true => Ok(format!("\"{name}\"")),
        false => Err(Failure::Protocol(format!(
            "\"{name}\" is no name of a replication slot"
        ))),
    }
}

fn only(rows: Vec<SimpleQueryRow>) -> Result<SimpleQueryRow, Failure> {
    let count = rows.len();
    match <[SimpleQueryRow; 1]>::try_from(rows) {
        Ok([row]) => Ok(row),
        Err(_) => Err(Failure::Answer(format!("expected one row, got {count}"))),
    }
}

fn text(row: &SimpleQueryRow, column: usize) -> Result<&str, Failure> {
    row.try_get(column)?
        .ok_or_else(|| Failure::Answer(format!("column {} is empty", column + 1)))
}

fn parse<T: FromStr>(row: &SimpleQueryRow, column: usize) -> Result<T, Failure> {
    let text = text(row, column)?;
    text.parse()
        .map_err(|_| Failure::Answer(format!("unusable answer: \"{text}\"")))
}
