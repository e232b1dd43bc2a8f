//! Cloning a standby: the one place that knows the order of things.
//!
//! [`plan`] finds every reason to refuse and touches nothing; it is what `--dry-run` does.
//! [`prepare`] does the same and takes the target directory, which is given back if anything
//! stands against the clone. [`PreparedClone::execute`] then copies, verifies, configures and
//! completes; at every instant until its very end PostgreSQL cannot start on the directory, and
//! running the same clone again continues where this one stopped.
//!
//! [`write_replication_configuration`] is for an instance that is there already and stays: it writes
//! the configuration of a clone, and nothing else.
//!
//! What happens is told to an [`Observer`]. Nothing here prints, reads a command line or a
//! configuration file, or handles a signal: cancel through the [`Context`].
//!
//! All of it blocks, for as long as a copy takes: an async program gives it a thread of its own (tokio's
//! `spawn_blocking`). One token stops everything if the hosts were made with it too, as the example does.
//!
//! `examples/rebuild_standby.rs` is a whole program that clones.

// The story, and what it is told in.
mod clone;
mod error;
mod event;
mod look;
mod place;
mod plan;
mod remark;
mod request;
#[cfg(test)]
mod testing;
mod trees;

// Where the base backup comes from, the servers it has to do with, how it comes here, what makes it a
// standby, how that is started, and who hears of it.
mod copy;
mod nodes;
mod source;
mod standby;
mod start;
mod told;

pub use clone::{PreparedClone, Summary, plan, prepare, verify};
pub use copy::event::{CopySummary, PageChecks};
pub use error::{BackupError, CloneError, CopyError, ErrorKind, NodeError, PlaceError, StartError};
pub use event::{
    BackupEvent, ByteSize, CopyEvent, Effective, Event, Level, Message, NodeEvent, Observer, PlaceEvent,
    Progress, Remark, RemarkCode, StandbyEvent,
};
pub use place::CloneState;
pub use plan::{Plan, PlannedLimit, PlannedSetting, PlannedSource, PlannedTablespace, Present};
pub use request::{
    BarmanSource, CloneRequest, Context, Delta, ExternalFiles, Method, NodeIdentity, Outcome, Placement,
    ReconfigureRequest, ReplicationOptions, ServerSource, Source, Start, TransferOptions, UpstreamChoice,
};
pub use source::external::ExternalFileError;
pub use standby::reconfigure::{Reconfiguration, write_replication_configuration};
pub use told::notify::{Notification, NotifiedEvent, NotifyError};
// What a caller needs to fill in a request, and to understand what comes back.
pub use repmgr_barman::{BackupSummary, Barman, BarmanCommand, ListedBackup, ServerAddress};
pub use repmgr_datadir::InspectError;
pub use repmgr_recovery::{RecoveryTarget, StopAt};
pub use repmgr_remote::{Host, LocalHost, SshHost, SshOptions};
pub use repmgr_transfer::Compression;
pub use repmgr_types::{CancelToken, Conninfo, Hint, Rate, Remedy};
pub use repmgr_upstream::Environment;
