//! What belongs into a standby's data directory, by name.

use repmgr_types::PgVersion;

use crate::control::PG_CONTROL;
use crate::tree::{Tree, TreeError};

/// What to do with an entry of a backup when it is copied into a standby's data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyRule {
    /// Copy the file, or create the directory.
    Copy,
    /// Create the directory; nothing in it is copied.
    DirOnly,
    /// Leave it out.
    Skip,
    /// `global/pg_control`: it goes in when everything else is on disk.
    Last,
}

/// Directories whose content belongs to one run of one server, or that others fill here.
const DIR_ONLY: &[&[u8]] = &[
    // WAL comes from the archive and the upstream; old segments would only mislead recovery.
    b"pg_wal",
    b"pg_xlog",
    // The logs of another server.
    b"log",
    b"pg_log",
    // Links, made here for the tablespaces' places on this host. (Passive Barman nodes before 2.19
    // also keep whole copies of tablespaces in it.)
    b"pg_tblspc",
    // A copied slot would hold back WAL here for consumers that are elsewhere.
    b"pg_replslot",
    // Shared memory, subscriptions, statistics and snapshots of running sessions: emptied by
    // PostgreSQL when it starts. pg_basebackup leaves them out, too.
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_stat_tmp",
    b"pg_subtrans",
];

/// Files at the top that belong to one run of one server, or to another recovery than ours.
const SKIP_AT_TOP: &[&[u8]] = &[
    b"postmaster.pid",
    b"postmaster.opts",
    // PostgreSQL 12 and later refuse to start with it; before 12 ours takes its place.
    b"recovery.conf",
    b"recovery.done",
    // The backup's own role; recovery.signal would promote at the end of the archive.
    b"recovery.signal",
    b"standby.signal",
    // Would turn the tablespace links back to the places of the backed-up host.
    b"tablespace_map",
    b"tablespace_map.old",
    b"backup_label.old",
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    b".barman-recover.info",
];

/// Our own state directory; one in a backup is left over from another clone.
const STATE_DIR: &[u8] = crate::marker::STATE_DIR.as_bytes();

/// What to do with `rel`, a path below the data directory of a backup, as bytes.
pub fn copy_rule(rel: &[u8], is_dir: bool) -> CopyRule {
    let (top, rest) = match rel.iter().position(|b| *b == b'/') {
        Some(at) => (&rel[..at], Some(&rel[at + 1..])),
        None => (rel, None),
    };
    if rel == PG_CONTROL.as_bytes() {
        CopyRule::Last
    } else if top == STATE_DIR
        || (rest.is_none() && !is_dir && SKIP_AT_TOP.contains(&top))
        || is_temporary(rel)
    {
        CopyRule::Skip
    } else if DIR_ONLY.contains(&top) {
        if rest.is_none() && is_dir {
            CopyRule::DirOnly
        } else {
            CopyRule::Skip
        }
    } else {
        CopyRule::Copy
    }
}

/// What to do with `rel`, a path below a tablespace's location. Only `PG_<major>_<catalogue>`
/// directories are PostgreSQL's.
pub fn tablespace_copy_rule(rel: &[u8], is_dir: bool) -> CopyRule {
    let top_is_file = !is_dir && !rel.contains(&b'/');
    if !rel.starts_with(b"PG_") || top_is_file || is_temporary(rel) {
        CopyRule::Skip
    } else {
        CopyRule::Copy
    }
}

/// Temporary files and directories, temporary relations (`t3_16384`), and caches that PostgreSQL
/// rebuilds and that may be older than the catalogue when restored.
fn is_temporary(rel: &[u8]) -> bool {
    let mut parts = rel.split(|b| *b == b'/').peekable();
    let mut above: &[u8] = b"";
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        if part.starts_with(b"pgsql_tmp")
            || (last && part.starts_with(b"pg_internal.init"))
            || (last
                && !above.is_empty()
                && above.iter().all(u8::is_ascii_digit)
                && is_temporary_relation(part))
        {
            return true;
        }
        above = part;
    }
    false
}

/// `t<backend>_<relation>`, with a fork and a segment number behind it perhaps.
fn is_temporary_relation(name: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let Some(rest) = name.strip_prefix(b"t") else {
        return false;
    };
    let backend = digits(rest);
    backend > 0 && rest.get(backend) == Some(&b'_') && digits(&rest[backend + 1..]) > 0
}

/// Directories every data directory of that version has, also when a backup lists only files. Parents
/// come before what is in them.
pub fn skeleton_dirs(version: PgVersion) -> impl Iterator<Item = &'static str> {
    const SINCE: &[(u32, u32, &str)] = &[
        (0, u32::MAX, "global"),
        (0, u32::MAX, "pg_notify"),
        (0, u32::MAX, "pg_serial"),
        (0, u32::MAX, "pg_snapshots"),
        (0, u32::MAX, "pg_stat"),
        (0, u32::MAX, "pg_stat_tmp"),
        (0, u32::MAX, "pg_subtrans"),
        (0, u32::MAX, "pg_tblspc"),
        (0, u32::MAX, "pg_twophase"),
        (90_400, u32::MAX, "pg_dynshmem"),
        (90_400, u32::MAX, "pg_logical"),
        (90_400, u32::MAX, "pg_logical/mappings"),
        (90_400, u32::MAX, "pg_logical/snapshots"),
        (90_400, u32::MAX, "pg_replslot"),
        (90_500, u32::MAX, "pg_commit_ts"),
        (0, 100_000, "pg_xlog"),
        (0, 100_000, "pg_xlog/archive_status"),
        (100_000, u32::MAX, "pg_wal"),
        (100_000, u32::MAX, "pg_wal/archive_status"),
        (170_000, u32::MAX, "pg_wal/summaries"),
    ];
    let has = move |(from, below, _): &&(u32, u32, &str)| (*from..*below).contains(&version.num());
    SINCE.iter().filter(has).map(|(_, _, dir)| *dir)
}

/// Creates the directories of [`skeleton_dirs`] that are missing. With `wal`, the WAL directory is
/// outside: it gets its own subdirectories, and `data` gets none (link it with [`Tree::symlink`]).
///
/// # Errors
/// The first directory that cannot be created.
pub fn create_skeleton(data: &Tree, wal: Option<&Tree>, version: PgVersion) -> Result<(), TreeError> {
    for dir in skeleton_dirs(version) {
        let below_wal = dir.strip_prefix("pg_wal").or(dir.strip_prefix("pg_xlog"));
        match (wal, below_wal) {
            (Some(_), Some("")) => {}
            (Some(wal), Some(below)) => wal.create_dir(&below[1..])?,
            _ => data.create_dir(dir)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::CopyRule::{Copy, DirOnly, Last, Skip};
    use super::*;

    #[test]
    fn every_name_has_its_rule() {
        for (path, is_dir, rule) in [
            ("global/pg_control", false, Last),
            ("global/pg_control.old", false, Copy),
            ("PG_VERSION", false, Copy),
            ("backup_label", false, Copy),
            ("backup_manifest", false, Copy),
            ("postgresql.auto.conf", false, Copy),
            ("base/5/1249", false, Copy),
            ("base/5/16384_fsm.1", false, Copy),
            ("pg_logical/snapshots/0-15FF.snap", false, Copy),
            ("pg_twophase/000002F1", false, Copy),
            ("conf.d/recovery.conf", false, Copy),
            ("conf.d/standby.signal", false, Copy),
            ("logical", true, Copy),
            ("postmaster.pid", false, Skip),
            ("recovery.conf", false, Skip),
            ("recovery.signal", false, Skip),
            ("standby.signal", false, Skip),
            ("tablespace_map", false, Skip),
            ("tablespace_map.old", false, Skip),
            ("backup_label.old", false, Skip),
            ("postgresql.auto.conf.tmp", false, Skip),
            ("pg_wal", true, DirOnly),
            ("pg_wal", false, Skip),
            ("pg_wal/000000010000000000000003", false, Skip),
            ("pg_wal/archive_status", true, Skip),
            ("pg_xlog/000000010000000000000003", false, Skip),
            ("pg_replslot", true, DirOnly),
            ("pg_replslot/a/state", false, Skip),
            ("pg_tblspc/16400/PG_15_202209061", true, Skip),
            ("log", true, DirOnly),
            ("log/postgresql-Mon.log", false, Skip),
            ("repmgr/clone.json", false, Skip),
            ("repmgr", true, Skip),
            ("base/pgsql_tmp", true, Skip),
            ("base/pgsql_tmp/pgsql_tmp17.0", false, Skip),
            ("global/pg_internal.init", false, Skip),
            ("base/5/pg_internal.init.4711", false, Skip),
            ("base/5/t3_16384", false, Skip),
            ("base/5/t12_16384_vm", false, Skip),
            ("base/5/t_16384", false, Copy),
            ("base/5/t3_", false, Copy),
            ("scripts/t3_16384", false, Copy),
        ] {
            assert_eq!(copy_rule(path.as_bytes(), is_dir), rule, "{path}");
        }
    }

    #[test]
    fn tablespaces_hold_version_directories_and_nothing_else() {
        for (path, is_dir, rule) in [
            ("PG_15_202209061", true, Copy),
            ("PG_15_202209061/5/16400", false, Copy),
            ("PG_15_202209061/5/t3_16400", false, Skip),
            ("PG_15_202209061/pgsql_tmp", true, Skip),
            ("PG_15_202209061", false, Skip),
            ("lost+found", true, Skip),
            ("notes.txt", false, Skip),
        ] {
            assert_eq!(tablespace_copy_rule(path.as_bytes(), is_dir), rule, "{path}");
        }
    }

    #[test]
    fn each_version_has_its_own_skeleton() {
        let dirs = |num| skeleton_dirs(PgVersion::from_num(num).unwrap()).collect::<Vec<_>>();
        assert!(dirs(90_300).contains(&"pg_xlog/archive_status") && !dirs(90_300).contains(&"pg_replslot"));
        assert!(dirs(100_000).contains(&"pg_wal/archive_status") && !dirs(100_000).contains(&"pg_xlog"));
        assert!(!dirs(160_004).contains(&"pg_wal/summaries") && dirs(170_000).contains(&"pg_wal/summaries"));
    }

    #[test]
    fn a_wal_directory_elsewhere_gets_its_own_part_of_the_skeleton() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let dir = scratch.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            Tree::open(&dir, crate::Permissions::default()).unwrap()
        };
        let (data, wal) = (at("data"), at("wal"));
        create_skeleton(&data, Some(&wal), PgVersion::from_num(170_000).unwrap()).unwrap();
        assert!(
            data.metadata("pg_wal").unwrap().is_none()
                && data.metadata("pg_logical/mappings").unwrap().is_some()
        );
        assert!(
            wal.metadata("archive_status").unwrap().is_some() && wal.metadata("summaries").unwrap().is_some()
        );
    }
}
