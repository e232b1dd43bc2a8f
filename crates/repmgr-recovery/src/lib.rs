//! What a standby's own configuration files must say: `primary_conninfo`, `recovery.conf` up to
//! PostgreSQL 11, `standby.signal` and `postgresql.auto.conf` from 12 on, and a `postgresql.conf`
//! that does not send the standby to its primary's places.
//!
//! Bytes in, bytes out: reading, durable writing and removing are the caller's. This crate must
//! not know Barman, the network, or any directory; whether a path exists here it asks through
//! a predicate.
//!
//! ```
//! use repmgr_recovery::{Mechanism, PrimaryConninfo, ReplicationSettings};
//! use repmgr_types::{Conninfo, PgVersion};
//!
//! let version = PgVersion::from_num(150_018).ok_or("not a version")?;
//! let upstream = Conninfo::parse("host=node1 user=repmgr dbname=repmgr password=secret")?;
//! let primary_conninfo = PrimaryConninfo::new(&upstream, "node2").build(version).conninfo;
//! let settings = ReplicationSettings { primary_conninfo, ..Default::default() };
//! assert_eq!(Mechanism::for_version(version), Mechanism::StandbySignal);
//! let edited = settings.apply_to_auto_conf(Some(b"work_mem = '8MB'\nrecovery_target = 'immediate'\n"))?;
//! assert_eq!(
//!     String::from_utf8_lossy(&edited.bytes),
//!     "work_mem = '8MB'\nprimary_conninfo = 'host=node1 user=repmgr application_name=node2'\n"
//! );
//! assert_eq!(edited.dropped[0].name, "recovery_target");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod auto_conf;
mod primary_conninfo;
mod references;
mod server_files;
mod settings;

pub use auto_conf::{AutoConf, DroppedSetting, set_in_auto_conf};
pub use primary_conninfo::{BuiltConninfo, DropReason, DroppedKeyword, PrimaryConninfo};
pub use references::{ConfKind, Reference, references};
pub use server_files::{AbsentPath, Change, LocalFiles, LocalizedConf};
pub use settings::{Mechanism, RecoveryError, RecoveryTarget, ReplicationSettings, StopAt};
