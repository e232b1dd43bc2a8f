//! Barman as a client sees it: which backups a Barman server has, what a backup is and where its files lie, how to
//! protect it from retention, and which WAL is in the archive.
//!
//! [`Barman`] is a session on the Barman host, over SSH or on this host ([`repmgr_remote::Host`]).
//! [`backups`](Barman::backups) lists all backups; [`find_backup`](Barman::find_backup) gives one [`Backup`], whose
//! [`form`](Backup::form) says how its files can be read. [`chain`](Barman::chain) gives the backups that an
//! incremental one builds upon. [`Hold`] protects a backup from deletion, and [`recheck`](Barman::recheck) tells
//! whether it is still the same. [`wal_coverage`](Barman::wal_coverage) tells which WAL the archive holds, and
//! [`WalCoverage::gap`] where the first hole is.
//!
//! Written for Barman 1.6 to 3.19 and tested with 2.19, 3.4 and 3.19. Nothing here changes anything on the Barman host
//! but a lock file, and no call waits for ever for a dead primary.
//!
//! Three things are called "server" elsewhere, and have one name each here: the *Barman host* is the machine, the
//! *Barman server* is a section of Barman's configuration ("main"), and the *primary* is the PostgreSQL server that
//! section backs up.
//!
//! This crate must not know the directory a clone goes to, PostgreSQL connections, progress, or how files are fetched.
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
mod coverage;
mod describe;
mod error;
mod form;
mod hold;
mod info;
mod kind;
mod list;
mod literal;
mod lock_dir;
mod primary;
mod session;
mod version;
mod wal;
mod when;

pub use backup::Backup;
pub use command::{BadCommand, BarmanCommand};
pub use coverage::{BadHistory, WalCoverage, WalGap, WalPath, WalRange};
pub use error::BarmanError;
pub use form::{Form, TarCodec, Unreadable, UnreadableReason};
pub use hold::{Hold, HoldError};
pub use info::{BackupTablespace, InfoError};
pub use kind::{BackupKind, BackupMode, BackupStatus, Keep};
pub use list::{BackupSummary, ListedBackup};
pub use primary::UpstreamRecord;
pub use session::{Barman, CALL_TIMEOUT, ServerAddress};
pub use version::BarmanVersion;
pub use when::BackupTime;
