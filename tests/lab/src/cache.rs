//! What is fetched once and kept: PostgreSQL of other majors, Barman of other versions.

use std::env;
use std::fs;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::run::check;
use crate::tools::{fetcher, tool, usual_umask};

const COMPLETE: &str = ".complete";
/// Debian's own; the first on the PATH may be of a version manager that other accounts cannot reach.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// Where fetched programs are kept: `/var/cache/repmgr-lab` for root, so that other accounts can reach it,
/// else `repmgr-lab` in the user's cache directory.
///
/// # Errors
/// If there is no home directory.
pub fn cache_dir() -> Result<PathBuf> {
    if rustix::process::getuid().is_root() {
        return Ok(PathBuf::from("/var/cache/repmgr-lab"));
    }
    let cache = env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Ok(cache
        .or_else(home)
        .context("neither XDG_CACHE_HOME nor HOME is set")?
        .join("repmgr-lab"))
}

/// The cached directory `name`; `build` fills it if it is not there.
///
/// Built in place, since a Python environment cannot be moved: under a lock, and complete only once its
/// marker stands, so neither a second process nor a crash can show a half-made one.
pub(crate) fn entry(name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = cache_dir()?;
    entry_in(&cache, name, build)
        .with_context(|| format!("could not fetch {name} into \"{}\"", cache.display()))
}

fn entry_in(cache: &Path, name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = cache.join(name);
    if dir.join(COMPLETE).exists() {
        return Ok(dir);
    }
    usual_umask();
    fs::create_dir_all(cache)?;
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if dir.join(COMPLETE).exists() {
        return Ok(dir);
    }
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir(&dir)?;
    build(&dir)?;
    check(
        tool("chmod").args(["-R", "a+rX"]).arg(&dir),
        Duration::from_secs(60),
    )?;
    fs::write(dir.join(COMPLETE), "")?;
    Ok(dir)
}

/// A loopback port nobody listens on.
///
/// Below the range the kernel takes client ports from, where a free one may be gone at any moment.
pub(crate) fn free_port() -> Result<u16> {
    static TRIES: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        // Processes running at the same time start at different places.
        let n = std::process::id()
            .wrapping_mul(97)
            .wrapping_add(TRIES.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + u16::try_from(n % 12_000)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1")
}

/// Makes a Python environment in `dir` with exactly these packages.
pub(crate) fn make_venv(dir: &Path, packages: &[&str]) -> Result<()> {
    check(
        fetcher(PYTHON).args(["-m", "venv"]).arg(dir),
        Duration::from_secs(120),
    )
    .context("is python3-venv installed?")?;
    if !packages.is_empty() {
        let mut pip = fetcher(dir.join("bin/pip"));
        check(
            pip.args(["install", "--quiet", "--no-deps"]).args(packages),
            Duration::from_secs(300),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_built_once_and_a_failed_one_again() {
        let cache = tempfile::tempdir().unwrap();
        let failed = entry_in(cache.path(), "thing", |dir| {
            fs::write(dir.join("half"), "")?;
            bail!("no network")
        });
        assert!(failed.is_err());
        let dir = entry_in(cache.path(), "thing", |dir| Ok(fs::write(dir.join("whole"), "")?)).unwrap();
        assert!(dir.join("whole").exists() && !dir.join("half").exists());
        entry_in(cache.path(), "thing", |_| bail!("built twice")).unwrap();
    }
}
