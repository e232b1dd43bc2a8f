//! Broken networks, full disks, and ends in the middle.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use repmgr_lab::{BarmanVersion, check, run};

use crate::bench::{Bench, LIMIT, SERVER, eventually, shared};

#[test]
fn killed_at_any_moment_it_leaves_nothing_or_the_whole_file() {
    let bench = shared();
    let node = bench.node("interrupted");
    let name = &bench.segments[0];
    let mut whole = 0;
    for round in 0..25 {
        let _ = fs::remove_file(node.destination());
        let mut command = bench.command(&node, &["--no-prefetch"]);
        command.args(["barmansrv", SERVER, name, "pg_wal/RECOVERYXLOG"]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut call = command.spawn().unwrap();
        sleep(Duration::from_millis(round * 15));
        call.kill().unwrap();
        call.wait().unwrap();
        if node.destination().exists() {
            whole += 1;
            bench.assert_delivered(&node, name);
        }
    }
    // The next call sweeps up after them.
    bench.delivers(&node, &["--no-prefetch"], name);
    assert!(whole < 25);
}

#[test]
fn a_disk_that_takes_no_more_is_exit_code_3_and_leaves_nothing() {
    let bench = shared();
    let node = bench.node("no_more");
    // A limit for files of this process, of half a segment; without the signal it is an error of write.
    let call = bench.command(&node, &["--no-prefetch", "barmansrv", SERVER, &bench.segments[0]]);
    let mut limited = bench.lab.scratch().command("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 16384; exec \"$@\"", "sh"])
        .arg(call.get_program());
    limited
        .args(call.get_args())
        .arg("pg_wal/RECOVERYXLOG")
        .current_dir(&node.dir);
    let finished = run(&mut limited, LIMIT).unwrap();
    let left = fs::read_dir(node.dir.join("pg_wal")).unwrap().count();
    assert_eq!((finished.status.code(), left), (Some(3), 0), "{finished:?}");
    assert!(finished.stderr.contains("could not write"), "{finished:?}");
}

#[test]
fn a_full_disk_is_exit_code_3_and_leaves_nothing() {
    if !rustix::process::getuid().is_root() {
        let _ = writeln!(
            std::io::stderr(),
            "not tested: only root can mount a small file system"
        );
        return;
    }
    let bench = shared();
    let node = bench.node("full");
    let wal = node.dir.join("pg_wal");
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=8m,mode=0777", "none"])
        .arg(&wal);
    assert!(mount.status().unwrap().success());
    let finished = bench.call(&node, &["--no-prefetch"], &bench.segments[0]);
    let left = fs::read_dir(&wal).unwrap().count();
    assert!(Command::new("umount").arg(&wal).status().unwrap().success());
    assert_eq!((finished.status.code(), left), (Some(3), 0), "{finished:?}");
    assert!(finished.stderr.contains("No space left"), "{finished:?}");
}

#[test]
fn a_host_that_goes_away_is_not_the_end_of_the_archive() {
    let bench = Bench::new(BarmanVersion::V3_4, 3);
    let node = bench.node("host_gone");
    bench.delivers(&node, &[], &bench.segments[0]);
    eventually("ahead", || node.ready().contains(bench.segments.last().unwrap()));
    bench.lab.sshd().kill().unwrap();
    // What lies ready is delivered, and what does not is unknown.
    for name in &bench.segments[1..] {
        bench.delivers(&node, &[], name);
    }
    for name in ["0000000100000000000000F0", "00000002.history"] {
        let finished = bench.call(&node, &[], name);
        assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    }
    bench.lab.sshd().restart().unwrap();
    let finished = bench.call(&node, &[], "0000000100000000000000F0");
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
}

#[test]
fn a_host_that_gives_no_answer_is_waited_for_once() {
    let bench = shared();
    let node = bench.node("silent");
    // Connections come through, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let ssh = format!("-o HostName=127.0.0.1 -o Port={port} -o ConnectTimeout=3");
    for options in [
        &["--ssh-options", &ssh][..],
        &["--no-prefetch", "--ssh-options", &ssh],
    ] {
        let _ = fs::remove_dir_all(node.dir.join("pg_wal/repmgr_spool"));
        let timed = |name: &str| {
            let started = Instant::now();
            let finished = bench.call(&node, options, name);
            assert_eq!(finished.status.code(), Some(2), "{finished:?}");
            (started.elapsed(), finished.stderr)
        };
        let (waited, _) = timed(&bench.segments[0]);
        assert!(waited > Duration::from_secs(2), "{waited:?}");
        // What a promotion asks for.
        for name in ["00000002.history", "00000003.history", &bench.segments[0]] {
            let (waited, said) = timed(name);
            assert!(waited < Duration::from_secs(2), "{name}: {waited:?}");
            assert!(said.contains("the archive is not asked"), "{said}");
        }
    }
    // Another way to the archive is none of its business.
    bench.delivers(&node, &["--no-prefetch"], &bench.segments[0]);
}

#[test]
fn where_failing_would_end_the_recovery_it_waits() {
    let bench = Bench::new(BarmanVersion::V3_19, 1);
    let node = bench.node("waits");
    fs::write(node.dir.join("recovery.signal"), "").unwrap();
    bench.lab.sshd().stop().unwrap();
    let waited = thread::scope(|scope| {
        let call = scope.spawn(|| {
            let started = Instant::now();
            bench.delivers(&node, &["--no-prefetch"], &bench.segments[0]);
            started.elapsed()
        });
        sleep(Duration::from_secs(2));
        bench.lab.sshd().restart().unwrap();
        call.join().unwrap()
    });
    assert!(waited > Duration::from_secs(2), "{waited:?}");
    // But the end of the archive is told, or the recovery would never end.
    let finished = bench.call(&node, &["--no-prefetch"], "0000000100000000000000F0");
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    // And a standby is never kept waiting.
    fs::rename(node.dir.join("recovery.signal"), node.dir.join("standby.signal")).unwrap();
    bench.lab.sshd().stop().unwrap();
    let finished = bench.call(&node, &["--no-prefetch"], &bench.segments[0]);
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
}

#[test]
fn damage_in_the_archive_is_exit_code_4() {
    let bench = Bench::new(BarmanVersion::V3_4, 3);
    let node = bench.node("damage");
    let name = bench.segments[0].clone();
    let stored = bench.stored(SERVER, &name);
    let good = fs::read(&stored).unwrap();
    let mut cut = good.clone();
    cut.truncate(good.len() - 1);
    let other = fs::read(bench.stored(SERVER, &bench.segments[1])).unwrap();
    for (what, bytes) in [
        ("cut", cut),
        ("another segment", other),
        ("zeros", vec![0; good.len()]),
    ] {
        fs::write(&stored, bytes).unwrap();
        let finished = bench.call(&node, &[], &name);
        assert_eq!(finished.status.code(), Some(4), "{what}: {finished:?}");
        assert!(finished.stderr.contains("is refused"), "{what}: {finished:?}");
    }
    fs::write(&stored, good).unwrap();
    bench.delivers(&node, &[], &name);
}

#[test]
fn a_segment_still_being_copied_is_refused_and_later_delivered() {
    let bench = Bench::new(BarmanVersion::V3_19, 2);
    let node = bench.node("copied");
    let name = bench.segments[1].clone();
    let stored = bench.stored(SERVER, &name);
    let incoming = bench.lab.barman().server_dir(SERVER).join("incoming").join(&name);
    let good = fs::read(&stored).unwrap();
    fs::remove_file(&stored).unwrap();
    fs::write(&incoming, &good[..good.len() / 3]).unwrap();
    check(Command::new("chmod").arg("644").arg(&incoming), LIMIT).unwrap();
    let finished = bench.call(&node, &["--no-prefetch"], &name);
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    fs::write(&incoming, &good).unwrap();
    let finished = bench.call(&node, &["--no-prefetch"], &name);
    assert!(finished.status.success(), "{finished:?}");
    assert!(fs::read(node.destination()).unwrap() == good);
}

#[test]
fn a_sleep_after_failure_is_slept() {
    let bench = shared();
    let node = bench.node("sleep");
    let started = Instant::now();
    let mut command = bench.command(
        &node,
        &["-s", "1", "--no-prefetch", "barmansrv", SERVER, "x", "pg_wal/y"],
    );
    assert_eq!(run(&mut command, LIMIT).unwrap().status.code(), Some(3));
    assert!(started.elapsed() >= Duration::from_secs(1));
}
