//! The upstream PostgreSQL node as a client sees it: connecting as libpq would, asking what a
//! clone must know, checking that the server can feed a standby, and keeping repmgr's records.
//!
//! [`connect`] takes a [`Conninfo`](repmgr_types::Conninfo) and an [`Environment`] and gives an
//! [`Upstream`]. Every call blocks and every call ends: connecting after `connect_timeout`
//! (2 s unless set, as in repmgr), a query after [`QUERY_TIMEOUT`], also when the server
//! accepts and never answers. Each session has its own tokio runtime. Calls work inside another
//! one too, each on a thread of its own, but hold up the task all the same: use `spawn_blocking`
//! there. A session dropped inside a runtime does not block; a thread says goodbye to the server.
//!
//! [`connect_replication`] opens the other kind of connection, the one a standby streams over, and
//! [`BaseBackup`], [`VerifyBackup`] and [`CombineBackup`] run PostgreSQL's own `pg_basebackup`,
//! `pg_verifybackup` and `pg_combinebackup`, which take as long as they take and end when cancelled.
//!
//! This crate must not know Barman, the clone's order of things, or any file on this host
//! other than password, service and certificate files, and the backup it was told to make. SQL is
//! written for PostgreSQL 10 and later.
//!
//! ```no_run
//! use repmgr_types::Conninfo;
//! use repmgr_upstream::{Environment, Requirements, connect};
//!
//! let conninfo = Conninfo::parse("host=node1 user=repmgr dbname=repmgr")?;
//! let upstream = connect(&conninfo, &Environment::from_process())?;
//! println!("{} runs PostgreSQL {}", upstream.endpoint(), upstream.server_version());
//! for problem in upstream.checks(&Requirements::default())? {
//!     println!("{}", problem.message);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod basebackup;
mod bin_dir;
mod checks;
mod combine_backup;
mod config_files;
mod connect;
mod environment;
mod error;
mod event_loop;
mod limits;
mod nodes;
mod params;
mod passfile;
mod password;
mod program;
mod records;
mod replication;
mod service;
mod session;
mod slots;
mod standby;
mod tls;
mod upstream;
mod verify_backup;
mod wal;

pub use basebackup::{BaseBackup, BaseBackupError, BaseBackupProgress};
pub use bin_dir::{BinDirError, check_bin_dir};
pub use checks::{Problem, Requirements, SettingsSnapshot, Severity};
pub use combine_backup::{Combination, CombineBackup, CombineBackupError};
pub use config_files::{ConfigFile, ConfigRole};
pub use connect::connect;
pub use environment::Environment;
pub use error::{
    ConnectError, ConnectErrorKind, Endpoint, Failure, NoConnection, ParamOrigin, QueryError, ServerError,
};
pub use limits::{LimitError, LowLimit, StandbyLimit, StandbyLimits};
pub use nodes::{ExtensionState, NodeRecord, PrimarySearch};
pub use password::{PasswordSource, standby_password};
pub use program::{ProgramError, ProgramFailure};
pub use records::NewNode;
pub use replication::{
    ReplicationCheckError, ReplicationConnection, SystemIdentification, check_replication,
    connect_replication,
};
pub use session::QUERY_TIMEOUT;
pub use slots::{ReplicationSlot, SlotState};
pub use standby::StandbyProgress;
pub use upstream::{Privileges, Tablespace, Upstream};
pub use verify_backup::{VerifyBackup, VerifyBackupError};
pub use wal::{UpstreamWal, WalFiles};
