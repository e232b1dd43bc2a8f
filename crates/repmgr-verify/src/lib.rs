//! Whether a file of a base backup is what it should be, judged while its bytes stream by: sizes and
//! checksums from a [backup manifest](Manifest), and the [checksums of data pages](PageCheck).
//!
//! Bytes in, verdicts out; nothing is read a second time. This crate must not know Barman, tar, directories
//! or the network: where the bytes come from, and what follows from a verdict, is the caller's.
//!
//! ```
//! use repmgr_types::Lsn;
//! use repmgr_verify::{Manifest, PageCheck, PageLayout, PageRules};
//!
//! let manifest = Manifest::parse(
//!     br#"{ "PostgreSQL-Backup-Manifest-Version": 1,
//! "Files": [
//! { "Path": "base/5/16384", "Size": 8192, "Last-Modified": "2026-05-01 10:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "23464490" }
//! ],
//! "Manifest-Checksum": "f078ee894f010df109797f02ef82c4319bc63cea5c9045baaae1e3837427db61"}
//! "#,
//! )?;
//! let rules = PageRules {
//!     layout: PageLayout::DEFAULT,
//!     backup_start: "0/2000028".parse::<Lsn>()?,
//!     backup_end: None,
//! };
//!
//! let path = b"base/5/16384";
//! let mut file = manifest.get(path).ok_or("the manifest does not list this file")?.check();
//! let mut pages = PageCheck::for_file(path, &rules);
//! for chunk in [[0; 4096], [0; 4096]] {
//!     file.update(&chunk);
//!     if let Some(pages) = &mut pages {
//!         pages.update(&chunk);
//!     }
//! }
//! assert_eq!(file.finish(), Ok(()));
//! assert_eq!(pages.map(|pages| pages.finish().bad_pages), Some(0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Modules: `manifest` (the list of files), `digest` (checksums over a stream), `page` and `page_check` (data
//! pages), `relation` (which files have pages), `control` (what a cluster's control file says of its pages),
//! `images` (which pages the WAL holds whole).

mod control;
mod digest;
mod images;
mod manifest;
mod page;
mod page_check;
mod relation;

pub use control::ClusterPages;
pub use digest::{Checksum, ChecksumAlgorithm, FileCheck, FileDigest, FileFault};
pub use images::{ImageScan, PageId, ScanError, WalStretch};
pub use manifest::{Manifest, ManifestEntry, ManifestError, WalRange};
pub use page_check::{BadPage, PageCheck, PageFault, PageReport, PageRules};
pub use relation::{Fork, RelationFile};
pub use repmgr_pgfile::{ControlError as ControlFileError, PageLayout};
