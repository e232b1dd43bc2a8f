//! `repmgr.conf` as typed settings.
//!
//! Files written for repmgr 4 and for repmgr 5 are both read, line by line: see [`parse`] for
//! the rules. Every parameter of repmgr 5.5 is known, with its type, default and lower bound;
//! what is wrong is reported for the whole file at once, each error and warning with file,
//! line and parameter. [`find`] looks where repmgr looks.
//!
//! This crate reads files and nothing else. It must not know what a setting is used for,
//! which command is running or what the command line says.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # std::fs::write(directory.path().join("repmgr.conf"), "\
//! # node_id=2\nnode_name=node2\nconninfo='host=node2 user=repmgr dbname=repmgr'\n\
//! # data_directory='/var/lib/postgresql/data'\nbarman_host=barmansrv\nbarman_server=somedb\n\
//! # restore_command=/usr/bin/barman-wal-restore barmansrv somedb %f %p\n")?;
//! # let working_directory = directory.path();
//! let path = repmgr_config::find(None, working_directory, &["/etc/postgresql-common"])?
//!     .ok_or("no repmgr.conf")?;
//! let loaded = repmgr_config::load(&path)?;
//! for warning in &loaded.warnings {
//!     eprintln!("WARNING: {warning}"); // ... line 7: parameter "restore_command": value is not in ...
//! }
//! let node = loaded.node()?;
//! assert_eq!((node.id, node.name), (2, "node2"));
//! assert_eq!(loaded.settings.barman().map(|barman| barman.server), Some("somedb"));
//! # Ok(())
//! # }
//! ```

mod basebackup;
mod error;
mod find;
mod grammar;
mod load;
mod settings;
mod values;

pub use basebackup::PgBasebackupOptions;
pub use error::{ConfigError, Diagnostic};
pub use find::find;
pub use load::{Loaded, load, parse};
pub use settings::{BarmanSettings, Node, Settings};
pub use values::{
    ApplyDelay, ConnectionCheckType, Failover, LogLevel, ReplicationType, SshClient, TablespaceMapping,
    ValueError,
};
