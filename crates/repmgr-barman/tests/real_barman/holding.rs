//! Holding a backup against Barman.

use std::fs;
use std::time::{Duration, Instant};

use repmgr_barman::{Backup, Hold, HoldError};
use repmgr_lab::run;

use crate::bench::{Bench, Edited, text};

const LIMIT: Duration = Duration::from_secs(60);

fn hold(bench: &Bench, backup: &Backup) -> Result<Hold, HoldError> {
    Hold::take(&bench.host(), &bench.address(), backup)
}

/// Whether Barman deletes the backup.
fn deletes(bench: &Bench, backup: &Backup) -> bool {
    let mut delete = bench.lab.barman().command();
    let said = run(
        delete.args(["delete", bench.lab.server(), backup.id.as_str()]),
        LIMIT,
    )
    .unwrap();
    let gone = !fs::exists(&backup.directory).unwrap();
    assert_eq!(said.status.success(), gone, "{said:?}");
    if !gone {
        assert!(said.stderr.contains("Another "), "{said:?}");
    }
    gone
}

pub(crate) fn barman_does_not_delete_what_is_held(bench: &Bench) {
    let id = bench.lab.barman().backup(bench.lab.server()).unwrap();
    let mut barman = bench.barman();
    let backup = barman.find_backup(&id).unwrap();
    let mut first = hold(bench, &backup).unwrap();
    let mut second = hold(bench, &backup).unwrap();
    assert!(
        first.file().ends_with(&format!("/.main-{id}.lock")),
        "{}",
        first.file()
    );
    barman.recheck(&backup).unwrap();
    assert!(!deletes(bench, &backup));
    // Longer than the limits for silence that commands have by default would allow in a test.
    std::thread::sleep(Duration::from_secs(2));
    first.check().unwrap();
    first.release().unwrap();
    second.check().unwrap();
    assert!(!deletes(bench, &backup));
    drop(second);
    assert!(deletes_soon(bench, &backup));
    let gone = barman.recheck(&backup);
    assert!(
        matches!(gone, Err(repmgr_barman::BarmanError::Changed { .. })),
        "{gone:?}"
    );
}

/// A dropped connection lets go when the far side notices.
fn deletes_soon(bench: &Bench, backup: &Backup) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if deletes(bench, backup) {
            return true;
        }
    }
    false
}

pub(crate) fn a_lock_that_barman_holds_is_waited_for_and_then_an_error(bench: &Bench) {
    let backup = bench.first();
    let held = hold(bench, &backup).unwrap();
    let file = held.file().to_owned();
    held.release().unwrap();
    let mut exclusive = bench.lab.scratch().command("flock");
    let mut exclusive = exclusive.args(["-x", &file, "sleep", "100"]).spawn().unwrap();
    let until = Instant::now() + LIMIT;
    let error = loop {
        // It may not have the lock at once.
        match hold(bench, &backup) {
            Err(e) => break e,
            Ok(_) => assert!(Instant::now() < until),
        }
    };
    assert!(
        matches!(&error, HoldError::Busy { file: f, .. } if *f == file),
        "{error:?}"
    );
    assert!(!error.is_unsupported());
    let child = exclusive.id();
    run(
        std::process::Command::new("pkill").args(["-P", &child.to_string()]),
        LIMIT,
    )
    .unwrap();
    exclusive.wait().unwrap();
    hold(bench, &backup).unwrap().release().unwrap();
}

pub(crate) fn locks_elsewhere_are_found_and_missing_ones_are_an_error_of_their_own(bench: &Bench) {
    let backup = bench.first();
    let config = bench.lab.barman().config_file();
    let elsewhere = bench.lab.scratch().dir("lock files").unwrap();
    {
        let line = format!("[barman]\nbarman_lock_directory = {}", elsewhere.display());
        let _edited = Edited::replace(&config, "[barman]", &line);
        bench.lab.barman().run(&["archive-wal", "main"]).unwrap();
        let held = hold(bench, &backup).unwrap();
        assert!(held.file().starts_with(&text(&elsewhere)), "{}", held.file());
        assert!(!deletes(bench, &backup));
        held.release().unwrap();
    }
    // Barman's cron sweeps lock files that nobody uses.
    for entry in fs::read_dir(bench.lab.barman().server_dir("main").parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "lock") {
            fs::remove_file(path).unwrap();
        }
    }
    let held = hold(bench, &backup).unwrap();
    assert!(!deletes(bench, &backup));
    held.release().unwrap();
    let mut moved = backup.clone();
    moved.directory = format!("/nowhere/main/base/{}", backup.id);
    let mut address = bench.address();
    address.config = Some("/nowhere/barman.conf".into());
    let error = Hold::take(&bench.host(), &address, &moved).unwrap_err();
    assert!(
        matches!(error, HoldError::NotFound { .. }) && error.is_unsupported(),
        "{error:?}"
    );
    assert!(error.hint().is_some());
}

pub(crate) fn a_killed_sshd_ends_the_hold_on_both_sides(bench: &Bench) {
    let backup = bench.first();
    let mut held = hold(bench, &backup).unwrap();
    let file = held.file().to_owned();
    held.check().unwrap();
    bench.lab.sshd().kill().unwrap();
    let until = Instant::now() + LIMIT;
    let error = loop {
        match held.check() {
            Err(e) => break e,
            Ok(()) => assert!(Instant::now() < until, "the loss is not noticed"),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(
        matches!(error, HoldError::Remote(_)) && error.is_transient(),
        "{error:?}"
    );
    assert!(matches!(held.release(), Err(HoldError::Gone { .. })));
    let error = hold(bench, &backup).unwrap_err();
    assert!(matches!(error, HoldError::Connect(_)), "{error:?}");
    let mut free = bench.lab.scratch().command("flock");
    let free = run(free.args(["-x", "-w", "20", &file, "true"]), LIMIT).unwrap();
    assert!(free.status.success(), "{free:?}");
    bench.lab.sshd().restart().unwrap();
    hold(bench, &backup).unwrap().release().unwrap();
}
