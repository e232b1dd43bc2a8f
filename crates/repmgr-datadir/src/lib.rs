//! A PostgreSQL data directory, its tablespaces and its WAL directory on this Linux host:
//! what state they are in, with which permissions, how to write them safely, and how to make
//! sure that what was written is on disk.
//!
//! The way through:
//!
//! 1. [`Target::inspect`] looks and touches nothing; [`OutsideDir`] does so for tablespace
//!    locations and for a WAL directory elsewhere, [`Space`] for room on the file systems.
//! 2. [`Claim::take`] creates the directory or corrects its mode, and locks it. Dropping the claim
//!    undoes exactly that.
//! 3. [`Claim::start_over`] or [`Claim::resume`] gives a [`Building`], whose [`Tree`] many threads
//!    write at once. PostgreSQL cannot start on the directory: it has no `global/pg_control`.
//! 4. [`Building::finish`] flushes everything and moves `global/pg_control` in, last.
//!
//! [`InstanceDir`] is for the other case: an instance that stays and whose configuration is written.
//!
//! This crate knows nothing of Barman, of networks, of replication settings, or of the order in
//! which a clone does things. Relative paths come from other hosts and are not trusted: they are
//! checked, and opened below a directory handle without following symbolic links.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod claim;
mod control;
mod erase;
#[cfg(test)]
mod fake;
mod instance;
mod layout;
mod marker;
mod memo;
mod outside;
mod permissions;
mod relpath;
mod replaceable;
mod server;
mod space;
mod sys;
mod target;
mod tree;

pub use claim::{
    AdoptError, Building, Claim, ClaimError, FinishError, Preparation, ResumeError, TakeOptions, UndoError,
};
pub use control::{ControlError, PG_CONTROL, PG_CONTROL_SIZE, PgControlHead};
pub use erase::{EraseError, Erasing};
pub use instance::InstanceDir;
pub use layout::{CopyRule, copy_rule, create_skeleton, skeleton_dirs, tablespace_copy_rule};
pub use marker::{Marker, Phase};
pub use memo::Memo;
pub use outside::{OldContent, OutsideDir, OutsideError, OutsideState, PrepareError};
pub use permissions::Permissions;
pub use replaceable::{Found, Stubborn};
pub use server::{RunningError, ServerState, StalePidFile, server_state};
pub use space::{Space, SpaceError};
pub use target::{InspectError, InspectWarning, Instance, TablespaceLink, Target, TargetState};
pub use tree::{Existing, FileSpec, Kind, Metadata, Tree, TreeError, TreeFile};
