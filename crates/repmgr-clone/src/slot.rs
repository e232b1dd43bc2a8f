//! The replication slot of the standby, made before anything that will need it, so that it keeps the
//! WAL the standby will need.

use repmgr_upstream::{ReplicationCheckError, ReplicationConnection, Upstream, connect_replication};

use crate::node::Nodes;
use crate::request::Standby;
use crate::{CloneError, Context, Event};

/// A slot on the upstream node.
pub(crate) struct Slot {
    name: Option<String>,
    /// We made it, and take it back if there is no standby.
    created: bool,
    /// The node that is copied has it.
    on_source: bool,
    /// The role that may make slots if no other may.
    superuser: Option<String>,
}

/// A role that may make slots on the upstream node, which that of its connection string need not be.
enum Maker {
    /// It may.
    Own,
    /// The one named for such things.
    Superuser(Upstream),
    /// The one that the standby will stream as.
    Replication(ReplicationConnection),
}

impl Maker {
    /// In the order of repmgr.
    fn find(
        upstream: &Upstream,
        superuser: Option<&str>,
        nodes: &Nodes,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        if upstream.privileges()?.can_replicate() {
            return Ok(Self::Own);
        }
        if let Some(role) = superuser {
            return nodes
                .connect_upstream_as(Some(role), context)
                .map(Self::Superuser);
        }
        connect_replication(&nodes.replication_conninfo(), context.environment)
            .map(Self::Replication)
            .map_err(|source| CloneError::Replication {
                role: "upstream node",
                source: ReplicationCheckError::Connect {
                    wanted: 1,
                    opened: 0,
                    source,
                },
            })
    }

    fn user<'a>(&'a self, upstream: &'a Upstream) -> &'a str {
        match self {
            Self::Own => upstream.user(),
            Self::Superuser(session) => session.user(),
            Self::Replication(connection) => connection.user(),
        }
    }

    fn create(&self, upstream: &Upstream, name: &str) -> Result<(), CloneError> {
        match self {
            Self::Own => upstream.create_physical_slot(name).map(drop)?,
            Self::Superuser(session) => session.create_physical_slot(name).map(drop)?,
            Self::Replication(connection) => connection.create_physical_slot(name)?,
        }
        Ok(())
    }

    fn drop_slot(&self, upstream: &Upstream, name: &str) -> Result<(), CloneError> {
        match self {
            Self::Own => upstream.drop_slot(name)?,
            Self::Superuser(session) => session.drop_slot(name)?,
            Self::Replication(connection) => connection.drop_slot(name)?,
        }
        Ok(())
    }
}

/// What to think of a slot that somebody streams from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InUse {
    /// It is another standby's.
    Refuse,
    /// It may be this very standby's, which runs.
    Keep,
}

/// What has to be done for a slot.
enum Need {
    Nothing,
    Create,
    /// It has lost its WAL, or reserves none.
    CreateAnew,
}

impl Slot {
    /// Creates the slot, or finds it there unused.
    pub(crate) fn create(
        standby: Standby<'_>,
        nodes: &Nodes,
        in_use: InUse,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let mut slot = Self {
            name: None,
            created: false,
            on_source: false,
            superuser: standby.upstream.superuser.clone(),
        };
        if !standby.replication.use_slot {
            return Ok(slot);
        }
        let name = standby.node.slot_name();
        let upstream = match nodes.connect_upstream(context) {
            Ok(upstream) => upstream,
            // Nobody could be asked before either.
            Err(error) if nodes.source().is_none() => {
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
        slot.on_source = nodes.source_is_upstream(&upstream);
        let need = Need::of(&upstream, &name, in_use, context)?;
        if !matches!(need, Need::Nothing) {
            let maker = Maker::find(&upstream, slot.superuser.as_deref(), nodes, context)?;
            if matches!(need, Need::CreateAnew) {
                maker.drop_slot(&upstream, &name)?;
            }
            maker.create(&upstream, &name)?;
            slot.created = true;
            context.observer.event(Event::SlotCreated {
                name: name.clone(),
                node_id: nodes.upstream_id,
            });
        }
        slot.name = Some(name);
        Ok(slot)
    }

    /// Tells what [`Slot::create`] would do, and why it could not.
    pub(crate) fn check(
        standby: Standby<'_>,
        nodes: &Nodes,
        in_use: InUse,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        if !standby.replication.use_slot || nodes.source().is_none() {
            return Ok(());
        }
        let name = standby.node.slot_name();
        let upstream = nodes.connect_upstream(context)?;
        let need = Need::of(&upstream, &name, in_use, context)?;
        if matches!(need, Need::Nothing) {
            let text = format!("replication slot \"{name}\" exists on the upstream node");
            context.observer.event(Event::SettingChecked { text });
            return Ok(());
        }
        let maker = Maker::find(&upstream, standby.upstream.superuser.as_deref(), nodes, context)?;
        let why = match need {
            Need::CreateAnew => ": the one there keeps no WAL",
            _ => "",
        };
        let text = format!(
            "replication slot \"{name}\" would be created on the upstream node by user \"{}\"{why}",
            maker.user(&upstream)
        );
        context.observer.event(Event::SettingChecked { text });
        Ok(())
    }

    /// The slot for `pg_basebackup` to stream through: only where it connects to, and not without
    /// having been asked for.
    pub(crate) fn for_source(&self) -> Option<String> {
        self.name.clone().filter(|_| self.on_source)
    }

    /// Drops the slot again if we made it: without its standby it would keep WAL for ever.
    pub(crate) fn take_back(&self, nodes: &Nodes, context: &Context<'_>) {
        let Some(name) = self.name.as_ref().filter(|_| self.created) else {
            return;
        };
        let dropped = nodes.connect_upstream(context).and_then(|upstream| {
            Maker::find(&upstream, self.superuser.as_deref(), nodes, context)?.drop_slot(&upstream, name)
        });
        if let Err(error) = dropped {
            context.observer.event(Event::Warning {
                text: format!("replication slot \"{name}\" could not be dropped from the upstream node"),
                detail: Some(error.to_string()),
                hint: Some("drop it if no clone will use it, or it will keep WAL there for ever".to_owned()),
            });
        }
    }
}

impl Need {
    fn of(upstream: &Upstream, name: &str, in_use: InUse, context: &Context<'_>) -> Result<Self, CloneError> {
        let refuse = |detail: &str| {
            Err(CloneError::Metadata {
                message: format!(
                    "replication slot \"{name}\" exists on the upstream node and cannot be used"
                ),
                detail: Some(detail.to_owned()),
                hint: Some("check that no other node has this node_id".to_owned()),
            })
        };
        let slots = upstream.slots()?;
        match slots.iter().find(|slot| slot.name == name) {
            Some(found) if !found.physical => refuse("it is a logical slot"),
            Some(found) if found.active && in_use == InUse::Refuse => {
                refuse("another standby streams from it")
            }
            Some(found) if found.active => {
                context.observer.event(Event::Warning {
                    text: format!(
                        "an active replication slot named \"{name}\" already exists on the upstream node"
                    ),
                    detail: Some(
                        "it can be used only if it is this very node that streams from it".to_owned(),
                    ),
                    hint: None,
                });
                Ok(Self::Nothing)
            }
            Some(found) if found.restart_lsn.is_none() => Ok(Self::CreateAnew),
            Some(_) => Ok(Self::Nothing),
            None => {
                let max = upstream.setting("max_replication_slots")?;
                let max: Option<usize> = max.and_then(|max| max.parse().ok());
                match max {
                    Some(max) if slots.len() >= max => Err(CloneError::Metadata {
                        message: format!(
                            "replication slot \"{name}\" cannot be created: all {max} of the upstream node are in use"
                        ),
                        detail: None,
                        hint: Some(
                            "increase \"max_replication_slots\" there and restart it, or drop slots that nobody needs"
                                .to_owned(),
                        ),
                    }),
                    _ => Ok(Self::Create),
                }
            }
        }
    }
}
