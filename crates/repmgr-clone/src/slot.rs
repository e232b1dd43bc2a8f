//! The replication slot of the standby, made before the copy so that it keeps the WAL the standby
//! will need.

use crate::plan::Gathered;
use crate::{CloneError, CloneRequest, Context, Event};

/// A slot on the upstream node.
pub(crate) struct Slot {
    name: Option<String>,
    /// We made it, and take it back if there is no standby.
    created: bool,
    /// The node that is copied has it.
    on_source: bool,
}

impl Slot {
    /// Creates the slot, or finds it there unused.
    pub(crate) fn create(
        request: &CloneRequest,
        gathered: &Gathered<'_>,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let mut slot = Self {
            name: None,
            created: false,
            on_source: false,
        };
        if !request.replication.use_slot {
            return Ok(slot);
        }
        let name = request.slot_name();
        let upstream = match gathered.nodes.connect_upstream(context) {
            Ok(upstream) => upstream,
            // Nobody could be asked before either.
            Err(error) if gathered.nodes.source().is_none() => {
                context.observer.event(Event::Warning {
                    text: format!("replication slot \"{name}\" could not be created on the upstream node"),
                    detail: Some(error.to_string()),
                    hint: Some(format!(
                        "create it before you start the standby: SELECT pg_create_physical_replication_slot('{name}', true)"
                    )),
                });
                return Ok(slot);
            }
            Err(error) => return Err(error),
        };
        slot.on_source = gathered.nodes.source_is_upstream(&upstream);
        match upstream.slot(&name)? {
            Some(found) if found.active || !found.physical => {
                return Err(CloneError::Metadata {
                    message: format!(
                        "replication slot \"{name}\" exists on the upstream node and cannot be used"
                    ),
                    detail: Some(match found.physical {
                        true => "another standby streams from it".to_owned(),
                        false => "it is a logical slot".to_owned(),
                    }),
                    hint: Some("check that no other node has this node_id".to_owned()),
                });
            }
            // One that has lost its WAL, or reserves none, would not protect the standby's.
            Some(found) if found.restart_lsn.is_none() => {
                upstream.drop_slot(&name)?;
                upstream.create_physical_slot(&name)?;
                slot.created = true;
            }
            Some(_) => {}
            None => {
                upstream.create_physical_slot(&name)?;
                slot.created = true;
            }
        }
        if slot.created {
            context.observer.event(Event::SlotCreated {
                name: name.clone(),
                node_id: gathered.plan.upstream_node_id,
            });
        }
        slot.name = Some(name);
        Ok(slot)
    }

    /// The slot for `pg_basebackup` to stream through: only where it connects to, and not without
    /// having been asked for.
    pub(crate) fn for_source(&self) -> Option<String> {
        self.name.clone().filter(|_| self.on_source)
    }

    /// Drops the slot again if we made it: without its standby it would keep WAL for ever.
    pub(crate) fn take_back(&self, gathered: &Gathered<'_>, context: &Context<'_>) {
        let Some(name) = self.name.as_ref().filter(|_| self.created) else {
            return;
        };
        let dropped = gathered
            .nodes
            .connect_upstream(context)
            .and_then(|upstream| Ok(upstream.drop_slot(name)?));
        if let Err(error) = dropped {
            context.observer.event(Event::Warning {
                text: format!("replication slot \"{name}\" could not be dropped from the upstream node"),
                detail: Some(error.to_string()),
                hint: Some("drop it if no clone will use it, or it will keep WAL there for ever".to_owned()),
            });
        }
    }
}
