//! An undisturbed clone, looked at: the order of what it does, and that the backup is held meanwhile.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use repmgr_lab::{run, tool};

use crate::random::Random;
use crate::stage::Stage;

pub(crate) fn attempt(stage: &Stage, random: &mut Random, what: &mut String) -> Result<String> {
    let barmans = &stage.kinds[..stage.kinds.len() - 1];
    let kind = &barmans[random.below(barmans.len() as u64) as usize];
    *what = format!("order of calls, {}", kind.name);
    stage.prepare(kind)?;
    let trace = stage.lab.scratch().join("log/strace");
    let clone = stage.lab.clone_command(&kind.target)?;
    let mut traced = stage.lab.scratch().command("strace");
    traced
        .args(["-f", "-qq", "-y", "-s", "200", "--seccomp-bpf", "-o"])
        .arg(&trace)
        .args(["-e", "trace=syncfs,fsync,rename,renameat,renameat2"])
        .arg(clone.get_program())
        .args(clone.get_args())
        .args(kind.more());
    let home = stage.lab.barman().server_dir("main").with_file_name("");
    let over = AtomicBool::new(false);
    let (ended, held) = thread::scope(|scope| {
        let held = scope.spawn(|| is_held(&home, &over));
        let ended = run(&mut traced, 2 * repmgr_tests::LIMIT);
        over.store(true, Ordering::SeqCst);
        (ended, held.join().unwrap_or(false))
    });
    let ended = ended?;
    ensure!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    ensure!(held, "nobody held a lock on the backup while it was copied");
    let text = String::from_utf8_lossy(&fs::read(&trace)?).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let control = lines
        .iter()
        .rposition(|line| line.contains("rename") && line.contains("pg_control"))
        .context("pg_control was not renamed")?;
    let flushed = |line: &&str| line.contains("syncfs(") || line.contains("fsync(");
    let before = lines[..control]
        .iter()
        .rev()
        .take(40)
        .filter(|line| line.contains("syncfs("))
        .count();
    ensure!(
        before > 0,
        "no file system was flushed right before pg_control:\n{text}"
    );
    ensure!(
        lines[control..].iter().any(flushed),
        "pg_control's directory was not flushed:\n{text}"
    );
    stage.judge(kind, ended.status, &ended.stderr, true)
}

/// Whether at some moment a lock of a backup could not be had.
fn is_held(home: &Path, over: &AtomicBool) -> bool {
    while !over.load(Ordering::SeqCst) {
        for entry in fs::read_dir(home).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // `.main-20261126T004606.lock`
            let of_backup = name.ends_with(".lock") && name.contains("-20") && name.contains('T');
            if of_backup {
                let tried = tool("flock")
                    .args(["-n", "-x"])
                    .arg(entry.path())
                    .arg("true")
                    .status();
                if tried.is_ok_and(|status| status.code() == Some(1)) {
                    return true;
                }
            }
        }
        sleep(Duration::from_millis(5));
    }
    false
}
