//! Barman: installations of several versions, and one configuration with servers in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cache;
use crate::node::Primary;
use crate::run::{check, run, with_log};
use crate::scratch::Scratch;
use crate::sshd::Sshd;
use crate::tools::{self, tool};

const LIMIT: Duration = Duration::from_secs(90);

/// The versions that differ in ways a client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BarmanVersion {
    /// The last before 3.0. With [`BackupMethod::Rsync`] only up to PostgreSQL 14.
    V2_19,
    /// 3.4.0, as Debian 12 packs it. Up to PostgreSQL 16.
    V3_4,
    /// 3.19.1.
    V3_19,
}

impl BarmanVersion {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V2_19, Self::V3_4, Self::V3_19];

    /// The version number in full.
    pub fn number(self) -> &'static str {
        match self {
            Self::V2_19 => "2.19",
            Self::V3_4 => "3.4.0",
            Self::V3_19 => "3.19.1",
        }
    }
}

/// A `barman` program of some version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BarmanInstall {
    version: BarmanVersion,
    program: PathBuf,
    packaged: bool,
}

impl BarmanInstall {
    /// The distribution's if it has this version, else one fetched into a Python environment in the cache.
    ///
    /// # Errors
    /// If it cannot be fetched or does not run.
    pub fn get(version: BarmanVersion) -> Result<Self> {
        if let Some(program) = tools::find("barman")
            && says_version(&program, version)?
        {
            return Ok(Self {
                version,
                program,
                packaged: true,
            });
        }
        let venv = cache::entry(&format!("barman-{}", version.number()), |dir| {
            // What they import and do not say, or say in a way that wants a compiler (psycopg2).
            let barman = format!("barman=={}", version.number());
            cache::make_venv(
                dir,
                &[
                    &barman,
                    "psycopg2-binary",
                    "python-dateutil",
                    "six",
                    "argcomplete",
                ],
            )
        })?;
        let program = venv.join("bin/barman");
        ensure!(
            says_version(&program, version)?,
            "\"{}\" is not Barman {}",
            program.display(),
            version.number()
        );
        Ok(Self {
            version,
            program,
            packaged: false,
        })
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its version.
    pub fn version(&self) -> BarmanVersion {
        self.version
    }
}

fn says_version(program: &Path, version: BarmanVersion) -> Result<bool> {
    let said = check(tool(program).arg("--version"), LIMIT)?;
    Ok(said.split_whitespace().next() == Some(version.number()))
}

/// How a server's backups are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackupMethod {
    /// rsync over SSH.
    Rsync,
    /// `pg_basebackup`.
    Postgres,
}

/// A server section of barman.conf.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Its name.
    pub name: String,
    /// `backup_method`.
    pub method: BackupMethod,
    /// Further lines, such as `backup_compression = gzip`; one of the lab's own is replaced.
    pub conf: Vec<String>,
}

impl ServerOptions {
    /// One without further lines.
    pub fn new(name: &str, method: BackupMethod) -> Self {
        Self {
            name: name.to_owned(),
            method,
            conf: Vec::new(),
        }
    }
}

/// One Barman with its own configuration and catalogue. It has no daemon: it runs when called.
#[derive(Debug)]
pub struct Barman {
    scratch: Arc<Scratch>,
    install: BarmanInstall,
    command: PathBuf,
    /// Each server's directory for WAL to come, with the data directory of its primary.
    incoming: Mutex<Vec<(PathBuf, PathBuf)>>,
}

impl Barman {
    /// Writes the configuration, without a server.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn create(scratch: &Arc<Scratch>, install: BarmanInstall) -> Result<Self> {
        let command = if install.packaged {
            PathBuf::from("barman")
        } else {
            let name = format!("barman-{}", install.version.number());
            scratch.script(&name, &format!("exec {} \"$@\"", install.program.display()))?
        };
        scratch.dir("barman/home")?;
        scratch.dir("barman/conf.d")?;
        let dir = scratch.join("barman");
        let conf = format!(
            "[barman]\nbarman_user = {}\nbarman_home = {dir}/home\nconfiguration_files_directory = {dir}/conf.d\n\
             log_file = {dir}/barman.log\nlog_level = INFO\n",
            scratch.account().name,
            dir = dir.display()
        );
        scratch.write("barman/barman.conf", &conf, 0o600)?;
        Ok(Self {
            scratch: Arc::clone(scratch),
            install,
            command,
            incoming: Mutex::default(),
        })
    }

    /// Its installation.
    pub fn install(&self) -> &BarmanInstall {
        &self.install
    }

    /// What calls it in a session on the Barman host: `barman`, or a path if it is not on the PATH there.
    pub fn command_name(&self) -> &Path {
        &self.command
    }

    /// barman.conf.
    pub fn config_file(&self) -> PathBuf {
        self.scratch.join("barman/barman.conf")
    }

    /// The directory of a server's catalogue.
    pub fn server_dir(&self, server: &str) -> PathBuf {
        self.scratch.join("barman/home").join(server)
    }

    /// The directory of a backup.
    pub fn backup_dir(&self, server: &str, id: &str) -> PathBuf {
        self.server_dir(server).join("base").join(id)
    }

    /// Adds a server for `primary` and makes its first WAL arrive.
    ///
    /// # Errors
    /// If Barman does not receive WAL.
    pub fn add_server(&self, primary: &Primary, sshd: &Sshd, options: &ServerOptions) -> Result<()> {
        let incoming = self
            .scratch
            .dir(Path::new("barman/home").join(&options.name).join("incoming"))?;
        {
            let mut all = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((primary.data_dir().to_owned(), incoming));
            let own = all.iter().filter(|(data_dir, _)| data_dir == primary.data_dir());
            primary.archive_to(&own.map(|(_, incoming)| incoming.clone()).collect::<Vec<_>>())?;
        }
        let section = section(primary, sshd, options)?;
        self.scratch.write(
            Path::new("barman/conf.d").join(format!("{}.conf", options.name)),
            &section,
            0o600,
        )?;
        self.switch_wal(&options.name)
    }

    /// `barman -c CONFIG …` on this host.
    pub fn command(&self) -> Command {
        let mut command = self.scratch.command(&self.install.program);
        command.arg("-c").arg(self.config_file());
        command
    }

    /// Runs it and returns its standard output.
    ///
    /// # Errors
    /// If its exit status is not 0 or it takes longer than a minute and a half.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let log = self.scratch.join("barman/barman.log");
        with_log(check(self.command().args(arguments), LIMIT), &log)
    }

    /// Makes the server's primary finish a WAL file and waits until it is archived.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn switch_wal(&self, server: &str) -> Result<()> {
        self.run(&["switch-wal", "--force", "--archive", server])
            .map(drop)
    }

    /// Takes a backup, waits until all its WAL is there, and returns its id.
    ///
    /// # Errors
    /// As [`run`](Self::run), or if the backup is not DONE in the end.
    pub fn backup(&self, server: &str) -> Result<String> {
        let said = self.run(&["backup", "--wait", "--wait-timeout", "60", server])?;
        let id = self
            .newest(server)?
            .with_context(|| format!("no backup in the list after\n{said}"))?;
        let shown = self.run(&["show-backup", server, &id])?;
        let done = shown
            .lines()
            .any(|line| line.split(':').map(str::trim).eq(["Status", "DONE"]));
        ensure!(done, "backup {id} is not DONE:\n{shown}");
        Ok(id)
    }

    fn newest(&self, server: &str) -> Result<Option<String>> {
        let listed = run(self.command().args(["list-backup", "--minimal", server]), LIMIT)?;
        Ok(listed.stdout.lines().map(str::to_owned).max())
    }
}

fn section(primary: &Primary, sshd: &Sshd, options: &ServerOptions) -> Result<String> {
    let connection = format!("host=127.0.0.1 port={} user=postgres", primary.port());
    let mut lines = vec![
        format!("description = lab server {}", options.name),
        format!("conninfo = {connection} dbname=postgres"),
        "archiver = on".to_owned(),
        "immediate_checkpoint = true".to_owned(),
    ];
    let path_prefix = primary.install().client_bin_dir()?;
    match options.method {
        BackupMethod::Rsync => {
            // One connection for the dozen that a backup opens, 0.3 s each.
            let ssh = format!(
                "ssh_command = ssh -F {} -o ControlMaster=auto -o ControlPath={}/barman-ssh -o ControlPersist=5 primary",
                sshd.client_config().display(),
                sshd.control_dir().display()
            );
            lines.extend([
                "backup_method = rsync".to_owned(),
                "reuse_backup = link".to_owned(),
                ssh,
            ]);
        }
        BackupMethod::Postgres => lines.extend([
            "backup_method = postgres".to_owned(),
            format!("streaming_conninfo = {connection}"),
            format!("path_prefix = {}", path_prefix.display()),
        ]),
    }
    for line in &options.conf {
        let key = |line: &str| line.split('=').next().map(|key| key.trim().to_owned());
        lines.retain(|own| key(own) != key(line));
        lines.push(line.clone());
    }
    Ok(format!("[{}]\n{}\n", options.name, lines.join("\n")))
}
