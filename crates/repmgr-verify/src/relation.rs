/// The parts of a relation on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// The data.
    Main,
    /// `_fsm`; PostgreSQL replaces pages of it that are damaged.
    FreeSpaceMap,
    /// `_vm`; PostgreSQL replaces pages of it that are damaged.
    VisibilityMap,
    /// `_init`: the relation is unlogged, and PostgreSQL throws its other forks away when it starts from a
    /// backup, so that damage in them does not matter.
    Init,
}

/// A file that holds pages of a relation, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelationFile<'a> {
    /// The path without fork and segment, the same for all files of one relation: `base/5/16384`.
    pub relation: &'a [u8],
    /// Which fork.
    pub fork: Fork,
    /// Which part of the fork, counted from 0: 2 for `16384.2`.
    pub segment: u32,
}

impl<'a> RelationFile<'a> {
    /// From a path relative to the data directory; tablespaces are `pg_tblspc/OID/PG_15_202209061/...`.
    ///
    /// `None` for every other file: `global/pg_control`, `pg_filenode.map`, `PG_VERSION`, temporary relations
    /// (`t3_16384`), incremental files (`INCREMENTAL.16384`, whose pages lie behind a header), the transaction
    /// status in `pg_xact`, and names PostgreSQL itself would not write. That is what the server looks at in a
    /// base backup (`basebackup.c` of 16 and later); `pg_checksums` also takes temporary relations.
    pub fn parse(path: &'a [u8]) -> Option<Self> {
        let parts: Vec<_> = path.splitn(6, |byte| *byte == b'/').collect();
        let name = match parts[..] {
            [b"global", name] => name,
            [b"base", database, name] if is_oid(database) => name,
            [b"pg_tblspc", tablespace, version, database, name]
                if is_oid(tablespace) && version.starts_with(b"PG_") && is_oid(database) =>
            {
                name
            }
            _ => return None,
        };
        let (name, segment) = match name.iter().position(|byte| *byte == b'.') {
            Some(dot) => (&name[..dot], Some(number(&name[dot + 1..])?)),
            None => (name, None),
        };
        let (number, fork) = match name.iter().position(|byte| *byte == b'_') {
            Some(bar) => (&name[..bar], Some(&name[bar..])),
            None => (name, None),
        };
        let fork = match fork {
            None => Fork::Main,
            Some(b"_fsm") => Fork::FreeSpaceMap,
            Some(b"_vm") => Fork::VisibilityMap,
            Some(b"_init") => Fork::Init,
            Some(_) => return None,
        };
        let directory = path.len() - parts.last()?.len();
        is_oid(number).then_some(Self {
            relation: &path[..directory + number.len()],
            fork,
            segment: segment.unwrap_or(0),
        })
    }
}

fn is_oid(text: &[u8]) -> bool {
    number(text).is_some()
}

/// A positive number as PostgreSQL writes it: no sign, no leading zero, 32 bits.
fn number(text: &[u8]) -> Option<u32> {
    if text.first()? == &b'0' || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<(&str, Fork, u32)> {
        let file = RelationFile::parse(path.as_bytes())?;
        Some((str::from_utf8(file.relation).unwrap(), file.fork, file.segment))
    }

    #[test]
    fn files_of_relations_are_told_by_their_names() {
        for (path, expected) in [
            ("global/1262", ("global/1262", Fork::Main, 0)),
            ("global/1260_fsm", ("global/1260", Fork::FreeSpaceMap, 0)),
            ("base/5/16384", ("base/5/16384", Fork::Main, 0)),
            ("base/5/16384.31", ("base/5/16384", Fork::Main, 31)),
            ("base/5/16384_vm.1", ("base/5/16384", Fork::VisibilityMap, 1)),
            ("base/4294967295/1_init", ("base/4294967295/1", Fork::Init, 0)),
            (
                "pg_tblspc/16390/PG_15_202209061/5/2619.2",
                ("pg_tblspc/16390/PG_15_202209061/5/2619", Fork::Main, 2),
            ),
        ] {
            assert_eq!(parse(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn other_files_have_no_pages() {
        for path in [
            "",
            "/",
            "PG_VERSION",
            "backup_label",
            "global/pg_control",
            "global/pg_filenode.map",
            "global/pg_internal.init",
            "global/pg_internal.init.1234",
            "global/config_exec_params",
            "global/5/1262",
            "base/16384",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/5/pg_internal.init",
            "base/5/t3_16384",
            "base/5/t3_16384_fsm.1",
            "base/5/INCREMENTAL.16384",
            "base/5/16384_tmp",
            "base/5/16384_",
            "base/5/16384.",
            "base/5/16384.0",
            "base/5/16384.01",
            "base/5/16384.1.2",
            "base/5/16384.1_fsm",
            "base/5/16384.4294967296",
            "base/5/016384",
            "base/5/+16384",
            "base/5/4294967296",
            "base/5/",
            "base//16384",
            "./base/5/16384",
            "base/5/16384/1",
            "base/pgsql_tmp/pgsql_tmp123.0",
            "base/pgsql_tmp/16384",
            "pg_xact/0000",
            "pg_multixact/members/0000",
            "pg_tblspc/16390",
            "pg_tblspc/16390/PG_15_202209061/16384",
            "pg_tblspc/16390/other/5/16384",
            "pg_tblspc/16390/PG_15_202209061/pgsql_tmp/1",
            "pg_tblspc/16390/PG_15_202209061/5/6/7",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
