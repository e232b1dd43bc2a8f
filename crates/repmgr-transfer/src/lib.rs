//! Many files from a directory on another host, fast: a [`list`]ing in one command, then
//! [`transfer`] with parallel sessions, each a stream of tar archives that the far side compresses.
//! [`unpack`] takes a tar archive that is there already, and [`read_file`] one small file.
//!
//! Nothing counts as arrived that was not received whole: each file must be the one that was asked
//! for, in the size and with the time of the listing; each archive must end as archives do; the
//! far side's tar must say that all went well. What it sends is checked as if it came from an enemy.
//!
//! Of files that are here in an older state ([`OldFiles`]) only the blocks that differ travel.
//!
//! The far side needs a POSIX shell with GNU find, tar and xargs, zstd or lz4 to be fast, and Python 3 to
//! compare blocks. Files of this host are copied by the kernel, where it can without moving a byte.
//!
//! This crate knows nothing of Barman or PostgreSQL, and not where files go here: it hands bytes
//! to a [`Sink`].
//!
//! ```
//! use repmgr_remote::{Host, LocalHost};
//! use repmgr_transfer::{Counters, FileSink, Listing, Options, Sink, SinkError, list, transfer};
//! use std::{fs::File, io::Write, path::PathBuf};
//!
//! struct Directory<'a>(PathBuf, &'a Listing);
//!
//! impl Sink for Directory<'_> {
//!     fn create(&self, _: usize, index: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
//!         let name = std::str::from_utf8(self.1.get(index).path)?;
//!         Ok(Box::new(Open(File::create(self.0.join(name))?)))
//!     }
//!     fn confirm(&self, _: usize, _: &[usize]) -> Result<(), SinkError> {
//!         Ok(())
//!     }
//! }
//!
//! struct Open(File);
//!
//! impl FileSink for Open {
//!     fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
//!         Ok(self.0.write_all(bytes)?)
//!     }
//!     fn finish(self: Box<Self>) -> Result<(), SinkError> {
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! # let (from, to) = (from.path(), to.path());
//! # std::fs::write(from.join("PG_VERSION"), "15\n")?;
//! let host = LocalHost::default();
//! let options = Options::default();
//! let from = from.to_str().unwrap();
//! let listing = list(&mut *host.connect()?, from, &mut |_| true, &options.cancel)?;
//! let sink = Directory(to.to_owned(), &listing);
//! let counters = Counters::default(); // for another thread to look at
//! let sources = std::slice::from_ref(&listing);
//! let came = transfer(&host, sources, &|_, _| true, &options, &sink, &counters)?;
//! assert_eq!((came.files, came.bytes), (1, 3));
//! assert_eq!(std::fs::read(to.join("PG_VERSION"))?, b"15\n");
//! # Ok(())
//! # }
//! ```

mod archive;
mod batch;
mod choice;
mod complaints;
mod compression;
mod counters;
mod error;
#[cfg(test)]
mod fake;
mod fetch;
mod here;
mod list;
mod listing;
mod options;
mod pace;
mod path;
mod pool;
mod read;
mod revise;
mod sink;
mod task;
mod transfer;
mod unpack;
mod wire;

pub use compression::Compression;
pub use counters::{Counters, Transferred};
pub use error::{FarFile, TransferError};
pub use list::{ListError, list, list_all};
pub use listing::{Entry, EntryKind, Listing, PushError};
pub use options::Options;
pub use read::{ReadFileError, read_file};
pub use repmgr_codec::Codec;
pub use sink::{FileSink, OldFiles, Revision, Sink, SinkError};
pub use transfer::transfer;
pub use unpack::{ArchiveMember, MemberSink, unpack};
