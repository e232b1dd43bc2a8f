//! The process that runs ahead.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use repmgr_lab::check;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{Bench, LIMIT, Node, SERVER, eventually, shared};

fn kill(pid: i32) {
    // It may have ended by itself meanwhile.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// Calls once and waits until something lies ready.
fn started(bench: &Bench, name: &str) -> (Node, i32) {
    let node = bench.node(name);
    bench.delivers(&node, &[], &bench.segments[0]);
    eventually("the next one lies ready", || {
        node.ready().contains(&bench.segments[1])
    });
    // A child it starts (`ssh -G`) looks like it for a moment.
    eventually("one serves", || node.prefetchers().len() == 1);
    let pid = node.prefetchers()[0];
    (node, pid)
}

#[test]
fn all_archived_segments_come_one_after_another() {
    let bench = shared();
    let node = bench.node("sequence");
    for name in &bench.segments {
        bench.delivers(&node, &[], name);
    }
    let finished = bench.call(&node, &[], "0000000100000000000000F0");
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    eventually("one serves", || node.prefetchers().len() == 1);
}

#[test]
fn it_is_a_process_of_its_own() {
    let bench = shared();
    let (node, pid) = started(bench, "own_session");
    let proc = |what: &str| format!("/proc/{pid}/{what}");
    let stat = fs::read_to_string(proc("stat")).unwrap();
    // After the name in parentheses: state, parent, group, session.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(
        (fields[2], fields[3]),
        (pid.to_string().as_str(), pid.to_string().as_str())
    );
    for fd in 0..3 {
        assert_eq!(
            fs::read_link(proc(&format!("fd/{fd}"))).unwrap().to_str(),
            Some("/dev/null")
        );
    }
    assert_eq!(fs::read_link(proc("cwd")).unwrap(), node.dir);
}

#[test]
fn killed_it_is_replaced_and_nothing_wrong_is_delivered() {
    let bench = shared();
    let (node, pid) = started(bench, "killed");
    kill(pid);
    eventually("it is gone", || node.prefetchers().is_empty());
    // A half-written file as a killed writer leaves it, and a damaged one.
    let spool = fs::read_dir(node.dir.join("pg_wal/repmgr_spool"))
        .unwrap()
        .flatten()
        .next()
        .unwrap()
        .path();
    for name in &bench.segments[2..4] {
        fs::write(spool.join(name), vec![0; 16 << 20]).unwrap();
    }
    for name in &bench.segments[1..] {
        bench.delivers(&node, &[], name);
    }
    // One that came too late may just be leaving.
    eventually("one serves", || node.prefetchers().len() == 1);
}

#[test]
fn killed_again_and_again_it_never_delivers_anything_wrong() {
    let bench = shared();
    let node = bench.node("killed_often");
    for round in 0..4_u64 {
        for name in &bench.segments {
            bench.delivers(&node, &[], name);
            sleep(Duration::from_millis(round * 13));
            node.prefetchers().into_iter().for_each(kill);
        }
    }
}

#[test]
fn calls_at_the_same_time_start_one_that_stays() {
    let bench = shared();
    let node = bench.node("crowd");
    let mut calls = Vec::new();
    for _ in 0..6 {
        let mut command = bench.command(&node, &["barmansrv", SERVER]);
        command.args([bench.segments[0].as_str(), "pg_wal/RECOVERYXLOG"]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        calls.push(command.spawn().unwrap());
    }
    for mut call in calls {
        assert!(call.wait().unwrap().success());
    }
    eventually("one is left", || node.prefetchers().len() == 1);
    eventually("it works", || node.ready().contains(&bench.segments[5]));
    eventually("one is left", || node.prefetchers().len() == 1);
}

#[test]
fn it_goes_with_the_data_directory_and_with_the_server() {
    let bench = shared();
    let (node, _) = started(bench, "deserted");
    // It may put a segment there at that moment.
    eventually("the directory goes", || fs::remove_dir_all(&node.dir).is_ok());
    eventually("it ends without the directory", || node.prefetchers().is_empty());

    let node = bench.node("stopped");
    let mut server = bench.lab.scratch().command("sleep");
    let mut server = server.arg("600").spawn().unwrap();
    fs::write(node.dir.join("postmaster.pid"), format!("{}\n", server.id())).unwrap();
    bench.delivers(&node, &[], &bench.segments[0]);
    eventually("it runs", || node.prefetchers().len() == 1);
    sleep(Duration::from_millis(700));
    assert!(!node.prefetchers().is_empty());
    server.kill().unwrap();
    server.wait().unwrap();
    eventually("it ends without the server", || node.prefetchers().is_empty());
}

#[test]
fn it_survives_the_end_of_its_caller() {
    let bench = shared();
    let (node, pid) = started(bench, "caller");
    // The whole group of the caller gets what a stopped server sends.
    let mut command = bench.command(
        &node,
        &["barmansrv", SERVER, &bench.segments[1], "pg_wal/RECOVERYXLOG"],
    );
    let mut call = command.process_group(0).spawn().unwrap();
    kill(i32::try_from(call.id()).unwrap());
    call.wait().unwrap();
    bench.delivers(&node, &[], &bench.segments[2]);
    assert!(node.prefetchers().contains(&pid));
}

#[test]
fn a_spool_elsewhere_is_copied_from() {
    let bench = shared();
    let node = bench.node("elsewhere");
    // Another file system, where there is one.
    let spool = tempfile::Builder::new()
        .prefix("repmgr-spool-")
        .tempdir_in("/dev/shm")
        .unwrap();
    check(
        std::process::Command::new("chmod").arg("777").arg(spool.path()),
        LIMIT,
    )
    .unwrap();
    let dir = spool.path().to_str().unwrap();
    for name in &bench.segments {
        bench.delivers(&node, &["--spool-dir", dir], name);
        sleep(Duration::from_millis(100));
    }
    assert!(!node.dir.join("pg_wal/repmgr_spool").exists());
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 1);
    node.prefetchers().into_iter().for_each(kill);
}

#[test]
fn without_room_on_the_disk_it_does_not_run_ahead() {
    let bench = shared();
    let node = bench.node("no_room");
    if !rustix::process::getuid().is_root() {
        let _ = writeln!(
            std::io::stderr(),
            "not tested: only root can mount a small file system"
        );
        return;
    }
    let wal = node.dir.join("pg_wal");
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=40m,mode=0777", "none"])
        .arg(&wal)
        .status()
        .unwrap();
    assert!(mount.success());
    for name in &bench.segments[..3] {
        // Room for this one and one ahead, less a tenth.
        bench.delivers(&node, &[], name);
        sleep(Duration::from_millis(300));
        assert!(node.ready().len() <= 1, "{:?}", node.ready());
    }
    node.prefetchers().into_iter().for_each(kill);
    eventually("it is gone", || node.prefetchers().is_empty());
    assert!(
        std::process::Command::new("umount")
            .arg(&wal)
            .status()
            .unwrap()
            .success()
    );
}
