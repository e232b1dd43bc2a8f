//! WAL out of a Barman server's archive, as PostgreSQL's `restore_command` needs it: fetched, checked,
//! delivered, and fetched ahead.
//!
//! [`restore`] delivers one file: out of a [`Spool`] if it lies ready there, else from an [`Archive`],
//! which reads the files of the Barman host directly (some milliseconds over a connection that is
//! open, where `barman get-wal` starts a Python), and leaves to `barman get-wal` what only Barman can
//! read. [`prefetch`] is the long-running part: it fills the spool ahead of replay until nobody needs
//! it. Written for Barman 2.10 to 3.19 and PostgreSQL 10 to 18.
//!
//! Three things hold whatever happens:
//! - A segment is delivered only whole, with the first page its name demands (magic, position,
//!   timeline, segment size) and of the right cluster: the one whose `global/pg_control` lies beside
//!   the destination's directory. Where there is none, any cluster will do, but a spool holds
//!   segments of one only.
//! - A file appears under its name complete and flushed, or not at all.
//! - "Not in the archive" ([`FetchError::NotInArchive`]) is said only when the archive was looked at,
//!   is known to be the right one, and proves to be an archive: it holds some WAL. Whatever else goes
//!   wrong is another error.
//!
//! This crate must not know command lines, exit codes, or how a process is put into the background;
//! it prints nothing.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::Arc;
//! use repmgr_barman::ServerAddress;
//! use repmgr_remote::{SshHost, SshOptions};
//! use repmgr_wal::{Archive, ArchiveOptions, Cluster, Transport, restore};
//!
//! let destination = Path::new("pg_wal/RECOVERYXLOG");
//! let cluster = Cluster::of_destination(destination);
//! let open = || {
//!     let options = ArchiveOptions {
//!         address: ServerAddress::new("main"),
//!         plain_host: None,
//!         system_id: cluster.system_id(),
//!         partial: false,
//!         transport: Transport::Fast,
//!         local_wal: Some(cluster.wal_dir().to_owned()),
//!     };
//!     Archive::new(Arc::new(SshHost::new("barmansrv", SshOptions::default())?), options)
//! };
//! restore("000000010000000000000042".parse()?, destination, None, false, open)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod archive;
mod check;
mod cluster;
mod decode;
mod deliver;
mod error;
mod history;
mod prefetch;
mod receive;
mod restore;
mod silence;
mod spool;

pub use archive::{Archive, ArchiveOptions, Transport};
pub use check::{ContentError, SegmentHeader};
pub use cluster::Cluster;
pub use deliver::FileError;
pub use error::FetchError;
pub use prefetch::{PrefetchEnd, PrefetchOptions, prefetch};
pub use repmgr_types::WalFileName;
pub use restore::{PrefetchStart, Restored, restore};
pub use spool::{Spool, is_recovery_file};
