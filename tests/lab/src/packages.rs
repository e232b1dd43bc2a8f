//! Which Debian packages a job needs, and how they get here.
//!
//! Installing starts no service and creates no database cluster: a newcomer's machine has the programs
//! afterwards, and nothing else that runs.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::pg::system_bin_dirs;
use crate::run::{check, run};
use crate::tools::{fetcher, find, find_any, tool};

const INSTALL: &str = include_str!("install.sh");

/// A package, and how to see without it being called by that name that its part is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// Name for apt.
    pub name: &'static str,
    probe: Probe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// Where Debian puts it.
    Program(&'static str),
    /// There or on our own PATH: any version will do.
    Tool(&'static str),
    /// In a Debian PostgreSQL's own bin directory.
    PgProgram(&'static str),
    File(&'static str),
    PythonModule(&'static str),
}

/// What building the workspace needs beside cargo.
pub const BUILD: &[Package] = &[
    Package {
        name: "gcc",
        probe: Probe::Tool("cc"),
    },
    Package {
        name: "libc6-dev",
        probe: Probe::File("/usr/include/stdio.h"),
    },
    Package {
        name: "libssl-dev",
        probe: Probe::File("/usr/include/openssl/ssl.h"),
    },
    Package {
        name: "pkg-config",
        probe: Probe::Tool("pkg-config"),
    },
];

/// What a lab of the distribution's own PostgreSQL and Barman needs.
pub const LAB: &[Package] = &[
    Package {
        name: "postgresql",
        probe: Probe::PgProgram("postgres"),
    },
    Package {
        name: "repmgr",
        probe: Probe::PgProgram("repmgr"),
    },
    Package {
        name: "barman",
        probe: Probe::Program("barman"),
    },
    Package {
        name: "openssh-server",
        probe: Probe::Program("sshd"),
    },
    Package {
        name: "openssh-client",
        probe: Probe::Program("ssh-keygen"),
    },
    Package {
        name: "rsync",
        probe: Probe::Program("rsync"),
    },
];

/// What fetching other versions, and the tests on them, need on top.
pub const TESTS: &[Package] = &[
    Package {
        name: "python3-venv",
        probe: Probe::PythonModule("ensurepip"),
    },
    Package {
        name: "npm",
        probe: Probe::Tool("npm"),
    },
    Package {
        name: "gpg",
        probe: Probe::Program("gpg"),
    },
    Package {
        name: "gpg-agent",
        probe: Probe::Program("gpg-agent"),
    },
    Package {
        name: "file",
        probe: Probe::Program("file"),
    },
    Package {
        name: "zstd",
        probe: Probe::Program("zstd"),
    },
    Package {
        name: "lz4",
        probe: Probe::Program("lz4"),
    },
    Package {
        name: "strace",
        probe: Probe::Program("strace"),
    },
];

/// What Patroni needs on top of [`TESTS`]; it is fetched itself.
pub const PATRONI: &[Package] = &[Package {
    name: "etcd-server",
    probe: Probe::Program("etcd"),
}];

/// What measuring ourselves beside others needs on top.
pub const BENCH: &[Package] = &[
    Package {
        name: "pgbackrest",
        probe: Probe::Program("pgbackrest"),
    },
    Package {
        name: "time",
        probe: Probe::File("/usr/bin/time"),
    },
];

impl Package {
    fn is_here(&self) -> Result<bool> {
        Ok(match self.probe {
            Probe::Program(name) => find(name).is_some(),
            Probe::Tool(name) => find_any(name).is_some(),
            Probe::PgProgram(name) => system_bin_dirs().iter().any(|dir| dir.join(name).exists()),
            Probe::File(path) => Path::new(path).exists(),
            Probe::PythonModule(name) => {
                let python = Path::new(crate::cache::PYTHON);
                let import = format!("import {name}");
                python.exists()
                    && run(tool(python).args(["-c", &import]), Duration::from_secs(30))?
                        .status
                        .success()
            }
        })
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Those of `wanted` that are not here.
///
/// # Errors
/// If a probe cannot be run.
pub fn missing(wanted: &[&[Package]]) -> Result<Vec<Package>> {
    let mut found = Vec::new();
    for package in wanted.iter().copied().flatten() {
        if !package.is_here()? {
            found.push(*package);
        }
    }
    Ok(found)
}

/// Fails with the line to type if one of `wanted` is not here.
///
/// # Errors
/// As said.
pub fn require(wanted: &[&[Package]]) -> Result<()> {
    let missing = missing(wanted)?;
    ensure!(
        missing.is_empty(),
        "packages are missing; run: {}",
        by_hand(&missing)
    );
    Ok(())
}

/// Installs packages with apt-get, through sudo if we are not root; asks for a password on a terminal only.
///
/// # Errors
/// If this is not a Debian, we may not become root, or apt-get fails.
pub fn install(packages: &[Package]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    ensure!(
        find("apt-get").is_some(),
        "no apt-get here; install what these hold: {}",
        names(packages)
    );
    let mut command = as_root(packages)?;
    command
        .args(["sh", "-c", INSTALL, "install"])
        .args(packages.iter().map(|package| package.name));
    check(&mut command, Duration::from_secs(900)).context("could not install packages")?;
    let still = missing(&[packages])?;
    ensure!(
        still.is_empty(),
        "installed, but what was wanted of them is not there: {}",
        names(&still)
    );
    Ok(())
}

fn as_root(packages: &[Package]) -> Result<Command> {
    if rustix::process::getuid().is_root() {
        return Ok(fetcher("env"));
    }
    let quiet = run(fetcher("sudo").args(["-n", "true"]), Duration::from_secs(20));
    let allowed = match quiet {
        Ok(finished) if finished.status.success() => true,
        // Asks on the terminal, if there is one.
        Ok(_) => fetcher("sudo")
            .arg("-v")
            .status()
            .is_ok_and(|status| status.success()),
        Err(_) => false,
    };
    if !allowed {
        bail!(
            "packages are missing and we may not install them; run as root: {}",
            by_hand(packages)
        );
    }
    let mut command = fetcher("sudo");
    command.arg("-n");
    Ok(command)
}

fn by_hand(packages: &[Package]) -> String {
    format!("apt-get install --no-install-recommends {}", names(packages))
}

fn names(packages: &[Package]) -> String {
    packages
        .iter()
        .map(|package| package.name)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_is_not_missing_and_the_rest_is_named() {
        let here = Package {
            name: "coreutils",
            probe: Probe::Program("ls"),
        };
        let gone = Package {
            name: "no-such-package",
            probe: Probe::File("/no/such/file"),
        };
        assert_eq!(missing(&[&[here], &[gone]]).unwrap(), [gone]);
        let error = require(&[&[here, gone]]).unwrap_err().to_string();
        assert!(
            error.ends_with("apt-get install --no-install-recommends no-such-package"),
            "{error}"
        );
    }
}
