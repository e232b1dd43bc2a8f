//! The guard process: nothing of a lab survives the process that made it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use repmgr_lab::Scratch;

fn starts_sleeping(scratch: &Scratch) -> Child {
    scratch.command("sleep").arg("1000").spawn().unwrap()
}

/// One that nobody has waited for yet has no command line.
fn runs(command_line: &str) -> bool {
    std::fs::read(command_line).is_ok_and(|line| !line.is_empty())
}

fn comes_true(mut met: impl FnMut() -> bool) -> bool {
    (0..200).any(|_| {
        sleep(Duration::from_millis(50));
        met()
    })
}

#[test]
fn dropping_stops_processes_and_removes_files() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.path().to_owned();
    let mut child = starts_sleeping(&scratch);
    assert!(path.join("bin").is_dir());
    drop(scratch);
    assert!(!child.wait().unwrap().success());
    assert!(!path.exists());
}

#[test]
fn a_detached_one_lives_until_it_is_adopted() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.path().to_owned();
    let mut child = starts_sleeping(&scratch);
    scratch.detach().unwrap();
    drop(scratch);
    assert!(path.exists() && child.try_wait().unwrap().is_none());
    drop(Scratch::adopt(&path).unwrap());
    child.wait().unwrap();
    assert!(!path.exists());
}

/// Not a test of its own: [`sigkill_leaves_nothing`] runs it in a process that it kills.
#[test]
#[ignore = "run by sigkill_leaves_nothing"]
fn holds_a_scratch_directory_for_ever() {
    let scratch = Scratch::new().unwrap();
    let script = "echo HELD $$ $1; exec sleep 1000";
    scratch
        .command("sh")
        .args(["-c", script, "sh"])
        .arg(scratch.path())
        .status()
        .unwrap();
}

#[test]
fn sigkill_leaves_nothing() {
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "holds_a_scratch_directory_for_ever",
            "--ignored",
            "--nocapture",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let held = lines.find(|line| line.contains("HELD ")).unwrap();
    let words: Vec<&str> = held
        .split(' ')
        .skip_while(|word| !word.ends_with("HELD"))
        .collect();
    let (process, path) = (format!("/proc/{}/cmdline", words[1]), PathBuf::from(words[2]));
    // While the shell becomes `sleep`, it has no command line for a moment.
    assert!(path.exists() && comes_true(|| runs(&process)));
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(comes_true(|| !path.exists()), "{} is still there", path.display());
    assert!(comes_true(|| !runs(&process)), "process {} still runs", words[1]);
}
