//! Runs `repmgr` and looks at what it says.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use assert_cmd::assert::Assert;
use repmgr_lab::{Lab, Target, tool};

use crate::LIMIT;

/// A node nobody has used yet, with every tablespace of the primary mapped to a place of its own and a quick
/// `restore_command`.
///
/// # Panics
/// If its configuration file cannot be written.
pub fn node(lab: &Lab, settings: &[(&str, &str)]) -> Target {
    static NEXT: AtomicU32 = AtomicU32::new(2);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let mappings: Vec<String> = lab.mappings(id).iter().map(|mapping| quoted(mapping)).collect();
    let mut all: Vec<(&str, &str)> = settings.to_vec();
    let given = |name: &str| settings.iter().any(|(key, _)| *key == name);
    if !given("tablespace_mapping") {
        all.extend(
            mappings
                .iter()
                .map(|mapping| ("tablespace_mapping", mapping.as_str())),
        );
    }
    let quick = lab.quick_restore_command();
    if !given("restore_command") {
        all.push(("restore_command", &quick));
    }
    lab.target(id, &all).unwrap()
}

/// Backslashes are escapes inside the quotes of repmgr.conf.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\")
}

/// Runs `repmgr … standby clone MORE` to its end.
pub fn clone(lab: &Lab, target: &Target, more: &[&str]) -> Assert {
    run(lab.clone_command(target).unwrap().args(more))
}

/// The same with environment variables.
pub fn clone_in(lab: &Lab, target: &Target, more: &[&str], environment: &[(&str, &str)]) -> Assert {
    let mut command = lab.clone_command(target).unwrap();
    run(command.args(more).envs(environment.iter().copied()))
}

/// Runs a command to its end, at most three minutes; the result shows everything when it disappoints.
pub fn run(command: &mut Command) -> Assert {
    let mut copy = Command::new(command.get_program());
    std::mem::swap(&mut copy, command);
    assert_cmd::Command::from_std(copy)
        .timeout(Duration::from_secs(180))
        .assert()
}

/// Both streams, for "nowhere does it say".
pub fn output(assert: &Assert) -> String {
    let output = assert.get_output();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The lines of standard error.
pub fn said(assert: &Assert) -> Vec<String> {
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    stderr.lines().map(str::to_owned).collect()
}

/// A clone at work, to be disturbed. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: std::path::PathBuf,
}

impl Running {
    /// Starts `repmgr … standby clone MORE`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn clone(lab: &Lab, target: &Target, more: &[&str]) -> Result<Self> {
        let log = lab.scratch().join(format!("log/clone-{}.log", target.node_id));
        let file = File::create(&log)?;
        let clone = lab.clone_command(target)?;
        // Tests that a shell runs in the background are started to ignore SIGINT, and repmgr would leave it so.
        let child = lab
            .scratch()
            .command("env")
            .arg("--default-signal=INT")
            .arg(clone.get_program())
            .args(clone.get_args())
            .args(more)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self { child, log })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the copy is under way: some file of the clone is there.
    ///
    /// # Errors
    /// If the program ends first or nothing happens for a minute.
    pub fn wait_for_files(&mut self, data_dir: &Path, bytes: u64) -> Result<()> {
        let what = format!("{bytes} bytes in \"{}\"", data_dir.display());
        self.wait_until(&what, |_| Ok(size_of(data_dir) >= bytes))
    }

    /// Waits until it has said this.
    ///
    /// # Errors
    /// If the program ends first or nothing happens for a minute.
    pub fn wait_for_words(&mut self, words: &str) -> Result<()> {
        self.wait_until(&format!("\"{words}\""), |running| {
            Ok(running.said()?.contains(words))
        })
    }

    fn wait_until(&mut self, what: &str, done: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !done(self)? {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}, too soon:\n{}", self.said()?);
            }
            if Instant::now() > deadline {
                bail!("no {what}:\n{}", self.said()?);
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end within two minutes.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + 2 * LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("it does not end:\n{}", self.said()?);
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal by name: `INT`, `TERM`, `KILL`.
    ///
    /// # Errors
    /// If there is no such process any more.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = tool("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()?;
        if !status.success() {
            bail!("could not send {name} to the clone");
        }
        Ok(())
    }

    /// What it has said so far, on both streams.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn said(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log).with_context(|| format!("no \"{}\"", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes of all files below a directory that is being written.
fn size_of(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
