//! repmgr's own tables, as repmgr 4.0 to 5.5 define them: read and written by column, with
//! schema-qualified names and none of the extension's functions.

use repmgr_types::Conninfo;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::upstream::get;
use crate::{ConnectError, Environment, Failure, QueryError, Upstream, connect};

/// A row of `repmgr.nodes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Unique in the cluster.
    pub node_id: i32,
    /// The node it streams from; `None` for a primary.
    pub upstream_node_id: Option<i32>,
    /// Cleared when the node is known to have failed.
    pub active: bool,
    /// Also the standby's `application_name`.
    pub node_name: String,
    /// `primary`, `standby`, `witness` or `bdr`.
    pub node_type: String,
    /// Free text; `default` unless set.
    pub location: String,
    /// For promotion; 0 never.
    pub priority: i32,
    /// How other nodes connect to it.
    pub conninfo: Conninfo,
    /// The user for replication connections to it.
    pub repluser: String,
    /// The slot it uses on its upstream node.
    pub slot_name: Option<String>,
    /// Where its `repmgr.conf` is.
    pub config_file: String,
}

/// The `repmgr` extension in the connected database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtensionState {
    /// The server's host does not have it.
    NotAvailable,
    /// The host has it, the database does not.
    Available {
        /// The version that would be installed.
        version: String,
    },
    /// The database has it, in at least the version the host has.
    Installed {
        /// The version in the database.
        version: String,
    },
    /// The host has a newer version than the database.
    Outdated {
        /// The version in the database.
        installed: String,
        /// The version on the host.
        available: String,
    },
}

/// The outcome of looking for the primary.
#[derive(Debug)]
pub struct PrimarySearch {
    /// The primary's record and a session with it.
    pub found: Option<(NodeRecord, Upstream)>,
    /// Nodes that could not be asked, and why.
    pub unreachable: Vec<(NodeRecord, ConnectError)>,
}

const COLUMNS: &str = "SELECT node_id, upstream_node_id, active, node_name, type, location, priority, \
                       conninfo, repluser::text, slot_name, config_file FROM repmgr.nodes";

impl Upstream {
    /// The record of node `id`.
    pub fn node_by_id(&self, id: i32) -> Result<Option<NodeRecord>, QueryError> {
        let sql = format!("{COLUMNS} WHERE node_id = $1");
        let mut found = self.ask("read a node's record", &sql, &[(&id, Type::INT4)], read_node)?;
        Ok(found.pop())
    }

    /// All records, by id.
    pub fn nodes(&self) -> Result<Vec<NodeRecord>, QueryError> {
        let sql = format!("{COLUMNS} ORDER BY node_id");
        self.ask("list the nodes", &sql, &[], read_node)
    }

    /// The record of the active primary.
    pub fn primary_node(&self) -> Result<Option<NodeRecord>, QueryError> {
        let sql = format!("{COLUMNS} WHERE type = 'primary' AND active ORDER BY node_id LIMIT 1");
        Ok(self.ask("read the primary's record", &sql, &[], read_node)?.pop())
    }

    /// All records with that name: it is not unique.
    pub fn nodes_by_name(&self, name: &str) -> Result<Vec<NodeRecord>, QueryError> {
        let sql = format!("{COLUMNS} WHERE node_name = $1 ORDER BY node_id");
        self.ask("read a node's record", &sql, &[(&name, Type::TEXT)], read_node)
    }

    /// Looks for the primary from a standby: asks each active node, the one recorded as primary
    /// first, whether it is in recovery.
    pub fn find_primary(&self, env: &Environment) -> Result<PrimarySearch, QueryError> {
        let sql = format!(
            "{COLUMNS} WHERE active AND type <> 'witness' ORDER BY type <> 'primary', priority DESC, node_id"
        );
        let mut unreachable = Vec::new();
        for node in self.ask("list the nodes", &sql, &[], read_node)? {
            match connect(&node.conninfo, env) {
                Ok(session) => {
                    if !session.is_in_recovery()? {
                        return Ok(PrimarySearch {
                            found: Some((node, session)),
                            unreachable,
                        });
                    }
                }
                Err(error) => unreachable.push((node, error)),
            }
        }
        Ok(PrimarySearch {
            found: None,
            unreachable,
        })
    }

    /// Whether the connected database can hold repmgr's records.
    pub fn extension_state(&self) -> Result<ExtensionState, QueryError> {
        let sql = "SELECT (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'repmgr'), \
                   (SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'repmgr')";
        self.ask_one("look for the repmgr extension", sql, &[], |row| {
            Ok(extension_state(get(row, 0)?, get(row, 1)?))
        })
    }

    /// Records which slot node `id` uses on its upstream node. Only a primary can.
    pub fn set_slot_name(&self, id: i32, slot_name: &str) -> Result<(), QueryError> {
        let sql = "UPDATE repmgr.nodes SET slot_name = $2 WHERE node_id = $1";
        let params = [(&id as _, Type::INT4), (&slot_name as _, Type::TEXT)];
        self.tell("record a node's replication slot", sql, &params)
    }

    /// Adds a row to `repmgr.events`, stamped with the server's time. Only a primary can.
    pub fn insert_event(
        &self,
        node_id: i32,
        event: &str,
        successful: bool,
        details: &str,
    ) -> Result<(), QueryError> {
        let sql = "INSERT INTO repmgr.events (node_id, event, successful, details) VALUES ($1, $2, $3, $4)";
        let params = [
            (&node_id as _, Type::INT4),
            (&event as _, Type::TEXT),
            (&successful as _, Type::BOOL),
            (&details as _, Type::TEXT),
        ];
        self.tell("record an event", sql, &params)
    }
}

fn read_node(row: &Row) -> Result<NodeRecord, Failure> {
    let node_id = get(row, 0)?;
    let conninfo: &str = get(row, 7)?;
    // The reason does not quote the string, which may hold a password.
    let conninfo = Conninfo::parse(conninfo)
        .map_err(|e| Failure::Answer(format!("the record of node {node_id} is unusable: {e}")))?;
    Ok(NodeRecord {
        node_id,
        upstream_node_id: get(row, 1)?,
        active: get(row, 2)?,
        node_name: get(row, 3)?,
        node_type: get(row, 4)?,
        location: get(row, 5)?,
        priority: get(row, 6)?,
        conninfo,
        repluser: get(row, 8)?,
        slot_name: get::<Option<String>>(row, 9)?.filter(|name| !name.is_empty()),
        config_file: get(row, 10)?,
    })
}

fn extension_state(installed: Option<String>, available: Option<String>) -> ExtensionState {
    match (installed, available) {
        (Some(installed), Some(available)) if numbers(&installed) < numbers(&available) => {
            ExtensionState::Outdated { installed, available }
        }
        (Some(version), _) => ExtensionState::Installed { version },
        (None, Some(version)) => ExtensionState::Available { version },
        (None, None) => ExtensionState::NotAvailable,
    }
}

/// "5.10" is newer than "5.9".
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_is_compared_by_number() {
        let state = |a: Option<&str>, b: Option<&str>| extension_state(a.map(Into::into), b.map(Into::into));
        assert_eq!(state(None, None), ExtensionState::NotAvailable);
        assert_eq!(
            state(None, Some("5.3")),
            ExtensionState::Available {
                version: "5.3".into()
            }
        );
        assert_eq!(
            state(Some("5.10"), Some("5.9")),
            ExtensionState::Installed {
                version: "5.10".into()
            }
        );
        assert_eq!(
            state(Some("5.3"), Some("5.10")),
            ExtensionState::Outdated {
                installed: "5.3".into(),
                available: "5.10".into()
            }
        );
    }
}
