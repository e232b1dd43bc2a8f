//! The whole bench: a primary with data, sshd, Barman with a backup of it, and what a clone needs.

use std::env;
use std::fmt::{self, Write};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::barman::{BackupMethod, Barman, BarmanInstall, BarmanVersion, ServerOptions};
use crate::cache::free_port;
use crate::debian::DebianCluster;
use crate::node::{Instance, Primary, PrimaryOptions, REPMGR, Tablespace, create_debian_cluster};
use crate::packages;
use crate::pg::PgInstall;
use crate::scratch::Scratch;
use crate::sshd::Sshd;

/// The Barman server every lab has.
const MAIN: &str = "main";
const CONNECT: &str = "user=repmgr dbname=repmgr connect_timeout=5";

type OnStep = Box<dyn Fn(&str)>;

/// What a [`Lab`] is to be like.
pub struct LabBuilder {
    pg: Option<u32>,
    barman: BarmanVersion,
    server: ServerOptions,
    primary: PrimaryOptions,
    backup: bool,
    on_step: OnStep,
}

impl fmt::Debug for LabBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LabBuilder")
            .field("pg", &self.pg)
            .field("barman", &self.barman)
            .finish_non_exhaustive()
    }
}

impl LabBuilder {
    /// PostgreSQL of this major, instead of the distribution's.
    #[must_use]
    pub fn pg(mut self, major: u32) -> Self {
        self.pg = Some(major);
        self
    }

    /// Another Barman than 3.4.
    #[must_use]
    pub fn barman(mut self, version: BarmanVersion) -> Self {
        self.barman = version;
        self
    }

    /// Another backup method than rsync.
    #[must_use]
    pub fn method(mut self, method: BackupMethod) -> Self {
        self.server.method = method;
        self
    }

    /// A further line in the section of Barman's server.
    #[must_use]
    pub fn barman_conf(mut self, line: &str) -> Self {
        self.server.conf.push(line.to_owned());
        self
    }

    /// Tablespaces of the primary.
    #[must_use]
    pub fn tablespaces<T: Into<Tablespace>>(mut self, tablespaces: impl IntoIterator<Item = T>) -> Self {
        self.primary
            .tablespaces
            .extend(tablespaces.into_iter().map(Into::into));
        self
    }

    /// Other properties of the primary; tablespaces named before are kept.
    #[must_use]
    pub fn primary(mut self, mut options: PrimaryOptions) -> Self {
        self.primary.tablespaces.append(&mut options.tablespaces);
        self.primary = PrimaryOptions {
            tablespaces: self.primary.tablespaces,
            ..options
        };
        self
    }

    /// Leaves the first backup to the caller.
    #[must_use]
    pub fn without_backup(mut self) -> Self {
        self.backup = false;
        self
    }

    /// Hears of each step as it begins.
    #[must_use]
    pub fn on_step(mut self, hear: impl Fn(&str) + 'static) -> Self {
        self.on_step = Box::new(hear);
        self
    }

    /// Brings it all up: 3 to 8 seconds, and once per version the time to fetch it.
    ///
    /// # Errors
    /// If packages are missing (the error has the line to install them) or a step fails.
    pub fn build(self) -> Result<Lab> {
        let step = |what: &str| (self.on_step)(what);
        packages::require(&[packages::LAB])?;
        let install = self.pg.map_or_else(PgInstall::system, PgInstall::get)?;
        let barman = BarmanInstall::get(self.barman)?;
        let scratch = Scratch::new()?;
        step(&format!(
            "PostgreSQL {} primary in {}",
            install.major,
            scratch.path().display()
        ));
        let primary = Primary::create(&scratch, &install, "primary", &self.primary)?;
        step("sshd");
        let sshd = Sshd::start(&scratch)?;
        step(&format!(
            "Barman {} receiving WAL from the primary",
            self.barman.number()
        ));
        let barman = Barman::create(&scratch, barman)?;
        barman.add_server(&primary, &sshd, &self.server)?;
        let mut lab = Lab {
            barman,
            sshd,
            primary,
            install,
            server: MAIN.to_owned(),
            backup: None,
            scratch,
            program: Mutex::default(),
        };
        let conf = lab.write_repmgr_conf(1, lab.primary.port(), lab.primary.data_dir(), &[])?;
        lab.primary
            .register(1, "node1", &conninfo(lab.primary.port()), &conf)?;
        if self.backup {
            step("backup");
            lab.backup = Some(lab.barman.backup(MAIN)?);
        }
        Ok(lab)
    }
}

/// A primary, sshd and Barman at work. Dropping stops and removes them; so does the end of the process.
#[derive(Debug)]
pub struct Lab {
    // In the order in which they are to go: the scratch directory last.
    barman: Barman,
    sshd: Sshd,
    primary: Primary,
    install: PgInstall,
    server: String,
    backup: Option<String>,
    program: Mutex<Option<PathBuf>>,
    scratch: Arc<Scratch>,
}

/// A standby to be: its configuration file, and where it will live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `node_id`; the name is `node` and this.
    pub node_id: u32,
    /// `data_directory`, not there yet.
    pub data_dir: PathBuf,
    /// The port in `conninfo`.
    pub port: u16,
    /// repmgr.conf.
    pub conf: PathBuf,
}

impl Lab {
    /// A lab of the distribution's PostgreSQL and Barman 3.4 with the rsync method.
    pub fn builder() -> LabBuilder {
        LabBuilder {
            pg: None,
            barman: BarmanVersion::V3_4,
            server: ServerOptions::new(MAIN, BackupMethod::Rsync),
            primary: PrimaryOptions::default(),
            backup: true,
            on_step: Box::new(|_| {}),
        }
    }

    /// The scratch directory, and commands as its account.
    pub fn scratch(&self) -> &Arc<Scratch> {
        &self.scratch
    }

    /// The primary.
    pub fn primary(&self) -> &Primary {
        &self.primary
    }

    /// The SSH server that is both the Barman host and the primary's.
    pub fn sshd(&self) -> &Sshd {
        &self.sshd
    }

    /// Barman.
    pub fn barman(&self) -> &Barman {
        &self.barman
    }

    /// The name of its server for [`primary`](Self::primary).
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The id of the first backup.
    ///
    /// # Errors
    /// If the lab was built without.
    pub fn backup_id(&self) -> Result<&str> {
        self.backup
            .as_deref()
            .context("this lab was built without a backup")
    }

    /// Adds a second Barman server for the same primary and takes a backup; returns its id.
    ///
    /// # Errors
    /// As [`Barman::add_server`] and [`Barman::backup`].
    pub fn add_server(&self, options: &ServerOptions) -> Result<String> {
        self.barman.add_server(&self.primary, &self.sshd, options)?;
        self.barman.backup(&options.name)
    }

    /// Writes repmgr.conf for a standby with a free port and a data directory that does not exist.
    ///
    /// `settings` are added, several of one name too; one the lab has itself is replaced, or left out if the
    /// value is empty.
    ///
    /// # Errors
    /// If there is no free port or the file cannot be written.
    pub fn target(&self, node_id: u32, settings: &[(&str, &str)]) -> Result<Target> {
        let given = |key: &str| {
            settings
                .iter()
                .find(|(known, _)| *known == key)
                .map(|(_, value)| *value)
        };
        let data_dir = given("data_directory")
            .map_or_else(|| self.scratch.join(format!("node{node_id}/data")), PathBuf::from);
        if let Some(parent) = data_dir.parent() {
            self.scratch.account().make_dir(parent)?;
        }
        let port = free_port()?;
        let conf = self.write_repmgr_conf(node_id, port, &data_dir, settings)?;
        Ok(Target {
            node_id,
            data_dir,
            port,
            conf,
        })
    }

    /// A standby to be on a Debian host as `apt-get install postgresql` leaves it: an empty cluster that nobody
    /// uses yet, its configuration in the `/etc` of the returned places, its data where the target is to be.
    ///
    /// Start what was cloned there by `lab.instance(&target).with_conf_dir(&places.conf_dir)`.
    ///
    /// # Errors
    /// As [`target`](Self::target), or if initdb fails.
    pub fn debian_target(&self, node_id: u32, settings: &[(&str, &str)]) -> Result<(Target, DebianCluster)> {
        let root = self.scratch.dir(format!("node{node_id}"))?;
        let places = DebianCluster::below(&root, self.install.major);
        let data_dir = places.data_dir.display().to_string();
        let mut all = settings.to_vec();
        all.push(("data_directory", &data_dir));
        let target = self.target(node_id, &all)?;
        create_debian_cluster(
            &self.scratch,
            &self.install,
            &places,
            target.port,
            &PrimaryOptions::default(),
        )?;
        Ok((target, places))
    }

    /// `OLD=NEW` for each tablespace of the primary, to give to `tablespace_mapping`: both nodes are on this
    /// host and cannot share them.
    pub fn mappings(&self, node_id: u32) -> Vec<String> {
        let to = self.scratch.join(format!("node{node_id}/tablespaces"));
        let pair = |location: &PathBuf| {
            let name = location.file_name().unwrap_or_default().to_string_lossy();
            format!("{}={}/{name}", location.display(), to.display())
        };
        self.primary.tablespaces().iter().map(pair).collect()
    }

    /// The `restore_command` of a node: asks Barman over SSH, as users do; 0.5 s and more for each file.
    pub fn restore_command(&self) -> String {
        format!(
            "{} barmansrv {} -c {} get-wal {} %f > %p",
            self.scratch.join("bin/ssh").display(),
            self.barman.command_name().display(),
            self.barman.config_file().display(),
            self.server
        )
    }

    /// A `restore_command` that takes files out of Barman's archive at once, for tests of other things.
    pub fn quick_restore_command(&self) -> String {
        let dir = self.barman.server_dir(&self.server);
        let dir = dir.display();
        // What no cron job has archived yet is still in `incoming`.
        format!("cp {dir}/wals/$(printf %%.16s %f)/%f %p || cp {dir}/incoming/%f %p")
    }

    /// The `repmgr` under test, copied to where the lab's account can run it.
    ///
    /// # Errors
    /// If it was not built.
    pub fn repmgr(&self) -> Result<Command> {
        let mut program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = match program.take() {
            Some(copy) => copy,
            None => self.install_program()?,
        };
        Ok(self.scratch.command(program.insert(copy)))
    }

    fn install_program(&self) -> Result<PathBuf> {
        let built = program_under_test()?;
        let wal_restore = built.with_file_name("repmgr-wal-restore");
        if wal_restore.exists() {
            self.scratch.install(&wal_restore, "repmgr-wal-restore")?;
        }
        self.scratch.install(&built, "repmgr")
    }

    /// `repmgr -f CONF -h HOST -p PORT -U repmgr -d repmgr standby clone`.
    ///
    /// # Errors
    /// As [`repmgr`](Self::repmgr).
    pub fn clone_command(&self, target: &Target) -> Result<Command> {
        let mut command = self.repmgr()?;
        command
            .arg("-f")
            .arg(&target.conf)
            .args(["-h", "127.0.0.1", "-p", &self.primary.port().to_string()]);
        command.args(["-U", REPMGR, "-d", REPMGR, "standby", "clone"]);
        Ok(command)
    }

    /// Starts what was cloned to `target` and waits until it streams from the primary.
    ///
    /// # Errors
    /// If it does not start as a standby or does not stream within a minute.
    pub fn start_standby(&self, target: &Target) -> Result<Instance> {
        let standby = self.instance(target);
        standby.start()?;
        standby.wait_for_streaming(Duration::from_secs(60))?;
        Ok(standby)
    }

    /// The instance of `target`, not started.
    pub fn instance(&self, target: &Target) -> Instance {
        Instance::new(&self.scratch, &self.install, &target.data_dir, target.port)
    }

    /// A script that runs its arguments, or a shell, as a child of the lab would run: same account, PATH and
    /// working directory. For typing commands by hand.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn enter_script(&self) -> Result<PathBuf> {
        let (scratch, user) = (self.scratch.path().display(), &self.scratch.account().name);
        let clients = self.install.client_bin_dir()?;
        let path = format!(
            "{}:{}:{}",
            self.scratch.search_path(),
            self.install.bin_dir().display(),
            clients.display()
        );
        let body = format!(
            "#!/bin/sh\nif [ \"$(id -u)\" = 0 ]; then exec runuser -u {user} -- \"$0\" \"$@\"; fi\ncd {scratch}\n\
             [ $# -gt 0 ] || set -- bash --norc\nexec env -i TERM=\"$TERM\" LANG=C.UTF-8 USER={user} \
             LOGNAME={user} HOME={scratch}/home PATH={path} PS1='lab$ ' \"$@\"\n"
        );
        self.scratch.write("enter", &body, 0o755)
    }

    /// Lets everything run on after the end of this process; returns the directory for [`Scratch::adopt`].
    ///
    /// # Errors
    /// As [`Scratch::detach`].
    pub fn detach(self) -> Result<PathBuf> {
        self.scratch.detach()?;
        Ok(self.scratch.path().to_owned())
    }

    fn write_repmgr_conf(
        &self,
        node_id: u32,
        port: u16,
        data_dir: &Path,
        given: &[(&str, &str)],
    ) -> Result<PathBuf> {
        let barman = self.barman.command_name().display().to_string();
        let barman_conf = self.barman.config_file().display().to_string();
        let mut settings = vec![
            ("node_id", node_id.to_string()),
            ("node_name", format!("node{node_id}")),
            ("conninfo", conninfo(port)),
            ("data_directory", data_dir.display().to_string()),
            ("pg_bindir", self.install.bin_dir().display().to_string()),
            ("barman_host", "barmansrv".to_owned()),
            ("barman_server", self.server.clone()),
            ("barman_config", barman_conf),
            ("restore_command", self.restore_command()),
        ];
        if barman != "barman" {
            settings.push(("barman_command", barman));
        }
        settings.retain(|(own, _)| given.iter().all(|(key, _)| own != key));
        let given = given.iter().filter(|(_, value)| !value.is_empty());
        settings.extend(given.map(|(key, value)| (*key, (*value).to_owned())));
        let mut text = String::new();
        for (key, value) in settings {
            writeln!(text, "{key}='{}'", value.replace('\'', "''"))?;
        }
        self.scratch.write(format!("repmgr-{node_id}.conf"), &text, 0o600)
    }
}

fn conninfo(port: u16) -> String {
    format!("host=127.0.0.1 port={port} {CONNECT}")
}

/// `$REPMGR_LAB_REPMGR`, or the `repmgr` cargo built beside the running program.
///
/// # Errors
/// If there is none.
pub fn program_under_test() -> Result<PathBuf> {
    if let Some(given) = env::var_os("REPMGR_LAB_REPMGR") {
        return fs::canonicalize(&given)
            .with_context(|| format!("REPMGR_LAB_REPMGR: no {}", given.display()));
    }
    let own = env::current_exe()?;
    // Tests lie in target/PROFILE/deps, xtask in target/PROFILE.
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("repmgr"))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "no repmgr near \"{}\"; run: cargo build -p repmgr-cli",
            own.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_of_a_file_can_share_a_lab() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<Lab>();
    }

    #[test]
    fn a_conninfo_names_everything_a_node_needs() {
        assert_eq!(
            conninfo(7),
            "host=127.0.0.1 port=7 user=repmgr dbname=repmgr connect_timeout=5"
        );
    }
}
