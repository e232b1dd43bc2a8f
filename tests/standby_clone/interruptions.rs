//! A clone that is cut off: an error, a directory nobody can start, and the same command again completes.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{Lab, PrimaryOptions, StopMode, Target};
use repmgr_tests::{Relay, Running, assert_cannot_start, assert_standby, clone, node, output};

/// A lab with more data, whose sshd a test may kill; the next test finds it running.
struct Bench {
    lab: Lab,
    relay: Relay,
}

const BYTES_A_SECOND: u64 = 2_000_000;

fn bench() -> MutexGuard<'static, Bench> {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    let bench = BENCH.get_or_init(|| {
        let options = PrimaryOptions {
            rows: 60_000,
            ..PrimaryOptions::default()
        };
        let lab = Lab::builder().primary(options).build().unwrap();
        let relay = Relay::start(lab.sshd(), "slow", BYTES_A_SECOND).unwrap();
        Mutex::new(Bench { lab, relay })
    });
    let bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
    bench.lab.sshd().restart().unwrap();
    bench
}

impl Bench {
    /// A node that reaches Barman over the slow line.
    fn slow_node(&self) -> Target {
        node(&self.lab, &[("barman_host", "slow")])
    }

    /// A clone with a good part of the files here, and more to come.
    fn midway(&self, target: &Target) -> Running {
        let mut running = Running::clone(&self.lab, target, &["--retries", "0"]).unwrap();
        running.wait_for_files(&target.data_dir, 3_000_000).unwrap();
        running
    }

    fn delete(&self, id: &str) -> anyhow::Result<String> {
        self.lab.barman().run(&["delete", self.lab.server(), id])
    }

    /// What every interruption must leave.
    fn assert_unfinished_then_completes(&self, target: &Target, running: &Running) {
        let said = running.said().unwrap();
        assert!(!said.contains("complete"), "{said}");
        assert_cannot_start(&self.lab, target);
        let again = clone(&self.lab, target, &[]).success();
        assert!(output(&again).contains("continuing"), "{}", output(&again));
        drop(assert_standby(&self.lab, target));
    }
}

/// (Defects 2, 17 and 21) To the original, a transfer that broke off is a complete standby.
#[test]
fn a_killed_sshd_is_an_error_and_the_same_command_completes() {
    let bench = bench();
    let target = bench.slow_node();
    let mut running = bench.midway(&target);
    bench.lab.sshd().kill().unwrap();
    let status = running.wait().unwrap();
    let said = running.said().unwrap();
    assert_eq!(status.code(), Some(19), "{said}");
    assert!(said.contains("ERROR: ") && said.contains("HINT: "), "{said}");
    bench.lab.sshd().restart().unwrap();
    bench.assert_unfinished_then_completes(&target, &running);
}

#[test]
fn a_line_that_is_cut_now_and_then_is_taken_up_again() {
    let bench = bench();
    let target = bench.slow_node();
    let before = bench.relay.cuts();
    let mut running = Running::clone(&bench.lab, &target, &["--retries", "5"]).unwrap();
    running.wait_for_files(&target.data_dir, 2_000_000).unwrap();
    bench.relay.cut_after(100_000);
    assert!(running.wait().unwrap().success(), "{}", running.said().unwrap());
    assert_eq!(bench.relay.cuts(), before + 1);
    drop(assert_standby(&bench.lab, &target));
}

#[test]
fn an_interrupted_clone_continues_after_every_signal() {
    let bench = bench();
    for (name, code) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let target = bench.slow_node();
        let mut running = bench.midway(&target);
        running.signal(name).unwrap();
        let status = running.wait().unwrap();
        assert_eq!(status.code(), code, "{name}: {}", running.said().unwrap());
        bench.assert_unfinished_then_completes(&target, &running);
    }
}

/// While files are copied nobody asks Barman anything; sshd may take that for a client that is gone.
#[test]
fn a_session_that_sshd_gave_up_meanwhile_is_opened_anew() {
    let lab = Lab::builder()
        .primary(PrimaryOptions {
            rows: 60_000,
            ..PrimaryOptions::default()
        })
        .build()
        .unwrap();
    let config = std::fs::read_to_string(lab.sshd().server_config()).unwrap();
    let hasty = format!("ClientAliveInterval 1\nClientAliveCountMax 1\n{config}");
    std::fs::write(lab.sshd().server_config(), hasty).unwrap();
    lab.sshd().restart().unwrap();
    Relay::start(lab.sshd(), "slower", BYTES_A_SECOND / 3).unwrap();
    let target = node(&lab, &[("barman_host", "slower")]);
    clone(&lab, &target, &["-L", "DEBUG"])
        .success()
        .stderr(contains("connecting anew").and(contains("no longer held").not()));
    drop(assert_standby(&lab, &target));
}

/// A slot without its standby keeps WAL on the primary for ever.
#[test]
fn a_slot_that_a_killed_clone_left_is_dropped_by_the_next_that_ends_without_a_standby() {
    let bench = bench();
    let target = node(
        &bench.lab,
        &[("barman_host", "slow"), ("use_replication_slots", "true")],
    );
    let slots = || {
        let names = format!(
            "select count(*) from pg_replication_slots where slot_name = 'repmgr_slot_{}'",
            target.node_id
        );
        bench.lab.primary().sql(&names).unwrap()
    };
    let cut = |signal: &str| {
        let mut running = bench.midway(&target);
        let begun = Instant::now();
        while !running.said().unwrap().contains("retrieving backup") {
            assert!(begun.elapsed() < repmgr_tests::LIMIT);
            sleep(Duration::from_millis(20));
        }
        running.signal(signal).unwrap();
        running.wait().unwrap();
        running.said().unwrap()
    };
    cut("KILL");
    assert_eq!(slots(), "1");
    let said = cut("TERM");
    assert_eq!(slots(), "0", "{said}");
    cut("KILL");
    assert_eq!(slots(), "1");
    // One that cannot even begin says that it is there.
    clone(&bench.lab, &target, &["--backup-id", "20200101T000000"])
        .failure()
        .stderr(
            contains("which an earlier run made").and(contains(format!("repmgr_slot_{}", target.node_id))),
        );
    // The same clone, but nothing is to be streamed through a slot any more.
    let conf = std::fs::read_to_string(&target.conf).unwrap();
    let others = conf
        .lines()
        .filter(|line| !line.starts_with("use_replication_slots"));
    std::fs::write(&target.conf, others.collect::<Vec<_>>().join("\n")).unwrap();
    clone(&bench.lab, &target, &[]).success();
    assert_eq!(slots(), "0");
}

/// Two clones into one directory would mix their files.
#[test]
fn a_directory_another_clone_works_on_is_left_alone() {
    let bench = bench();
    let target = bench.slow_node();
    let mut running = bench.midway(&target);
    for more in [&[][..], &["-F"]] {
        clone(&bench.lab, &target, more)
            .code(1)
            .stderr(contains(running.pid().to_string()).or(contains("another")));
    }
    assert!(running.wait().unwrap().success(), "{}", running.said().unwrap());
    drop(assert_standby(&bench.lab, &target));
}

/// Barman deletes what retention makes obsolete, also while it is copied; the original's copy is torn then.
#[test]
fn barman_cannot_delete_the_backup_while_it_is_copied() {
    let bench = bench();
    let id = bench.lab.barman().backup(bench.lab.server()).unwrap();
    let target = bench.slow_node();
    let mut running = bench.midway(&target);
    let refused = bench.delete(&id).unwrap_err();
    assert!(
        format!("{refused:#}").contains("Another process is holding the lock"),
        "{refused:#}"
    );
    assert!(running.wait().unwrap().success(), "{}", running.said().unwrap());
    bench.delete(&id).unwrap();
    drop(assert_standby(&bench.lab, &target));
}

#[test]
fn a_newer_backup_does_not_hide_that_the_older_can_be_continued() {
    let bench = bench();
    let target = bench.slow_node();
    let running = bench.midway(&target);
    running.signal("KILL").unwrap();
    drop(running);
    let begun = bench.lab.backup_id().unwrap();
    let id = bench.lab.barman().backup(bench.lab.server()).unwrap();
    clone(&bench.lab, &target, &["--dry-run"])
        .success()
        .stderr(contains("which will be continued").and(contains(format!("backup {begun} of server"))));
    clone(&bench.lab, &target, &["--backup-id=latest", "--dry-run"])
        .success()
        .stderr(contains("holds another interrupted clone").and(contains(format!("backup {id} of server"))));
    clone(&bench.lab, &target, &[])
        .success()
        .stderr(contains("continuing"));
    bench.delete(&id).unwrap();
    drop(assert_standby(&bench.lab, &target));
}

/// Whatever the moment: what is left is no cluster, and the same command makes one of it.
#[test]
fn killed_at_many_moments_a_clone_still_completes() {
    let bench = bench();
    let target = node(&bench.lab, &[]);
    for milliseconds in [30, 150, 250, 350, 450, 550, 700, 900] {
        let mut running = Running::clone(&bench.lab, &target, &[]).unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        // It may have been faster.
        if running.signal("KILL").is_ok() && !running.wait().unwrap().success() {
            assert_cannot_start(&bench.lab, &target);
        } else {
            break;
        }
    }
    if !target.data_dir.join("global/pg_control").exists() {
        clone(&bench.lab, &target, &[]).success();
    }
    drop(assert_standby(&bench.lab, &target));
}

/// A file that is brought up to date in its place is neither the old nor the new one meanwhile.
#[test]
fn killed_at_many_moments_a_rebuilding_still_completes() {
    let bench = bench();
    let target = bench.slow_node();
    clone(&bench.lab, &target, &[]).success();
    let standby = assert_standby(&bench.lab, &target);
    let relation = standby.sql("select pg_relation_filepath('lab_rows')").unwrap();
    standby.stop(StopMode::Fast).unwrap();
    let path = target.data_dir.join(relation);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    std::fs::write(&path, bytes).unwrap();
    let command = ["-F", "--delta"];
    // From the moment on at which the first of it is done to the directory.
    for milliseconds in [0, 30, 100, 250, 500, 900] {
        let mut running = Running::clone(&bench.lab, &target, &command).unwrap();
        running.wait_for_words("retrieving backup").unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        // It may have been faster, but not the first time.
        if (running.signal("KILL").is_err() || running.wait().unwrap().success()) && milliseconds > 0 {
            break;
        }
        assert_cannot_start(&bench.lab, &target);
    }
    if !target.data_dir.join("global/pg_control").exists() {
        clone(&bench.lab, &target, &command).success();
    }
    drop(assert_standby(&bench.lab, &target));
}
