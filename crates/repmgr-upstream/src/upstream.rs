use repmgr_types::{Lsn, PgVersion, SystemId, Timeline, WalSegmentName};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use crate::params::Wanted;
use crate::session::{Param, Session};
use crate::{Endpoint, Failure, QueryError};

/// A session with a PostgreSQL node. All methods block, at most [`QUERY_TIMEOUT`](crate::QUERY_TIMEOUT)
/// and a few seconds.
pub struct Upstream {
    session: Session,
    endpoint: Endpoint,
    user: String,
    dbname: String,
    version: PgVersion,
}

/// What the connected role may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privileges {
    /// It is a superuser.
    pub superuser: bool,
    /// It has the REPLICATION attribute.
    pub replication: bool,
    /// It is a member of `pg_read_all_settings`, as members of `pg_monitor` are.
    pub read_all_settings: bool,
}

impl Privileges {
    /// It may see all settings, among them where the server's files are.
    pub fn can_read_settings(self) -> bool {
        self.superuser || self.read_all_settings
    }

    /// It may create and drop replication slots and open replication connections.
    pub fn can_replicate(self) -> bool {
        self.superuser || self.replication
    }
}

/// A tablespace outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Also the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its name in SQL.
    pub name: String,
    /// Its directory on the server's host.
    pub location: String,
}

impl Upstream {
    pub(crate) fn new(
        session: Session,
        endpoint: Endpoint,
        user: String,
        dbname: String,
    ) -> Result<Self, Failure> {
        let rows = session.query("SELECT pg_catalog.current_setting('server_version_num')", &[])?;
        let text: String = get(only(&rows)?, 0)?;
        let version = text
            .parse()
            .ok()
            .and_then(PgVersion::from_num)
            .ok_or_else(|| Failure::Answer(format!("\"{text}\" is not a PostgreSQL version")))?;
        Ok(Self {
            session,
            endpoint,
            user,
            dbname,
            version,
        })
    }

    /// The server this session is with.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The role we connected as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database we connected to.
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// The server's version, read when connecting.
    pub fn server_version(&self) -> PgVersion {
        self.version
    }

    /// Whether this session is encrypted with TLS.
    pub fn is_encrypted(&self) -> Result<bool, QueryError> {
        let sql = "SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()";
        self.ask_scalar("ask whether the session is encrypted", sql, &[])
    }

    /// The identifier that the cluster shares with its backups and standbys.
    pub fn system_identifier(&self) -> Result<SystemId, QueryError> {
        let sql = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()";
        let text: String = self.ask_scalar("read the system identifier", sql, &[])?;
        text.parse()
            .map_err(|_| self.unusable("read the system identifier", format!("got \"{text}\"")))
    }

    /// Whether the server is a standby.
    pub fn is_in_recovery(&self) -> Result<bool, QueryError> {
        self.ask_scalar(
            "ask whether the server is in recovery",
            "SELECT pg_catalog.pg_is_in_recovery()",
            &[],
        )
    }

    /// The timeline the server writes, or as a standby replays, now. The last checkpoint alone
    /// would still name the old one shortly after a promotion.
    pub fn timeline(&self) -> Result<Timeline, QueryError> {
        const WHAT: &str = "read the timeline";
        if !self.is_in_recovery()? {
            let sql = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())";
            let name: String = self.ask_scalar(WHAT, sql, &[])?;
            let name: WalSegmentName = name.parse().map_err(|e| self.unusable(WHAT, format!("{e}")))?;
            return Ok(name.timeline());
        }
        let sql = "SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)::bigint \
                   FROM pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_control_recovery() r";
        let id: i64 = self.ask_scalar(WHAT, sql, &[])?;
        let timeline = u32::try_from(id).ok().and_then(Timeline::new);
        timeline.ok_or_else(|| self.unusable(WHAT, format!("got {id}")))
    }

    /// The position a primary writes at, or up to which a standby has received or replayed WAL.
    pub fn current_lsn(&self) -> Result<Lsn, QueryError> {
        const WHAT: &str = "read the current WAL position";
        let sql = "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() \
                   THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()) \
                   ELSE pg_catalog.pg_current_wal_lsn() END)::text";
        let text: String = self.ask_scalar(WHAT, sql, &[])?;
        text.parse().map_err(|e| self.unusable(WHAT, format!("{e}")))
    }

    /// The size of all databases this role can connect to, as PostgreSQL prints sizes ("29 MB").
    /// `None` if there is none, or if adding up takes longer than the server is given.
    pub fn database_size_pretty(&self) -> Result<Option<String>, QueryError> {
        let sql = "SELECT pg_catalog.pg_size_pretty(pg_catalog.sum(pg_catalog.pg_database_size(oid))) \
                   FROM pg_catalog.pg_database WHERE pg_catalog.has_database_privilege(oid, 'CONNECT')";
        match self.ask_scalar("read the size of the databases", sql, &[]) {
            Err(e) if e.sqlstate() == Some("57014") || e.failure.is_permission_denied() => Ok(None),
            other => other,
        }
    }

    /// A configuration setting as `SHOW` prints it; `None` if the server does not know it.
    pub fn setting(&self, name: &str) -> Result<Option<String>, QueryError> {
        let sql = "SELECT pg_catalog.current_setting($1, true)";
        self.ask_scalar("read a setting", sql, &[(&name, Type::TEXT)])
    }

    /// What the connected role may do.
    pub fn privileges(&self) -> Result<Privileges, QueryError> {
        // A role of PostgreSQL 10 and newer.
        let sql = "SELECT rolsuper, rolreplication, \
                   coalesce((SELECT pg_catalog.pg_has_role(oid, 'USAGE') FROM pg_catalog.pg_roles \
                             WHERE rolname = 'pg_read_all_settings'), false) \
                   FROM pg_catalog.pg_roles WHERE rolname = current_user";
        self.ask_one("read the role's privileges", sql, &[], |row| {
            Ok(Privileges {
                superuser: get(row, 0)?,
                replication: get(row, 1)?,
                read_all_settings: get(row, 2)?,
            })
        })
    }

    /// All tablespaces outside the data directory, by oid.
    pub fn tablespaces(&self) -> Result<Vec<Tablespace>, QueryError> {
        let sql = "SELECT oid, spcname::text, pg_catalog.pg_tablespace_location(oid) \
                   FROM pg_catalog.pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid";
        self.ask("list the tablespaces", sql, &[], |row| {
            Ok(Tablespace {
                oid: get(row, 0)?,
                name: get(row, 1)?,
                location: get(row, 2)?,
            })
        })
    }

    /// Whether the segment is still in the server's `pg_wal`; `None` if this role may not look.
    pub fn has_wal_segment(&self, name: WalSegmentName) -> Result<Option<bool>, QueryError> {
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_ls_waldir() WHERE name = $1)";
        match self.ask_scalar("look for a WAL segment", sql, &[(&name.to_string(), Type::TEXT)]) {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.failure.is_permission_denied() => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn is_wanted(&self, wanted: Wanted) -> Result<bool, Failure> {
        if wanted == Wanted::Any {
            return Ok(true);
        }
        let sql = "SELECT pg_catalog.pg_is_in_recovery(), \
                   pg_catalog.current_setting('transaction_read_only')::boolean";
        let rows = self.session.query(sql, &[])?;
        let (standby, read_only): (bool, bool) = (get(only(&rows)?, 0)?, get(only(&rows)?, 1)?);
        Ok(match wanted {
            Wanted::Any | Wanted::PreferStandby => true,
            Wanted::ReadWrite => !read_only,
            Wanted::ReadOnly => read_only,
            Wanted::Primary => !standby,
            Wanted::Standby => standby,
        })
    }

    /// The rows of a query, each read by `read`. `what` is for the error: a verb phrase.
    pub(crate) fn ask<T>(
        &self,
        what: &'static str,
        sql: &str,
        params: &[Param<'_>],
        read: impl Fn(&Row) -> Result<T, Failure>,
    ) -> Result<Vec<T>, QueryError> {
        let rows = self.session.query(sql, params);
        rows.and_then(|rows| rows.iter().map(read).collect())
            .map_err(|failure| self.error(what, failure))
    }

    /// The one row of a query that always has one.
    pub(crate) fn ask_one<T>(
        &self,
        what: &'static str,
        sql: &str,
        params: &[Param<'_>],
        read: impl Fn(&Row) -> Result<T, Failure>,
    ) -> Result<T, QueryError> {
        let rows = self.session.query(sql, params);
        rows.and_then(|rows| read(only(&rows)?))
            .map_err(|failure| self.error(what, failure))
    }

    /// The one value of a query that always has one.
    pub(crate) fn ask_scalar<T>(
        &self,
        what: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<T, QueryError>
    where
        T: for<'r> FromSql<'r>,
    {
        self.ask_one(what, sql, params, |row| get(row, 0))
    }

    /// Runs a statement whose rows do not matter.
    pub(crate) fn tell(&self, what: &'static str, sql: &str, params: &[Param<'_>]) -> Result<(), QueryError> {
        self.session
            .query(sql, params)
            .map(|_| ())
            .map_err(|failure| self.error(what, failure))
    }

    pub(crate) fn unusable(&self, what: &'static str, reason: String) -> QueryError {
        self.error(what, Failure::Answer(format!("unusable answer: {reason}")))
    }

    fn error(&self, what: &'static str, failure: Failure) -> QueryError {
        QueryError {
            what,
            endpoint: self.endpoint.clone(),
            failure,
        }
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("endpoint", &self.endpoint)
            .field("user", &self.user)
            .field("dbname", &self.dbname)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

fn only(rows: &[Row]) -> Result<&Row, Failure> {
    match rows {
        [row] => Ok(row),
        _ => Err(Failure::Answer(format!("expected one row, got {}", rows.len()))),
    }
}

/// A column by position; of the wrong type is an error, not a panic.
pub(crate) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T, Failure> {
    row.try_get(column).map_err(Failure::from)
}
