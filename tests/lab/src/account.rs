//! The unprivileged account everything runs as: PostgreSQL refuses root, and so do we.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::run::check;
use crate::tools::{tool, usual_umask};

/// A line of the passwd database, and whether we must switch to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Login shell; sshd starts it for each session.
    pub shell: PathBuf,
    switch: bool,
}

impl Account {
    /// Ourselves, or as root `$REPMGR_LAB_USER`, else `$SUDO_USER`, else `postgres`.
    ///
    /// # Errors
    /// If the account does not exist, is root, or may not log in.
    pub fn unprivileged() -> Result<Self> {
        usual_umask();
        let uid = rustix::process::getuid();
        let switch = uid.is_root();
        let name = if switch {
            root_substitute()
        } else {
            uid.as_raw().to_string()
        };
        let line = check(tool("getent").args(["passwd", &name]), Duration::from_secs(20))
            .with_context(|| format!("no account \"{name}\" to run servers as (set REPMGR_LAB_USER)"))?;
        let account = Self {
            switch,
            ..parse_passwd(&line)?
        };
        ensure!(
            account.uid != 0,
            "account \"{name}\" is root; servers need another (set REPMGR_LAB_USER)"
        );
        if account.shell.ends_with("nologin") || account.shell.ends_with("false") {
            bail!(
                "account \"{}\" cannot log in, so sshd would refuse it",
                account.name
            );
        }
        Ok(account)
    }

    /// Makes `command` run as this account.
    pub(crate) fn apply(&self, command: &mut Command) {
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Gives `path` to this account.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        if self.switch {
            chown(path, Some(self.uid), Some(self.gid))
                .with_context(|| format!("could not give \"{}\" to {}", path.display(), self.name))?;
        }
        Ok(())
    }

    /// Makes a directory, and those above it that are missing, for this account with mode 0700.
    pub(crate) fn make_dir(&self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make_dir(parent)?;
        }
        let made = fs::create_dir(path).and_then(|()| {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        });
        match made {
            // Another test was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => {
                made.with_context(|| format!("could not create \"{}\"", path.display()))?;
                self.own(path)
            }
        }
    }
}

fn root_substitute() -> String {
    let sudo_user = || env::var("SUDO_USER").ok().filter(|name| name != "root");
    env::var("REPMGR_LAB_USER")
        .ok()
        .or_else(sudo_user)
        .unwrap_or_else(|| "postgres".to_owned())
}

fn parse_passwd(line: &str) -> Result<Account> {
    let fields: Vec<&str> = line.trim_end().split(':').collect();
    let [name, _, uid, gid, _, _, shell] = fields[..] else {
        bail!("unexpected passwd line \"{line}\"");
    };
    Ok(Account {
        name: name.to_owned(),
        uid: uid.parse()?,
        gid: gid.parse()?,
        shell: PathBuf::from(shell),
        switch: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passwd_line_is_read() {
        let account =
            parse_passwd("postgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n").unwrap();
        assert_eq!(
            (account.name.as_str(), account.uid, account.gid),
            ("postgres", 101, 104)
        );
        assert_eq!(account.shell, Path::new("/bin/bash"));
    }

    #[test]
    fn a_broken_passwd_line_is_refused() {
        assert!(parse_passwd("postgres:x:101").is_err());
        assert!(parse_passwd("postgres:x:abc:104::/:/bin/sh").is_err());
    }
}
