//! A Barman server as a client sees it: which backups it has, what a backup is and where its files lie,
//! holding it against retention, and whether WAL is in the archive.
//!
//! [`Barman`] is a session on the Barman host, over SSH or on this host ([`repmgr_remote::Host`]).
//! [`find_backup`](Barman::find_backup) gives a [`Backup`], whose [`form`](Backup::form) says how its files
//! can be read, and [`chain`](Barman::chain) what an incremental one builds upon; [`Hold`] protects it from deletion, and [`recheck`](Barman::recheck) tells whether it still
//! is what it was. Written for Barman 1.6 to 3.19 and tested with 2.19, 3.4 and 3.19. Nothing here changes
//! anything on the Barman host but a lock file, nor waits for ever for a dead primary.
//!
//! This crate must not know the directory a clone goes to, PostgreSQL connections, progress, or how files
//! are fetched.
//!
//! ```no_run
//! use repmgr_barman::{Barman, Hold, ServerAddress};
//! use repmgr_remote::{SshHost, SshOptions};
//!
//! let host = SshHost::new("barmansrv", SshOptions::default())?;
//! let mut barman = Barman::connect(&host, ServerAddress::new("main"))?;
//! let backup = barman.find_backup("latest")?;
//! let form = backup.form()?;
//! let hold = Hold::take(&host, barman.address(), &backup)?;
//! barman.recheck(&backup)?;
//! println!("{} ({form:?}) is in {}", backup.id, backup.data_directory());
//! // ... copy ...
//! hold.release()?;
//! barman.recheck(&backup)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backup;
mod catalogue;
mod chain;
mod command;
mod complaint;
mod describe;
mod error;
mod form;
mod hold;
mod info;
mod kind;
mod literal;
mod lock_dir;
mod primary;
mod session;
mod version;
mod wal;

pub use backup::Backup;
pub use command::{BadCommand, BarmanCommand};
pub use error::BarmanError;
pub use form::{Form, TarCodec, Unreadable, UnreadableReason};
pub use hold::{Hold, HoldError};
pub use info::{BackupTablespace, InfoError};
pub use kind::{BackupMode, BackupStatus, Keep};
pub use primary::UpstreamRecord;
pub use session::{Barman, CALL_TIMEOUT, ServerAddress};
pub use version::BarmanVersion;
