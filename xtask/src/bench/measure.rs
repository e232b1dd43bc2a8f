//! How long a command takes, and what it costs.

use std::ffi::OsString;
use std::time::Duration;
use std::{fmt, fs};

use anyhow::{Context, Result};
use repmgr_lab::{Lab, check};

const LIMIT: Duration = Duration::from_secs(1800);

/// One run of a command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Run {
    pub(crate) wall: f64,
    /// User and system time in seconds, of the command and of all it started and waited for.
    pub(crate) cpu: f64,
    /// The largest resident size in MiB that any one of these processes had.
    pub(crate) peak: f64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wall, cpu, peak } = self;
        write!(f, "{wall:6.2} s  {cpu:6.2} s CPU  {peak:4.0} MiB")
    }
}

/// Runs a command of the lab to its successful end. GNU time measures: what the kernel adds up for a
/// process and its children can be had with safe code only by being their parent.
pub(crate) fn measure(lab: &Lab, command: &[OsString]) -> Result<Run> {
    let figures = lab.scratch().join("run/time");
    let mut time = lab.scratch().command("/usr/bin/time");
    time.args(["-f", "%e %U %S %M", "-o"]).arg(&figures).args(command);
    check(&mut time, LIMIT)?;
    let text = fs::read_to_string(&figures)?;
    parse(&text).with_context(|| format!("GNU time wrote \"{text}\""))
}

fn parse(text: &str) -> Option<Run> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next()?.ok();
    let (wall, user, system, kib) = (next()?, next()?, next()?, next()?);
    Some(Run {
        wall,
        cpu: user + system,
        peak: kib / 1024.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_gnu_time_are_read() {
        let run = parse("1.50 0.25 0.50 2048\n").unwrap();
        assert_eq!((run.wall, run.cpu, run.peak), (1.5, 0.75, 2.0));
        assert_eq!(parse("Command exited with non-zero status 1\n"), None);
    }
}
