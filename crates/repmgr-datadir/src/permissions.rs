/// Whether the group may read the cluster's files, as `initdb --allow-group-access` (PostgreSQL 11
/// and later) arranges: directories 0750 and files 0640 instead of 0700 and 0600.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions {
    /// The group may read.
    pub group_access: bool,
}

impl Permissions {
    /// What a data directory of this mode allows. PostgreSQL takes its own umask from there.
    pub fn of_directory(mode: u32) -> Self {
        Self {
            group_access: mode & 0o050 == 0o050,
        }
    }

    /// The mode of directories: 0700 or 0750.
    pub fn directory(self) -> u32 {
        if self.group_access { 0o750 } else { 0o700 }
    }

    /// The mode for a copy of a file that has `mode` at its source: the owner may read and write,
    /// others nothing, the group no more than at the source. The last matters: PostgreSQL refuses a
    /// `server.key` of 0640 that it owns, in any cluster.
    pub fn file(self, mode: u32) -> u32 {
        0o600 | (mode & self.directory())
    }

    /// The mode an existing directory should get: PostgreSQL starts on 0700, and from 11 on also
    /// when the group may read. An owner's stricter choice is kept.
    pub(crate) fn correct_directory(self, mode: u32) -> u32 {
        let allowed = if self.group_access { 0o027 } else { 0o077 };
        if mode & allowed == 0 {
            mode | 0o700
        } else {
            mode & !0o077 | 0o700
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_never_allows_more_than_its_source_or_the_cluster() {
        let (closed, open) = (Permissions::default(), Permissions { group_access: true });
        assert_eq!(
            [closed.file(0o640), closed.file(0o777), closed.file(0)],
            [0o600, 0o700, 0o600]
        );
        assert_eq!(
            [open.file(0o640), open.file(0o600), open.file(0o666)],
            [0o640, 0o600, 0o640]
        );
        assert_eq!(open.file(0o4755), 0o750, "no set-uid bits");
    }

    #[test]
    fn existing_modes_are_corrected_as_postgresql_demands() {
        let (closed, open) = (Permissions::default(), Permissions { group_access: true });
        for (mode, without, with) in [
            (0o700, 0o700, 0o700),
            (0o750, 0o700, 0o750),
            (0o755, 0o700, 0o700),
            (0o770, 0o700, 0o700),
            (0o500, 0o700, 0o700),
            (0o2750, 0o2700, 0o2750),
        ] {
            assert_eq!(closed.correct_directory(mode), without, "{mode:o}");
            assert_eq!(open.correct_directory(mode), with, "{mode:o}");
        }
    }
}
