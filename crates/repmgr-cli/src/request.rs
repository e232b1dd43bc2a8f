//! What is to be done: the second of two stages, in which options and `repmgr.conf` meet.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use repmgr_barman::{BadCommand, BarmanCommand};
use repmgr_clone::{
    BarmanSource, CloneRequest, ExternalFiles, NodeIdentity, Notification, ReconfigureRequest,
    ReplicationOptions, ServerAddress, ServerSource, Source, Start, UpstreamChoice,
};
use repmgr_config::{BarmanSettings, Loaded, Node, Settings, SshClient};
use repmgr_remote::{Host, quote};
use repmgr_types::Conninfo;

use crate::app::searched;
use crate::args::{Args, CommandLine};
use crate::failure::Failure;
use crate::standby_clone::THIS_HOST;
use crate::values::{Dbname, Values};

/// How repmgr names the command in its messages.
const COMMAND: &str = "STANDBY CLONE";

/// All that was given for one clone.
pub(crate) struct Given<'a> {
    pub(crate) line: &'a CommandLine,
    pub(crate) values: &'a Values,
    /// The word behind `standby clone`.
    pub(crate) host: Option<&'a str>,
    /// The configuration file.
    pub(crate) loaded: Option<&'a Loaded>,
    /// `$PGPASSWORD`.
    pub(crate) password: Option<String>,
    /// `repmgr-wal-restore`, if it is there.
    pub(crate) wal_restore: Option<PathBuf>,
    /// Whom we log in as on a host for which nobody names a user: `repmgr-wal-restore` would choose another.
    pub(crate) unnamed_user: fn(&str) -> Option<String>,
}

impl Given<'_> {
    fn args(&self) -> &Args {
        &self.line.args
    }

    fn settings(&self) -> Option<&Settings> {
        self.loaded.map(|loaded| &loaded.settings)
    }

    fn is_from_barman(&self) -> bool {
        !self.args().without_barman
            && self
                .settings()
                .is_some_and(|settings| settings.barman().is_some())
    }

    /// Options that have no effect here, in the words and the order of repmgr.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let args = self.args();
        let mut warnings = Vec::new();
        let mut warn = |given: bool, text: &str| {
            if given {
                warnings.push(text.to_owned());
            }
        };
        warn(
            args.pgdata.is_some() && self.loaded.is_some(),
            "-D/--pgdata will be ignored if a repmgr configuration file is provided",
        );
        if self.is_from_barman() {
            warn(
                args.fast_checkpoint,
                "-c/--fast-checkpoint has no effect in Barman mode",
            );
            warn(
                args.remote_user.is_some() && args.copy_external_config_files.is_none(),
                "-R/--remote-user has no effect in Barman mode",
            );
        } else {
            warn(
                args.no_upstream_connection,
                "--no-upstream-connection only effective in Barman mode",
            );
            for (option, given) in [
                ("--backup-id", args.backup_id.is_some()),
                ("--jobs", args.jobs.is_some()),
                ("--compress", args.compress.is_some()),
                ("--retries", args.retries.is_some()),
                ("--accept-damage", args.accept_damage),
                ("--skip-page-checks", args.skip_page_checks),
                ("--accept-missing-wal", args.accept_missing_wal),
            ] {
                warn(given, &format!("{option} only effective in Barman mode"));
            }
        }
        warn(
            args.start_timeout.is_some() && !args.start,
            "--start-timeout only effective with --start",
        );
        warn(
            args.start && args.replication_conf_only,
            "--start has no effect with --replication-conf-only",
        );
        warn(
            args.replication_user.is_some() && args.upstream_conninfo.is_some(),
            "--replication-user ineffective when specifying --upstream-conninfo",
        );
        warn(
            self.settings()
                .is_some_and(|settings| settings.config_directory.is_some())
                && args.copy_external_config_files.is_none(),
            "\"config_directory\" set in repmgr.conf, but --copy-external-config-files not provided",
        );
        warnings.extend(
            self.line
                .foreign
                .iter()
                .filter_map(|foreign| foreign.warning(COMMAND)),
        );
        warnings
    }

    /// What is asked for. Nothing is connected yet; `hosts` makes a [`Host`] of a name.
    pub(crate) fn request(self, hosts: &dyn Hosts) -> Result<CloneRequest, Failure> {
        let (args, values) = (self.args(), self.values);
        let connection = self.connection()?;
        let defaults = Settings::default();
        let settings = self.settings().unwrap_or(&defaults);
        let (node, data_directory) = self.node()?;
        let node = Some(node);
        if !self.is_from_barman() && !args.without_barman {
            refuse_backupapi(settings)?;
        }
        let source = match settings.barman().filter(|_| self.is_from_barman()) {
            Some(barman) => Source::Barman(self.barman_source(&barman, settings, hosts)?),
            None => Source::Server(self.server_source(settings)),
        };
        let mut request = CloneRequest::new(data_directory, source, connection);
        request.replication = self.replication(settings, node.as_ref())?;
        request.node = node;
        request.upstream = self.upstream();
        request.tablespace_mapping = mapping(settings);
        request.wal_directory = settings.pg_basebackup_options.waldir().map(Path::to_owned);
        request.force = args.force;
        request.delta = values.delta;
        request.accept_missing_wal = args.accept_missing_wal;
        request.start = args.start.then(|| {
            let mut start = Start::default();
            start.limit = values
                .start_timeout
                .map(|seconds| Duration::from_secs(seconds.into()));
            start
        });
        request.start_command = settings.service_start_command.clone();
        request.bin_dir = args.pg_bindir.clone().or_else(|| settings.pg_bindir.clone());
        request.external_files = self.external_files(settings, &request.connection, hosts)?;
        let command = settings.event_notification_command.clone();
        request.notification = command.map(|command| Notification {
            command,
            events: settings.event_notifications.clone(),
        });
        Ok(request)
    }

    fn replication(
        &self,
        settings: &Settings,
        node: Option<&NodeIdentity>,
    ) -> Result<ReplicationOptions, Failure> {
        let delay = self.values.recovery_min_apply_delay.as_ref();
        let delay = delay.or(settings.recovery_min_apply_delay.as_ref());
        let password = self.password.clone();
        let mut options = ReplicationOptions::default();
        options.slot_name = node
            .filter(|_| settings.use_replication_slots)
            .map(NodeIdentity::slot_name);
        options.restore_command = match &settings.restore_command {
            Some(command) => Some(command.clone()),
            None => self.own_restore_command(settings)?,
        };
        options.archive_cleanup_command = settings.archive_cleanup_command.clone();
        options.recovery_min_apply_delay = delay.map(|delay| delay.as_str().to_owned());
        options.password = password.filter(|_| settings.use_primary_conninfo_password);
        options.passfile = settings.passfile.clone();
        Ok(options)
    }

    /// What fetches WAL from the same Barman where repmgr.conf says nothing: the program beside this one.
    fn own_restore_command(&self, settings: &Settings) -> Result<Option<String>, Failure> {
        let barman = settings.barman().filter(|_| self.is_from_barman());
        let program = self.wal_restore.as_deref().and_then(Path::to_str);
        let (Some(barman), Some(program)) = (barman, program) else {
            return Ok(None);
        };
        let mut words = vec![program];
        if let Some(config) = barman.config {
            words.extend(["--config", config]);
        }
        let command = self.barman_command(&barman)?;
        let text = command.to_string();
        if command != BarmanCommand::default() {
            words.extend(["--barman-command", &text]);
        }
        let (ssh, user);
        if barman.host == THIS_HOST {
            words.push("--local");
        } else {
            // In one word, for it begins with a dash.
            ssh = format!("--ssh-options={}", settings.ssh_options);
            if settings.ssh_options != Settings::default().ssh_options {
                words.push(&ssh);
            }
            let client = self.values.ssh_client.unwrap_or(settings.ssh_client);
            if client != SshClient::Auto {
                words.extend(["--ssh-client", client.as_str()]);
            }
            user = (self.unnamed_user)(barman.host);
            words.extend(user.iter().flat_map(|user| ["--user", user]));
        }
        words.extend(["--", barman.host, barman.server]);
        let quoted = words.iter().map(|word| quote(word).replace('%', "%%"));
        Ok(Some(quoted.collect::<Vec<_>>().join(" ") + " %f %p"))
    }

    /// What `barman_command` means.
    fn barman_command(&self, barman: &BarmanSettings<'_>) -> Result<BarmanCommand, Failure> {
        barman.command.parse().map_err(|error: BadCommand| {
            let file = self.loaded.map(|loaded| loaded.path.display().to_string());
            let file = file.unwrap_or_default();
            Failure::refused(
                format!("file \"{file}\": parameter \"barman_command\": {error}"),
                error.hint().to_string(),
            )
        })
    }

    /// What is asked for with `--replication-conf-only`.
    pub(crate) fn reconfiguration(self) -> Result<ReconfigureRequest, Failure> {
        let connection = self.connection()?;
        let defaults = Settings::default();
        let settings = self.settings().unwrap_or(&defaults);
        let (node, data_directory) = self.node()?;
        let replication = self.replication(settings, Some(&node))?;
        let mut request = ReconfigureRequest::new(node, data_directory, connection);
        request.upstream = self.upstream();
        request.replication = replication;
        request.force = self.args().force;
        Ok(request)
    }

    fn connection(&self) -> Result<Conninfo, Failure> {
        let args = self.args();
        let mut errors = Vec::new();
        let connection = connection(args, self.values, self.host).unwrap_or_else(|error| {
            errors.push(error);
            Conninfo::new()
        });
        if !self.is_from_barman() && errors.is_empty() {
            errors.extend(source_errors(args, &connection));
        }
        match errors.is_empty() {
            true => Ok(connection),
            false => Err(Failure::usage(errors, &args.words)),
        }
    }

    fn upstream(&self) -> UpstreamChoice {
        let mut upstream = UpstreamChoice::default();
        upstream.node_id = self.values.upstream_node_id;
        upstream.conninfo = self.values.upstream_conninfo.clone();
        upstream.replication_user = self.args().replication_user.clone();
        upstream.superuser = self.args().superuser.clone();
        upstream.no_connection = self.args().no_upstream_connection && self.is_from_barman();
        upstream
    }

    /// The node to be, and its data directory.
    fn node(&self) -> Result<(NodeIdentity, PathBuf), Failure> {
        match (self.loaded, &self.args().pgdata) {
            (Some(loaded), _) => {
                let node = loaded.node().map_err(Failure::Config)?;
                Ok((identity(&node)?, node.data_directory.to_owned()))
            }
            // As in repmgr: a standby without a configuration file has no number, and this name.
            (None, Some(directory)) => Ok((NodeIdentity::new(-1, "repmgr"), directory.clone())),
            (None, None) => Err(no_data_directory()),
        }
    }

    fn barman_source(
        &self,
        barman: &BarmanSettings<'_>,
        settings: &Settings,
        hosts: &dyn Hosts,
    ) -> Result<BarmanSource, Failure> {
        let (args, values) = (self.args(), self.values);
        let mut address = ServerAddress::new(barman.server);
        address.command = self.barman_command(barman)?;
        address.config = barman.config.map(str::to_owned);
        let mut source = BarmanSource::new(hosts.barman(settings, barman.host)?, address);
        source.backup = args.backup_id.clone();
        source.transfer.jobs = values.jobs;
        source.transfer.max_rate = values.max_rate.or(settings.max_rate);
        source.transfer.compression = values.compression;
        source.transfer.retries = values.retries;
        source.transfer.accept_damage = args.accept_damage;
        source.transfer.skip_page_checks = args.skip_page_checks || settings.skip_page_checks;
        source.transfer.require_manifest = args.verify_backup;
        Ok(source)
    }

    fn server_source(&self, settings: &Settings) -> ServerSource {
        let options = &settings.pg_basebackup_options;
        let mut source = ServerSource::default();
        source.fast_checkpoint = self.args().fast_checkpoint;
        source.options = options.words().map(str::to_owned).collect();
        source.wal_method = options.wal_method().map(str::to_owned);
        source.chooses_slot = options.slot().is_some() || options.no_slot();
        source.max_rate = self.values.max_rate.or(settings.max_rate);
        source.verify = self.args().verify_backup;
        source
    }

    fn external_files(
        &self,
        settings: &Settings,
        connection: &Conninfo,
        hosts: &dyn Hosts,
    ) -> Result<Option<ExternalFiles>, Failure> {
        let Some(placement) = self.values.external_files else {
            return Ok(None);
        };
        let host = connection
            .get("host")
            .or(connection.get("hostaddr"))
            .ok_or_else(|| {
                Failure::refused(
                    "--copy-external-config-files needs to know the source node's host",
                    "give it with -h/--host",
                )
            })?;
        let host = hosts.source(settings, host, self.args().remote_user.as_deref())?;
        Ok(Some(ExternalFiles::new(host, placement)))
    }
}

/// Makes hosts of names.
pub(crate) trait Hosts {
    /// The host that `barman_host` names.
    fn barman(&self, settings: &Settings, name: &str) -> Result<Arc<dyn Host>, Failure>;
    /// The source node's, logging in as `user`.
    fn source(&self, settings: &Settings, name: &str, user: Option<&str>) -> Result<Arc<dyn Host>, Failure>;
}

/// A backup through the service `pg_backup_api` is what the user wants then (repmgr 5.4 and later), and a copy of the
/// running primary would be another.
fn refuse_backupapi(settings: &Settings) -> Result<(), Failure> {
    if settings.pg_backupapi_host.is_none() {
        return Ok(());
    }
    let server = match &settings.pg_backupapi_node_name {
        Some(name) => format!("\"barman_server\" to \"{name}\""),
        None => "\"barman_server\"".to_owned(),
    };
    let backup = match &settings.pg_backupapi_backup_id {
        Some(id) => format!(", and add --backup-id={id}"),
        None => String::new(),
    };
    Err(Failure::refused(
        "backups cannot be had through pg_backup_api (\"pg_backupapi_host\"): this repmgr reads them on the Barman host",
        format!(
            "set \"barman_host\" to the Barman host, as ssh takes it, and {server}{backup}; --without-barman clones from \
             the primary"
        ),
    ))
}

/// How to reach the source node: `-d` counts before `-h`, `-p` and `-U`; parameters that are
/// empty are not given, as for libpq.
fn connection(args: &Args, values: &Values, word: Option<&str>) -> Result<Conninfo, String> {
    let mut connection = Conninfo::new();
    let mut set = |keyword: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            connection.set(keyword, value);
        }
    };
    set("host", args.host.as_deref());
    set("port", values.port.map(|port| port.to_string()).as_deref());
    set("user", args.username.as_deref());
    match &values.dbname {
        Some(Dbname::Name(name)) => set("dbname", Some(name)),
        Some(Dbname::Conninfo(given)) => given
            .iter()
            .for_each(|(keyword, value)| set(keyword, Some(value))),
        None => {}
    }
    let Some(word) = word else { return Ok(connection) };
    let twice = match (
        args.host.is_some(),
        connection.get("host").or(connection.get("hostaddr")),
    ) {
        (true, _) => "-h/--host",
        (false, Some(_)) => "host=",
        (false, None) => {
            connection.set("host", word);
            return Ok(connection);
        }
    };
    Err(format!(
        "host name provided both with {twice} and as an extra parameter"
    ))
}

/// What pg_basebackup would need: a host, and that any option says so.
fn source_errors(args: &Args, connection: &Conninfo) -> Vec<String> {
    let mut errors = Vec::new();
    if connection.get("host").or(connection.get("hostaddr")).is_none() {
        errors.push(format!(
            "host name for the source node must be provided with -h/--host when executing {COMMAND}"
        ));
    }
    if args.dbname.is_none() && args.host.is_none() && args.port.is_none() && args.username.is_none() {
        errors.push(format!(
            "database connection parameters for the source node must be provided when executing {COMMAND}"
        ));
    }
    errors
}

/// A configuration file in another place than those looked in is the usual reason.
fn no_data_directory() -> Failure {
    let looked: Vec<String> = searched()
        .iter()
        .map(|path| format!("\"{}\"", path.display()))
        .collect();
    Failure::Refused {
        text: "no data directory provided".to_owned(),
        detail: Some(format!(
            "there is no configuration file {}; another can be named with -f/--config-file",
            looked.join(", ")
        )),
        hint: Some("use -D/--pgdata to explicitly specify a data directory".into()),
    }
}

fn identity(node: &Node<'_>) -> Result<NodeIdentity, Failure> {
    let id = i32::try_from(node.id);
    let id =
        id.map_err(|_| Failure::refused("\"node_id\" is too large", "choose a number up to 2147483647"))?;
    let mut identity = NodeIdentity::new(id, node.name);
    identity.conninfo = Some(node.conninfo.clone());
    Ok(identity)
}

fn mapping(settings: &Settings) -> Vec<(PathBuf, PathBuf)> {
    let mappings = settings.tablespace_mapping.iter();
    mappings
        .map(|mapping| (mapping.old.clone(), mapping.new.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
