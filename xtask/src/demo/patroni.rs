//! `cargo xtask demo patroni`: a Patroni cluster gets a replica out of Barman, and has it rebuilt by delta.

use std::time::Duration;

use anyhow::{Result, ensure};
use repmgr_lab::{Lab, NodeOptions, Patroni, PatroniNode, PrimaryOptions, packages, replicator};

use super::row_arrives;
use crate::prepare::{self, Steps};

const LIMIT: Duration = Duration::from_secs(60);
const MADE: &str = "replica has been created using barman";

pub(crate) fn run() -> Result<()> {
    let steps = Steps::new();
    let wanted = [packages::BUILD, packages::LAB, packages::TESTS, packages::PATRONI];
    prepare::install(&steps, &wanted)?;
    prepare::build(&steps)?;
    let heading = Steps::new();
    let primary = PrimaryOptions {
        rows: 100_000,
        checksums: true,
        sql: vec![replicator()],
        ..PrimaryOptions::default()
    };
    let lab = Lab::builder()
        .primary(primary)
        .on_step(move |what| heading.begin(what))
        .build()?;

    steps.begin("etcd, and Patroni with the primary as its leader");
    let patroni = Patroni::start(&lab)?;
    let leader = patroni.lead(&lab)?;

    let options = NodeOptions::replica(&lab, "barman", "barmansrv", "    keep_data: true\n");
    steps.begin("A second node, whose patroni.yml says");
    print!("postgresql:\n{}", options.postgresql);
    let replica = patroni.node(&lab, "node2", &options)?;
    replica.wait_for_words(MADE, LIMIT)?;
    let told = show(&replica, 0)?;
    replicates(&leader, &replica)?;

    steps.begin("patronictl reinit lab node2");
    patroni.ctl(&replica, &["reinit", "lab", "node2", "--force"])?;
    // Patroni's own word is the same as before.
    replica.wait_for_words(" were here already", LIMIT)?;
    show(&replica, told)?;
    replicates(&leader, &replica)?;
    println!("\n{}", patroni.ctl(&replica, &["list"])?);
    println!(
        "Proved: a replica of Patroni's is made from Barman, streams, is rebuilt by delta and holds equal data."
    );
    Ok(())
}

/// The lines of ours from the `skip`th on. How many there are.
fn show(node: &PatroniNode, skip: usize) -> Result<usize> {
    let said = node.said()?;
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("repmgr-patroni:"))
        .collect();
    ours.iter().skip(skip).for_each(|line| println!("{line}"));
    Ok(ours.len())
}

fn replicates(leader: &PatroniNode, replica: &PatroniNode) -> Result<()> {
    replica.wait_for("select status from pg_stat_wal_receiver", "streaming", LIMIT)?;
    row_arrives(leader.instance(), replica.instance())?;
    let (there, here) = (
        leader.instance().fingerprint()?,
        replica.instance().fingerprint()?,
    );
    ensure!(
        there == here,
        "the leader holds\n{there}\nand the replica\n{here}"
    );
    Ok(())
}
