//! PostgreSQL instances: a primary made from nothing, and standbys started from what a clone left.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use postgres::{Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use crate::cache::free_port;
use crate::debian::DebianCluster;
use crate::pg::PgInstall;
use crate::run::{check, log_tail, poll, with_log};
use crate::scratch::Scratch;

const LIMIT: Duration = Duration::from_secs(90);
/// The database and the role of `repmgr` metadata.
pub(crate) const REPMGR: &str = "repmgr";

/// A PostgreSQL instance of the lab. Dropping stops it.
#[derive(Debug)]
pub struct Instance {
    scratch: Arc<Scratch>,
    install: PgInstall,
    data_dir: PathBuf,
    /// Where postgresql.conf and its companions lie: the data directory, or elsewhere as Debian has it.
    conf_dir: PathBuf,
    port: u16,
    log: PathBuf,
}

/// How to stop an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// With a checkpoint, as an administrator would.
    Fast,
    /// Without, as in a crash.
    Immediate,
}

impl Instance {
    /// An instance of `data_dir` that will listen on `port`, whatever its postgresql.conf says.
    pub fn new(scratch: &Arc<Scratch>, install: &PgInstall, data_dir: &Path, port: u16) -> Self {
        Self {
            scratch: Arc::clone(scratch),
            install: install.clone(),
            data_dir: data_dir.to_owned(),
            conf_dir: data_dir.to_owned(),
            port,
            log: scratch.join(format!("log/postgresql-{port}.log")),
        }
    }

    /// The same with its configuration files in `conf_dir`.
    #[must_use]
    pub fn with_conf_dir(mut self, conf_dir: &Path) -> Self {
        conf_dir.clone_into(&mut self.conf_dir);
        self
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The directory of postgresql.conf.
    pub fn conf_dir(&self) -> &Path {
        &self.conf_dir
    }

    /// The programs it runs on.
    pub fn install(&self) -> &PgInstall {
        &self.install
    }

    /// The server's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts it and waits until it accepts connections.
    ///
    /// # Errors
    /// If it does not within a minute; the error holds the end of the log.
    pub fn start(&self) -> Result<()> {
        // Through a shell: no blank or quote in `data_dir` stands in the options, and the rest is plain.
        let mut options = format!(
            "-p {} -c unix_socket_directories={}",
            self.port,
            self.scratch.join("run").display()
        );
        if self.conf_dir != self.data_dir {
            write!(
                options,
                " -c config_file={}/postgresql.conf",
                self.conf_dir.display()
            )?;
        }
        let mut start = self.pg_ctl("start")?;
        start
            .args(["-w", "-t", "60", "-o", &options, "-l"])
            .arg(&self.log);
        with_log(check(&mut start, LIMIT), &self.log).map(drop)
    }

    /// Stops it; one that is not running is no error.
    ///
    /// # Errors
    /// If it does not stop.
    pub fn stop(&self, mode: StopMode) -> Result<()> {
        if !self.is_running()? {
            return Ok(());
        }
        let mode = if mode == StopMode::Fast {
            "fast"
        } else {
            "immediate"
        };
        let mut stop = self.pg_ctl("stop")?;
        with_log(check(stop.args(["-w", "-t", "60", "-m", mode]), LIMIT), &self.log).map(drop)
    }

    /// Whether a server works in this data directory.
    ///
    /// `postmaster.pid` alone proves nothing: a bad copy may hold the primary's.
    ///
    /// # Errors
    /// If the data directory cannot be read.
    pub fn is_running(&self) -> Result<bool> {
        let Ok(text) = fs::read_to_string(self.data_dir.join("postmaster.pid")) else {
            return Ok(false);
        };
        let pid = text.lines().next().unwrap_or_default();
        let Ok(works_in) = fs::read_link(format!("/proc/{pid}/cwd")) else {
            return Ok(false);
        };
        Ok(works_in == self.data_dir.canonicalize()?)
    }

    /// Makes a standby a primary.
    ///
    /// # Errors
    /// If it is none, or does not become one.
    pub fn promote(&self) -> Result<()> {
        with_log(
            check(self.pg_ctl("promote")?.args(["-w", "-t", "60"]), LIMIT),
            &self.log,
        )
        .map(drop)
    }

    /// Adds a line to postgresql.conf; a restart makes it count.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_conf(&self, line: &str) -> Result<()> {
        let path = self.conf_dir.join("postgresql.conf");
        let text = fs::read_to_string(&path).with_context(|| format!("no \"{}\"", path.display()))?;
        self.scratch
            .write(path, &format!("{text}{line}\n"), 0o600)
            .map(drop)
    }

    /// Runs `pg_basebackup` of this server into `dir`, with a fast checkpoint.
    ///
    /// # Errors
    /// If it fails or takes longer than a minute and a half.
    pub fn base_backup(&self, dir: &Path, options: &[&str]) -> Result<()> {
        let port = self.port.to_string();
        let mut command = self.scratch.command(self.install.program("pg_basebackup")?);
        command.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"]);
        command.args(["-c", "fast", "-D"]).arg(dir).args(options);
        check(&mut command, LIMIT).map(drop)
    }

    /// The result of a query in database `repmgr`, unaligned, without blanks and line ends at its end.
    ///
    /// # Errors
    /// If the query fails or takes longer than a minute and a half.
    pub fn sql(&self, sql: &str) -> Result<String> {
        self.sql_in(REPMGR, sql)
    }

    /// The same in another database.
    ///
    /// # Errors
    /// As [`sql`](Self::sql).
    pub fn sql_in(&self, database: &str, sql: &str) -> Result<String> {
        let failed = || format!("`{sql}` in database {database} at port {} failed", self.port);
        let mut client = Config::new()
            .host_path(self.scratch.join("run"))
            .port(self.port)
            .user("postgres")
            .dbname(database)
            .connect_timeout(LIMIT)
            .options(&format!("-c statement_timeout={}", LIMIT.as_millis()))
            .connect(NoTls)
            .with_context(failed)?;
        let answer = client.simple_query(sql).with_context(failed)?;
        let rows = answer.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let line = |row: &SimpleQueryRow| {
            let values: Vec<&str> = (0..row.len()).map(|n| row.get(n).unwrap_or_default()).collect();
            values.join("|")
        };
        let text = rows.map(line).collect::<Vec<_>>().join("\n");
        Ok(text.trim_end().to_owned())
    }

    /// Repeats a query until it gives `expected`.
    ///
    /// # Errors
    /// If it does not within `limit`; the error holds the last answer and the end of the log.
    pub fn wait_for(&self, sql: &str, expected: &str, limit: Duration) -> Result<()> {
        let mut last = Ok(String::new());
        let met = poll(limit, || {
            last = self.sql(sql);
            Ok(last.as_ref().is_ok_and(|answer| answer == expected))
        })?;
        match last {
            _ if met => Ok(()),
            Ok(answer) => bail!(
                "`{sql}` gave \"{answer}\" for {limit:?}, not \"{expected}\"\n{}",
                self.log_tail()
            ),
            Err(e) => with_log(Err(e), &self.log),
        }
    }

    /// Whether it is a standby.
    ///
    /// # Errors
    /// As [`sql`](Self::sql).
    pub fn is_in_recovery(&self) -> Result<bool> {
        Ok(self.sql("select pg_is_in_recovery()")? == "t")
    }

    /// Waits until its WAL receiver streams: a standby that merely started proves nothing.
    ///
    /// # Errors
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_for_streaming(&self, limit: Duration) -> Result<()> {
        ensure!(
            self.is_in_recovery()?,
            "not a standby: \"{}\"",
            self.data_dir.display()
        );
        self.wait_for("select status from pg_stat_wal_receiver", "streaming", limit)
    }

    /// Waits until this standby has replayed all that `primary` has written by now.
    ///
    /// # Errors
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_for_replay(&self, primary: &Self, limit: Duration) -> Result<()> {
        let lsn = primary.sql("select pg_current_wal_lsn()")?;
        self.wait_for(&format!("select pg_last_wal_replay_lsn() >= '{lsn}'"), "t", limit)
    }

    /// One line per table of users: name, rows, checksum over all rows. Equal for equal data.
    ///
    /// # Errors
    /// As [`sql`](Self::sql).
    pub fn fingerprint(&self) -> Result<String> {
        let statements = self.sql(
            "select string_agg(format('select %L || count(*) || '' '' || coalesce(md5(string_agg(t::text, \
             E''\\n'' order by t::text)), ''-'') from %s t', c.oid::regclass || ' ', c.oid::regclass), \
             E'\\nunion all ' order by c.oid::regclass::text) from pg_class c join pg_namespace n on n.oid = \
             c.relnamespace where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ \
             '^(pg_|information_schema)'",
        )?;
        let said = self.sql(&statements)?;
        // Parallel workers answer in any order.
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        Ok(lines.join("\n"))
    }

    /// The end of the server's log, for error messages.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    fn pg_ctl(&self, what: &str) -> Result<Command> {
        let mut pg_ctl = self.scratch.command(self.install.program("pg_ctl")?);
        pg_ctl.args([what, "-D"]).arg(&self.data_dir);
        Ok(pg_ctl)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.scratch.is_detached() {
            // What is left the guard ends.
            let _ = self.stop(StopMode::Immediate);
        }
    }
}

/// A tablespace of the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Name; its directory is named likewise.
    pub name: String,
    /// Without a table in it.
    pub empty: bool,
}

impl Tablespace {
    /// One without a table in it.
    pub fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            empty: true,
        }
    }

    /// The directory's name: PostgreSQL refuses locations with a quote in them.
    pub fn dir_name(&self) -> String {
        self.name.replace(['\'', '/'], "_")
    }
}

impl From<&str> for Tablespace {
    fn from(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            empty: false,
        }
    }
}

/// What a primary is to be like; the default is a small PostgreSQL as initdb makes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrimaryOptions {
    /// Data checksums (18 has them by default; then this changes nothing).
    pub checksums: bool,
    /// Group may read the data directory (11 and newer).
    pub group_access: bool,
    /// WAL segment size in MiB, if not 16 (11 and newer).
    pub wal_segment_mib: Option<u32>,
    /// Configuration files outside the data directory, as Debian has it ([`DebianCluster`]).
    pub debian_layout: bool,
    /// Tablespaces to make.
    pub tablespaces: Vec<Tablespace>,
    /// Rows of about 200 bytes in the main table; 0 means 1,000.
    pub rows: u32,
    /// Further lines of postgresql.conf.
    pub conf: Vec<String>,
    /// Statements run one by one when all else is there.
    pub sql: Vec<String>,
}

/// A running primary with some data and `repmgr` metadata.
#[derive(Debug)]
pub struct Primary {
    instance: Instance,
    archive: PathBuf,
    tablespaces: Vec<PathBuf>,
}

impl std::ops::Deref for Primary {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl Primary {
    /// Makes and starts one; its files lie in the scratch directory under `name`.
    ///
    /// # Errors
    /// If any step fails.
    pub fn create(
        scratch: &Arc<Scratch>,
        install: &PgInstall,
        name: &str,
        options: &PrimaryOptions,
    ) -> Result<Self> {
        let (dir, port) = (scratch.dir(name)?, free_port()?);
        let archive = PathBuf::from("archive").join(name);
        let instance = if options.debian_layout {
            let cluster = DebianCluster::below(&dir, install.major);
            create_debian_cluster(scratch, install, &cluster, port, options)?;
            Instance::new(scratch, install, &cluster.data_dir, port).with_conf_dir(&cluster.conf_dir)
        } else {
            let data_dir = dir.join("data");
            initdb(scratch, install, &data_dir, options)?;
            Instance::new(scratch, install, &data_dir, port)
        };
        let location =
            |tablespace: &Tablespace| scratch.join(name).join("tablespaces").join(tablespace.dir_name());
        let tablespaces = options.tablespaces.iter().map(location).collect();
        let primary = Self {
            instance,
            archive,
            tablespaces,
        };
        primary.archive_to(&[])?;
        primary.configure(options)?;
        primary.start()?;
        primary.fill(options)?;
        Ok(primary)
    }

    /// Locations of its tablespaces.
    pub fn tablespaces(&self) -> &[PathBuf] {
        &self.tablespaces
    }

    /// Sends every WAL file from now on to each of these directories.
    pub(crate) fn archive_to(&self, dirs: &[PathBuf]) -> Result<()> {
        let mut script = String::from("set -e\n");
        for dir in dirs {
            let to = format!("{}/$2", dir.display());
            writeln!(script, "cp \"$1\" \"{to}.tmp\"\nmv \"{to}.tmp\" \"{to}\"")?;
        }
        self.scratch.write(&self.archive, &script, 0o600).map(drop)
    }

    fn configure(&self, options: &PrimaryOptions) -> Result<()> {
        let mut conf = format!(
            "# lab\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nfsync = off\n\
             shared_buffers = 16MB\nmax_connections = 50\nwal_level = replica\nhot_standby = on\n\
             max_wal_senders = 10\nmax_replication_slots = 10\narchive_mode = on\n\
             archive_command = 'sh {} \"%p\" %f'\n",
            self.port,
            self.scratch.join("run").display(),
            self.scratch.join(&self.archive).display()
        );
        conf += &options.conf.join("\n");
        self.write_conf(&conf)
    }

    fn fill(&self, options: &PrimaryOptions) -> Result<()> {
        self.sql_in("postgres", "create role repmgr superuser login replication")?;
        self.sql_in("postgres", "create database repmgr owner repmgr")?;
        let rows = if options.rows == 0 { 1000 } else { options.rows };
        self.sql(&format!(
            "create table lab_rows (id serial primary key, note text not null, padding text not null default \
             repeat(md5(random()::text), 5)); insert into lab_rows (note) select 'row ' || n from \
             generate_series(1, {rows}) n"
        ))?;
        for (n, (tablespace, location)) in options.tablespaces.iter().zip(&self.tablespaces).enumerate() {
            self.scratch.dir(location)?;
            let quoted = tablespace.name.replace('"', "\"\"");
            self.sql(&format!(
                "create tablespace \"{quoted}\" location '{}'",
                location.display()
            ))?;
            if !tablespace.empty {
                self.sql(&format!(
                    "create table in_tablespace_{n} tablespace \"{quoted}\" as select g as id, md5(g::text) as \
                     note from generate_series(1, 500) g"
                ))?;
            }
        }
        self.sql("create extension repmgr")?;
        options.sql.iter().try_for_each(|sql| self.sql(sql).map(drop))
    }

    /// Enters this node into `repmgr.nodes`, as `repmgr primary register` would.
    ///
    /// # Errors
    /// If it is there already.
    pub fn register(&self, node_id: u32, node_name: &str, conninfo: &str, config_file: &Path) -> Result<()> {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        self.sql(&format!(
            "insert into repmgr.nodes (node_id, type, node_name, conninfo, repluser, config_file) values \
             ({node_id}, 'primary', {}, {}, '{REPMGR}', {}); insert into repmgr.events (node_id, event) values \
             ({node_id}, 'primary_register')",
            quoted(node_name),
            quoted(conninfo),
            quoted(&config_file.to_string_lossy())
        ))
        .map(drop)
    }
}

/// What `pg_createcluster MAJOR main` does, below the cluster's own root.
pub(crate) fn create_debian_cluster(
    scratch: &Scratch,
    install: &PgInstall,
    cluster: &DebianCluster,
    port: u16,
    options: &PrimaryOptions,
) -> Result<()> {
    scratch.dir(cluster.data_dir.parent().context("below its root")?)?;
    initdb(scratch, install, &cluster.data_dir, options)?;
    cluster.arrange(scratch, port)
}

fn initdb(scratch: &Scratch, install: &PgInstall, data_dir: &Path, options: &PrimaryOptions) -> Result<()> {
    let mut initdb = scratch.command(install.program("initdb")?);
    initdb.arg("-D").arg(data_dir);
    initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N"]);
    if options.checksums {
        initdb.arg("-k");
    }
    if options.group_access {
        initdb.arg("-g");
    }
    if let Some(size) = options.wal_segment_mib {
        initdb.arg(format!("--wal-segsize={size}"));
    }
    check(&mut initdb, LIMIT).map(drop)
}
