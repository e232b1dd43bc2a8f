//! What to clone, from where, to where.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use repmgr_barman::ServerAddress;
use repmgr_remote::Host;
use repmgr_types::{CancelToken, Conninfo};
use repmgr_upstream::Environment;

use crate::{Notification, Observer};

/// One clone of a standby.
#[derive(Clone)]
pub struct CloneRequest {
    /// The node that the standby will be.
    pub node: NodeIdentity,
    /// Its data directory.
    pub data_directory: PathBuf,
    /// Where the base backup comes from.
    pub source: Source,
    /// How to connect to the source node, as given by the user; libpq's defaults fill the rest.
    pub connection: Conninfo,
    /// Which node the standby will follow.
    pub upstream: UpstreamChoice,
    /// What the standby's configuration shall say.
    pub replication: ReplicationOptions,
    /// Where tablespaces go that cannot be where they are on the source: location there, location here.
    pub tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// A WAL directory outside the data directory (`--waldir`).
    pub wal_directory: Option<PathBuf>,
    /// Replace what is in the data directory (`-F`).
    pub force: bool,
    /// Fetch only what differs from the instance that is replaced.
    pub delta: Option<Delta>,
    /// Command that starts PostgreSQL here, for the closing hint.
    pub start_command: Option<String>,
    /// Directory of PostgreSQL's programs here; else `$PATH` is searched.
    pub bin_dir: Option<PathBuf>,
    /// Configuration files outside the source's data directory that shall be copied as well.
    pub external_files: Option<ExternalFiles>,
    /// Whom to tell when the clone ended.
    pub notification: Option<Notification>,
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
    /// replication connection is possible (`-F`).
    pub force: bool,
}

/// A node as repmgr's metadata know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// `node_id`.
    pub id: i32,
    /// `node_name`; becomes the standby's `application_name`.
    pub name: String,
}

impl NodeIdentity {
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
pub struct ServerSource {
    /// Ask for an immediate checkpoint.
    pub fast_checkpoint: bool,
    /// Words for `pg_basebackup`, as the user wants them.
    pub options: Vec<String>,
    /// The WAL method that is among them.
    pub wal_method: Option<String>,
    /// Whether a slot, or that none be used, is among them.
    pub chooses_slot: bool,
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
pub struct BarmanSource {
    /// The host Barman runs on.
    pub host: Arc<dyn Host>,
    /// How to call Barman there.
    pub address: ServerAddress,
    /// Which backup: an id, a name, or a word like "latest".
    pub backup: String,
    /// How its files travel.
    pub transfer: TransferOptions,
}

/// How files travel, and how they are judged on arrival.
#[derive(Debug, Clone, Default)]
pub struct TransferOptions {
    /// Parallel sessions; `None` chooses by the processors here.
    pub jobs: Option<std::num::NonZeroUsize>,
    /// Compression on the wire.
    pub compression: repmgr_transfer::Compression,
    /// How often a lost connection is tried again before the clone gives up; `None` for the default.
    pub retries: Option<u32>,
    /// Accept files that fail a checksum, with a warning instead of an error.
    pub accept_damage: bool,
    /// Refuse a backup without a manifest, whose files cannot all be verified.
    pub require_manifest: bool,
}

/// Which node the standby will follow, and how it reaches it.
#[derive(Debug, Clone, Default)]
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
#[derive(Debug, Clone, Default)]
pub struct ReplicationOptions {
    /// Stream through a replication slot on the upstream node.
    pub use_slot: bool,
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

impl CloneRequest {
    pub(crate) fn standby(&self) -> Standby<'_> {
        Standby {
            method: Some(self.source.method()),
            node: &self.node,
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

impl ReconfigureRequest {
    pub(crate) fn standby(&self) -> Standby<'_> {
        Standby {
            method: None,
            node: &self.node,
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
    pub(crate) node: &'r NodeIdentity,
    pub(crate) connection: &'r Conninfo,
    pub(crate) upstream: &'r UpstreamChoice,
    pub(crate) replication: &'r ReplicationOptions,
    pub(crate) force: bool,
}
