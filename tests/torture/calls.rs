//! System calls that fail.

use std::fs;

use anyhow::{Result, bail};
use repmgr_lab::run;

use crate::random::Random;
use crate::stage::Stage;

/// Calls that do the same, and how they fail.
const CALLS: [(&str, &[&str]); 9] = [
    ("write,pwrite64,copy_file_range", &["ENOSPC", "EIO", "EDQUOT"]),
    ("fsync,fdatasync", &["EIO", "ENOSPC"]),
    ("syncfs", &["EIO", "EDQUOT"]),
    ("rename,renameat,renameat2", &["EIO", "EROFS", "ENOSPC"]),
    ("unlink,unlinkat", &["EIO", "EROFS"]),
    ("openat", &["EIO", "EMFILE", "ENOSPC"]),
    ("mkdir,mkdirat", &["ENOSPC", "EROFS"]),
    ("statfs,fstatfs", &["EIO"]),
    ("ftruncate,fchmod,utimensat,symlinkat", &["EIO", "EROFS"]),
];

pub(crate) fn attempt(stage: &Stage, random: &mut Random, what: &mut String) -> Result<String> {
    let kind = stage.any(random);
    let (calls, errors) = random.of(&CALLS);
    let error = random.of(errors);
    // Each thread counts for itself. Most have few calls; the first are those that decide.
    let most = random.of(&[4, 12, 40, 200]);
    let number = 1 + random.below(most);
    let first = calls.split(',').next().unwrap_or(calls);
    *what = format!("{first} {error}, {}", kind.name);
    stage.prepare(kind)?;
    let trace = stage.lab.scratch().join("log/strace");
    let clone = stage.lab.clone_command(&kind.target)?;
    let mut traced = stage.lab.scratch().command("strace");
    traced
        .args(["-f", "-qq", "--seccomp-bpf", "-o"])
        .arg(&trace)
        .args(["-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:error={error}:when={number}")])
        .arg(clone.get_program())
        .args(clone.get_args())
        .args(kind.more());
    let ended = run(&mut traced, 2 * repmgr_tests::LIMIT)?;
    let said = format!("call {number}\n{}{}", ended.stdout, ended.stderr);
    let trace = String::from_utf8_lossy(&fs::read(&trace)?).into_owned();
    let injected = trace.matches("(INJECTED)").count();
    if said.contains("panicked at") {
        bail!("it panicked:\n{said}");
    }
    if injected == 0 && !ended.status.success() {
        bail!("it failed and no call did:\n{said}");
    }
    let outcome = stage.judge(kind, ended.status, &said, false)?;
    Ok(if injected == 0 {
        "not so many calls".to_owned()
    } else {
        outcome
    })
}
