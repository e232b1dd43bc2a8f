//! What may be wrong, or what the user should know, and stops nothing.

use repmgr_types::Hint;
use serde::Serialize;

use crate::event::{Level, Message};

/// A warning or a notice: words for people, and a code for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// How much it matters.
    #[serde(rename = "event")]
    pub level: Level,
    /// What it is about.
    pub code: RemarkCode,
    /// One line.
    pub text: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<Hint>,
}

/// What a remark is about. Stable: a program may act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RemarkCode {
    /// A `postmaster.pid` or state of an earlier clone was left over in the directory.
    LeftOver,
    /// What the replaced instance has elsewhere is not used and stays.
    OldDirectoryStays,
    /// The standby could not be made at its place now; nothing is to be made now.
    PlaceUnusable,
    /// A tablespace is mapped that does not exist.
    MappingUnused,
    /// It may turn out that there is not enough room.
    SpaceUncertain,
    /// The standby is complete, but something of the clone could not be tidied up.
    NotTidied,
    /// Nothing of the instance that is replaced can be used again.
    NothingReusable,
    /// An unfinished clone of another backup is given up.
    CloneGivenUp,
    /// The backup has entries that are no files or directories.
    SpecialFiles,
    /// Barman keeps no WAL for the backup but what makes it consistent.
    KeptStandalone,
    /// The backup lacks configuration files.
    ConfigurationMissing,
    /// The backup is not held against Barman's retention.
    NotHeld,
    /// The backup was damaged, and is accepted.
    DamageAccepted,
    /// Something about the backup could not be verified.
    NotVerified,
    /// A manifest in the backup is of another one.
    ForeignManifest,
    /// Pages were copied while the server wrote them; recovery replaces them.
    TornPages,
    /// Files that differ came whole, not by blocks.
    WholeFiles,
    /// pg_combinebackup gave warnings.
    CombineWarnings,
    /// The source node cannot be reached; another one is used instead.
    OtherSourceNode,
    /// The source node cannot be reached, and nothing of it is checked.
    SourceUnreachable,
    /// repmgr's extension is not as it should be.
    Extension,
    /// A record of repmgr's speaks of another node with this number, or at this address.
    NodeRecord,
    /// A setting of the source node may be a problem.
    SourceSetting,
    /// No replication connection is possible.
    NoReplication,
    /// The standby will not be able to connect to its upstream node.
    StandbyCannotConnect,
    /// The replication slot could not be created, dropped or is in use.
    Slot,
    /// Whether the timelines fit together could not be checked.
    TimelineUnchecked,
    /// Whether the WAL that is needed can be had could not be checked.
    WalUnchecked,
    /// PostgreSQL's programs here cannot start the standby.
    Programs,
    /// A tablespace was made since the backup, and has no place here.
    NewerTablespace,
    /// A keyword of the upstream's connection string is not written.
    KeywordDropped,
    /// Settings were raised that a standby must not have lower than its primary.
    LimitsRaised,
    /// The command line of the server here sets a value that a standby must not have.
    CommandLine,
    /// Configuration of the backup was changed for this host, or does not fit it.
    Configuration,
    /// The `restore_command` that was there stays.
    RestoreCommandStays,
    /// The `restore_command` does not deliver; the standby can do without for now.
    RestoreCommandFails,
    /// WAL that the standby needs cannot be had, as far as can be seen, and the user knows better.
    MissingWalAccepted,
    /// An external configuration file could not be copied.
    ExternalFile,
    /// The instance that is configured anew is running.
    InstanceRunning,
    /// The log of the server that was started has an error.
    ServerLog,
    /// The event could not be recorded, or nobody could be notified.
    NotRecorded,
}

impl Remark {
    /// Something that may be wrong.
    pub fn warning(code: RemarkCode, text: impl Into<String>) -> Self {
        Self::new(Level::Warning, code, text)
    }

    /// Something to know.
    pub fn notice(code: RemarkCode, text: impl Into<String>) -> Self {
        Self::new(Level::Notice, code, text)
    }

    /// That data pages are not held against their checksums.
    pub(crate) fn pages_not_verified(reason: &str) -> Self {
        Self::warning(
            RemarkCode::NotVerified,
            "data pages of the backup are not verified",
        )
        .detail(reason.to_owned())
        .hint(Hint::from(
            "what a damaged disk did to them is not found: check the standby with pg_amcheck",
        ))
    }

    fn new(level: Level, code: RemarkCode, text: impl Into<String>) -> Self {
        Self {
            level,
            code,
            text: text.into(),
            detail: None,
            hint: None,
        }
    }

    /// With more about it.
    #[must_use]
    pub fn detail(self, detail: impl Into<Option<String>>) -> Self {
        let detail = detail.into();
        Self { detail, ..self }
    }

    /// With what to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<Option<Hint>>) -> Self {
        let hint = hint.into();
        Self { hint, ..self }
    }

    pub(crate) fn message(&self) -> Message {
        Message {
            level: self.level,
            text: self.text.clone(),
            detail: self.detail.clone(),
            hint: self.hint.clone(),
        }
    }
}
