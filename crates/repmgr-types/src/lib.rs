//! The vocabulary every other crate speaks: PostgreSQL versions, log sequence numbers,
//! timelines, WAL segment names, system identifiers, Barman backup ids, connection strings
//! and the cancellation token.
//!
//! Values only. Nothing here opens a file, a socket or a process, and nothing here knows
//! Barman's or repmgr's rules beyond the spelling of a name.

mod cancel;
mod conninfo;
mod names;
mod pg;
mod wal;

pub use cancel::{CancelToken, Cancelled};
pub use conninfo::{Conninfo, ConninfoError};
pub use names::BackupId;
pub use pg::{PgVersion, SystemId};
pub use wal::{Lsn, Timeline, WalSegmentName, WalSegmentSize};

/// A text that is not what its type demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not {expected}")]
pub struct ParseError {
    /// The text as it came in.
    pub text: String,
    /// What was expected, as a phrase: "a WAL segment name".
    pub expected: &'static str,
}

impl ParseError {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            expected,
        }
    }
}
