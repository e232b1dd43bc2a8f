//! How long a command takes, and what it costs on both sides.

use std::ffi::OsString;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use repmgr_lab::{Lab, check};

const LIMIT: Duration = Duration::from_secs(1800);

/// One run of a command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Run {
    pub(crate) wall: f64,
    /// User and system time in seconds, of the command and of all it started and waited for.
    pub(crate) cpu: f64,
    /// The same of sshd and the primary for it.
    pub(crate) cpu_there: f64,
    /// The largest resident size in MiB that any one of these processes had.
    pub(crate) peak: f64,
}

/// Runs a command of the lab to its successful end. GNU time measures: what the kernel adds up for a
/// process and its children can be had with safe code only by being their parent.
pub(crate) fn measure(lab: &Lab, command: &[OsString]) -> Result<Run> {
    let figures = lab.scratch().join("run/time");
    let mut time = lab.scratch().command("/usr/bin/time");
    time.args(["-f", "%e %U %S %M", "-o"]).arg(&figures).args(command);
    let before = there(lab)?;
    check(&mut time, LIMIT)?;
    let text = fs::read_to_string(&figures)?;
    let run = parse(&text).with_context(|| format!("GNU time wrote \"{text}\""))?;
    Ok(Run {
        cpu_there: there(lab)? - before,
        ..run
    })
}

/// CPU seconds of all sessions of sshd and the primary that have ended.
fn there(lab: &Lab) -> Result<f64> {
    let pids = [
        lab.scratch().join("ssh/sshd.pid"),
        lab.primary().data_dir().join("postmaster.pid"),
    ];
    let mut total = 0.0;
    for file in pids {
        let text = fs::read_to_string(&file).with_context(|| format!("no \"{}\"", file.display()))?;
        let pid = text.lines().next().unwrap_or_default().trim().to_owned();
        if file.ends_with("sshd.pid") {
            wait_for_sessions(&pid)?;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        total += of_children(&stat).with_context(|| format!("odd line \"{stat}\""))?;
    }
    Ok(total)
}

/// A session may end a little after its client.
fn wait_for_sessions(sshd: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let children = fs::read_to_string(format!("/proc/{sshd}/task/{sshd}/children"))?;
        if children.trim().is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "sessions of sshd do not end: processes {children}"
        );
        sleep(Duration::from_millis(20));
    }
}

/// `cutime` and `cstime` of a line in /proc/PID/stat. Linux counts 100 a second there.
fn of_children(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(13);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / 100.0)
}

fn parse(text: &str) -> Option<Run> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next()?.ok();
    let (wall, user, system, kib) = (next()?, next()?, next()?, next()?);
    Some(Run {
        wall,
        cpu: user + system,
        cpu_there: 0.0,
        peak: kib / 1024.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_children_are_found_after_any_name() {
        let stat = "7 (ss) hd) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 150 250 20 0 1 0 99";
        assert_eq!(of_children(stat), Some(4.0));
    }

    #[test]
    fn figures_of_gnu_time_are_read() {
        let run = parse("1.50 0.25 0.50 2048\n").unwrap();
        assert_eq!((run.wall, run.cpu, run.peak), (1.5, 0.75, 2.0));
        assert_eq!(parse("Command exited with non-zero status 1\n"), None);
    }
}
