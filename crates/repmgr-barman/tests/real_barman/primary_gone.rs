//! Clones are made because primaries die.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use repmgr_barman::{BarmanError, Hold};
use repmgr_lab::StopMode;

use crate::bench::{Bench, Edited};

/// All that a clone asks of Barman.
fn everything_works(bench: &Bench) {
    let mut barman = bench.barman();
    barman.set_call_timeout(Duration::from_secs(20));
    let backup = barman.find_backup(bench.lab.backup_id().unwrap()).unwrap();
    backup.form().unwrap();
    let hold = Hold::take(&bench.host(), barman.address(), &backup).unwrap();
    barman.recheck(&backup).unwrap();
    assert!(barman.has_wal(&backup, backup.begin_wal).unwrap());
    hold.release().unwrap();
}

pub(crate) fn a_stopped_primary_does_not_matter(bench: &Bench) {
    bench.lab.primary().stop(StopMode::Fast).unwrap();
    everything_works(bench);
}

pub(crate) fn a_primary_that_never_answers_does_not_matter(bench: &Bench) {
    bench.lab.primary().stop(StopMode::Fast).unwrap();
    let _silent = TcpListener::bind((Ipv4Addr::LOCALHOST, bench.lab.primary().port())).unwrap();
    everything_works(bench);
}

/// There Barman asks the primary in every command, and would wait for it as long as TCP does.
pub(crate) fn a_primary_that_every_call_waits_for_is_waited_for_a_few_seconds(bench: &Bench) {
    bench.lab.primary().stop(StopMode::Fast).unwrap();
    let _silent = TcpListener::bind((Ipv4Addr::LOCALHOST, bench.lab.primary().port())).unwrap();
    let section = bench.lab.scratch().join("barman/conf.d/main.conf");
    let before = std::fs::read_to_string(&section).unwrap();
    let streaming = if before.contains("streaming_conninfo") {
        String::new()
    } else {
        format!(
            "streaming_conninfo = host=127.0.0.1 port={} user=postgres\n",
            bench.lab.primary().port()
        )
    };
    // With this method Barman does not allow the option that the lab sets for rsync.
    let rsync = "method = rsync\nreuse_backup = link\n";
    let method = if before.contains(rsync) {
        rsync
    } else {
        "method = postgres\n"
    };
    let to = format!("method = postgres\nbackup_compression = gzip\n{streaming}");
    let _edited = Edited::replace(&section, method, &to);
    everything_works(bench);
    let mut barman = bench.barman();
    barman.set_call_timeout(Duration::from_secs(1));
    let began = Instant::now();
    let error = barman.find_backup("latest").unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(
        matches!(error, BarmanError::TimedOut { .. }) && error.is_transient(),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("list-files --target data main latest\""),
        "{error}"
    );
    assert!(error.hint().unwrap().to_string().contains("connect_timeout"));
}
