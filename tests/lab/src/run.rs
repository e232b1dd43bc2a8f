//! Runs one program with a deadline, and tells all when it fails.

use std::fs;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::tools::temp_dir;
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Finished {
    /// Exit status or signal.
    pub status: ExitStatus,
    /// Standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

/// Runs `command` to its end, whatever its exit status, with no standard input.
///
/// Output goes through files, not pipes: a daemon that inherits them cannot make us wait.
///
/// # Errors
/// If it cannot be started or has not ended after `limit`; it is then killed with its process group.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    let (mut out, mut err) = (
        tempfile::tempfile_in(temp_dir())?,
        tempfile::tempfile_in(temp_dir())?,
    );
    command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .process_group(0);
    let mut child = command
        .spawn()
        .with_context(|| format!("could not start {}", shown(command)))?;
    let ended = wait(&mut child, limit)?;
    let (stdout, stderr) = (contents(&mut out)?, contents(&mut err)?);
    match ended {
        Some(status) => Ok(Finished {
            status,
            stdout,
            stderr,
        }),
        None => bail!(
            "{} did not end in {limit:?}{}",
            shown(command),
            streams(&stdout, &stderr)
        ),
    }
}

/// Runs `command` and returns its standard output.
///
/// # Errors
/// As [`run`], or if the exit status is not 0.
pub fn check(command: &mut Command, limit: Duration) -> Result<String> {
    let Finished {
        status,
        stdout,
        stderr,
    } = run(command, limit)?;
    if !status.success() {
        bail!(
            "{} ended with {status}{}",
            shown(command),
            streams(&stdout, &stderr)
        );
    }
    Ok(stdout)
}

/// Adds the end of a server's log to an error.
pub(crate) fn with_log<T>(result: Result<T>, log: &Path) -> Result<T> {
    result.map_err(|error| anyhow!("{error:#}\n{}", log_tail(log)))
}

/// The end of a log, for error messages.
pub(crate) fn log_tail(log: &Path) -> String {
    let text = match fs::read(log) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes), 20),
        Err(e) => format!("(could not be read: {e})"),
    };
    format!("--- end of {}\n{text}", log.display())
}

/// Asks `done` every 50 ms; `false` if it still says no after `limit`.
pub(crate) fn poll(limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        if done()? {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        sleep(Duration::from_millis(50));
    }
}

/// Sends `signal` to a process and its descendants; those already gone are no error.
pub(crate) fn signal_family(pid: i32, signal: Signal) -> Result<()> {
    for pid in family(pid)? {
        match Pid::from_raw(pid).map(|pid| kill_process(pid, signal)) {
            None | Some(Ok(()) | Err(rustix::io::Errno::SRCH)) => {}
            Some(Err(e)) => bail!("could not signal process {pid}: {e}"),
        }
    }
    Ok(())
}

/// Whether a process runs. One that ended but that its parent has not noticed (in a container without an
/// init, nobody ever does) has no command line.
pub(crate) fn is_alive(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn family(root: i32) -> Result<Vec<i32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process may end between the two calls.
        if let Some(parent) = fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .as_deref()
            .and_then(parent)
        {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == pid)
                .map(|(child, _)| child),
        );
        next += 1;
    }
    Ok(found)
}

/// The parent in a line of /proc/PID/stat; the program name before it may hold blanks and parentheses.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            if let Some(group) = Pid::from_raw(child.id().try_into()?) {
                kill_process_group(group, Signal::KILL)?;
            }
            child.wait()?;
            return Ok(None);
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

fn contents(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("`{}`", words.join(" "))
}

fn streams(stdout: &str, stderr: &str) -> String {
    let part = |name, text| match last_lines(text, 25) {
        text if text.is_empty() => String::new(),
        text => format!("\n--- {name}\n{text}"),
    };
    part("stdout", stdout) + &part("stderr", stderr)
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_shows_command_status_and_both_streams() {
        let error = check(&mut sh("echo out; echo err >&2; exit 3"), Duration::from_secs(10)).unwrap_err();
        let text = format!("{error:#}");
        for part in ["`sh -c", "exit status: 3", "--- stdout\nout", "--- stderr\nerr"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let started = Instant::now();
        let error = run(&mut sh("echo $$; sleep 100 & wait"), Duration::from_millis(200)).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(10));
        assert!(format!("{error:#}").contains("did not end"), "{error:#}");
    }

    #[test]
    fn a_daemon_left_behind_does_not_hold_us() {
        let started = Instant::now();
        check(&mut sh("sleep 3 & echo started"), Duration::from_secs(10)).unwrap();
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_family_is_found_by_parent() {
        let mut child = sh("sleep 100 & wait").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(poll(Duration::from_secs(5), || Ok(family(pid)?.len() == 2)).unwrap());
        signal_family(pid, Signal::KILL).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_parent_follows_the_last_parenthesis() {
        assert_eq!(parent("12 (a) b) (c)) S 7 12 12 0"), Some(7));
    }
}
