//! Patroni nodes and the etcd that they share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::cache::{self, free_port};
use crate::lab::{Lab, program_under_test};
use crate::node::{Instance, StopMode};
use crate::packages;
use crate::run::{check, log_tail, poll, signal_family};
use crate::scratch::Scratch;

const VERSION: &str = "4.1.4";
const SCOPE: &str = "lab";
const LIMIT: Duration = Duration::from_secs(60);
/// For the role that Patroni replicates as.
pub(crate) const REPLICATOR: &str = "replicator";
const PASSWORD: &str = "it's \\ replicated";

/// What makes the role that Patroni replicates as; to run on the primary that becomes its leader.
pub fn replicator() -> String {
    let password = PASSWORD.replace('\'', "''");
    format!("create role {REPLICATOR} login replication password '{password}'")
}

/// A DCS with room for several clusters, and the programs. Dropping ends it.
#[derive(Debug)]
pub struct Patroni {
    scratch: Arc<Scratch>,
    venv: PathBuf,
    etcd: Child,
    etcd_port: u16,
}

/// One node. Dropping kills it and its server.
#[derive(Debug)]
pub struct PatroniNode {
    child: Child,
    instance: Instance,
    log: PathBuf,
    name: String,
}

/// What is to be said of one.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// Another cluster than the usual one.
    pub scope: Option<String>,
    /// The data directory and the port, if it is not to have its own.
    pub place: Option<(PathBuf, u16)>,
    /// Lines below `postgresql:`, indented by two blanks.
    pub postgresql: String,
    /// Lines below `postgresql.parameters:`, indented by four blanks.
    pub parameters: String,
    /// Lines below `bootstrap:`, indented by two blanks.
    pub bootstrap: String,
}

impl NodeOptions {
    /// A replica by these methods, "barman" being ours on that Barman host, with `more` lines in its map.
    pub fn replica(lab: &Lab, methods: &str, host: &str, more: &str) -> Self {
        let (map, config) = (barman_map(lab, host), lab.barman().config_file());
        let restore = lab.scratch().join("bin/repmgr-wal-restore");
        Self {
            postgresql: format!(
                "  create_replica_methods: [{methods}]\n  barman:\n    command: {} replica\n{map}{more}  recovery_conf:\n    \
                 restore_command: {} --config {} -- barmansrv {} %f %p\n",
                program(lab),
                restore.display(),
                config.display(),
                lab.server()
            ),
            ..Self::default()
        }
    }

    /// The first node of a new cluster out of Barman, with `more` lines in its map. It archives nothing.
    pub fn bootstrap(lab: &Lab, scope: &str, more: &str) -> Self {
        Self {
            scope: Some(scope.to_owned()),
            bootstrap: format!(
                "  method: barman\n  barman:\n    command: {} bootstrap\n    keep_existing_recovery_conf: \
                 true\n{}{more}",
                program(lab),
                barman_map(lab, "barmansrv")
            ),
            parameters: "    archive_mode: 'off'\n".to_owned(),
            ..Self::default()
        }
    }
}

fn program(lab: &Lab) -> String {
    lab.scratch().join("bin/repmgr-patroni").display().to_string()
}

/// Keys that lead to the lab's Barman.
fn barman_map(lab: &Lab, host: &str) -> String {
    let config = lab.barman().config_file();
    format!(
        "    barman_host: {host}\n    barman_server: {}\n    barman_config: {}\n",
        lab.server(),
        config.display()
    )
}

impl Patroni {
    /// Starts etcd; Patroni itself is fetched once.
    ///
    /// # Errors
    /// If a package is missing, or etcd does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        packages::require(&[packages::PATRONI])?;
        let venv = cache::entry(&format!("patroni-{VERSION}"), |dir| {
            let patroni = format!("patroni=={VERSION}");
            let needs = [
                "click",
                "dnspython",
                "prettytable",
                "psutil",
                "psycopg2-binary",
                "python-dateutil",
                "python-etcd",
                "PyYAML",
                "six",
                "urllib3",
                "wcwidth",
                "ydiff",
            ];
            cache::make_venv(dir, &[&[patroni.as_str()], needs.as_slice()].concat())
        })?;
        let scratch = Arc::clone(lab.scratch());
        let program = program_under_test()?.with_file_name("repmgr-patroni");
        if program.exists() {
            scratch.install(&program, "repmgr-patroni")?;
        }
        // Puts repmgr-wal-restore beside it.
        lab.repmgr()?;
        let (etcd_port, peers) = (free_port()?, free_port()?);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let log = File::create(scratch.join("log/etcd.log"))?;
        let etcd = scratch
            .command("etcd")
            .arg("--data-dir")
            .arg(scratch.join("etcd"))
            .args([
                "--listen-client-urls",
                &url(etcd_port),
                "--advertise-client-urls",
                &url(etcd_port),
            ])
            .args([
                "--listen-peer-urls",
                &url(peers),
                "--initial-advertise-peer-urls",
                &url(peers),
            ])
            .args([
                "--initial-cluster",
                &format!("default={}", url(peers)),
                "--unsafe-no-fsync",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("could not start etcd")?;
        Ok(Self {
            scratch,
            venv,
            etcd,
            etcd_port,
        })
    }

    /// Makes the lab's primary the leader of a cluster, as node `node1`.
    ///
    /// # Errors
    /// If it does not become one within a minute.
    pub fn lead(&self, lab: &Lab) -> Result<PatroniNode> {
        lab.primary().stop(StopMode::Fast)?;
        let options = NodeOptions {
            place: Some((lab.primary().data_dir().to_owned(), lab.primary().port())),
            ..NodeOptions::default()
        };
        let leader = self.node(lab, "node1", &options)?;
        leader.wait_for("select pg_is_in_recovery()", "f", LIMIT)?;
        Ok(leader)
    }

    /// Starts Patroni as node `name`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn node(&self, lab: &Lab, name: &str, options: &NodeOptions) -> Result<PatroniNode> {
        let (data_dir, port) = match &options.place {
            Some(place) => place.clone(),
            None => (self.scratch.dir(name)?.join("data"), free_port()?),
        };
        let file = format!("patroni-{name}.yml");
        let text = self.configuration(lab, name, &data_dir, port, options)?;
        let file = self.scratch.write(file, &text, 0o600)?;
        let log = self.scratch.join(format!("log/patroni-{name}.log"));
        let out = File::create(&log)?;
        let child = self
            .scratch
            .command(self.venv.join("bin/patroni"))
            .arg(file)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("could not start patroni")?;
        Ok(PatroniNode {
            child,
            instance: Instance::new(&self.scratch, lab.primary().install(), &data_dir, port),
            log,
            name: name.to_owned(),
        })
    }

    /// `patronictl -c … WORDS`.
    ///
    /// # Errors
    /// If it fails.
    pub fn ctl(&self, node: &PatroniNode, words: &[&str]) -> Result<String> {
        let file = self.scratch.join(format!("patroni-{}.yml", node.name));
        let mut command: Command = self.scratch.command(self.venv.join("bin/patronictl"));
        check(command.arg("-c").arg(file).args(words), LIMIT)
    }

    fn configuration(
        &self,
        lab: &Lab,
        name: &str,
        data_dir: &Path,
        port: u16,
        options: &NodeOptions,
    ) -> Result<String> {
        let (rest, etcd) = (free_port()?, self.etcd_port);
        let scope = options.scope.as_deref().unwrap_or(SCOPE);
        let bin_dir = lab.primary().install().bin_dir().display().to_string();
        let run = self.scratch.join("run");
        let (data_dir, run) = (data_dir.display(), run.display());
        let passfile = self.scratch.join(format!("pgpass-{name}"));
        let passfile = passfile.display();
        let NodeOptions {
            postgresql,
            parameters,
            bootstrap,
            ..
        } = options;
        let password = PASSWORD.replace('\'', "''");
        Ok(format!(
            "scope: {scope}\nname: {name}\nrestapi:\n  listen: 127.0.0.1:{rest}\n  connect_address: 127.0.0.1:{rest}\n\
             etcd3:\n  host: 127.0.0.1:{etcd}\nbootstrap:\n  dcs:\n    ttl: 20\n    loop_wait: 1\n    retry_timeout: \
             3\n{bootstrap}\npostgresql:\n  listen: 127.0.0.1:{port}\n  connect_address: 127.0.0.1:{port}\n  data_dir: \
             {data_dir}\n  bin_dir: {bin_dir}\n  pgpass: {passfile}\n  authentication:\n    superuser:\n      username: \
             postgres\n    replication:\n      username: {REPLICATOR}\n      password: '{password}'\n  parameters:\n    \
             unix_socket_directories: {run}\n{parameters}  pg_hba:\n  - local all all trust\n  - host replication {REPLICATOR} \
             127.0.0.1/32 scram-sha-256\n  - host all {REPLICATOR} 127.0.0.1/32 scram-sha-256\n  - host all all \
             127.0.0.1/32 trust\n  - host replication all 127.0.0.1/32 trust\n{postgresql}\n"
        ))
    }
}

impl PatroniNode {
    /// Its server.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// What it and its children have said.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn said(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Waits until it has said this.
    ///
    /// # Errors
    /// If it does not within `limit`; the error holds the end of the log.
    pub fn wait_for_words(&self, words: &str, limit: Duration) -> Result<()> {
        match poll(limit, || Ok(self.said()?.contains(words)))? {
            true => Ok(()),
            false => bail!("{} does not say \"{words}\"\n{}", self.name, self.log_tail()),
        }
    }

    /// Waits until its server answers a query so.
    ///
    /// # Errors
    /// As [`wait_for_words`](Self::wait_for_words).
    pub fn wait_for(&self, sql: &str, expected: &str, limit: Duration) -> Result<()> {
        let waited = self.instance.wait_for(sql, expected, limit);
        waited.with_context(|| self.log_tail())
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    /// Ends Patroni and its server at once, as a crash of the host would.
    ///
    /// # Errors
    /// If the server cannot be stopped.
    pub fn crash(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait()?;
        self.instance.stop(StopMode::Immediate)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        signal_family(i32::try_from(self.child.id())?, signal)
    }
}

impl Drop for PatroniNode {
    fn drop(&mut self) {
        // What is left the guard ends.
        let _ = self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        // What is left the guard ends.
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}
