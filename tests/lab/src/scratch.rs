//! The scratch directory of a lab, and the guard process that cleans it up.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::account::Account;
use crate::run::check;
use crate::tools::{PATH, temp_dir, tool, write_program};

const GUARD: &str = include_str!("guard.sh");
const MARK: &str = "REPMGR_LAB_SCRATCH";
/// A socket's path holds 107 bytes; `run/.s.PGSQL.NNNNN` comes on top.
const LONGEST: usize = 85;

/// A directory, mode 0700, that belongs to the [`Account`] the lab runs as.
///
/// A guard process in its own session waits for our end, even by SIGKILL, and then stops every process of
/// this scratch directory and removes it. Dropping does the same and waits for it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    account: Account,
    guard: Mutex<Option<Child>>,
    detached: AtomicBool,
}

impl Scratch {
    /// Makes a new one in `$REPMGR_LAB_DIR` or `/tmp`, with its guard.
    ///
    /// # Errors
    /// If there is no account to run as, or it cannot reach the directory.
    pub fn new() -> Result<Arc<Self>> {
        let account = Account::unprivileged()?;
        let parent = temp_dir();
        let parent = parent
            .canonicalize()
            .with_context(|| format!("no directory \"{}\"", parent.display()))?;
        let made = tempfile::Builder::new()
            .prefix("repmgr-lab-")
            .tempdir_in(parent)?;
        account.own(made.path())?;
        let scratch = Self {
            guard: Mutex::new(Some(start_guard(&account, made.path())?)),
            path: made.keep(),
            account,
            detached: AtomicBool::new(false),
        };
        // These paths stand in configuration files and shell scripts of six programs: no quoting games.
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        ensure!(
            scratch.shown().chars().all(plain) && scratch.shown().len() <= LONGEST,
            "\"{}\" is too long or holds unusual characters (set REPMGR_LAB_DIR)",
            scratch.shown()
        );
        for dir in ["bin", "home", "log", "run"] {
            scratch.dir(dir)?;
        }
        if env::var_os("REPMGR_LAB_KEEP").is_some_and(|keep| !keep.is_empty() && keep != "0") {
            scratch.write("keep", "", 0o600)?;
        }
        check(&mut scratch.command("true"), Duration::from_secs(10)).with_context(|| {
            format!(
                "{} cannot use \"{}\" (set REPMGR_LAB_DIR)",
                scratch.account.name,
                scratch.shown()
            )
        })?;
        Ok(Arc::new(scratch))
    }

    /// Takes over one that was [detached](Self::detach): dropping it cleans up.
    ///
    /// # Errors
    /// If it is not there or its guard cannot be started.
    pub fn adopt(path: &Path) -> Result<Arc<Self>> {
        ensure!(path.is_dir(), "no lab in \"{}\"", path.display());
        let account = Account::unprivileged()?;
        let guard = Mutex::new(Some(start_guard(&account, path)?));
        Ok(Arc::new(Self {
            path: path.to_owned(),
            account,
            guard,
            detached: AtomicBool::new(false),
        }))
    }

    /// Lets servers and files outlive this process; [`adopt`](Self::adopt) ends them.
    ///
    /// # Errors
    /// If the guard cannot be told.
    pub fn detach(&self) -> Result<()> {
        self.detached.store(true, Ordering::Relaxed);
        let Some(mut guard) = self.take_guard() else {
            return Ok(());
        };
        if let Some(mut pipe) = guard.stdin.take() {
            pipe.write_all(b"detach\n")?;
        }
        guard.wait()?;
        Ok(())
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Relaxed)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The account that owns it and runs everything in it.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// A path below it.
    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.path.join(relative)
    }

    fn shown(&self) -> std::borrow::Cow<'_, str> {
        self.path.to_string_lossy()
    }

    /// Makes a directory below it (mode 0700), with those above that are missing.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn dir(&self, relative: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.join(relative);
        self.account.make_dir(&path)?;
        Ok(path)
    }

    /// Writes a file below it, atomically: a server may be reading the old one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, relative: impl AsRef<Path>, text: &str, mode: u32) -> Result<PathBuf> {
        let path = self.join(relative);
        let parent = path
            .parent()
            .context("a file in the scratch directory has a parent")?;
        self.account.make_dir(parent)?;
        let new = tempfile::NamedTempFile::new_in(parent)?.into_temp_path();
        if mode & 0o111 == 0 {
            fs::write(&new, text)?;
        } else {
            write_program(&new, text)?;
        }
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        self.account.own(&new)?;
        new.persist(&path)?;
        Ok(path)
    }

    /// Writes an executable shell script `bin/NAME`, first on every child's PATH.
    pub(crate) fn script(&self, name: &str, body: &str) -> Result<PathBuf> {
        self.write(
            Path::new("bin").join(name),
            &format!("#!/bin/sh\n{body}\n"),
            0o755,
        )
    }

    /// Copies a program to `bin/NAME`: the account may not reach where it stands (a checkout in /root).
    pub(crate) fn install(&self, program: &Path, name: &str) -> Result<PathBuf> {
        let copy = self.join("bin").join(name);
        // By another process: a file that we hold open for writing while some thread forks cannot be executed.
        check(tool("cp").arg(program).arg(&copy), Duration::from_secs(30))?;
        self.account.own(&copy)?;
        Ok(copy)
    }

    /// The PATH of every child.
    pub fn search_path(&self) -> String {
        format!("{}/bin:{PATH}", self.shown())
    }

    /// A command of this lab: our account, a clean environment, the scratch directory as HOME's parent and
    /// working directory, its `bin` first on the PATH.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.path)
            .env_clear()
            .envs([("PATH", self.search_path().as_str()), ("LANG", "C.UTF-8")])
            .envs([("USER", &self.account.name), ("LOGNAME", &self.account.name)])
            .env("HOME", self.join("home"))
            .env(MARK, &self.path);
        self.account.apply(&mut command);
        command
    }

    /// `NAME=VALUE` that marks processes as ours where they do not inherit our environment.
    pub(crate) fn mark(&self) -> String {
        format!("{MARK}={}", self.shown())
    }

    fn take_guard(&self) -> Option<Child> {
        self.guard
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(mut guard) = self.take_guard() {
            // Closes the pipe, which is the sign to clean up. What it cannot do it says itself.
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

fn start_guard(account: &Account, scratch: &Path) -> Result<Child> {
    let mut command = tool("setsid");
    command
        .args(["sh", "-c", GUARD, "lab-guard"])
        .arg(scratch)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    account.apply(&mut command);
    command
        .spawn()
        .context("could not start the guard process (setsid, sh)")
}
