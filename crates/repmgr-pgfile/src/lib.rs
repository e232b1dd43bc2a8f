//! What PostgreSQL's own small files say, from their bytes: `global/pg_control`, `postmaster.pid`, timeline histories,
//! the beginning of a WAL segment.
//!
//! It knows how PostgreSQL 10 to 19 writes them, and nothing of data directories, backups or replication: where a
//! file lies and what follows from it are the caller's. The only thing that touches a disk is [`read_beginning`],
//! which gets such a file without ever waiting for it. Whatever the bytes are, nothing here panics.
//!
//! ```
//! use repmgr_pgfile::{TimelineHistory, postmaster_pid};
//! use repmgr_types::{Lsn, Timeline};
//!
//! assert_eq!(postmaster_pid(b"4711\n/srv/pg\n1795000000\n5432\n"), Some(4711));
//! let (one, two) = (Timeline::new(1).unwrap(), Timeline::new(2).unwrap());
//! let history = TimelineHistory::parse(two, b"1\t0/3000148\tno recovery target specified\n")?;
//! assert_eq!(history.left_at(one), Some(Lsn(0x300_0148)));
//! # Ok::<(), repmgr_pgfile::HistoryError>(())
//! ```
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod control;
mod history;
mod pages;
mod pid;
mod read;
mod wal;

pub use control::{ControlError, ControlFile, PG_CONTROL, PG_CONTROL_SIZE, PgControlHead, RecordedSettings};
pub use history::{HistoryEntry, HistoryError, TimelineHistory};
pub use pages::PageLayout;
pub use pid::{POSTMASTER_PID, postmaster_pid};
pub use read::{open_file, read_beginning};
pub use wal::{is_plain_wal, wal_system_id};
