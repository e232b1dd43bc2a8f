//! Why there is no standby. Each part of the story has its own errors, beside what they speak of.

use repmgr_barman::{BarmanError, HoldError, Unreadable};
use repmgr_datadir::{
    AdoptError, ClaimError, EraseError, FinishError, InspectError, ResumeError, SpaceError, TreeError,
};
use repmgr_recovery::RecoveryError;
use repmgr_transfer::{ListError, PushError, ReadFileError, TransferError};
use repmgr_types::{Cancelled, Hint};
use repmgr_upstream::{BaseBackupError, QueryError, VerifyBackupError};

pub use crate::copy::error::CopyError;
pub use crate::nodes::error::NodeError;
pub use crate::place::error::PlaceError;
pub use crate::source::error::BackupError;
pub use crate::start::error::StartError;

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
    /// The standby is complete, and its server could not be started, or ended.
    Start,
    /// The standby is complete and runs, and does not stream in time.
    NotStreaming,
    /// Somebody asked to stop.
    Interrupted,
}

/// Why there is no standby, or no configuration. PostgreSQL cannot start on what was begun; an instance that nothing
/// was done to yet is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloneError {
    /// The directories on this host.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Barman, or the backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The servers.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The base backup on its way.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The standby is complete, and does not stream.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The replication configuration could not be made.
    #[error("cannot write the replication configuration")]
    Recovery(#[from] RecoveryError),
    /// Somebody asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// What the errors of each part know of themselves.
pub(crate) trait Explain: std::error::Error + Sized {
    fn kind(&self) -> ErrorKind;

    fn code(&self) -> &'static str;

    fn is_transient(&self) -> bool {
        false
    }

    fn detail(&self) -> Option<String> {
        causes(self)
    }

    fn hint(&self) -> Option<Hint>;
}

/// Asks the error of the part; the two that are none have their own answer.
macro_rules! ask {
    ($error:expr, $question:ident, $recovery:pat => $configuration:expr, $cancelled:expr) => {
        match $error {
            CloneError::Place(error) => Explain::$question(error),
            CloneError::Backup(error) => Explain::$question(error),
            CloneError::Node(error) => Explain::$question(error),
            CloneError::Copy(error) => Explain::$question(error),
            CloneError::Start(error) => Explain::$question(error),
            $recovery => $configuration,
            CloneError::Cancelled(_) => $cancelled,
        }
    };
}

impl CloneError {
    /// What it failed at.
    pub fn kind(&self) -> ErrorKind {
        ask!(self, kind, Self::Recovery(_) => ErrorKind::Configuration, ErrorKind::Interrupted)
    }

    /// A word for programs, finer than the kind and stable: "directory_not_empty", "no_wal".
    pub fn code(&self) -> &'static str {
        ask!(self, code, Self::Recovery(_) => "configuration", "interrupted")
    }

    /// Whether the same clone may well succeed a little later: a connection to the Barman host or to a node could
    /// not be made, or broke.
    pub fn is_transient(&self) -> bool {
        ask!(self, is_transient, Self::Recovery(_) => false, false)
    }

    /// More about it: the causes, one after the other.
    pub fn detail(&self) -> Option<String> {
        ask!(self, detail, Self::Recovery(_) => causes(self), None)
    }

    /// What to do next.
    pub fn hint(&self) -> Option<Hint> {
        ask!(self, hint, Self::Recovery(error) => said(error.hint()), None)
    }
}

/// What the layers below say comes to us through the part that it belongs to.
macro_rules! through {
    ($($part:ident: $($error:ty),+;)+) => {$($(
        impl From<$error> for CloneError {
            fn from(error: $error) -> Self {
                $part::from(error).into()
            }
        }
    )+)+};
}
through!(
    PlaceError: InspectError, ClaimError, SpaceError, EraseError, ResumeError, TreeError, AdoptError, FinishError;
    BackupError: BarmanError, HoldError, Unreadable, ListError, PushError, ReadFileError;
    NodeError: QueryError;
    CopyError: BaseBackupError, VerifyBackupError, TransferError;
);

/// A hint of a layer below.
pub(crate) fn said(hint: Option<impl Into<Hint>>) -> Option<Hint> {
    hint.map(Into::into)
}

pub(crate) fn count_of_files(count: usize) -> String {
    match count {
        1 => "one file".to_owned(),
        n => format!("{n} files"),
    }
}

/// The chain of causes below an error, as one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> Option<String> {
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
