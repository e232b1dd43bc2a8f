use repmgr_types::{BackupId, Hint, PgVersion, Remedy, SystemId, Timeline, WalSegmentName};
use repmgr_upstream::{ConnectError, Problem, QueryError, ReplicationCheckError};

use crate::error::{ErrorKind, Explain, causes, said};

/// The source or upstream node cannot be reached, or is not fit for this clone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// No connection.
    #[error("connection to the {role} failed")]
    Connect {
        /// "source node", "primary", "upstream node".
        role: &'static str,
        /// Why not.
        #[source]
        source: ConnectError,
    },
    /// The standby to be configured could not connect to the node it is to follow.
    #[error("unable to connect to the upstream node")]
    Upstream(#[source] ConnectError),
    /// The standby could not stream.
    #[error("no replication connection to the {role}")]
    Replication {
        /// "source node", "upstream node".
        role: &'static str,
        /// Why not.
        #[source]
        source: ReplicationCheckError,
    },
    /// A question was not answered.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The source node's settings stand against a clone.
    #[error("{}", .0.first().map_or("the source node is not fit for a clone", |p| p.message.as_str()))]
    Problems(Vec<Problem>),
    /// The nodes, or what repmgr's metadata say of them, do not allow this clone.
    #[error("{message}")]
    Refused {
        /// For programs: "extension", "node_name_taken", "no_primary" and so on.
        code: &'static str,
        /// What is wrong.
        message: String,
        /// More about it.
        detail: Option<String>,
        /// What to do.
        hint: Option<Hint>,
    },
    /// The backup is of another cluster.
    #[error("{what} is of another cluster than the {role}")]
    OtherCluster {
        /// "backup 20261126T010513", "source node".
        what: String,
        /// "source node", "upstream node".
        role: &'static str,
        /// The former's.
        its_id: SystemId,
        /// The node's.
        node_id: SystemId,
    },
    /// The backup is of another major version.
    #[error("{what} is of PostgreSQL {}, the {role} runs {}", its_version.major_name(), node_version.major_name())]
    OtherVersion {
        /// "backup 20261126T010513", "source node".
        what: String,
        /// "source node", "upstream node".
        role: &'static str,
        /// The former's.
        its_version: PgVersion,
        /// The node's.
        node_version: PgVersion,
    },
    /// The backup's timeline is no part of the upstream's history.
    #[error(
        "backup {backup} cannot follow the upstream node: it is on timeline {backup_timeline}, the node on {node_timeline}"
    )]
    OtherTimeline {
        /// The backup.
        backup: BackupId,
        /// The backup's.
        backup_timeline: Timeline,
        /// The node's.
        node_timeline: Timeline,
        /// Why that does not fit.
        reason: String,
    },
    /// The archive leads a standby to a timeline that its upstream node is not on.
    #[error(
        "Barman's archive has {history}, but the source node is on timeline {node_timeline}: the standby would leave \
         its upstream node's history"
    )]
    StrayTimeline {
        /// The history file.
        history: String,
        /// Where the source node, a primary, is.
        node_timeline: Timeline,
    },
    /// The WAL that makes the backup consistent cannot be had.
    #[error("the WAL that a standby from backup {backup} needs is not there: {reason}")]
    NoWal {
        /// The backup.
        backup: BackupId,
        /// Why not.
        reason: String,
        /// What to do.
        hint: Hint,
    },
    /// The standby's `restore_command` does not deliver, and it needs WAL from the archive.
    #[error("\"restore_command\" does not deliver WAL segment {segment}, which the standby needs")]
    RestoreCommand {
        /// What it was asked for.
        segment: WalSegmentName,
        /// What it did.
        reason: String,
    },
}

impl Explain for NodeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. } => ErrorKind::Connection,
            Self::Query(_) => ErrorKind::Query,
            _ => ErrorKind::Prerequisite,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "no_connection",
            Self::Upstream(_) => "no_upstream_connection",
            Self::Replication { .. } => "no_replication",
            Self::Query(_) => "query_failed",
            Self::Problems(_) => "source_settings",
            Self::Refused { code, .. } => code,
            Self::OtherCluster { .. } => "other_cluster",
            Self::OtherVersion { .. } => "other_version",
            Self::OtherTimeline { .. } => "other_timeline",
            Self::StrayTimeline { .. } => "stray_timeline",
            Self::NoWal { .. } => "no_wal",
            Self::RestoreCommand { .. } => "restore_command",
        }
    }

    /// Nobody answered: the server may just be starting.
    fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } | Self::Upstream(source) => source.is_transient(),
            Self::Replication { source, .. } => source.is_transient(),
            Self::Query(error) => error.is_transient(),
            _ => false,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::OtherCluster { its_id, node_id, .. } => {
                Some(format!("the system identifiers are {its_id} and {node_id}"))
            }
            Self::OtherTimeline { reason, .. } | Self::RestoreCommand { reason, .. } => Some(reason.clone()),
            Self::Problems(problems) => problems.first().and_then(|problem| problem.detail.clone()),
            Self::Refused { detail, .. } => detail.clone(),
            _ => causes(self),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Connect { source, .. } | Self::Upstream(source) => said(source.hint()),
            Self::Query(error) => said(error.hint()),
            Self::Replication { source, .. } => said(source.hint()),
            Self::Problems(problems) => said(problems.first().and_then(|problem| problem.hint.clone())),
            Self::Refused { hint, .. } => hint.clone(),
            Self::OtherCluster { .. } => Some(
                Hint::new("check that the connection parameters, and ")
                    .remedy(Remedy::BarmanServer)
                    .words(" where it counts, name the same cluster"),
            ),
            Self::OtherVersion { .. } => Some("clone the standby from a backup of the upgraded server".into()),
            Self::OtherTimeline { .. } => Some(
                Hint::new("take a new backup of the upstream node, or choose an older one with ")
                    .remedy(Remedy::Backup),
            ),
            Self::StrayTimeline { history, .. } => Some(
                format!(
                    "some server of this cluster was promoted: clone from it, or, if it is given up, remove {history} \
                     and the WAL of its timeline from Barman's archive"
                )
                .into(),
            ),
            Self::NoWal { hint, .. } => Some(
                hint.clone()
                    .words("; ")
                    .remedy(Remedy::AcceptMissingWal)
                    .words(" goes on all the same"),
            ),
            Self::RestoreCommand { .. } => Some(
                Hint::new("run it by hand as the user that the server runs as, and mend ")
                    .remedy(Remedy::RestoreCommand)
                    .words("; ")
                    .remedy(Remedy::AcceptMissingWal)
                    .words(" goes on all the same"),
            ),
        }
    }
}
