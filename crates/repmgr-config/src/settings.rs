use std::path::{Path, PathBuf};

use repmgr_types::{Conninfo, Rate};
use serde::Deserialize;

use crate::basebackup::PgBasebackupOptions;
use crate::values::{
    ApplyDelay, ConnectionCheckType, Failover, LogLevel, ReplicationType, SshClient, TablespaceMapping,
    Value, absolute, any, name, positive,
};

/// What the loader knows of a parameter besides its field.
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    /// What is odd about a value that can be read.
    pub(crate) remark: fn(&str) -> Option<String>,
}

/// One row per parameter: name, type, default, and the function of `values` that reads it.
/// Rows stand in the order of `--dump-config`.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr, $read:literal;)*) => {
        /// Every parameter of repmgr 5.5, those of 4.x it no longer has, and ours.
        ///
        /// An unset or empty string, path or connection string is `None`. Timeouts and
        /// intervals are in seconds. `Debug` hides passwords.
        #[derive(Debug, Clone, PartialEq, Deserialize)]
        #[serde(default)]
        #[non_exhaustive]
        pub struct Settings {
            $($(#[$doc])* #[serde(deserialize_with = $read)] pub $name: $type,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Settings {
            /// Every parameter and its value as text, in a fixed order, without passwords.
            pub fn dump(&self) -> impl Iterator<Item = (&'static str, String)> {
                [$((stringify!($name), self.$name.show()),)*].into_iter()
            }
        }

        pub(crate) const PARAMETERS: &[Parameter] = &[
            $(Parameter { name: stringify!($name), remark: <$type as Value>::remark },)*
        ];
    };
}

settings! {
    /// Number of this node, from 1. Required.
    node_id: Option<u32> = None, "positive";
    /// Name of this node, at most 63 bytes. Required; becomes `application_name`.
    node_name: Option<String> = None, "name";
    /// How every node reaches this one. Required.
    conninfo: Option<Conninfo> = None, "any";
    /// The data directory of this node. Required.
    data_directory: Option<PathBuf> = None, "absolute";
    /// Role for replication connections to this node.
    replication_user: Option<String> = None, "name";
    /// Where configuration files are, if not in the data directory.
    config_directory: Option<PathBuf> = None, "any";
    /// Where PostgreSQL's programs are; else `$PATH` is searched.
    pg_bindir: Option<PathBuf> = None, "any";
    /// Where repmgr's programs are on the nodes.
    repmgr_bindir: Option<PathBuf> = None, "any";
    /// How nodes replicate.
    replication_type: ReplicationType = ReplicationType::Physical, "any";
    /// Nodes of one location can take each other's place.
    location: String = "default".to_owned(), "any";
    /// Precedence at promotion; 0 for never.
    priority: u32 = 100, "any";

    /// The least important messages shown. INFO as in repmgr 5; repmgr 4.0 had NOTICE.
    log_level: LogLevel = LogLevel::Info, "any";
    /// `STDERR` or a syslog facility.
    log_facility: String = "STDERR".to_owned(), "any";
    /// File that takes the log.
    log_file: Option<PathBuf> = None, "any";
    /// Seconds between `repmgrd`'s status messages.
    log_status_interval: u32 = 300, "any";

    /// Whether standbys replicate through a replication slot.
    use_replication_slots: bool = false, "any";
    /// Options passed on to `pg_basebackup`.
    pg_basebackup_options: PgBasebackupOptions = PgBasebackupOptions::default(), "any";
    /// `restore_command` of the standby.
    restore_command: Option<String> = None, "any";
    /// `archive_cleanup_command` of the standby.
    archive_cleanup_command: Option<String> = None, "any";
    /// `recovery_min_apply_delay` of the standby.
    recovery_min_apply_delay: Option<ApplyDelay> = None, "any";
    /// Where tablespaces go that cannot be where they are on the source. Repeatable.
    tablespace_mapping: Vec<TablespaceMapping> = Vec::new(), "any";
    /// Whether `primary_conninfo` holds the password from `$PGPASSWORD`.
    use_primary_conninfo_password: bool = false, "any";
    /// `passfile` for `primary_conninfo`.
    passfile: Option<String> = None, "any";

    /// Barman's host as `ssh` takes it: `host`, `user@host` or an alias. Set together with
    /// `barman_server`.
    barman_host: Option<String> = None, "any";
    /// Name of the server in Barman.
    barman_server: Option<String> = None, "any";
    /// Barman's configuration file on its host, if not the usual one.
    barman_config: Option<String> = None, "any";
    /// The `barman` program on its host, if it is not found by that name: words as for a shell, so that a
    /// path with blanks needs quotes inside the value. Not known to repmgr.
    barman_command: Option<String> = None, "any";
    /// Whether data pages of Barman's backups are left alone, not held against their checksums: in a cluster that is
    /// encrypted as a whole they are not what they seem. Not known to repmgr.
    skip_page_checks: bool = false, "any";
    /// The most that a clone transfers in a second. Not known to repmgr.
    max_rate: Option<Rate> = None, "any";
    /// Host of a pg_backup_api service (repmgr 5.4).
    pg_backupapi_host: Option<String> = None, "name";
    /// Node name for pg_backup_api.
    pg_backupapi_node_name: Option<String> = None, "name";
    /// Backup id for pg_backup_api.
    pg_backupapi_backup_id: Option<String> = None, "name";
    /// Command by which pg_backup_api reaches this host.
    pg_backupapi_remote_ssh_command: Option<String> = None, "any";

    /// Options for `rsync` when it copies configuration files.
    rsync_options: Option<String> = None, "any";
    /// Options for `ssh`.
    ssh_options: String = "-q -o ConnectTimeout=10".to_owned(), "any";
    /// What connects to hosts behind SSH. Not known to repmgr.
    ssh_client: SshClient = SshClient::Auto, "any";

    /// Command run for events.
    event_notification_command: Option<String> = None, "any";
    /// Events it is run for; all if empty. Repeatable.
    event_notifications: Vec<String> = Vec::new(), "any";

    /// How long to wait for a promotion.
    promote_check_timeout: u32 = 60, "positive";
    /// How often to look meanwhile.
    promote_check_interval: u32 = 1, "positive";
    /// How long to wait for the new primary.
    primary_follow_timeout: u32 = 60, "positive";
    /// How long to wait for the standby to connect.
    standby_follow_timeout: u32 = 30, "positive";
    /// Whether following a new primary restarts the standby.
    standby_follow_restart: bool = false, "any";
    /// How long to wait for the old primary to stop.
    shutdown_check_timeout: u32 = 60, "positive";
    /// How long to wait for the old primary as a standby; not less than `node_rejoin_timeout`.
    standby_reconnect_timeout: u32 = 60, "positive";
    /// How long to wait until the old primary's last WAL is here.
    wal_receive_check_timeout: u32 = 30, "positive";
    /// How long to wait for a node that rejoins.
    node_rejoin_timeout: u32 = 60, "positive";
    /// WAL files ready for the archive that are worth a warning.
    archive_ready_warning: u32 = 16, "positive";
    /// WAL files ready for the archive that are critical; more than the warning.
    archive_ready_critical: u32 = 128, "positive";
    /// Replication lag worth a warning.
    replication_lag_warning: u32 = 300, "positive";
    /// Replication lag that is critical; more than the warning.
    replication_lag_critical: u32 = 600, "positive";
    /// Seconds between copies of the metadata to a witness.
    witness_sync_interval: u32 = 15, "positive";

    /// What `repmgrd` does when the primary is gone.
    failover: Failover = Failover::Manual, "any";
    /// Command by which `repmgrd` promotes this node.
    promote_command: Option<String> = None, "any";
    /// Command by which `repmgrd` lets this node follow another.
    follow_command: Option<String> = None, "any";
    /// Seconds between `repmgrd`'s checks.
    monitor_interval_secs: u32 = 2, "positive";
    /// Attempts to reach a lost primary.
    reconnect_attempts: u32 = 6, "any";
    /// Seconds between them.
    reconnect_interval: u32 = 10, "any";
    /// Whether `repmgrd` keeps monitoring history.
    monitoring_history: bool = false, "any";
    /// How long `repmgrd` monitors without a primary; -1 for ever.
    degraded_monitoring_timeout: i32 = -1, "any";
    /// How long `repmgrd` waits for a query.
    async_query_timeout: u32 = 60, "any";
    /// How long a standby waits for the new primary's word.
    primary_notification_timeout: u32 = 60, "any";
    /// How long `repmgrd` waits for a standby to start.
    repmgrd_standby_startup_timeout: u32 = 60, "any";
    /// File that holds `repmgrd`'s process id.
    repmgrd_pid_file: Option<PathBuf> = None, "any";
    /// Whether `repmgrd` ends when its node is marked inactive.
    repmgrd_exit_on_inactive_node: bool = false, "any";
    /// Whether standbys drop their WAL receivers at failover.
    standby_disconnect_on_failover: bool = false, "any";
    /// How long to wait for other standbys to do so.
    sibling_nodes_disconnect_timeout: u32 = 30, "any";
    /// How `repmgrd` sees that a node is up.
    connection_check_type: ConnectionCheckType = ConnectionCheckType::Ping, "any";
    /// The query for `connection_check_type=query`.
    connection_check_query: Option<String> = Some("SELECT 1".to_owned()), "any";
    /// Whether a standby promotes only if no other sees the primary.
    primary_visibility_consensus: bool = false, "any";
    /// Whether a standby promotes whatever it missed.
    always_promote: bool = false, "any";
    /// Command that may forbid a promotion.
    failover_validation_command: Option<String> = None, "any";
    /// Seconds between elections.
    election_rerun_interval: u32 = 15, "positive";
    /// Seconds between checks of the nodes below this one.
    child_nodes_check_interval: u32 = 5, "positive";
    /// Lost nodes that trigger the disconnect command; -1 for unset.
    child_nodes_disconnect_min_count: i32 = -1, "any";
    /// Connected nodes below which it is triggered; -1 for unset.
    child_nodes_connected_min_count: i32 = -1, "any";
    /// Whether a witness counts among them.
    child_nodes_connected_include_witness: bool = false, "any";
    /// Seconds the nodes may be lost.
    child_nodes_disconnect_timeout: u32 = 30, "any";
    /// Command run when they are.
    child_nodes_disconnect_command: Option<String> = None, "any";

    /// Options for `pg_ctl`.
    pg_ctl_options: Option<String> = None, "any";
    /// Command that starts PostgreSQL.
    service_start_command: Option<String> = None, "any";
    /// Command that stops PostgreSQL.
    service_stop_command: Option<String> = None, "any";
    /// Command that restarts PostgreSQL.
    service_restart_command: Option<String> = None, "any";
    /// Command that makes PostgreSQL reload.
    service_reload_command: Option<String> = None, "any";
    /// Command that promotes PostgreSQL.
    service_promote_command: Option<String> = None, "any";
    /// Command that starts `repmgrd`.
    repmgrd_service_start_command: Option<String> = None, "any";
    /// Command that stops `repmgrd`.
    repmgrd_service_stop_command: Option<String> = None, "any";

    /// For repmgr's own tests.
    promote_delay: u32 = 0, "any";
    /// For repmgr's own tests.
    failover_delay: u32 = 0, "any";
    /// For repmgr's own tests.
    reconnect_loop_sync: bool = false, "any";
    /// repmgr 4 with BDR.
    bdr_local_monitoring_only: bool = false, "any";
    /// repmgr 4 with BDR.
    bdr_recovery_timeout: u32 = 30, "any";
}

/// Where backups are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarmanSettings<'a> {
    /// `host`, `user@host` or an `ssh` alias.
    pub host: &'a str,
    /// Name of the server in Barman.
    pub server: &'a str,
    /// Barman's configuration file on its host.
    pub config: Option<&'a str>,
    /// How Barman is called on its host: `barman_command` as it is, words as for a shell.
    pub command: &'a str,
}

/// The parameters every node must have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node<'a> {
    /// `node_id`.
    pub id: u32,
    /// `node_name`.
    pub name: &'a str,
    /// `conninfo`.
    pub conninfo: &'a Conninfo,
    /// `data_directory`.
    pub data_directory: &'a Path,
}

impl Settings {
    /// Where backups are; `None` if Barman is not configured.
    pub fn barman(&self) -> Option<BarmanSettings<'_>> {
        Some(BarmanSettings {
            host: self.barman_host.as_deref()?,
            server: self.barman_server.as_deref()?,
            config: self.barman_config.as_deref(),
            command: self.barman_command.as_deref().unwrap_or("barman"),
        })
    }

    /// This node.
    ///
    /// # Errors
    /// The names of the required parameters that are not set.
    pub fn node(&self) -> Result<Node<'_>, Vec<&'static str>> {
        match (
            self.node_id,
            &self.node_name,
            &self.conninfo,
            &self.data_directory,
        ) {
            (Some(id), Some(name), Some(conninfo), Some(data_directory)) => Ok(Node {
                id,
                name,
                conninfo,
                data_directory,
            }),
            (id, name, conninfo, data_directory) => Err([
                ("node_id", id.is_some()),
                ("node_name", name.is_some()),
                ("conninfo", conninfo.is_some()),
                ("data_directory", data_directory.is_some()),
            ]
            .into_iter()
            .filter_map(|(name, is_set)| (!is_set).then_some(name))
            .collect()),
        }
    }

    /// Parameters that do not go together: the one to blame, and why.
    pub(crate) fn conflicts(&self) -> Vec<(&'static str, String)> {
        let mut conflicts = Vec::new();
        match (&self.barman_host, &self.barman_server) {
            (Some(_), None) => {
                conflicts.push(("barman_host", "\"barman_server\" must be set too".to_owned()))
            }
            (None, Some(_)) => {
                conflicts.push(("barman_server", "\"barman_host\" must be set too".to_owned()))
            }
            _ => {}
        }
        if self.archive_ready_critical <= self.archive_ready_warning {
            conflicts.push((
                "archive_ready_critical",
                must("greater than", "archive_ready_warning"),
            ));
        }
        if self.replication_lag_critical <= self.replication_lag_warning {
            conflicts.push((
                "replication_lag_critical",
                must("greater than", "replication_lag_warning"),
            ));
        }
        if self.standby_reconnect_timeout < self.node_rejoin_timeout {
            conflicts.push((
                "standby_reconnect_timeout",
                must("not less than", "node_rejoin_timeout"),
            ));
        }
        conflicts
    }
}

fn must(be: &str, other: &str) -> String {
    format!("value must be {be} that of \"{other}\"")
}
