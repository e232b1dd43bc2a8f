//! `cargo xtask torture`: clones that are disturbed at random, for as long as one likes.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Args;
use repmgr_lab::packages;

use crate::prepare::{self, Steps};

#[derive(Args)]
pub(crate) struct Options {
    /// That of a run before, which is printed at its start and with each failure [default: another each time]
    #[arg(long)]
    seed: Option<u64>,
    /// How long to go on
    #[arg(long, default_value_t = 240)]
    seconds: u64,
    /// How many trials at most
    #[arg(long)]
    trials: Option<u64>,
    /// Only this sort of trial
    #[arg(long, value_parser = ["size", "kill", "call", "host", "course"])]
    only: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let steps = Steps::new();
    prepare::install(&steps, &[packages::BUILD, packages::LAB, packages::TESTS])?;
    prepare::build(&steps)?;
    steps.begin("torture");
    let mut cargo = prepare::cargo();
    cargo
        .args(["test", "-p", "repmgr-tests", "--test", "torture"])
        .env("REPMGR_TORTURE_SECONDS", options.seconds.to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = options.seed.unwrap_or(now.as_secs());
    let given = [("SEED", Some(seed)), ("TRIALS", options.trials)];
    for (name, value) in given {
        if let Some(value) = value {
            cargo.env(format!("REPMGR_TORTURE_{name}"), value.to_string());
        }
    }
    if let Some(only) = &options.only {
        cargo.env("REPMGR_TORTURE_ONLY", only);
    }
    let status = cargo.status().context("could not start cargo")?;
    ensure!(status.success(), "not all trials went well");
    Ok(())
}
