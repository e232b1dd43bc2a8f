use std::fs;

use repmgr_lab::{Finished, run};

use crate::bench::{LIMIT, SERVER, shared};

fn code(finished: &Finished) -> Option<i32> {
    finished.status.code()
}

#[test]
fn a_segment_is_delivered_through_an_ssh_alias() {
    let bench = shared();
    let node = bench.node("alias");
    bench.delivers(&node, &["--no-prefetch"], &bench.segments[0]);
    assert!(node.prefetchers().is_empty() && !node.dir.join("pg_wal/repmgr_spool").exists());
}

#[test]
fn the_command_line_of_barman_wal_restore_works_as_it_is() {
    let bench = shared();
    let node = bench.node("command_line");
    let user = bench.lab.scratch().account().name.clone();
    let port = bench.lab.sshd().port().to_string();
    let options = [
        "-U",
        &user,
        "--port",
        &port,
        "-s",
        "0",
        "-p",
        "0",
        "--spool-dir",
        "/nonexistent",
        "-P",
        "-z",
    ];
    bench.delivers(&node, &options, &bench.segments[1]);
    for compression in ["-j", "--keep-compression"] {
        bench.delivers(&node, &["-p", "0", compression], &bench.segments[1]);
    }
}

#[test]
fn options_for_ssh_count() {
    let bench = shared();
    let node = bench.node("ssh_options");
    let options = |text| ["--no-prefetch", "--ssh-options", text];
    bench.delivers(&node, &options("-o 'ConnectTimeout 7'"), &bench.segments[0]);
    let finished = bench.call(
        &node,
        &options("-o HostName=no-such-host.invalid"),
        &bench.segments[0],
    );
    assert_eq!(code(&finished), Some(2), "{finished:?}");
}

#[test]
fn the_users_own_ssh_delivers_and_runs_ahead() {
    let bench = shared();
    let node = bench.node("own_ssh");
    for name in &bench.segments[..4] {
        bench.delivers(&node, &["--ssh-client", "ssh"], name);
    }
    let served = || node.prefetchers().len() == 1;
    crate::bench::eventually("one serves", served);
    crate::bench::eventually("it works", || node.ready().contains(&bench.segments[4]));
    let refused = bench.call(
        &node,
        &["--no-prefetch", "--ssh-client", "ssh", "-U", "nobody"],
        &bench.segments[5],
    );
    assert_eq!(code(&refused), Some(2), "{refused:?}");
    assert!(refused.stderr.contains("Permission denied"), "{refused:?}");
}

#[test]
fn an_absolute_destination_is_delivered_from_any_directory() {
    let bench = shared();
    let node = bench.node("absolute");
    let target = node.dir.join("pg_wal").join(&bench.segments[0]);
    let mut command = bench.command(&node, &[]);
    command
        .current_dir("/")
        .args(["barmansrv", SERVER, &bench.segments[0]])
        .arg(&target);
    assert!(run(&mut command, LIMIT).unwrap().status.success());
    assert!(fs::read(&target).unwrap() == fs::read(bench.stored(SERVER, &bench.segments[0])).unwrap());
    // pg_rewind asks for single files: nobody needs what follows.
    assert!(node.prefetchers().is_empty());
}

#[test]
fn what_is_not_archived_is_exit_code_1() {
    let bench = shared();
    let node = bench.node("missing");
    for name in [
        "0000000100000000000000F0",
        "00000002.history",
        "0000000100000000000000F0.partial",
    ] {
        let finished = bench.call(&node, &["--no-prefetch"], name);
        assert_eq!(code(&finished), Some(1), "{finished:?}");
        assert!(finished.stderr.contains("is not in the archive"), "{finished:?}");
    }
}

#[test]
fn an_archive_that_cannot_be_asked_is_exit_code_2() {
    let bench = shared();
    let node = bench.node("unreachable");
    let name = &bench.segments[0];
    let closed = bench.call(&node, &["--no-prefetch", "--port", "1"], name);
    let unresolved = bench.call_of(&node, &["--no-prefetch"], "no-such-host.invalid", SERVER, name);
    let unknown = bench.call_of(&node, &["--no-prefetch"], "barmansrv", "no_such_server", name);
    let stranger = bench.call_of(
        &node,
        &["--no-prefetch", "-U", "nobody"],
        "barmansrv",
        SERVER,
        name,
    );
    for finished in [closed, unresolved, unknown, stranger] {
        assert_eq!(code(&finished), Some(2), "{finished:?}");
        assert!(
            finished.stderr.contains("ERROR: ") && finished.stderr.contains("HINT: "),
            "{finished:?}"
        );
    }
}

#[test]
fn a_failure_leaves_what_was_at_the_destination() {
    let bench = shared();
    let node = bench.node("kept");
    let target = node.dir.join("pg_wal").join(&bench.segments[0]);
    fs::write(&target, "precious").unwrap();
    let mut command = bench.command(&node, &["--port", "1", "barmansrv", SERVER, &bench.segments[0]]);
    assert_eq!(code(&run(command.arg(&target), LIMIT).unwrap()), Some(2));
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn wrong_names_and_destinations_are_exit_code_3() {
    let bench = shared();
    let node = bench.node("wrong");
    for (name, destination) in [
        ("RECOVERYXLOG", "pg_wal/RECOVERYXLOG"),
        ("../000000010000000000000001", "pg_wal/RECOVERYXLOG"),
        (bench.segments[0].as_str(), "pg_wal"),
        (&bench.segments[0], "no/such/directory"),
        (&bench.segments[0], "/proc/x/RECOVERYXLOG"),
    ] {
        let mut command = bench.command(&node, &["--no-prefetch", "barmansrv", SERVER, name, destination]);
        let finished = run(&mut command, LIMIT).unwrap();
        assert_eq!(code(&finished), Some(3), "{name} {destination}: {finished:?}");
        assert!(finished.stderr.contains("ERROR: "), "{finished:?}");
    }
}

#[test]
fn another_clusters_archive_is_exit_code_4() {
    let bench = shared();
    let node = bench.node("foreign");
    let control = node.dir.join("global/pg_control");
    let mut bytes = fs::read(&control).unwrap();
    bytes[0] ^= 1;
    fs::write(&control, bytes).unwrap();
    let finished = bench.call(&node, &["--no-prefetch"], &bench.segments[0]);
    assert_eq!(code(&finished), Some(4), "{finished:?}");
    assert!(
        finished.stderr.contains("system identifier") && finished.stderr.contains("HINT: "),
        "{finished:?}"
    );
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let bench = shared();
    let node = bench.node("usage");
    for arguments in [
        &["barmansrv"][..],
        &["-z", "-j", "a", "b", "c", "d"],
        &["--unknown"],
    ] {
        let finished = run(&mut bench.command(&node, arguments), LIMIT).unwrap();
        assert_eq!(code(&finished), Some(2), "{finished:?}");
    }
}

#[test]
fn a_test_asks_barman_and_fetches_nothing() {
    let bench = shared();
    let node = bench.node("test");
    let ready = run(&mut bench.command(&node, &["--test", "barmansrv", SERVER]), LIMIT).unwrap();
    assert_eq!(
        (code(&ready), ready.stdout.trim()),
        (Some(0), "Ready to retrieve WAL files from the server main")
    );
    let unknown = run(
        &mut bench.command(&node, &["-t", "barmansrv", "other", "a", "b"]),
        LIMIT,
    )
    .unwrap();
    assert_eq!(code(&unknown), Some(1), "{unknown:?}");
    let closed = run(
        &mut bench.command(&node, &["-t", "--port", "1", "barmansrv", SERVER]),
        LIMIT,
    )
    .unwrap();
    assert_eq!(code(&closed), Some(2), "{closed:?}");
}

#[test]
fn barman_on_this_host_needs_no_ssh() {
    let bench = shared();
    let node = bench.node("local");
    let finished = bench.call_of(&node, &["--local"], "", SERVER, &bench.segments[0]);
    assert!(finished.status.success(), "{finished:?}");
    bench.assert_delivered(&node, &bench.segments[0]);
    crate::bench::eventually("runs ahead", || node.ready().contains(&bench.segments[2]));
}
