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

mod barman;
mod clone;
mod combine;
mod configure;
mod copy;
mod error;
mod event;
mod external;
mod fetch;
mod gather;
mod hold;
mod judge;
mod node;
mod notify;
mod place;
mod plan;
mod reach;
mod reconfigure;
mod record;
mod request;
mod reuse;
mod server;
mod slot;
mod threads;
mod unpack;
mod watch;

pub use clone::{PreparedClone, Summary, plan, prepare};
pub use error::{CloneError, ErrorKind};
pub use event::{ByteSize, CopySummary, Effective, Event, Level, Message, Observer, Progress};
pub use external::ExternalFileError;
pub use notify::{Notification, NotifiedEvent, NotifyError};
pub use place::CloneState;
pub use plan::{Existing, Plan};
pub use reconfigure::{Reconfiguration, write_replication_configuration};
pub use request::{
    BarmanSource, CloneRequest, Context, Delta, ExternalFiles, Method, NodeIdentity, Placement,
    ReconfigureRequest, ReplicationOptions, ServerSource, Source, TransferOptions, UpstreamChoice,
};
// What a caller needs to fill in a request.
pub use repmgr_barman::{BarmanCommand, ServerAddress};
// Of `CloneState::of`.
pub use repmgr_datadir::InspectError;
pub use repmgr_transfer::Compression;
pub use repmgr_upstream::Environment;
