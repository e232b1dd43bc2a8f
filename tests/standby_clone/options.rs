//! Command-line options, and settings that stand for some.

use std::fs;
use std::time::Instant;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty, is_match, starts_with};
use repmgr_lab::Lab;
use repmgr_tests::{LIMIT, Snapshot, assert_standby, clone, node, output, run, said};

use crate::delta::figure;
use crate::shared;

#[test]
fn the_version_is_printed_as_tools_parse_it() {
    let version = || shared().repmgr().unwrap();
    for option in ["--version", "-V"] {
        run(version().arg(option))
            .success()
            .stdout(is_match(r"^repmgr \d+\.\d+\.\d+\n$").unwrap())
            .stderr(is_empty());
    }
    run(version().arg("--version-number"))
        .success()
        .stdout(is_match(r"^\d+\n$").unwrap());
}

#[test]
fn help_goes_to_standard_output() {
    for arguments in [&["standby", "clone", "--help"], &["standby", "clone", "-?"]] {
        run(shared().repmgr().unwrap().args(arguments))
            .success()
            .stdout(contains("--backup-id").and(contains("standby clone")))
            .stderr(is_empty());
    }
}

#[test]
fn a_wrong_command_line_ends_with_1_and_says_how_to_get_help() {
    for arguments in [
        &[][..],
        &["standby"],
        &["standby", "clown"],
        &["standby", "clone", "a", "b"],
        &["standby", "clone", "--no-such-option"],
        &["standby", "clone", "-L", "loud"],
        &["standby", "clone", "-p", "many"],
        &["standby", "clone", "--jobs", "0"],
    ] {
        run(shared().repmgr().unwrap().args(arguments))
            .code(1)
            .stdout(is_empty())
            .stderr(contains("--help"));
    }
}

/// By pg_basebackup, from the node itself.
#[test]
fn without_barman_the_source_node_is_copied() {
    let lab = shared();
    let target = node(lab, &[]);
    let done = clone(lab, &target, &["--without-barman", "-c"]).success();
    assert!(!output(&done).contains("from Barman"), "{}", output(&done));
    drop(assert_standby(lab, &target));
}

#[test]
fn another_backup_than_the_latest_can_be_chosen() {
    let lab = Lab::builder().build().unwrap();
    let first = lab.backup_id().unwrap().to_owned();
    let second = lab.barman().backup(lab.server()).unwrap();
    for (id, more) in [
        (&first, &["--backup-id", first.as_str()][..]),
        (&first, &["--backup-id=oldest"]),
        (&second, &[]),
        (&second, &["--backup-id", "latest"]),
    ] {
        let target = node(&lab, &[]);
        clone(&lab, &target, more).success();
        let label = fs::read_to_string(target.data_dir.join("backup_label")).unwrap();
        assert!(label.contains(id.as_str()), "{label}");
    }
    let target = node(&lab, &[]);
    clone(&lab, &target, &["--backup-id", &first]).success();
    drop(assert_standby(&lab, &target));
}

/// (Defect 20) The original looks at the WAL directory after the whole copy.
#[test]
fn the_wal_directory_may_lie_elsewhere() {
    let lab = shared();
    let wal = lab.scratch().join("wal volume/node");
    // One word to pg_basebackup's options: blanks separate them.
    let taken = lab.scratch().join("wal-taken");
    lab.scratch().write(taken.join("other"), "mine", 0o600).unwrap();
    let option = format!("--waldir={}", taken.display());
    let target = node(lab, &[("pg_basebackup_options", &option)]);
    let before = Snapshot::of([&taken]);
    clone(lab, &target, &[]).code(1).stderr(contains("wal-taken"));
    before.assert_unchanged();
    assert!(!target.data_dir.exists());

    let free = lab.scratch().join("wal-free");
    for option in [
        format!("--waldir={}", free.display()),
        format!("--xlogdir {}", free.display()),
    ] {
        let target = node(lab, &[("pg_basebackup_options", &option)]);
        clone(lab, &target, &[]).success();
        assert_eq!(fs::read_link(target.data_dir.join("pg_wal")).unwrap(), free);
        let standby = assert_standby(lab, &target);
        standby.wait_for_streaming(LIMIT).unwrap();
        drop(standby);
        assert!(fs::read_dir(&free).unwrap().count() > 1);
        fs::remove_dir_all(&free).unwrap();
    }
    assert!(!wal.exists());
}

#[test]
fn quiet_says_nothing_but_errors() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &["-q", "--dry-run"])
        .success()
        .stdout(is_empty())
        .stderr(is_empty());
    clone(lab, &target, &["-q"])
        .success()
        .stdout(is_empty())
        .stderr(is_empty());
    let refused = clone(lab, &target, &["-q"]).code(1);
    assert!(said(&refused)[0].starts_with("ERROR: "), "{}", output(&refused));
}

#[test]
fn terse_leaves_out_details_and_hints() {
    let lab = shared();
    let target = node(lab, &[("no_such_parameter", "1")]);
    let long = clone(lab, &target, &["--dry-run"]).success();
    for part in ["DETAIL: ", "no_such_parameter"] {
        assert!(output(&long).contains(part), "{}", output(&long));
    }
    clone(lab, &target, &["-t", "--dry-run"]).success().stderr(
        contains("DETAIL: ")
            .or(contains("HINT: "))
            .or(contains("no_such_parameter"))
            .not(),
    );
}

#[test]
fn the_log_level_decides_what_is_said() {
    let lab = shared();
    let target = node(lab, &[("log_level", "NOTICE")]);
    let levels = |more: &[&str]| {
        let lines = said(&clone(lab, &target, more).success());
        let level = |level: &str| lines.iter().any(|line| line.starts_with(&format!("{level}: ")));
        (level("DEBUG"), level("INFO"), level("NOTICE"))
    };
    // --dry-run raises to INFO at least.
    assert_eq!(levels(&["--dry-run"]), (false, true, true));
    assert_eq!(levels(&["--dry-run", "-L", "debug"]), (true, true, true));
    assert_eq!(levels(&["-L", "WARNING"]), (false, false, false));
    fs::remove_dir_all(&target.data_dir).unwrap();
    fs::remove_dir_all(lab.scratch().join(format!("node{}/tablespaces", target.node_id))).unwrap();
    assert_eq!(levels(&[]), (false, false, true));
}

#[test]
fn verbose_says_where_the_configuration_was_looked_for() {
    let lab = shared();
    let target = node(lab, &[]);
    clone(lab, &target, &["-v", "--dry-run"])
        .success()
        .stderr(contains(target.conf.to_str().unwrap()));
}

#[test]
fn a_configuration_file_in_the_working_directory_is_found() {
    let lab = shared();
    let target = node(lab, &[]);
    let dir = lab.scratch().dir(format!("cwd{}", target.node_id)).unwrap();
    fs::copy(&target.conf, dir.join("repmgr.conf")).unwrap();
    std::os::unix::fs::chown(
        dir.join("repmgr.conf"),
        Some(lab.scratch().account().uid),
        Some(lab.scratch().account().gid),
    )
    .unwrap();
    let port = lab.primary().port().to_string();
    let mut command = lab.repmgr().unwrap();
    command
        .current_dir(&dir)
        .args(["-h", "127.0.0.1", "-p", &port, "-U", "repmgr", "-d", "repmgr"])
        .args(["standby", "clone", "--dry-run"]);
    run(&mut command)
        .success()
        .stderr(contains(dir.join("repmgr.conf").to_str().unwrap()));
}

/// Without repmgr.conf there is no Barman, and no clone from it: said before anything is done.
#[test]
fn without_a_configuration_file_and_directory_there_is_nothing_to_do() {
    let lab = shared();
    let dir = lab.scratch().dir("nothing-here").unwrap();
    let mut command = lab.repmgr().unwrap();
    command
        .current_dir(dir)
        .args(["standby", "clone", "-h", "127.0.0.1"]);
    run(&mut command)
        .code(1)
        .stderr(starts_with("ERROR: ").or(contains("\nERROR: ")));
}

#[test]
fn fewer_and_more_sessions_and_every_compression_give_a_standby() {
    let lab = shared();
    for more in [
        &["--jobs", "1", "--compress", "none"][..],
        &["--jobs", "4", "--compress", "zstd"],
        &["--compress", "lz4"],
        &["--compress", "gzip"],
    ] {
        let target = node(lab, &[]);
        clone(lab, &target, more).success();
        drop(assert_standby(lab, &target));
    }
}

/// It may be less than the network could take, never more.
#[test]
fn a_rate_is_kept() {
    let target = node(shared(), &[("max_rate", "64M")]);
    let arguments = ["--max-rate=4M", "--compress=none", "--jobs=3", "--output=json"];
    let begun = Instant::now();
    let done = clone(shared(), &target, &arguments).success();
    let (elapsed, wire) = (begun.elapsed().as_secs_f64(), figure(&done, "wire_bytes") as f64);
    assert!(
        wire > 16e6 && elapsed >= wire / (4.0 * 1024.0 * 1024.0),
        "{wire} in {elapsed} s"
    );

    let other = node(shared(), &[("max_rate", "64M")]);
    clone(shared(), &other, &["--dry-run", "--output=json"])
        .success()
        .stdout(contains("\"max_rate\":67108864"));

    clone(shared(), &target, &["--max-rate=1"])
        .failure()
        .stderr(contains(
            "\"--max-rate\": \"1\" is not a rate from 32 to 1048576 kilobytes a second",
        ));
}
