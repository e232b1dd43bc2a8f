use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use repmgr_types::SystemId;

use crate::deliver::is_alive;

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

    fn file(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
    }

    /// The system identifier: the first eight bytes of `global/pg_control`, in this machine's byte
    /// order (PostgreSQL 9 to 18). `None` when there is no such file.
    pub fn system_id(&self) -> Option<SystemId> {
        let mut bytes = [0; 8];
        File::open(self.file("global/pg_control"))
            .and_then(|mut file| file.read_exact(&mut bytes))
            .ok()?;
        Some(SystemId(u64::from_ne_bytes(bytes))).filter(|id| id.0 != 0)
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
        fs::read_to_string(self.file("recovery.conf")).is_ok_and(|text| !sets_standby_mode(&text))
    }

    /// The process that runs the server, if one does.
    pub(crate) fn postmaster(&self) -> Option<i32> {
        let text = fs::read_to_string(self.file("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok()?;
        is_alive(pid).then_some(pid)
    }
}

fn sets_standby_mode(recovery_conf: &str) -> bool {
    let value = recovery_conf.lines().rev().find_map(|line| {
        let line = line.trim_start();
        let (name, rest) = line.split_at_checked("standby_mode".len())?;
        let value = rest.trim_start().trim_start_matches('=').trim_start();
        name.eq_ignore_ascii_case("standby_mode")
            .then(|| value.trim_start_matches('\'').to_lowercase())
    });
    value.is_some_and(|v| ["on", "t", "y", "1"].iter().any(|yes| v.starts_with(yes)))
}

#[cfg(test)]
mod tests {
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
}
