use std::io;
use std::path::{Component, Path, PathBuf};

use repmgr_pgfile::{PG_CONTROL, POSTMASTER_PID, PgControlHead, postmaster_pid, read_beginning};
use repmgr_types::SystemId;

use crate::deliver::is_alive;

/// No recovery.conf of a person is longer.
const RECOVERY_CONF_MAX: u64 = 1 << 20;
/// Its first line, a few bytes, is all that counts.
const PID_FILE_MAX: u64 = 4096;

/// The data directory that `restore_command` works for, as far as a WAL file's destination tells.
///
/// PostgreSQL runs `restore_command` inside its data directory, with `%p` = `pg_wal/RECOVERYXLOG`;
/// `pg_rewind` gives the whole path. So it is what lies two steps above the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    data_dir: PathBuf,
    wal_dir: PathBuf,
}

impl Cluster {
    /// The cluster to which a file with this destination is delivered.
    pub fn of_destination(destination: &Path) -> Self {
        let wal_dir = destination.parent().unwrap_or(Path::new("")).to_owned();
        // By the words of the path: pg_wal may be a link to another disk. Without two steps to go
        // up (a destination in the working directory itself) there is nothing to know.
        let data_dir = match wal_dir.components().next_back() {
            Some(Component::Normal(_)) => wal_dir.parent().unwrap_or(Path::new("")).to_owned(),
            _ => wal_dir.join(".."),
        };
        Self { data_dir, wal_dir }
    }

    /// Where the file goes.
    pub fn wal_dir(&self) -> &Path {
        if self.wal_dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &self.wal_dir
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
    }

    /// The beginning of a file of the data directory, if there is such a file.
    fn read(&self, name: &str, max: u64) -> Option<Vec<u8>> {
        let path = self.file(name);
        let failed = |error: &io::Error| {
            if error.kind() != io::ErrorKind::NotFound {
                log::debug!("{path:?} could not be read: {error}");
            }
        };
        read_beginning(&path, max).inspect_err(failed).ok()
    }

    /// The system identifier, from `global/pg_control` (of any version of PostgreSQL). `None` when there is
    /// no such file.
    pub fn system_id(&self) -> Option<SystemId> {
        let head = self.read(PG_CONTROL, PgControlHead::SIZE as u64)?;
        Some(PgControlHead::parse(&head).ok()?.system_id)
    }

    /// Whether a file that cannot be had ends the recovery for good: without standby mode PostgreSQL
    /// takes every failure of `restore_command` for the end of the archive, and opens the database.
    pub fn recovery_ends_with_archive(&self) -> bool {
        if self.file("standby.signal").exists() {
            return false;
        }
        if self.file("recovery.signal").exists() {
            return true;
        }
        // To PostgreSQL 11.
        self.read("recovery.conf", RECOVERY_CONF_MAX)
            .is_some_and(|text| !sets_standby_mode(&text))
    }

    /// The process that runs the server, if one does.
    pub(crate) fn postmaster(&self) -> Option<i32> {
        let pid = postmaster_pid(&self.read(POSTMASTER_PID, PID_FILE_MAX)?)?;
        is_alive(pid).then_some(pid)
    }
}

/// The last of several counts, as in PostgreSQL; so does any beginning of `true` or `yes`.
fn sets_standby_mode(recovery_conf: &[u8]) -> bool {
    let entries = repmgr_guc::scan(recovery_conf).filter_map(|line| line.content.ok().flatten());
    let value = entries
        .filter(|entry| entry.is("standby_mode"))
        .last()
        .map(|entry| entry.value.to_ascii_lowercase());
    value.is_some_and(|v| {
        let begins = |word: &[u8]| !v.is_empty() && word.starts_with(&v);
        v == b"on" || v == b"1" || begins(b"true") || begins(b"yes")
    })
}

/// The server that runs when this is made, if one does.
#[derive(Debug)]
pub(crate) struct Server {
    cluster: Cluster,
    postmaster: Option<i32>,
}

impl Server {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
            postmaster: cluster.postmaster(),
        }
    }

    /// Whether it runs no more.
    pub(crate) fn is_gone(&self) -> bool {
        self.postmaster.is_some() && self.cluster.postmaster() != self.postmaster
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn the_data_directory_is_two_steps_above_the_destination() {
        let dir = |text: &str| Cluster::of_destination(Path::new(text)).file("x");
        assert_eq!(dir("pg_wal/RECOVERYXLOG"), Path::new("x"));
        assert_eq!(dir("/data/pg_wal/RECOVERYXLOG"), Path::new("/data/x"));
        assert_eq!(dir("RECOVERYXLOG"), Path::new("../x"));
        assert_eq!(Cluster::of_destination(Path::new("f")).wal_dir(), Path::new("."));
    }

    #[test]
    fn the_system_identifier_comes_from_pg_control() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::of_destination(&dir.path().join("pg_wal/RECOVERYXLOG"));
        assert_eq!(cluster.system_id(), None);
        fs::create_dir(dir.path().join("global")).unwrap();
        let mut control = 77_u64.to_ne_bytes().to_vec();
        control.extend(1300_u32.to_ne_bytes());
        control.resize(8192, 0);
        fs::write(dir.path().join("global/pg_control"), control).unwrap();
        assert_eq!(cluster.system_id(), Some(SystemId(77)));
    }

    #[test]
    fn only_without_standby_mode_does_a_missing_file_end_the_recovery() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::of_destination(&dir.path().join("pg_wal/RECOVERYXLOG"));
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert!(!cluster.recovery_ends_with_archive());
        for (text, ends) in [
            ("restore_command = 'x'\n", true),
            ("standby_mode = on\n", false),
            ("standby_mode = on\nstandby_mode = 'off'\n", true),
            (" Standby_Mode 'true'\n# standby_mode = off\n", false),
        ] {
            put("recovery.conf", text);
            assert_eq!(cluster.recovery_ends_with_archive(), ends, "{text}");
        }
        fs::remove_file(dir.path().join("recovery.conf")).unwrap();
        put("recovery.signal", "");
        assert!(cluster.recovery_ends_with_archive());
        put("standby.signal", "");
        assert!(!cluster.recovery_ends_with_archive());
    }

    #[test]
    fn the_server_is_the_process_of_its_pid_file() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::of_destination(&dir.path().join("pg_wal/RECOVERYXLOG"));
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(cluster.postmaster(), None);
        // A stand-alone backend writes its id negative.
        for text in [format!("{me}\n/data\n"), format!("-{me}\n")] {
            fs::write(dir.path().join("postmaster.pid"), text).unwrap();
            assert_eq!(cluster.postmaster(), Some(me));
        }
    }

    #[test]
    fn nothing_waits_for_what_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::of_destination(&dir.path().join("pg_wal/RECOVERYXLOG"));
        fs::create_dir(dir.path().join("global")).unwrap();
        for name in ["global/pg_control", "postmaster.pid", "recovery.conf"] {
            let path = dir.path().join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        assert_eq!((cluster.system_id(), cluster.postmaster()), (None, None));
        assert!(!cluster.recovery_ends_with_archive());
    }
}
