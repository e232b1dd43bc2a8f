//! How far a standby is.

use repmgr_types::Lsn;

use crate::upstream::get;
use crate::{QueryError, Upstream};

/// Where a server is that replays WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandbyProgress {
    /// Whether it is a standby at all.
    pub in_recovery: bool,
    /// Up to where it has replayed.
    pub replayed: Option<Lsn>,
    /// Up to where it has received WAL by streaming since it was started; `None` before that began.
    pub received: Option<Lsn>,
    /// Whether it streams now. A role that may not see the state of the WAL receiver sees that there is one, which
    /// counts once it has received something.
    pub streams: bool,
}

impl Upstream {
    /// How far this server is, if it is a standby.
    pub fn standby_progress(&self) -> Result<StandbyProgress, QueryError> {
        const WHAT: &str = "ask how far the standby is";
        let sql = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn()::text, \
                   pg_catalog.pg_last_wal_receive_lsn()::text, \
                   coalesce((SELECT coalesce(status, 'streaming') = 'streaming' \
                             FROM pg_catalog.pg_stat_wal_receiver LIMIT 1), false)";
        let lsn = |text: Option<String>| text.and_then(|text| text.parse().ok());
        self.ask_one(WHAT, sql, &[], |row| {
            let received = lsn(get(row, 2)?);
            Ok(StandbyProgress {
                in_recovery: get(row, 0)?,
                replayed: lsn(get(row, 1)?),
                received,
                streams: get::<bool>(row, 3)? && received.is_some(),
            })
        })
    }
}
