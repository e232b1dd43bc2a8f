//! Clones that are killed, whose system calls fail, and whose Barman host lies, at random: what is left must be
//! no cluster, or a right standby, and the same command must complete.
//!
//! Not a test harness of rustc's: trials go by a seed and a time. `cargo xtask torture` gives both; as one of all
//! tests it takes about three minutes. A failure is printed with the seed of its trial, which alone repeats it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its results are for the terminal"
)]

mod calls;
mod course;
mod hostile;
mod kills;
mod random;
mod sizes;
mod stage;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::random::Random;
use crate::stage::Stage;

/// Of the run that is one of all tests: the same trials each time, as far as they hang on no clock.
const SEED: u64 = 5000;
/// What is done to a clone; the share of each in the time.
const SORTS: [(&str, u64); 5] = [
    ("size", 5),
    ("course", 5),
    ("kill", 45),
    ("call", 25),
    ("host", 20),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, tool, seed] = words.as_slice()
        && word == hostile::WORD
    {
        return hostile::spoil(tool, seed);
    }
    // Names of tests, for a harness that there is not.
    let names = words.iter().filter(|word| !word.starts_with('-'));
    if words.iter().any(|word| word == "--list")
        || names.clone().any(|name| !"torture".contains(name.as_str()))
    {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// How many trials failed.
fn run() -> Result<usize> {
    let seed = number("REPMGR_TORTURE_SEED").unwrap_or(SEED);
    let limit = Duration::from_secs(number("REPMGR_TORTURE_SECONDS").unwrap_or(150));
    let most = number("REPMGR_TORTURE_TRIALS").unwrap_or(u64::MAX);
    let only = std::env::var("REPMGR_TORTURE_ONLY").unwrap_or_default();
    println!("torture: seed {seed}, {} s", limit.as_secs());
    let stage = Stage::build()?;
    let begun = Instant::now();
    let mut table: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
    let mut failed = Vec::new();
    let mut trial = 0;
    while begun.elapsed() < limit && trial < most {
        // A seed that is given again begins with the trial that it was printed for.
        let own = seed.wrapping_add(trial);
        let mut random = Random::new(own);
        let sort = match SORTS.get(trial as usize) {
            // The shortest run has each.
            Some((sort, _)) if only.is_empty() && most > 1 => sort,
            _ => sort(&only, &mut Random::new(!own)),
        };
        let (what, outcome) = attempt(&stage, sort, &mut random);
        let outcome = outcome.unwrap_or_else(|error| {
            println!("FAILED {what} (--seed {own} --trials 1 --only {sort}): {error:#}\n");
            failed.push(own);
            "FAILED".to_owned()
        });
        *table.entry(what).or_default().entry(outcome).or_default() += 1;
        trial += 1;
    }
    println!("\n| trial | outcomes |\n| --- | --- |");
    for (what, outcomes) in &table {
        let outcomes: Vec<String> = outcomes
            .iter()
            .map(|(outcome, n)| format!("{n} {outcome}"))
            .collect();
        println!("| {what} | {} |", outcomes.join(", "));
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\n{trial} trials in {} s with seed {seed}, {} failed\ntest result: {word}. {} passed; {} failed; 0 ignored; torture",
        begun.elapsed().as_secs(),
        failed.len(),
        u32::from(failed.is_empty()),
        u32::from(!failed.is_empty())
    );
    Ok(failed.len())
}

/// One that was asked for, or any.
fn sort(only: &str, random: &mut Random) -> &'static str {
    if let Some((sort, _)) = SORTS.iter().find(|(sort, _)| *sort == only) {
        return sort;
    }
    let mut at = random.below(SORTS.iter().map(|(_, share)| share).sum());
    for (sort, share) in SORTS {
        if at < share {
            return sort;
        }
        at -= share;
    }
    SORTS[0].0
}

/// What was tried, and what came of it.
fn attempt(stage: &Stage, sort: &str, random: &mut Random) -> (String, Result<String>) {
    let mut what = sort.to_owned();
    let tried = catch_unwind(AssertUnwindSafe(|| match sort {
        "kill" => kills::attempt(stage, random, &mut what),
        "call" => calls::attempt(stage, random, &mut what),
        "size" => sizes::attempt(stage, &mut what),
        "host" => hostile::attempt(stage, random, &mut what),
        _ => course::attempt(stage, random, &mut what),
    }));
    let outcome = tried.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(anyhow!(text.unwrap_or_else(|| "a check panicked".to_owned())))
    });
    if outcome.is_err() {
        stage.start_over();
    }
    (what, outcome)
}
