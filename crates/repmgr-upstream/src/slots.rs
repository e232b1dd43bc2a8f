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
    /// WAL from here on is kept; `None` if none is reserved, or no longer.
    pub restart_lsn: Option<Lsn>,
}

const COLUMNS: &str = "SELECT slot_name::text, slot_type = 'physical', active, restart_lsn::text \
                       FROM pg_catalog.pg_replication_slots";

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
    let lsn: Option<&str> = get(row, 3)?;
    Ok(ReplicationSlot {
        name: get(row, 0)?,
        physical: get(row, 1)?,
        active: get(row, 2)?,
        restart_lsn: lsn
            .map(|text| text.parse().map_err(|e| Failure::Answer(format!("{e}"))))
            .transpose()?,
    })
}
