//! `cargo xtask demo`: the main job for real, from nothing to a standby that streams.

mod patroni;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use repmgr_lab::{Instance, Lab, LabBuilder, PrimaryOptions, Tablespace, Target, original_repmgr, packages};

pub(crate) use self::patroni::run as run_patroni;
use crate::prepare::{self, Steps};

const LIMIT: Duration = Duration::from_secs(60);

/// The lab of the demo and of `lab up`.
pub(crate) fn builder() -> LabBuilder {
    let tablespaces = [Tablespace::from("fast"), Tablespace::empty("spare")];
    Lab::builder()
        .primary(PrimaryOptions {
            rows: 100_000,
            checksums: true,
            ..PrimaryOptions::default()
        })
        .tablespaces(tablespaces)
}

/// The second node of the lab, with tablespaces of its own.
pub(crate) fn target(lab: &Lab) -> Result<Target> {
    let mappings = lab.mappings(2);
    let settings: Vec<_> = mappings
        .iter()
        .map(|mapping| ("tablespace_mapping", mapping.as_str()))
        .collect();
    lab.target(2, &settings)
}

pub(crate) fn run() -> Result<()> {
    let steps = Steps::new();
    prepare::install(&steps, &[packages::BUILD, packages::LAB])?;
    prepare::build(&steps)?;
    let heading = Steps::new();
    let lab = builder().on_step(move |what| heading.begin(what)).build()?;

    let target = target(&lab)?;
    steps.begin(&format!(
        "repmgr standby clone, from backup {}, with this repmgr.conf",
        lab.backup_id()?
    ));
    print!("{}", fs::read_to_string(&target.conf)?);
    live(&mut lab.clone_command(&target)?)?;

    steps.begin("Starting the standby");
    let standby = lab.start_standby(&target)?;
    let receiver = standby.sql("select status || ', at ' || latest_end_lsn from pg_stat_wal_receiver")?;
    println!(
        "in recovery: {}; WAL receiver: {receiver}",
        standby.is_in_recovery()?
    );

    steps.begin("A row written on the primary arrives on the standby");
    row_arrives(lab.primary(), &standby)?;
    steps.begin("Both hold the same data");
    standby.wait_for_replay(lab.primary(), LIMIT)?;
    let (on_primary, on_standby) = (lab.primary().fingerprint()?, standby.fingerprint()?);
    println!("{on_standby}");
    ensure!(
        on_primary == on_standby,
        "the primary holds something else:\n{on_primary}"
    );

    let original =
        original_repmgr().context("the package repmgr is installed, but its program is not there")?;
    steps.begin(&format!(
        "The original repmgr accepts it: {} standby register",
        original.display()
    ));
    live(
        lab.scratch()
            .command(original)
            .arg("-f")
            .arg(&target.conf)
            .args(["standby", "register"]),
    )?;

    steps.begin("Cleaning up");
    drop(standby);
    let scratch = lab.scratch().path().to_owned();
    let port = lab.primary().port();
    drop(lab);
    println!(
        "\nProved: a standby cloned from a Barman backup starts, streams from its primary (which ran on port \
         {port}),\nholds equal data and can be registered. {}",
        if scratch.exists() {
            format!("Files kept in {}.", scratch.display())
        } else {
            "Nothing of it is left here.".to_owned()
        }
    );
    Ok(())
}

fn row_arrives(primary: &Instance, standby: &Instance) -> Result<()> {
    let insert = "insert into lab_rows (note) values ('written after the clone') returning id";
    let id = primary.sql(insert)?;
    println!("primary: {insert}\n         {id}");
    let select = format!("select id, note from lab_rows where id = {id}");
    standby.wait_for(&select, &format!("{id}|written after the clone"), LIMIT)?;
    println!("standby: {select}\n         {}", standby.sql(&select)?);
    Ok(())
}

/// Runs a command with its output on the terminal; Ctrl-C reaches it as it reaches us.
fn live(command: &mut Command) -> Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    println!("\n$ {}", shown.join(" "));
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("could not start {}", shown[0]))?;
    ensure!(status.success(), "`{}` ended with {status}", shown.join(" "));
    Ok(())
}
