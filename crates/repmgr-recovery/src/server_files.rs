use std::path::{Path, PathBuf};

use repmgr_guc::{Entry, SyntaxError, scan};

/// What stands before a line that was taken out.
const PREFIX: &str = "#repmgr: ";

/// Files of this host that a server reads or writes if it is told so, and dies or complains
/// without. Not changed, only reported when absent.
const HOST_PATHS: &[&str] = &[
    "ssl_cert_file",
    "ssl_key_file",
    "ssl_ca_file",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "krb_server_keyfile",
    "log_directory",
    "stats_temp_directory",
    "unix_socket_directories",
];

/// What is where on this host: the clone's data directory, and a way to ask for other paths.
#[derive(Clone, Copy)]
pub struct LocalFiles<'a> {
    /// The data directory the standby will be started with, absolute.
    pub data_dir: &'a Path,
    /// Whether a path exists on this host, or will when the clone is complete.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// Whether settings of another server's recovery are taken out as well. Not needed for a file that
    /// [`ReplicationSettings::apply_to_auto_conf`](crate::ReplicationSettings::apply_to_auto_conf) edits.
    pub recovery: bool,
}

/// A configuration file fit for its new home.
#[derive(Debug, Clone)]
pub struct LocalizedConf {
    /// The whole file. Lines that are not listed in `changes` are as they were, byte for byte.
    pub bytes: Vec<u8>,
    /// Lines that were turned into comments.
    pub changes: Vec<Change>,
    /// Files and directories it includes, all of which exist. Those inside the data directory
    /// want the same treatment.
    pub includes: Vec<PathBuf>,
    /// Paths it names that do not exist on this host.
    pub absent: Vec<AbsentPath>,
    /// Lines PostgreSQL would refuse; they are kept.
    pub broken: Vec<SyntaxError>,
}

/// A setting that was turned into a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Line number, from 1.
    pub line: usize,
    /// The setting, or the include directive.
    pub name: String,
    /// Its value; what is not UTF-8 is replaced.
    pub value: String,
    /// Why, as a clause: "it is the primary's data directory".
    pub reason: &'static str,
}

/// A path on this host that a setting names and that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsentPath {
    /// Line number, from 1.
    pub line: usize,
    /// The setting.
    pub name: String,
    /// What does not exist.
    pub path: PathBuf,
}

impl LocalFiles<'_> {
    /// Edits `conf`, the text of `file`: a copied `postgresql.conf`, `postgresql.auto.conf` or
    /// included file in the data directory, so that a server started there does not go to the
    /// primary's places. Includes count from the directory of `file`, as in PostgreSQL.
    ///
    /// Turned into comments are: `data_directory` unless it is this one (PostgreSQL follows it,
    /// whatever `-D` says); `config_file`; `hba_file` and `ident_file` outside the data directory
    /// if the copy brought its own, or if they do not exist here; `external_pid_file` outside it;
    /// `include` and `include_dir` of what does not exist, at which PostgreSQL would stop;
    /// `primary_slot_name` and recovery targets, which belong to the other server's history.
    pub fn localize(&self, file: &Path, conf: &[u8]) -> LocalizedConf {
        let dir = file.parent().unwrap_or(self.data_dir);
        let mut result = LocalizedConf {
            bytes: Vec::with_capacity(conf.len() + 64),
            changes: Vec::new(),
            includes: Vec::new(),
            absent: Vec::new(),
            broken: Vec::new(),
        };
        for line in scan(conf) {
            match line.content {
                Ok(Some(entry)) => match self.objection(&entry, dir) {
                    Some(reason) => {
                        result.bytes.extend_from_slice(PREFIX.as_bytes());
                        result.changes.push(Change {
                            line: entry.line,
                            value: String::from_utf8_lossy(&entry.value).into_owned(),
                            name: entry.name,
                            reason,
                        });
                    }
                    None => self.note(&entry, dir, &mut result),
                },
                Ok(None) => {}
                Err(error) => result.broken.push(error),
            }
            result.bytes.extend_from_slice(line.raw);
        }
        result
    }

    /// Why `entry` must not stay.
    fn objection(&self, entry: &Entry, dir: &Path) -> Option<&'static str> {
        let path = path(&entry.value);
        match entry.name.to_ascii_lowercase().as_str() {
            "data_directory" if path != self.data_dir => Some("it is another server's data directory"),
            "config_file" => Some("it may only be given on the command line"),
            "hba_file" => self.host_file_objection(&path, "pg_hba.conf"),
            "ident_file" => self.host_file_objection(&path, "pg_ident.conf"),
            "external_pid_file" if !path.starts_with(self.data_dir) && !entry.value.is_empty() => {
                Some("it is another server's file")
            }
            "include" | "include_dir" if !(self.exists)(&dir.join(&path)) => {
                Some("what it includes does not exist here")
            }
            name if !self.recovery
                && (name == "primary_slot_name" || name.starts_with("recovery_target")) =>
            {
                None
            }
            "primary_slot_name" if !entry.value.is_empty() => Some("it is another server's slot"),
            "recovery_target_timeline" => {
                (entry.value != b"latest").then_some("a standby follows the latest timeline")
            }
            name if name.starts_with("recovery_target") && !entry.value.is_empty() => {
                Some("it would end this standby's recovery")
            }
            _ => None,
        }
    }

    /// PostgreSQL reads `default` in the data directory where nothing is set.
    fn host_file_objection(&self, path: &Path, default: &str) -> Option<&'static str> {
        if path.starts_with(self.data_dir) && (self.exists)(path) {
            None
        } else if (self.exists)(&self.data_dir.join(default)) {
            Some("the data directory has its own")
        } else if path.is_absolute() && (self.exists)(path) {
            None
        } else {
            Some("it does not exist here")
        }
    }

    fn note(&self, entry: &Entry, dir: &Path, result: &mut LocalizedConf) {
        let name = entry.name.to_ascii_lowercase();
        if name.starts_with("include") {
            let target = dir.join(path(&entry.value));
            // `include_if_exists` may name what does not.
            if (self.exists)(&target) {
                result.includes.push(target);
            }
        } else if HOST_PATHS.contains(&name.as_str()) {
            let list = name == "unix_socket_directories";
            let parts = entry.value.split(|&b| list && b == b',');
            let paths = parts.map(|part| path(part.trim_ascii()));
            // Relative ones are in the data directory, '@' begins an abstract socket's name.
            let absent = paths.filter(|path| path.is_absolute() && !(self.exists)(path));
            result.absent.extend(absent.map(|path| AbsentPath {
                line: entry.line,
                name: name.clone(),
                path,
            }));
        }
    }
}

/// On Unix a path is bytes, in whatever encoding the file has.
fn path(value: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(value))
}

#[cfg(test)]
#[path = "server_files/tests.rs"]
mod tests;
