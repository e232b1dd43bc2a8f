//! `cargo xtask bench clone`.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use repmgr_lab::{BarmanVersion, Lab, check, packages};

use super::contender::{Contender, Contenders};
use super::data::{self, Scale, Size};
use super::measure::{Run, measure};
use super::relay;
use super::report::{self, Row};
use super::{choose, in_turn};
use crate::prepare::{self, Steps};

const LIMIT: Duration = Duration::from_secs(300);
pub(super) const NEAR: &str = "barmansrv";
const FAR: &str = "faraway";

#[derive(Args)]
pub(crate) struct Arguments {
    /// How often each way is measured, in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// What is cloned
    #[arg(long, value_enum, default_value = "normal")]
    scale: Scale,
    /// Data that does not compress, instead of tables as they usually are
    #[arg(long)]
    incompressible: bool,
    /// Measure over a line with this round trip as well: ours, and ssh with tar
    #[arg(long, value_name = "MILLISECONDS")]
    delay: Option<u64>,
    /// Barman 3.19 instead of 3.4. The original does not work with it
    #[arg(long)]
    new_barman: bool,
    /// Only ways with this in their name
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let steps = Steps::new();
    prepare::install(
        &steps,
        &[packages::BUILD, packages::LAB, packages::TESTS, packages::BENCH],
    )?;
    let repmgr = build(&steps)?;
    let machine = report::machine()?;
    let lab = lab(arguments)?;
    if arguments.scale != Scale::Normal {
        steps.begin("Making the backup larger");
        data::inflate(&lab, arguments.scale)?;
    }

    steps.begin("Those who take part");
    let all = contenders(arguments, &lab, Contenders::new(&lab, &repmgr)?)?;
    let contenders = choose(all, |contender| &contender.name, &arguments.only)?;
    for contender in &contenders {
        println!("{}", contender.name);
    }

    steps.begin("Reading everything once, so that no one waits for the disk to read");
    let backup = data::size_of(&lab.barman().backup_dir(lab.server(), lab.backup_id()?), true)?;
    for other in ["primary", "pgbackrest"].map(|dir| lab.scratch().join(dir)) {
        if other.exists() {
            data::size_of(&other, true)?;
        }
    }
    let what = format!("{} files, {} MB", backup.files, backup.bytes / 1_000_000);
    println!("the backup has {what}");

    let mut rows: Vec<Row> = contenders
        .iter()
        .map(|contender| Row::new(&contender.name))
        .collect();
    in_turn(&steps, arguments.rounds, contenders.len(), |at, _| {
        let run = one_run(&lab, &contenders[at], backup)?;
        println!("{run}  {}", rows[at].name);
        rows[at].runs.push(run);
        Ok(())
    })?;
    println!(
        "\n{what}, medians of {} rounds; {machine}.\n\n{}",
        arguments.rounds,
        report::table(&rows)
    );
    Ok(())
}

/// One run into a place where nothing is, on a file system that has nothing to write.
fn one_run(lab: &Lab, contender: &Contender, backup: Size) -> Result<Run> {
    lab.scratch().dir(contender.dir.join("tablespaces"))?;
    let run = measure(lab, &contender.command).with_context(|| contender.name.clone())?;
    data::check_copy(&contender.name, data::size_of(&contender.dir, false)?, backup)?;
    put_away(lab, &contender.dir)?;
    Ok(run)
}

/// Gives the space of a copy back, but not its inodes: ext4 passes over those that were freed in the last
/// minutes one by one, which made the next contender up to a second slower.
pub(super) fn put_away(lab: &Lab, dir: &Path) -> Result<()> {
    const EMPTY: &str = r#"find "$1" -type f -size +0 -print0 | xargs -0 -r truncate -s 0
mv "$1" "$(mktemp -d "$2/XXXXXX")"
sync -f "$2""#;
    let away = lab.scratch().dir("away")?;
    let mut empty = lab.scratch().command("sh");
    empty.args(["-euc", EMPTY, "sh"]).arg(dir).arg(away);
    check(&mut empty, LIMIT).map(drop)
}

fn lab(arguments: &Arguments) -> Result<Lab> {
    let steps = Steps::new();
    let mut builder = Lab::builder().on_step(move |what| steps.begin(what));
    if arguments.new_barman {
        builder = builder.barman(BarmanVersion::V3_19);
    }
    data::fill(builder, arguments.scale, arguments.incompressible, 1).build()
}

fn contenders(arguments: &Arguments, lab: &Lab, mut make: Contenders<'_>) -> Result<Vec<Contender>> {
    let mut all = vec![make.ours("repmgr-rs", NEAR, &[])?];
    if let Some(milliseconds) = arguments.delay {
        relay::start(lab.sshd(), FAR, Duration::from_millis(milliseconds))?;
        let away = format!("{milliseconds} ms away");
        all.push(make.ours(&format!("repmgr-rs, {away}"), FAR, &[])?);
        let plain = ["--compress", "none", "--jobs", "1"];
        all.push(make.ours(
            &format!("repmgr-rs --compress none --jobs 1, {away}"),
            FAR,
            &plain,
        )?);
        all.push(make.tar("ssh, tar and sync", NEAR)?);
        all.push(make.tar(&format!("ssh, tar and sync, {away}"), FAR)?);
        return Ok(all);
    }
    all.push(make.ours("repmgr-rs --jobs 1", NEAR, &["--jobs", "1"])?);
    all.push(make.ours("repmgr-rs --compress none", NEAR, &["--compress", "none"])?);
    if !arguments.new_barman {
        all.push(make.original(&[])?);
    }
    if arguments.scale == Scale::Normal {
        all.push(make.pg_basebackup()?);
        all.push(make.pgbackrest(&[])?);
    }
    all.push(make.barman()?);
    all.push(make.tar("ssh, tar and sync (no standby)", NEAR)?);
    Ok(all)
}

/// Our program as it is released.
pub(super) fn build(steps: &Steps) -> Result<PathBuf> {
    if let Some(chosen) = env::var_os("REPMGR_LAB_REPMGR") {
        println!("using {} (REPMGR_LAB_REPMGR)", chosen.display());
        return Ok(chosen.into());
    }
    steps.begin("Building repmgr for release");
    let status = prepare::cargo()
        .args(["build", "--release", "--package", "repmgr-cli"])
        .status()
        .context("could not start cargo")?;
    ensure!(status.success(), "cargo build ended with {status}");
    // We ourselves are target/PROFILE/xtask.
    let own = env::current_exe()?;
    let target = own.ancestors().nth(2).context("we are in no target directory")?;
    Ok(target.join("release/repmgr"))
}
