//! `cargo xtask bench`: our programs beside others that do the same work, for real and side by side.

mod clone;
mod contender;
mod data;
mod measure;
mod rebuild;
mod relay;
mod report;
mod wal;

use anyhow::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Task {
    /// A standby from a Barman backup: ours, the original repmgr, pg_basebackup, pgBackRest, Barman, ssh and tar
    Clone(clone::Arguments),
    /// A standby of which 1 percent differs from the backup: ours, the original repmgr, pgBackRest, rsync
    Rebuild(rebuild::Arguments),
    /// Archived WAL one segment after another, and a standby's replay: ours and barman-wal-restore
    Wal(wal::Arguments),
}

pub(crate) fn run(task: &Task) -> Result<()> {
    match task {
        Task::Clone(arguments) => clone::run(arguments),
        Task::Rebuild(arguments) => rebuild::run(arguments),
        Task::Wal(arguments) => wal::run(arguments),
    }
}
