//! Real standbys that have lost their upstream.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use repmgr_lab::{BackupMethod, BarmanVersion, Instance, Lab, StopMode};

use crate::bench::{Bench, SERVER};

const LONG: Duration = Duration::from_secs(180);

fn bench(version: BarmanVersion) -> Bench {
    let lab = Lab::builder()
        .barman(version)
        .method(BackupMethod::Postgres)
        .without_backup()
        .build()
        .unwrap();
    Bench::of(lab, 0)
}

fn conninfo(port: u16) -> String {
    format!("host=127.0.0.1 port={port} user=postgres connect_timeout=2")
}

fn restore_command(bench: &Bench) -> String {
    let lab = &bench.lab;
    format!(
        "restore_command = '{} --barman-command {} -c {} barmansrv {SERVER} %f %p'",
        lab.scratch().join("bin/repmgr-wal-restore").display(),
        lab.barman().command_name().display(),
        lab.barman().config_file().display(),
    )
}

/// A standby of the primary that restores through our program; started.
fn standby(bench: &Bench, node_id: u32) -> Instance {
    let lab = &bench.lab;
    let target = lab.target(node_id, &[]).unwrap();
    lab.primary()
        .base_backup(&target.data_dir, &["-X", "none"])
        .unwrap();
    lab.barman().switch_wal(SERVER).unwrap();
    lab.scratch()
        .write(target.data_dir.join("standby.signal"), "", 0o600)
        .unwrap();
    let node = lab.instance(&target);
    node.write_conf(&format!(
        "{}\nwal_retrieve_retry_interval = 500ms\nprimary_conninfo = '{}'\n",
        restore_command(bench),
        conninfo(lab.primary().port())
    ))
    .unwrap();
    node.start().unwrap();
    node.wait_for_streaming(LONG).unwrap();
    node
}

fn follow(node: &Instance, port: u16) {
    node.write_conf(&format!("primary_conninfo = '{}'", conninfo(port)))
        .unwrap();
    node.sql("select pg_reload_conf()").unwrap();
}

/// Writes about so many megabytes of WAL and has all of it archived; the position archived up to.
fn write_and_archive(bench: &Bench, on: &Instance, megabytes: u32) -> String {
    on.sql(&format!(
        "insert into lab_rows (note) select md5(g::text) from generate_series(1, {}) g",
        megabytes * 3500
    ))
    .unwrap();
    let end = on.sql("select pg_current_wal_insert_lsn()").unwrap();
    on.sql("select pg_switch_wal()").unwrap();
    on.wait_for(
        &format!("select last_archived_wal >= pg_walfile_name('{end}') from pg_stat_archiver"),
        "t",
        LONG,
    )
    .unwrap();
    bench.lab.barman().run(&["archive-wal", SERVER]).unwrap();
    end
}

fn replays(node: &Instance, position: &str) {
    node.wait_for(
        &format!("select pg_last_wal_replay_lsn() >= '{position}'"),
        "t",
        LONG,
    )
    .unwrap();
}

fn catches_up_and_streams_again(version: BarmanVersion) {
    let bench = bench(version);
    let primary = bench.lab.primary();
    let node = standby(&bench, 2);
    follow(&node, 1);
    node.wait_for("select count(*) from pg_stat_wal_receiver", "0", LONG)
        .unwrap();
    let end = write_and_archive(&bench, primary, 300);
    replays(&node, &end);
    node.wait_for("select count(*) from pg_stat_wal_receiver", "0", LONG)
        .unwrap();
    follow(&node, primary.port());
    node.wait_for_streaming(LONG).unwrap();
    primary
        .sql("insert into lab_rows (note) values ('after')")
        .unwrap();
    node.wait_for_replay(primary, LONG).unwrap();
    assert_eq!(node.fingerprint().unwrap(), primary.fingerprint().unwrap());
}

#[test]
fn a_standby_cut_off_catches_up_from_barman_3_4_and_streams_again() {
    catches_up_and_streams_again(BarmanVersion::V3_4);
}

#[test]
fn a_standby_cut_off_catches_up_from_barman_3_19_and_streams_again() {
    catches_up_and_streams_again(BarmanVersion::V3_19);
}

#[test]
fn a_standby_follows_the_archive_over_a_promotion() {
    let bench = bench(BarmanVersion::V3_4);
    let old = bench.lab.primary();
    let (heir, node) = (standby(&bench, 2), standby(&bench, 3));
    follow(&node, 1);
    node.wait_for("select count(*) from pg_stat_wal_receiver", "0", LONG)
        .unwrap();
    write_and_archive(&bench, old, 60);
    // Something of a segment that only the heir finishes, on the next timeline.
    old.sql("insert into lab_rows (note) values ('last words')")
        .unwrap();
    heir.wait_for_replay(old, LONG).unwrap();
    old.stop(StopMode::Fast).unwrap();
    heir.promote().unwrap();
    let end = write_and_archive(&bench, &heir, 120);
    replays(&node, &end);
    follow(&node, heir.port());
    node.wait_for_streaming(LONG).unwrap();
    node.wait_for_replay(&heir, LONG).unwrap();
    assert_eq!(
        node.sql("select received_tli from pg_stat_wal_receiver").unwrap(),
        "2"
    );
    assert_eq!(node.fingerprint().unwrap(), heir.fingerprint().unwrap());
}

/// Without standby mode PostgreSQL takes any failure for the end of the archive, and becomes a primary.
#[test]
fn a_recovery_waits_for_a_lost_network_and_ends_with_the_archive() {
    let bench = bench(BarmanVersion::V3_4);
    let (lab, primary) = (&bench.lab, bench.lab.primary());
    let target = lab.target(2, &[]).unwrap();
    primary.base_backup(&target.data_dir, &["-X", "none"]).unwrap();
    write_and_archive(&bench, primary, 60);
    lab.scratch()
        .write(target.data_dir.join("recovery.signal"), "", 0o600)
        .unwrap();
    let node = lab.instance(&target);
    node.write_conf(&format!("{}\narchive_mode = off\n", restore_command(&bench)))
        .unwrap();
    lab.sshd().stop().unwrap();
    thread::scope(|scope| {
        let starting = scope.spawn(|| node.start());
        let begun = Instant::now();
        let waits = || fs::read_to_string(node.log()).is_ok_and(|log| log.contains("trying again in"));
        while !waits() {
            assert!(begun.elapsed() < LONG, "{}", node.log_tail());
            thread::sleep(Duration::from_millis(50));
        }
        lab.sshd().restart().unwrap();
        starting.join().unwrap().unwrap();
    });
    node.wait_for("select pg_is_in_recovery()", "f", LONG).unwrap();
    assert_eq!(node.fingerprint().unwrap(), primary.fingerprint().unwrap());
}
