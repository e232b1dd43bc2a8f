//! A test bench of real parts: PostgreSQL, sshd and Barman on loopback, as one unprivileged user, in a
//! scratch directory that is gone afterwards.
//!
//! Tests and `cargo xtask` use it. It knows how to install the parts ([`packages`], [`PgInstall`],
//! [`BarmanInstall`]) and how to run them ([`Instance`], [`Sshd`], [`Barman`]); [`Lab`] joins them into
//! what a clone needs. It must not know how `repmgr` works inside: it starts the program as a user would.
//!
//! Whatever way the process using it ends, a guard process stops every server and removes the scratch
//! directory ([`Scratch`]). Nothing else of the user's surroundings counts: programs are the ones of Debian's
//! packages whatever the PATH says ([`tool`]), children get an environment and a HOME of their own, and the
//! umask is 022. Environment variables:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `REPMGR_LAB_USER` | account for the servers when we are root (else `$SUDO_USER`, else `postgres`) |
//! | `REPMGR_LAB_DIR` | where scratch directories are made, instead of `/tmp` |
//! | `REPMGR_LAB_KEEP` | keep the files of a scratch directory; servers are stopped all the same |
//! | `REPMGR_LAB_REPMGR` | the `repmgr` to use, instead of the one cargo built |

mod account;
mod barman;
mod cache;
mod debian;
mod lab;
mod node;
pub mod packages;
mod patroni;
mod pg;
mod run;
mod scratch;
mod sshd;
mod tools;

pub use account::Account;
pub use barman::{BackupMethod, Barman, BarmanInstall, BarmanVersion, ServerOptions};
pub use cache::cache_dir;
pub use debian::DebianCluster;
pub use lab::{Lab, LabBuilder, Target, program_under_test};
pub use node::{Instance, Primary, PrimaryOptions, StopMode, Tablespace};
pub use patroni::{NodeOptions, Patroni, PatroniNode, replicator};
pub use pg::{PgInstall, original_repmgr};
pub use run::{Finished, check, run};
pub use scratch::Scratch;
pub use sshd::{HOST_ALIASES, Sshd};
pub use tools::{calm, in_odd_surroundings, tool, write_program};
