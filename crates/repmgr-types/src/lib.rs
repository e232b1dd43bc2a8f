//! The vocabulary every other crate speaks: PostgreSQL versions, log sequence numbers,
//! timelines, WAL segment names, system identifiers, Barman backup ids, connection strings, transfer rates,
//! what would help after a failure, the cancellation token, and how text from elsewhere is shown.
//!
//! Values only. Nothing here opens a file, a socket or a process, and nothing here knows
//! Barman's or repmgr's rules beyond the spelling of a name.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod cancel;
mod conninfo;
mod hint;
mod names;
mod path;
mod pg;
mod rate;
pub mod text;
mod wal;
mod wal_file;

pub use cancel::{CancelToken, Cancelled};
pub use conninfo::{Conninfo, ConninfoError};
pub use hint::{Hint, Remedy};
pub use names::BackupId;
pub use path::canonical_path;
pub use pg::{PgVersion, SystemId};
pub use rate::Rate;
pub use wal::{Lsn, Timeline, WalSegmentName, WalSegmentSize};
pub use wal_file::WalFileName;

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
