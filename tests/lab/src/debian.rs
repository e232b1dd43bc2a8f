//! Clusters as Debian has them: configuration in `/etc/postgresql/MAJOR/NAME`, data in
//! `/var/lib/postgresql/MAJOR/NAME`, here below a directory of the scratch directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::scratch::Scratch;

/// What initdb writes and `pg_createcluster` moves.
const MOVED: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// Where a cluster `main` lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianCluster {
    /// `ROOT/etc/postgresql/MAJOR/main`.
    pub conf_dir: PathBuf,
    /// `ROOT/var/lib/postgresql/MAJOR/main`.
    pub data_dir: PathBuf,
}

impl DebianCluster {
    /// Names the places; makes nothing.
    pub fn below(root: &Path, major: u32) -> Self {
        Self {
            conf_dir: root.join(format!("etc/postgresql/{major}/main")),
            data_dir: root.join(format!("var/lib/postgresql/{major}/main")),
        }
    }

    /// Makes of what initdb left in the data directory what `pg_createcluster` makes of it.
    ///
    /// # Errors
    /// If a file cannot be moved or written.
    pub fn arrange(&self, scratch: &Scratch, port: u16) -> Result<()> {
        let conf = &self.conf_dir;
        scratch.dir(conf.join("conf.d"))?;
        for name in MOVED {
            fs::rename(self.data_dir.join(name), conf.join(name))
                .with_context(|| format!("could not move {name} to \"{}\"", conf.display()))?;
        }
        for (name, text) in [
            ("start.conf", "# Automatic startup configuration\nmanual\n"),
            (
                "pg_ctl.conf",
                "# Automatic pg_ctl configuration\npg_ctl_options = ''\n",
            ),
            ("environment", "# environment variables for postgres processes\n"),
        ] {
            scratch.write(conf.join(name), text, 0o644)?;
        }
        let main = conf.join("postgresql.conf");
        let text = fs::read_to_string(&main).with_context(|| format!("no \"{}\"", main.display()))?;
        let (data, shown) = (self.data_dir.display(), conf.display());
        let own = format!(
            "data_directory = '{data}'\nhba_file = '{shown}/pg_hba.conf'\nident_file = '{shown}/pg_ident.conf'\n\
             external_pid_file = '{}'\nport = {port}\nunix_socket_directories = '{run}'\ninclude_dir = 'conf.d'\n",
            scratch.join(format!("run/{port}.pid")).display(),
            run = scratch.join("run").display(),
        );
        scratch.write(&main, &(text + &own), 0o644).map(drop)
    }
}
