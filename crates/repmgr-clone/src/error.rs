//! Why there is no standby.

use std::path::PathBuf;

use repmgr_barman::{Backup, BarmanError, HoldError, Unreadable, UnreadableReason};
use repmgr_datadir::{
    AdoptError, ClaimError, ControlError, EraseError, FinishError, InspectError, OutsideError, PrepareError,
    ResumeError, SpaceError, TreeError,
};
use repmgr_recovery::RecoveryError;
use repmgr_transfer::{ListError, PushError, ReadFileError, TransferError};
use repmgr_types::{BackupId, Cancelled, PgVersion, SystemId, Timeline};
use repmgr_upstream::{
    BaseBackupError, CombineBackupError, ConnectError, Problem, ProgramError, QueryError,
    ReplicationCheckError, VerifyBackupError,
};
use repmgr_verify::{ControlFileError, ManifestError};

use crate::ExternalFileError;

/// What a failed clone failed at, for programs that react to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The data directory, a tablespace's place or the WAL directory cannot be used.
    Target,
    /// Barman, its host, or the backup.
    Barman,
    /// No connection to the source or upstream node.
    Connection,
    /// The source or upstream node did not answer a question.
    Query,
    /// The nodes are not fit for this clone.
    Prerequisite,
    /// The base backup could not be copied, or is damaged.
    Copy,
    /// The standby's configuration could not be written.
    Configuration,
    /// A configuration file outside the data directory could not be copied.
    ExternalFile,
    /// Somebody asked to stop.
    Interrupted,
}

/// Why there is no standby, or no configuration. PostgreSQL cannot start on what was begun; an instance that nothing
/// was done to yet is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloneError {
    /// The data directory cannot be cloned into.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The data directory has content, and force was not asked for.
    #[error("specified data directory \"{}\" exists and is not empty{}", path.display(), holds(.what))]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// What it holds, in words; may be empty.
        what: String,
    },
    /// The instance to be configured is running, and force was not asked for.
    #[error("specified data directory \"{}\" appears to contain a running PostgreSQL instance", path.display())]
    Running {
        /// The directory.
        path: PathBuf,
        /// The server's process.
        pid: i32,
    },
    /// The instance to be configured has a `recovery.conf`, and force was not asked for.
    #[error("\"{}\" exists already", path.display())]
    RecoveryConf {
        /// The file.
        path: PathBuf,
    },
    /// The instance to be configured is of no version that is known.
    #[error("\"{}\" is of PostgreSQL \"{major}\", which is not known", path.display())]
    UnknownMajor {
        /// The directory.
        path: PathBuf,
        /// What its `PG_VERSION` says.
        major: String,
    },
    /// The data directory could not be taken.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// A tablespace's place or the WAL directory cannot be used.
    #[error("cannot use {purpose}")]
    Outside {
        /// What it is for: "the directory of tablespace \"fast\"".
        purpose: String,
        /// Why not.
        #[source]
        source: OutsideError,
    },
    /// Two tablespaces, or a tablespace and the WAL directory, would share a directory.
    #[error("{first} and {second} would overlap in \"{}\"", path.display())]
    Overlap {
        /// What goes there.
        first: String,
        /// What goes there as well.
        second: String,
        /// The directory.
        path: PathBuf,
    },
    /// A tablespace's place or the WAL directory could not be prepared.
    #[error("cannot prepare {purpose}")]
    Prepare {
        /// What it is for.
        purpose: String,
        /// Why not.
        #[source]
        source: PrepareError,
    },
    /// There is not enough room.
    #[error("not enough space for the clone in \"{}\": {needed} needed, {available} available", path.display())]
    Space {
        /// A directory on that file system.
        path: PathBuf,
        /// With its unit.
        needed: String,
        /// With its unit.
        available: String,
        /// Backups that are here at once before they are combined; 1 unless the backup is incremental.
        backups: usize,
    },
    /// The room could not be found out.
    #[error(transparent)]
    SpaceUnknown(#[from] SpaceError),
    /// The old content could not be erased.
    #[error(transparent)]
    Erase(#[from] EraseError),
    /// A clone that was begun could not be continued.
    #[error(transparent)]
    Resume(#[from] ResumeError),

    /// Barman, or the way to it.
    #[error(transparent)]
    Barman(#[from] BarmanError),
    /// Files are gone from the backup since it was taken.
    #[error("files are missing in backup {backup}: it has {missing} bytes less than when it was taken")]
    Shrunken {
        /// The backup.
        backup: BackupId,
        /// Bytes.
        missing: u64,
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
    /// Barman itself is at work on the backup.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The backup is of a kind that cannot be read here.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The files of the backup could not be listed.
    #[error(transparent)]
    List(#[from] ListError),
    /// The backup has more files than can be handled.
    #[error("the files of the backup cannot be listed")]
    Listing(#[from] PushError),
    /// A file of the backup cannot be read there.
    #[error("backup {backup} has {count} that cannot be read by the user we are on its host, for example \"{path}\"", count = files(*.count))]
    NotReadable {
        /// The backup.
        backup: BackupId,
        /// How many.
        count: usize,
        /// The first of them.
        path: String,
    },
    /// The backup lacks what every base backup has.
    #[error("backup {backup} is not whole: it has no \"{path}\"")]
    Incomplete {
        /// The backup.
        backup: BackupId,
        /// What it lacks.
        path: String,
    },
    /// A file of the backup could not be read.
    #[error(transparent)]
    Read(#[from] ReadFileError),
    /// The backup's control file is damaged.
    #[error("the control file of backup {backup} is damaged")]
    Control {
        /// The backup.
        backup: BackupId,
        /// What is wrong.
        #[source]
        source: ControlError,
    },
    /// The backup's control file is damaged, more deeply.
    #[error("the control file of backup {backup} is damaged")]
    ControlFile {
        /// The backup.
        backup: BackupId,
        /// What is wrong.
        #[source]
        source: ControlFileError,
    },
    /// The backup's manifest is damaged.
    #[error("the manifest of backup {backup} is damaged")]
    Manifest {
        /// The backup.
        backup: BackupId,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// The backup has no manifest, and one is required.
    #[error("backup {backup} has no backup_manifest to verify it by")]
    NoManifest {
        /// The backup.
        backup: BackupId,
    },

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
    /// repmgr's metadata do not allow this clone.
    #[error("{message}")]
    Metadata {
        /// What is wrong.
        message: String,
        /// More about it.
        detail: Option<String>,
        /// What to do.
        hint: Option<String>,
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
    /// The WAL that makes the backup consistent cannot be had.
    #[error("WAL from the start of backup {backup} on cannot be had: {reason}")]
    NoWal {
        /// The backup.
        backup: BackupId,
        /// Why not.
        reason: String,
        /// What to do.
        hint: String,
    },

    /// `pg_basebackup` cannot be used, or failed.
    #[error("no base backup from the source node")]
    BaseBackup(#[from] BaseBackupError),
    /// `pg_verifybackup` cannot be used, or does not accept the backup.
    #[error("the base backup could not be verified")]
    VerifyBackup(#[from] VerifyBackupError),
    /// An incremental backup cannot be combined with what it builds upon, or that failed.
    #[error("incremental backup {} cannot be made whole", unreadable.id)]
    Combine {
        /// What Barman can do about it.
        unreadable: Box<Unreadable>,
        /// Why not.
        #[source]
        source: Box<CombineBackupError>,
    },
    /// What `pg_basebackup` or `pg_combinebackup` wrote cannot be used.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// A configuration file outside the data directory could not be copied.
    #[error("configuration file \"{}\" cannot be copied", path.display())]
    ExternalFile {
        /// The file on the source.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ExternalFileError,
    },
    /// The files could not be copied.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Files failed their checksums.
    #[error("{} of backup {backup} failed verification", files(*.count))]
    Damaged {
        /// The backup.
        backup: BackupId,
        /// How many.
        count: usize,
        /// Which, and how; one line each, of the first of them.
        damages: Vec<String>,
    },
    /// Something in the data directory could not be written.
    #[error(transparent)]
    Write(#[from] TreeError),
    /// The replication configuration could not be made.
    #[error("cannot write the replication configuration")]
    Recovery(#[from] RecoveryError),
    /// The clone could not be brought to disk and completed.
    #[error(transparent)]
    Finish(#[from] FinishError),
    /// Somebody asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

fn holds(what: &str) -> String {
    match what {
        "" => String::new(),
        what => format!(" ({what})"),
    }
}

fn files(count: usize) -> String {
    match count {
        1 => "one file".to_owned(),
        n => format!("{n} files"),
    }
}

impl CloneError {
    /// What it failed at.
    pub fn kind(&self) -> ErrorKind {
        use ErrorKind as K;
        match self {
            Self::Cancelled(_)
            | Self::BaseBackup(BaseBackupError::Program(ProgramError::Cancelled))
            | Self::VerifyBackup(VerifyBackupError::Program(ProgramError::Cancelled)) => K::Interrupted,
            Self::Combine { source, .. } => match **source {
                CombineBackupError::Program(ProgramError::Cancelled) => K::Interrupted,
                CombineBackupError::Failed(_) | CombineBackupError::Incomplete { .. } => K::Copy,
                _ => K::Barman,
            },
            Self::Erase(EraseError::Cancelled(_)) => K::Interrupted,
            Self::Prepare {
                source: PrepareError::Erase(EraseError::Cancelled(_)),
                ..
            } => K::Interrupted,
            Self::Barman(error) if error.is_cancelled() => K::Interrupted,
            Self::List(error) if error.is_cancelled() => K::Interrupted,
            Self::Read(error) if error.is_cancelled() => K::Interrupted,
            Self::Transfer(TransferError::Cancelled(_)) => K::Interrupted,
            // Nothing is wrong over there: the disk here is full.
            Self::Transfer(TransferError::Sink { .. }) => K::Target,
            Self::Inspect(_)
            | Self::NotEmpty { .. }
            | Self::Running { .. }
            | Self::RecoveryConf { .. }
            | Self::UnknownMajor { .. }
            | Self::Claim(_)
            | Self::Outside { .. }
            | Self::Overlap { .. }
            | Self::Prepare { .. }
            | Self::Space { .. }
            | Self::SpaceUnknown(_)
            | Self::Erase(_)
            | Self::Resume(_)
            | Self::Write(_)
            | Self::Adopt(_)
            | Self::Finish(_) => K::Target,
            Self::Barman(_)
            | Self::Shrunken { .. }
            | Self::Hold(_)
            | Self::Unreadable(_)
            | Self::List(_)
            | Self::Listing(_)
            | Self::NotReadable { .. }
            | Self::Incomplete { .. }
            | Self::Read(_)
            | Self::Control { .. }
            | Self::ControlFile { .. }
            | Self::Manifest { .. }
            | Self::NoManifest { .. }
            | Self::Transfer(_) => K::Barman,
            Self::Damaged { .. } | Self::BaseBackup(_) | Self::VerifyBackup(_) => K::Copy,
            // As in repmgr: without a way there nothing was tried.
            Self::ExternalFile {
                source: ExternalFileError::Connect(_),
                ..
            } => K::Prerequisite,
            Self::ExternalFile { .. } => K::ExternalFile,
            Self::Connect { .. } => K::Connection,
            Self::Query(_) => K::Query,
            Self::Upstream(_) | Self::Replication { .. } => K::Prerequisite,
            Self::Problems(_)
            | Self::Metadata { .. }
            | Self::OtherCluster { .. }
            | Self::OtherVersion { .. }
            | Self::OtherTimeline { .. }
            | Self::StrayTimeline { .. }
            | Self::NoWal { .. } => K::Prerequisite,
            Self::Recovery(_) => K::Configuration,
        }
    }

    /// Whether the same clone may well succeed a little later: a connection to the Barman host could not be
    /// made, or broke.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Barman(error) => error.is_transient(),
            Self::Hold(error) => error.is_transient(),
            Self::List(error) => error.is_transient(),
            Self::Read(error) => error.is_transient(),
            Self::Transfer(error) => error.is_transient(),
            _ => false,
        }
    }

    pub(crate) fn combine(backup: &Backup, source: CombineBackupError) -> Self {
        let parent = backup.parent.clone();
        Self::Combine {
            unreadable: Box::new(Unreadable {
                server: backup.server.clone(),
                id: backup.id.clone(),
                reason: UnreadableReason::Incremental {
                    // Only increments are combined.
                    parent: parent.unwrap_or_else(|| backup.id.clone()),
                },
            }),
            source: Box::new(source),
        }
    }

    /// More about it: the causes, one after the other.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::OtherCluster { its_id, node_id, .. } => {
                Some(format!("the system identifiers are {its_id} and {node_id}"))
            }
            Self::OtherTimeline { reason, .. } => Some(reason.clone()),
            Self::Problems(problems) => problems.first().and_then(|problem| problem.detail.clone()),
            Self::Metadata { detail, .. } => detail.clone(),
            Self::Damaged { damages, .. } => Some(damages.join("\n")),
            Self::Barman(error) => error.detail().map(str::to_owned).or_else(|| causes(self)),
            _ => causes(self),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Inspect(error) => error.hint(),
            Self::NotEmpty { .. } => Some("use -F/--force to overwrite the existing data directory".to_owned()),
            Self::Running { .. } => Some("use -F/--force to create replication configuration anyway".to_owned()),
            Self::RecoveryConf { .. } => Some("use -F/--force to overwrite it".to_owned()),
            Self::Claim(error) => error.hint(),
            Self::Outside { source, .. } => source.hint(),
            Self::Overlap { .. } => Some("give each its own directory with tablespace_mapping".to_owned()),
            Self::Prepare { source, .. } => source.hint(),
            Self::Space { backups: 2.., .. } => Some(
                "all backups of a chain must fit beside what is combined from them; free some space there, or \
                 choose a full backup with --backup-id"
                    .to_owned(),
            ),
            Self::Space { .. } => Some("free some space there, or choose another directory".to_owned()),
            Self::SpaceUnknown(_) | Self::Listing(_) | Self::UnknownMajor { .. } => None,
            Self::Erase(error) => error.hint(),
            Self::Resume(_) => None,
            Self::Barman(error) => error.hint(),
            Self::Hold(error) => error.hint(),
            Self::Shrunken { .. } => Some(
                "choose another backup with --backup-id, or take a new one; --accept-damage copies what is left".to_owned(),
            ),
            Self::StrayTimeline { history, .. } => Some(format!(
                "some server of this cluster was promoted: clone from it, or, if it is given up, remove {history} and the \
                 WAL of its timeline from Barman's archive"
            )),
            Self::Unreadable(error) => Some(error.hint()),
            Self::List(error) => error.hint(),
            Self::NotReadable { .. } => Some(
                "log in to the Barman host as Barman's own user (barman_host = 'barman@HOST'), or repair the \
                 permissions there"
                    .to_owned(),
            ),
            Self::Incomplete { .. } | Self::Control { .. } | Self::ControlFile { .. } | Self::Manifest { .. } => {
                Some("choose another backup with --backup-id, or take a new one".to_owned())
            }
            Self::NoManifest { backup } => Some(format!(
                "leave out --verify-backup, or make one on the Barman host with \"barman generate-manifest SERVER {backup}\" (Barman 2.18 and later)"
            )),
            Self::Read(error) => error.hint(),
            Self::Connect { source, .. } => source.hint(),
            Self::Query(error) => error.hint(),
            Self::Upstream(source) => source.hint(),
            Self::Replication { source, .. } => source.hint(),
            Self::Problems(problems) => problems.first().and_then(|problem| problem.hint.clone()),
            Self::Metadata { hint, .. } => hint.clone(),
            Self::OtherCluster { .. } => Some(
                "check that the connection parameters, and barman_server where it counts, name the same cluster".to_owned(),
            ),
            Self::OtherVersion { .. } => Some("clone the standby from a backup of the upgraded server".to_owned()),
            Self::OtherTimeline { .. } => {
                Some("take a new backup of the upstream node, or choose an older one with --backup-id".to_owned())
            }
            Self::NoWal { hint, .. } => Some(hint.clone()),
            Self::BaseBackup(error) => error.hint(),
            Self::VerifyBackup(error) => error.hint(),
            Self::Combine { unreadable, source } => Some(match source.hint() {
                Some(hint) => format!("{hint}; or {}", unreadable.hint()),
                None => unreadable.hint(),
            }),
            Self::Adopt(error) => error.hint(),
            Self::ExternalFile { source, .. } => source.hint(),
            Self::Transfer(error) => error.hint(),
            Self::Damaged { .. } => Some(
                "check the disks of the Barman host and take a new backup; --accept-damage clones nevertheless"
                    .to_owned(),
            ),
            Self::Write(error) => error.hint(),
            Self::Recovery(error) => error.hint(),
            Self::Finish(error) => error.hint(),
            Self::Cancelled(_) => None,
        }
    }
}

/// The chain of causes below an error, as one line.
fn causes(error: &dyn std::error::Error) -> Option<String> {
    said_once(error.source())
}

/// An error and what caused it, as one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    said_once(Some(error)).unwrap_or_default()
}

fn said_once(mut next: Option<&dyn std::error::Error>) -> Option<String> {
    let mut texts = Vec::new();
    while let Some(error) = next {
        let text = error.to_string();
        // Some errors say their cause themselves.
        if !texts.last().is_some_and(|last: &String| last.ends_with(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    (!texts.is_empty()).then(|| texts.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Step {
        text: &'static str,
        source: Option<Box<Step>>,
    }

    #[test]
    fn a_cause_that_is_told_already_is_not_told_again() {
        let step = |text, source: Option<Step>| Step {
            text,
            source: source.map(Box::new),
        };
        let refused = step("refused", None);
        let told = step("no connection: refused", Some(refused));
        let error = step("failed", Some(told));
        assert_eq!(causes(&error).as_deref(), Some("no connection: refused"));
        let untold = step("failed", Some(step("no connection", Some(step("refused", None)))));
        assert_eq!(causes(&untold).as_deref(), Some("no connection: refused"));
        assert_eq!(causes(&step("failed", None)), None);
    }
}
