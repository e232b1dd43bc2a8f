use std::fmt;
use std::str::FromStr;

use crate::ParseError;

/// A PostgreSQL version as `server_version_num` gives it: 150018 for 15.18, 90624 for 9.6.24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgVersion(u32);

impl PgVersion {
    /// The first version whose standby settings live in `postgresql.auto.conf`.
    pub const V12: PgVersion = PgVersion(120_000);

    /// From `server_version_num`. `None` for numbers no PostgreSQL release has had the shape of.
    pub fn from_num(num: u32) -> Option<Self> {
        (80_000..10_000_000).contains(&num).then_some(Self(num))
    }

    /// `server_version_num`.
    pub fn num(self) -> u32 {
        self.0
    }

    /// The major version of PostgreSQL 10 and later (15 for 15.18); 9 for all of 9.x.
    pub fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// Whether both are of one major version, so that one can replay the other's WAL.
    pub fn same_major(self, other: PgVersion) -> bool {
        self.major_name() == other.major_name()
    }

    /// What `PG_VERSION` holds: "15", "9.6".
    pub fn major_name(self) -> String {
        if self.0 >= 100_000 {
            self.major().to_string()
        } else {
            format!("{}.{}", self.0 / 10_000, self.0 / 100 % 100)
        }
    }

    /// Standby settings live in `recovery.conf` (before 12) rather than `standby.signal`.
    pub fn uses_recovery_conf(self) -> bool {
        self < Self::V12
    }

    /// The cluster may allow its group to read the data directory (0750), from 11 on.
    pub fn allows_group_access(self) -> bool {
        self.0 >= 110_000
    }
}

impl fmt::Display for PgVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 100_000 {
            write!(f, "{}.{}", self.major(), self.0 % 10_000)
        } else {
            write!(f, "{}.{}.{}", self.0 / 10_000, self.0 / 100 % 100, self.0 % 100)
        }
    }
}

/// The identifier `initdb` gives a cluster; all its physical standbys and backups carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SystemId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.parse()
            .map(Self)
            .map_err(|_| ParseError::new(text, "a system identifier (a decimal number)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(num: u32) -> PgVersion {
        PgVersion::from_num(num).unwrap()
    }

    #[test]
    fn versions_print_as_people_write_them() {
        assert_eq!(v(150_018).to_string(), "15.18");
        assert_eq!(v(90_624).to_string(), "9.6.24");
        assert_eq!(
            (v(150_018).major_name(), v(90_624).major_name()),
            ("15".into(), "9.6".into())
        );
        assert!(v(150_018).same_major(v(150_002)) && !v(90_500).same_major(v(90_600)));
        assert_eq!(PgVersion::from_num(15), None);
    }

    #[test]
    fn the_way_of_configuring_a_standby_changed_with_12() {
        assert!(v(110_022).uses_recovery_conf() && !v(120_000).uses_recovery_conf());
        assert!(!v(100_023).allows_group_access() && v(110_000).allows_group_access());
    }
}
