//! The settings that a standby must not have lower than its primary: with a lower one it pauses
//! recovery for ever, or does not start at all.

use repmgr_types::PgVersion;

use crate::upstream::get;
use crate::{QueryError, Upstream};

/// One of the settings whose value on the primary is written to WAL, and demanded by its standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StandbyLimit {
    /// `max_connections`.
    Connections,
    /// `max_worker_processes`.
    WorkerProcesses,
    /// `max_wal_senders`, which counts from PostgreSQL 12 on.
    WalSenders,
    /// `max_prepared_transactions`.
    PreparedTransactions,
    /// `max_locks_per_transaction`.
    LocksPerTransaction,
}

impl StandbyLimit {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Connections,
        Self::WorkerProcesses,
        Self::WalSenders,
        Self::PreparedTransactions,
        Self::LocksPerTransaction,
    ];

    /// The setting's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::WorkerProcesses => "max_worker_processes",
            Self::WalSenders => "max_wal_senders",
            Self::PreparedTransactions => "max_prepared_transactions",
            Self::LocksPerTransaction => "max_locks_per_transaction",
        }
    }

    /// What a server has that is told nothing.
    fn default_value(self) -> u32 {
        match self {
            Self::Connections => 100,
            Self::WorkerProcesses => 8,
            Self::WalSenders => 10,
            Self::PreparedTransactions => 0,
            Self::LocksPerTransaction => 64,
        }
    }

    fn counts_for(self, version: PgVersion) -> bool {
        self != Self::WalSenders || version >= PgVersion::V12
    }
}

/// What a server has of the settings that its standbys must not have lower. Where one does not
/// count, or is not known, it is 0, which demands nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StandbyLimits {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`; 0 before PostgreSQL 12.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
}

/// A standby's value that is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowLimit {
    /// Which.
    pub limit: StandbyLimit,
    /// What the standby has.
    pub value: u32,
    /// What it must have at least.
    pub needed: u32,
}

/// A value in a configuration file that PostgreSQL would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for parameter \"{}\": \"{value}\"", limit.name())]
pub struct LimitError {
    /// The setting.
    pub limit: StandbyLimit,
    /// As it is written.
    pub value: String,
}

impl StandbyLimits {
    /// The value of `limit`.
    pub fn get(&self, limit: StandbyLimit) -> u32 {
        match limit {
            StandbyLimit::Connections => self.max_connections,
            StandbyLimit::WorkerProcesses => self.max_worker_processes,
            StandbyLimit::WalSenders => self.max_wal_senders,
            StandbyLimit::PreparedTransactions => self.max_prepared_transactions,
            StandbyLimit::LocksPerTransaction => self.max_locks_per_transaction,
        }
    }

    fn set(&mut self, limit: StandbyLimit, value: u32) {
        let field = match limit {
            StandbyLimit::Connections => &mut self.max_connections,
            StandbyLimit::WorkerProcesses => &mut self.max_worker_processes,
            StandbyLimit::WalSenders => &mut self.max_wal_senders,
            StandbyLimit::PreparedTransactions => &mut self.max_prepared_transactions,
            StandbyLimit::LocksPerTransaction => &mut self.max_locks_per_transaction,
        };
        *field = value;
    }

    /// What a server of `version` will have whose configuration files say what `setting` tells for
    /// a name: the value that counts, or `None` for PostgreSQL's own default.
    ///
    /// # Errors
    /// A value that PostgreSQL would refuse, so that the server would not start.
    pub fn configured<'a>(
        version: PgVersion,
        setting: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Self, LimitError> {
        let mut limits = Self::default();
        for limit in StandbyLimit::ALL
            .into_iter()
            .filter(|limit| limit.counts_for(version))
        {
            let value = match setting(limit.name()) {
                None => limit.default_value(),
                Some(text) => integer(text).ok_or_else(|| LimitError {
                    limit,
                    value: text.to_owned(),
                })?,
            };
            limits.set(limit, value);
        }
        Ok(limits)
    }

    /// The higher of both for each. A standby needs what its primary has now, and until it has replayed
    /// all WAL from its backup on also what the primary had then, which `pg_control` of the backup tells.
    #[must_use]
    pub fn highest(self, other: Self) -> Self {
        let mut highest = Self::default();
        for limit in StandbyLimit::ALL {
            highest.set(limit, self.get(limit).max(other.get(limit)));
        }
        highest
    }

    /// Which values of `standby` are lower than these, and what they must be at least.
    pub fn too_low_on(&self, standby: &Self) -> Vec<LowLimit> {
        let low = |limit| {
            let (value, needed) = (standby.get(limit), self.get(limit));
            (value < needed).then_some(LowLimit { limit, value, needed })
        };
        StandbyLimit::ALL.into_iter().filter_map(low).collect()
    }
}

impl Upstream {
    /// The settings this server runs with that a standby of it must not have lower. Those of a server that is
    /// itself a standby are its own: what its primary demands is at most that, or it would not replay.
    pub fn standby_limits(&self) -> Result<StandbyLimits, QueryError> {
        const WHAT: &str = "read the settings that a standby must not have lower";
        let columns = StandbyLimit::ALL.map(|limit| {
            // The names are constants of ours.
            format!("pg_catalog.current_setting('{}')::bigint", limit.name())
        });
        let sql = format!("SELECT {}", columns.join(", "));
        let values = self.ask_one(WHAT, &sql, &[], |row| {
            StandbyLimit::ALL
                .into_iter()
                .enumerate()
                .map(|(column, limit)| Ok((limit, get::<i64>(row, column)?)))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let mut limits = StandbyLimits::default();
        for (limit, value) in values {
            if !limit.counts_for(self.server_version()) {
                continue;
            }
            let value = u32::try_from(value);
            limits.set(
                limit,
                value.map_err(|e| self.unusable(WHAT, format!("{}: {e}", limit.name())))?,
            );
        }
        Ok(limits)
    }
}

/// As PostgreSQL reads an integer without a unit: decimal, hexadecimal, octal, or since 12 a fraction
/// that it rounds.
fn integer(text: &str) -> Option<u32> {
    let text = text.trim();
    let number = text.strip_prefix('+').unwrap_or(text);
    if number.starts_with(['+', '-']) {
        return None;
    }
    let whole = match number.strip_prefix("0x").or(number.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if number.starts_with('0') && number.len() > 1 => u32::from_str_radix(number, 8).ok(),
        None => number.parse().ok(),
    };
    let fraction = || {
        let digits = number.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        let value: f64 = number.parse().ok().filter(|_| digits)?;
        // Checked to be in range before it is cut.
        (0.0..=f64::from(i32::MAX))
            .contains(&value)
            .then(|| value.round_ties_even() as u32)
    };
    whole.or_else(fraction).filter(|value| *value <= i32::MAX as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(num: u32) -> PgVersion {
        PgVersion::from_num(num).unwrap()
    }

    const PRIMARY: StandbyLimits = StandbyLimits {
        max_connections: 200,
        max_worker_processes: 8,
        max_wal_senders: 20,
        max_prepared_transactions: 0,
        max_locks_per_transaction: 64,
    };

    #[test]
    fn what_is_lower_is_told_and_what_is_higher_is_not() {
        let standby = StandbyLimits {
            max_connections: 100,
            max_worker_processes: 16,
            max_wal_senders: 19,
            ..PRIMARY
        };
        let low: Vec<_> = PRIMARY
            .too_low_on(&standby)
            .iter()
            .map(|low| (low.limit.name(), low.value, low.needed))
            .collect();
        assert_eq!(low, [("max_connections", 100, 200), ("max_wal_senders", 19, 20)]);
        assert_eq!(PRIMARY.too_low_on(&PRIMARY), []);
        assert_eq!(StandbyLimits::default().too_low_on(&standby), []);
    }

    #[test]
    fn both_then_and_now_count() {
        let then = StandbyLimits {
            max_connections: 50,
            max_prepared_transactions: 7,
            ..PRIMARY
        };
        let both = PRIMARY.highest(then);
        assert_eq!((both.max_connections, both.max_prepared_transactions), (200, 7));
    }

    #[test]
    fn files_are_read_as_postgresql_reads_them() {
        let none = |_: &str| None;
        let default = StandbyLimits::configured(version(150_000), none).unwrap();
        assert_eq!((default.max_connections, default.max_wal_senders), (100, 10));
        let old = StandbyLimits::configured(version(110_000), none).unwrap();
        assert_eq!((old.max_connections, old.max_wal_senders), (100, 0));
        let some = |name: &str| (name == "max_connections").then_some("many");
        let error = StandbyLimits::configured(version(150_000), some).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid value for parameter \"max_connections\": \"many\""
        );
    }

    #[test]
    fn integers_may_be_written_in_several_ways() {
        for (text, value) in [
            ("300", Some(300)),
            (" 300 ", Some(300)),
            ("0x64", Some(100)),
            ("0144", Some(100)),
            ("1e2", Some(100)),
            ("99.6", Some(100)),
            ("0", Some(0)),
            ("-1", None),
            ("", None),
            ("10kB", None),
            ("inf", None),
            ("nan", None),
            ("+-1", None),
            ("99999999999", None),
            ("4294967295", None),
        ] {
            assert_eq!(integer(text), value, "{text}");
        }
    }
}
