//! What to clone, from where, to where.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use repmgr_barman::ServerAddress;
use repmgr_recovery::RecoveryTarget;
use repmgr_remote::Host;
use repmgr_types::{CancelToken, Conninfo, Rate};
use repmgr_upstream::Environment;

use crate::{Event, Notification, Observer};

/// One clone of a standby. [`CloneRequest::new`] takes what is indispensable; set the other fields as needed.
#[derive(Clone)]
#[non_exhaustive]
pub struct CloneRequest {
    /// The node that the standby will be in repmgr's metadata. `None` for a standby that repmgr does not manage:
    /// then no record is asked for, and no event recorded.
    pub node: Option<NodeIdentity>,
    /// Its data directory.
    pub data_directory: PathBuf,
    /// Where the base backup comes from.
    pub source: Source,
    /// How to connect to the source node, as given by the user; libpq's defaults fill the rest.
    pub connection: Conninfo,
    /// Which node the standby will follow.
    pub upstream: UpstreamChoice,
    /// What the data directory becomes.
    pub outcome: Outcome,
    /// What the standby's configuration shall say.
    pub replication: ReplicationOptions,
    /// Where tablespaces go that cannot be where they are on the source: location there, location here.
    pub tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// A WAL directory outside the data directory.
    pub wal_directory: Option<PathBuf>,
    /// Replace what is in the data directory.
    pub force: bool,
    /// Of instances replace only one of the very cluster that is copied.
    pub only_same_cluster: bool,
    /// Fetch only what differs from the instance that is replaced.
    pub delta: Option<Delta>,
    /// Go on, with a warning, although WAL that the standby needs cannot be had as far as can be seen: a hole in the
    /// archive, or a `restore_command` that does not deliver.
    pub accept_missing_wal: bool,
    /// Command that starts PostgreSQL here, for a shell. By default Debian's, if it has a cluster with this data
    /// directory; systemd's, if a unit has; else `pg_ctl`.
    pub start_command: Option<String>,
    /// Start the server when the standby is complete, and go on until it streams.
    pub start: Option<Start>,
    /// Directory of PostgreSQL's programs here; else `$PATH` is searched.
    pub bin_dir: Option<PathBuf>,
    /// Configuration files outside the source's data directory that shall be copied as well.
    pub external_files: Option<ExternalFiles>,
    /// Whom to tell when the clone ended.
    pub notification: Option<Notification>,
}

/// What a data directory becomes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// A standby whose configuration is written here.
    #[default]
    Standby,
    /// A standby whose configuration another program writes before it starts it. What is written here is only what
    /// keeps it from becoming a primary; settings of recovery that the backup brought are taken out, and
    /// [`ReplicationOptions`] say what the other program will configure, for the checks.
    ManagedStandby,
    /// A server that recovers from the archive, to its end or to a target, and is a primary then. Only out of
    /// [`Source::Barman`]; no node is connected to.
    Recovered(RecoveryTarget),
}

/// How a complete standby is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Start {
    /// How long it may take until it streams; without, as long as it gets on.
    pub limit: Option<Duration>,
}

/// How files of the instance that is replaced are held against those of the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delta {
    /// Files that are right are known by the checksums of the backup's manifest; without one by size and
    /// time, as they were set when the instance was cloned, and only if it was shut down in an orderly way.
    /// All others are compared block by block.
    Quick,
    /// All files are compared block by block, by SHA-256.
    Checksum,
}

/// The replication configuration of an instance that is there already, and stays.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReconfigureRequest {
    /// The node that the instance is.
    pub node: NodeIdentity,
    /// Its data directory.
    pub data_directory: PathBuf,
    /// How to connect to a node with repmgr's metadata; libpq's defaults fill the rest.
    pub connection: Conninfo,
    /// Which node the standby will follow. There must be a connection.
    pub upstream: UpstreamChoice,
    /// What the configuration shall say.
    pub replication: ReplicationOptions,
    /// Write it although the server is running, `recovery.conf` is there, the slot is in use or no
    /// replication connection is possible.
    pub force: bool,
}

/// A node as repmgr's metadata know it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeIdentity {
    /// `node_id`.
    pub id: i32,
    /// `node_name`; becomes the standby's `application_name`.
    pub name: String,
    /// How the other nodes will reach it (`conninfo`), if that is known; held against their records.
    pub conninfo: Option<Conninfo>,
}

impl NodeIdentity {
    /// A node with this number and name.
    pub fn new(id: i32, name: impl Into<String>) -> Self {
        Self {
            id,
            name: name.into(),
            conninfo: None,
        }
    }

    /// The name of this node's replication slot, as repmgr forms it.
    pub fn slot_name(&self) -> String {
        format!("repmgr_slot_{}", self.id)
    }
}

/// Where the base backup comes from.
#[derive(Clone)]
#[non_exhaustive]
pub enum Source {
    /// A backup in Barman's catalogue.
    Barman(BarmanSource),
    /// The source node itself, by `pg_basebackup`.
    Server(ServerSource),
}

/// How a clone gets its base backup, as repmgr names it in its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// From Barman's catalogue.
    Barman,
    /// From a running server.
    PgBasebackup,
}

impl Source {
    /// How the base backup comes here.
    pub fn method(&self) -> Method {
        match self {
            Self::Barman(_) => Method::Barman,
            Self::Server(_) => Method::PgBasebackup,
        }
    }

    /// The most that is transferred in a second.
    pub(crate) fn max_rate(&self) -> Option<Rate> {
        match self {
            Self::Barman(source) => source.transfer.max_rate,
            Self::Server(source) => source.max_rate,
        }
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Barman => "barman",
            Self::PgBasebackup => "pg_basebackup",
        })
    }
}

/// A base backup straight from the source node.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ServerSource {
    /// Ask for an immediate checkpoint.
    pub fast_checkpoint: bool,
    /// Words for `pg_basebackup`, as the user wants them.
    pub options: Vec<String>,
    /// The WAL method that is among them.
    pub wal_method: Option<String>,
    /// Whether a slot, or that none be used, is among them.
    pub chooses_slot: bool,
    /// The most that the server sends in a second.
    pub max_rate: Option<Rate>,
    /// Check the backup with `pg_verifybackup`.
    pub verify: bool,
}

impl ServerSource {
    /// Whether WAL is streamed beside the copy, which takes a second connection.
    pub fn streams_wal(&self) -> bool {
        self.wal_method
            .as_deref()
            .is_none_or(|method| matches!(method, "s" | "stream"))
    }
}

/// Configuration files outside the source's data directory.
#[derive(Clone)]
#[non_exhaustive]
pub struct ExternalFiles {
    /// The source node's host, for reading them.
    pub host: Arc<dyn Host>,
    /// Where they go here.
    pub placement: Placement,
}

/// Where external configuration files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// To the same path as on the source.
    SamePath,
    /// Into the data directory.
    DataDirectory,
}

/// A backup in Barman's catalogue.
#[derive(Clone)]
#[non_exhaustive]
pub struct BarmanSource {
    /// The host Barman runs on.
    pub host: Arc<dyn Host>,
    /// How to call Barman there.
    pub address: ServerAddress,
    /// Which backup: an id, a name, or a word like "latest". `None` for that of an unfinished clone in the data
    /// directory, as long as it can be used, and the latest one otherwise.
    pub backup: Option<String>,
    /// How its files travel.
    pub transfer: TransferOptions,
}

/// How files travel, and how they are judged on arrival.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TransferOptions {
    /// Parallel sessions; `None` chooses by the processors here.
    pub jobs: Option<std::num::NonZeroUsize>,
    /// Compression on the wire.
    pub compression: repmgr_transfer::Compression,
    /// The most that is transferred in a second, by all sessions together: over the network, or from the disk of this
    /// host.
    pub max_rate: Option<Rate>,
    /// How often a lost connection is tried again before the clone gives up; `None` for the default.
    pub retries: Option<u32>,
    /// Accept files that fail a checksum, with a warning instead of an error.
    pub accept_damage: bool,
    /// Leave the checksums of data pages alone: of a cluster that is encrypted as a whole, say, where pages are not what
    /// they seem.
    pub skip_page_checks: bool,
    /// Refuse a backup without a manifest, whose files cannot all be verified.
    pub require_manifest: bool,
}

/// Which node the standby will follow, and how it reaches it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct UpstreamChoice {
    /// Its `node_id`; the primary when not given.
    pub node_id: Option<i32>,
    /// Its connection string, instead of the one in its record.
    pub conninfo: Option<Conninfo>,
    /// Role for replication connections, instead of the one in its record.
    pub replication_user: Option<String>,
    /// Role for what the others may not do: creating a slot, seeing where configuration files are.
    pub superuser: Option<String>,
    /// Do not connect to any node; only for clones from Barman.
    pub no_connection: bool,
}

/// What the standby's configuration shall say beside `primary_conninfo`.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ReplicationOptions {
    /// Stream through the replication slot of this name on the upstream node; [`NodeIdentity::slot_name`] is
    /// that which repmgr expects.
    pub slot_name: Option<String>,
    /// `application_name`; that of the node by default, which repmgr demands.
    pub application_name: Option<String>,
    /// `restore_command`.
    pub restore_command: Option<String>,
    /// `archive_cleanup_command`.
    pub archive_cleanup_command: Option<String>,
    /// `recovery_min_apply_delay`, in PostgreSQL's notation.
    pub recovery_min_apply_delay: Option<String>,
    /// Password to write into `primary_conninfo`.
    pub password: Option<String>,
    /// `passfile` to write into `primary_conninfo`.
    pub passfile: Option<String>,
}

impl std::fmt::Debug for ReplicationOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicationOptions")
            .field("slot_name", &self.slot_name)
            .field("application_name", &self.application_name)
            .field("restore_command", &self.restore_command)
            .field("archive_cleanup_command", &self.archive_cleanup_command)
            .field("recovery_min_apply_delay", &self.recovery_min_apply_delay)
            .field("password", &self.password.as_ref().map(|_| "hidden"))
            .field("passfile", &self.passfile)
            .finish()
    }
}

/// What a clone needs from the program it runs in.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Hears what happens.
    pub observer: &'a dyn Observer,
    /// Ends the work early. Share it with the hosts of the request, so that their waits end too.
    pub cancel: &'a CancelToken,
    /// Where PostgreSQL connections take their defaults from.
    pub environment: &'a Environment,
}

impl<'a> Context<'a> {
    /// Tells the observer.
    pub(crate) fn tell(&self, event: impl Into<Event>) {
        self.observer.event(event.into());
    }

    /// The same with another observer.
    pub(crate) fn with_observer<'b>(self, observer: &'b dyn Observer) -> Context<'b>
    where
        'a: 'b,
    {
        Context { observer, ..self }
    }
}

impl CloneRequest {
    /// A clone into this directory: no tablespace is mapped, nothing replaced, nobody notified. `connection` is
    /// how the source node is reached; libpq's defaults fill the rest.
    pub fn new(data_directory: impl Into<PathBuf>, source: impl Into<Source>, connection: Conninfo) -> Self {
        Self {
            node: None,
            data_directory: data_directory.into(),
            source: source.into(),
            connection,
            upstream: UpstreamChoice::default(),
            outcome: Outcome::default(),
            replication: ReplicationOptions::default(),
            tablespace_mapping: Vec::new(),
            wal_directory: None,
            force: false,
            only_same_cluster: false,
            delta: None,
            accept_missing_wal: false,
            start_command: None,
            start: None,
            bin_dir: None,
            external_files: None,
            notification: None,
        }
    }

    pub(crate) fn standby(&self) -> Standby<'_> {
        Standby {
            method: Some(self.source.method()),
            node: self.node.as_ref(),
            connection: &self.connection,
            upstream: &self.upstream,
            replication: &self.replication,
            force: self.force,
        }
    }

    /// Where a tablespace of the source at `location` goes here.
    pub fn mapped<'a>(&'a self, location: &'a Path) -> &'a Path {
        self.tablespace_mapping
            .iter()
            .find(|(old, _)| old == location)
            .map_or(location, |(_, new)| new)
    }
}

impl BarmanSource {
    /// A backup of the server at `address`: that of an unfinished clone, or the latest.
    pub fn new(host: Arc<dyn Host>, address: ServerAddress) -> Self {
        Self {
            host,
            address,
            backup: None,
            transfer: TransferOptions::default(),
        }
    }
}

impl From<BarmanSource> for Source {
    fn from(source: BarmanSource) -> Self {
        Self::Barman(source)
    }
}

impl From<ServerSource> for Source {
    fn from(source: ServerSource) -> Self {
        Self::Server(source)
    }
}

impl ExternalFiles {
    /// Files read from the source node's `host`.
    pub fn new(host: Arc<dyn Host>, placement: Placement) -> Self {
        Self { host, placement }
    }
}

impl ReconfigureRequest {
    /// Configures the instance in this directory as this node. `connection` leads to a node with repmgr's
    /// metadata; libpq's defaults fill the rest.
    pub fn new(node: NodeIdentity, data_directory: impl Into<PathBuf>, connection: Conninfo) -> Self {
        Self {
            node,
            data_directory: data_directory.into(),
            connection,
            upstream: UpstreamChoice::default(),
            replication: ReplicationOptions::default(),
            force: false,
        }
    }

    pub(crate) fn standby(&self) -> Standby<'_> {
        Standby {
            method: None,
            node: Some(&self.node),
            connection: &self.connection,
            upstream: &self.upstream,
            replication: &self.replication,
            force: self.force,
        }
    }
}

/// What is wanted of a standby, whether it is to be made or to be configured anew.
#[derive(Clone, Copy)]
pub(crate) struct Standby<'r> {
    /// How it is made.
    pub(crate) method: Option<Method>,
    pub(crate) node: Option<&'r NodeIdentity>,
    pub(crate) connection: &'r Conninfo,
    pub(crate) upstream: &'r UpstreamChoice,
    pub(crate) replication: &'r ReplicationOptions,
    pub(crate) force: bool,
}

impl Standby<'_> {
    /// The standby's `application_name`; empty for none.
    pub(crate) fn application_name(&self) -> &str {
        let chosen = self.replication.application_name.as_deref();
        let of_node = || self.node.map(|node| node.name.as_str());
        chosen.or_else(of_node).unwrap_or_default()
    }
}
