use repmgr_types::Lsn;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::upstream::get;
use crate::{Failure, QueryError, Upstream};

/// A replication slot on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationSlot {
    /// Unique on the server.
    pub name: String,
    /// Physical, as standbys need it; otherwise logical.
    pub physical: bool,
    /// Somebody streams from it.
    pub active: bool,
    /// The server process that serves whoever does.
    pub active_pid: Option<i32>,
    /// WAL from here on is kept, if the slot is sound; `None` if none is reserved, or no longer.
    pub restart_lsn: Option<Lsn>,
    /// From PostgreSQL 13 on: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Why the server has given it up: `wal_removed`, `idle_timeout` ... From PostgreSQL 17 on.
    pub invalidation_reason: Option<String>,
}

/// What a slot is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotState {
    /// There is none of that name.
    Absent,
    /// Nobody streams from it, and it keeps WAL.
    Usable {
        /// From here on.
        restart_lsn: Lsn,
    },
    /// Somebody streams from it.
    Active {
        /// The server process that serves whoever does.
        pid: Option<i32>,
    },
    /// It was made without reserving WAL, or has kept more than the server allows and loses it at
    /// the next checkpoint.
    KeepsNoWal,
    /// The server has given it up, and nobody can stream from it any more.
    Invalidated {
        /// In the server's word: `wal_removed`, `idle_timeout`; `lost` where it has no better one.
        reason: String,
    },
    /// It is no physical slot, as standbys need it.
    Logical,
}

impl ReplicationSlot {
    /// What it is good for.
    pub fn state(&self) -> SlotState {
        let lost = self.wal_status.as_deref() == Some("lost");
        let reason = self.invalidation_reason.as_deref().or(lost.then_some("lost"));
        match (reason, self.restart_lsn) {
            _ if !self.physical => SlotState::Logical,
            (Some(reason), _) => SlotState::Invalidated {
                reason: reason.to_owned(),
            },
            _ if self.active => SlotState::Active { pid: self.active_pid },
            (None, Some(restart_lsn)) if self.wal_status.as_deref() != Some("unreserved") => {
                SlotState::Usable { restart_lsn }
            }
            _ => SlotState::KeepsNoWal,
        }
    }

    /// WAL from here on is on the server, and stays there for whoever streams from the slot.
    pub fn keeps_wal_from(&self) -> Option<Lsn> {
        match self.state() {
            SlotState::Usable { .. } | SlotState::Active { .. } => self.restart_lsn,
            _ => None,
        }
    }
}

/// As JSON, so that a column which the server's version does not have is null.
const COLUMNS: &str = "SELECT slot_name::text, slot_type = 'physical', active, active_pid, restart_lsn::text, \
                       pg_catalog.to_jsonb(s) ->> 'wal_status', pg_catalog.to_jsonb(s) ->> 'invalidation_reason' \
                       FROM pg_catalog.pg_replication_slots s";

impl Upstream {
    /// All replication slots, by name.
    pub fn slots(&self) -> Result<Vec<ReplicationSlot>, QueryError> {
        self.ask(
            "list the replication slots",
            &format!("{COLUMNS} ORDER BY 1"),
            &[],
            read_slot,
        )
    }

    /// The slot with that name.
    pub fn slot(&self, name: &str) -> Result<Option<ReplicationSlot>, QueryError> {
        let sql = format!("{COLUMNS} WHERE slot_name = $1::text");
        Ok(self
            .ask(
                "look for a replication slot",
                &sql,
                &[(&name, Type::TEXT)],
                read_slot,
            )?
            .pop())
    }

    /// What the slot with that name is good for now. Cheap enough to ask again before a clone is
    /// called complete.
    pub fn slot_state(&self, name: &str) -> Result<SlotState, QueryError> {
        let slot = self.slot(name)?;
        Ok(slot.map_or(SlotState::Absent, |slot| slot.state()))
    }

    /// Creates a physical slot that keeps WAL from now on, and tells from which position.
    pub fn create_physical_slot(&self, name: &str) -> Result<Lsn, QueryError> {
        const WHAT: &str = "create the replication slot";
        let sql =
            "SELECT lsn::text FROM pg_catalog.pg_create_physical_replication_slot($1::text::name, true)";
        let lsn: String = self.ask_scalar(WHAT, sql, &[(&name, Type::TEXT)])?;
        lsn.parse().map_err(|e| self.unusable(WHAT, format!("{e}")))
    }

    /// Drops a slot. The server refuses if it is in use.
    pub fn drop_slot(&self, name: &str) -> Result<(), QueryError> {
        let sql = "SELECT pg_catalog.pg_drop_replication_slot($1::text::name)";
        self.tell("drop the replication slot", sql, &[(&name, Type::TEXT)])
    }
}

fn read_slot(row: &Row) -> Result<ReplicationSlot, Failure> {
    let lsn: Option<&str> = get(row, 4)?;
    Ok(ReplicationSlot {
        name: get(row, 0)?,
        physical: get(row, 1)?,
        active: get(row, 2)?,
        active_pid: get(row, 3)?,
        restart_lsn: lsn
            .map(|text| text.parse().map_err(|e| Failure::Answer(format!("{e}"))))
            .transpose()?,
        wal_status: get(row, 5)?,
        invalidation_reason: get(row, 6)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> ReplicationSlot {
        ReplicationSlot {
            name: "repmgr_slot_2".to_owned(),
            physical: true,
            active: false,
            active_pid: None,
            restart_lsn: Some(Lsn(1)),
            wal_status: Some("reserved".to_owned()),
            invalidation_reason: None,
        }
    }

    fn with_status(status: Option<&str>) -> SlotState {
        let wal_status = status.map(str::to_owned);
        ReplicationSlot { wal_status, ..slot() }.state()
    }

    #[test]
    fn a_position_alone_makes_no_slot_good() {
        let usable = SlotState::Usable { restart_lsn: Lsn(1) };
        // PostgreSQL 12 and older tell no status.
        for status in [None, Some("reserved"), Some("extended")] {
            assert_eq!(with_status(status), usable);
        }
        assert_eq!(with_status(Some("unreserved")), SlotState::KeepsNoWal);
        let lost = SlotState::Invalidated {
            reason: "lost".to_owned(),
        };
        assert_eq!(with_status(Some("lost")), lost);
        let idle = ReplicationSlot {
            wal_status: Some("lost".to_owned()),
            invalidation_reason: Some("idle_timeout".to_owned()),
            ..slot()
        };
        assert_eq!(idle.keeps_wal_from(), None);
        let reason = "idle_timeout".to_owned();
        assert_eq!(idle.state(), SlotState::Invalidated { reason });
    }

    #[test]
    fn who_has_a_slot_comes_before_what_it_keeps() {
        let active = ReplicationSlot {
            active: true,
            active_pid: Some(7),
            wal_status: Some("unreserved".to_owned()),
            ..slot()
        };
        assert_eq!(active.state(), SlotState::Active { pid: Some(7) });
        let logical = ReplicationSlot {
            physical: false,
            ..active
        };
        assert_eq!(logical.state(), SlotState::Logical);
        let unused = ReplicationSlot {
            restart_lsn: None,
            wal_status: None,
            ..slot()
        };
        assert_eq!(unused.state(), SlotState::KeepsNoWal);
    }
}
