//! Programs of this machine: where they are looked for, and what they inherit from us.
//!
//! The rule for all of the lab: a program is the one that Debian's package put there. What lies in
//! `/usr/local`, in a home directory or first on the user's PATH may be another version, or a wrapper.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use anyhow::{Context, Result, ensure};
use rustix::fs::Mode;

/// Where Debian's packages put programs, for us and for everything we start.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A program of the distribution.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    find_in(OsStr::new(PATH), name)
}

/// A program of the distribution or, failing that, on our own PATH: for what fetches or builds, where any
/// version will do and a developer may have brought their own.
pub(crate) fn find_any(name: &str) -> Option<PathBuf> {
    find(name).or_else(|| find_in(&env::var_os("PATH")?, name))
}

fn find_in(dirs: &OsStr, name: &str) -> Option<PathBuf> {
    env::split_paths(dirs)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// A command of the distribution (by name or by its path), without our environment.
pub fn tool(program: impl AsRef<Path>) -> Command {
    let program = program.as_ref();
    let found = program.to_str().and_then(find);
    let mut command = Command::new(found.as_deref().unwrap_or(program));
    command
        .env_clear()
        .envs([("PATH", PATH), ("LC_ALL", "C.UTF-8"), ("HOME", "/")]);
    command
}

/// Writes a program (a script) that can be run at once.
///
/// Another process writes it. A file that is open for writing cannot be executed, and a child that another thread
/// makes meanwhile inherits what we have open, up to its exec.
///
/// # Errors
/// If it cannot be written.
pub fn write_program(path: &Path, text: &str) -> Result<()> {
    let mut child = tool("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("the input is a pipe")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    let status = child.wait()?;
    ensure!(status.success(), "could not write {} ({status})", path.display());
    Ok(())
}

/// A command that fetches: with our environment, since proxies and mirrors are set there, but for what
/// would make it another program.
pub(crate) fn fetcher(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(&program);
    // One from elsewhere needs what lies beside it, as npm needs node.
    let own = Path::new(&program).parent().unwrap_or(Path::new(""));
    command
        .env("PATH", format!("{PATH}:{}", own.display()))
        .env("LC_ALL", "C.UTF-8")
        .env("TMPDIR", temp_dir());
    for name in ["PYTHONPATH", "PYTHONHOME", "BASH_ENV", "ENV", "CDPATH"] {
        command.env_remove(name);
    }
    command
}

/// `$REPMGR_LAB_DIR`, else `/tmp`. Not `$TMPDIR`: it may be of one user only, and too long for a socket.
pub(crate) fn temp_dir() -> PathBuf {
    env::var_os("REPMGR_LAB_DIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}

/// Makes what this process and its children create as readable as on a machine nobody has set up.
///
/// For the whole process, as there is no other way without `unsafe`; a test program has nothing against it.
pub(crate) fn usual_umask() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        rustix::process::umask(Mode::WGRP | Mode::WOTH);
    });
}

/// Whether a variable changes what programs that tests look at do or say.
fn is_odd(name: &str) -> bool {
    let exact = [
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "BASH_ENV",
        "ENV",
        "CDPATH",
        "POSIXLY_CORRECT",
    ];
    exact.contains(&name)
        || ["PG", "LC_", "PYTHON"]
            .iter()
            .any(|start| name.starts_with(start))
}

/// Gives cargo, and the tests it runs, usual surroundings: tests call libraries in their own process, and
/// those go by its PATH and variables. `first` (where cargo is) stays before Debian's programs.
pub fn calm(command: &mut Command, first: &Path) {
    usual_umask();
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_odd) {
            command.env_remove(name);
        }
    }
    let own = env::var("PATH").unwrap_or_default();
    command
        .env("PATH", format!("{}:{PATH}:{own}", first.display()))
        .env("LANG", "C.UTF-8");
}

/// What stand-ins are made for by [`in_odd_surroundings`].
const STAND_INS: [&str; 24] = [
    "barman",
    "repmgr",
    "psql",
    "pg_ctl",
    "postgres",
    "initdb",
    "pg_basebackup",
    "ssh",
    "ssh-keygen",
    "sshd",
    "rsync",
    "python3",
    "getent",
    "setsid",
    "env",
    "sh",
    "cp",
    "chmod",
    "tar",
    "kill",
    "true",
    "cat",
    "sudo",
    "su",
];

/// `program` with everything about it that a user may have set otherwise: programs of other versions first on
/// the PATH (they print rubbish and fail), files in the home directory, PostgreSQL's variables, languages,
/// an unusable TMPDIR, and a umask of 077. For tests of the tests.
///
/// # Errors
/// If a file cannot be written to `dir`.
pub fn in_odd_surroundings(program: &Path, dir: &Path) -> Result<Command> {
    let (bin, home) = (dir.join("bin"), dir.join("home"));
    for made in [&bin, &home.join(".ssh")] {
        fs::create_dir_all(made)?;
    }
    for name in STAND_INS {
        let path = bin.join(name);
        fs::write(
            &path,
            format!("#!/bin/sh\necho '{name} 99.9 of somebody else'\nexit 1\n"),
        )?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    for (name, text) in [
        (".ssh/config", "Host *\n  ProxyCommand false\n"),
        (".pgpass", "*:*:*:*:wrong\n"),
        (".pg_service.conf", "rubbish\n"),
        (".psqlrc", "\\quit\n"),
        (".bashrc", "echo rubbish; exit 1\n"),
        (".barman.conf", "rubbish\n"),
    ] {
        let path = home.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    let path = env::var("PATH").unwrap_or_default();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "umask 077; exec \"$0\" \"$@\""])
        .arg(program)
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("HOME", &home)
        // What was fetched need not be fetched again for another HOME.
        .env("XDG_CACHE_HOME", crate::cache_dir()?.with_file_name(""))
        .env("BASH_ENV", home.join(".bashrc"))
        .env("TMPDIR", dir.join("no-such-directory"))
        .envs([("LANG", "de_DE.UTF-8"), ("LC_ALL", "tr_TR.ISO-8859-9")])
        .envs([
            ("LC_MESSAGES", "xx_YY"),
            ("LANGUAGE", "de:fr"),
            ("TZ", "Asia/Kathmandu"),
        ])
        .envs([
            ("PGHOST", "192.0.2.1"),
            ("PGPORT", "1"),
            ("PGUSER", "nobody"),
            ("PGDATABASE", "none"),
        ])
        .envs([
            ("PGDATA", "/nonexistent"),
            ("PGOPTIONS", "-c rubbish=1"),
            ("PGSSLMODE", "verify-full"),
        ])
        .envs([
            ("PYTHONPATH", "/nonexistent"),
            ("PYTHONHOME", "/nonexistent"),
            ("POSIXLY_CORRECT", "1"),
        ]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_the_distributions() {
        assert_eq!(find("sh"), Some(PathBuf::from("/usr/bin/sh")));
        assert_eq!(find("no-such-program"), None);
        assert!(!PATH.contains("local"));
    }

    #[test]
    fn what_belongs_to_cargo_is_not_odd() {
        assert!(is_odd("PGHOST") && is_odd("LC_ALL") && is_odd("TMPDIR"));
        assert!(!is_odd("PATH") && !is_odd("HOME") && !is_odd("CARGO_HOME") && !is_odd("http_proxy"));
    }

    #[test]
    fn a_tool_inherits_nothing() {
        let said = crate::check(&mut tool("env"), std::time::Duration::from_secs(10)).unwrap();
        let mut names: Vec<&str> = said
            .lines()
            .filter_map(|line| Some(line.split_once('=')?.0))
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LC_ALL", "PATH"]);
    }
}
