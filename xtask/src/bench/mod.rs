//! `cargo xtask bench`: our programs beside others that do the same work, for real and side by side.

mod clone;
mod contender;
mod data;
mod measure;
mod rebuild;
mod relay;
mod report;
mod wal;

use anyhow::{Result, ensure};
use clap::Subcommand;

use crate::prepare::Steps;

#[derive(Subcommand)]
pub(crate) enum Task {
    /// A standby from a Barman backup: ours, the original repmgr, pg_basebackup, pgBackRest, Barman, ssh and tar
    Clone(clone::Arguments),
    /// A standby of which 1 percent differs from the backup: ours, the original repmgr, pgBackRest, rsync
    Rebuild(rebuild::Arguments),
    /// Archived WAL one segment after another, and a standby's replay: ours and barman-wal-restore
    Wal(wal::Arguments),
}

/// Those with one of the words in their name, or all if there is no word.
fn choose<T>(all: Vec<T>, name: impl Fn(&T) -> &str, words: &[String]) -> Result<Vec<T>> {
    let wanted = |one: &T| words.is_empty() || words.iter().any(|word| name(one).contains(word));
    let chosen: Vec<T> = all.into_iter().filter(wanted).collect();
    ensure!(!chosen.is_empty(), "there is none of that name");
    Ok(chosen)
}

/// Each of so many has its turn in every round, and begins a round once: who comes after whom must not
/// decide. `turn` gets its number and that of the round.
fn in_turn(
    steps: &Steps,
    rounds: usize,
    count: usize,
    mut turn: impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    for round in 0..rounds {
        steps.begin(&format!("Round {} of {rounds}", round + 1));
        for place in 0..count {
            turn((place + round) % count, round)?;
        }
    }
    Ok(())
}

pub(crate) fn run(task: &Task) -> Result<()> {
    match task {
        Task::Clone(arguments) => clone::run(arguments),
        Task::Rebuild(arguments) => rebuild::run(arguments),
        Task::Wal(arguments) => wal::run(arguments),
    }
}
