//! WAL out of Barman's archive.

mod archive;
mod check;
mod cluster;
mod decode;
mod deliver;
mod error;
mod history;
mod name;
mod prefetch;
mod receive;
mod restore;
mod spool;

pub use archive::{Archive, ArchiveOptions, Transport};
pub use check::{ContentError, SegmentHeader};
pub use cluster::Cluster;
pub use deliver::FileError;
pub use error::FetchError;
pub use history::{HistoryEntry, TimelineHistory};
pub use name::WalFileName;
pub use prefetch::{PrefetchEnd, PrefetchOptions, prefetch};
pub use restore::{PrefetchStart, Restored, restore};
pub use spool::{Spool, is_recovery_file};
