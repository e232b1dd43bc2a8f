//! The replication slot of the standby, made before anything that will need it, so that it keeps the
//! WAL the standby will need.

use std::path::Path;

use repmgr_datadir::{Claim, Memo, Target};
use repmgr_upstream::{
    ReplicationCheckError, ReplicationConnection, ReplicationSlot, SlotState, Upstream, connect_replication,
};

use serde::{Deserialize, Serialize};

use crate::error::with_causes;
use crate::nodes::node::Nodes;
use crate::request::Standby;
use crate::{CloneError, Context, Hint, NodeError, NodeEvent, Remark, RemarkCode};

/// A slot on the upstream node.
pub(crate) struct Slot {
    name: Option<String>,
    /// We made it, and take it back if there is no standby.
    created: bool,
    /// The node that is copied has it.
    on_source: bool,
    /// The role that may make slots if no other may.
    superuser: Option<String>,
    /// Where it is noted that we made it.
    book: Option<Book>,
}

/// The note of a slot that a clone made, in the data directory: a later run may have to drop what an earlier
/// one, which was killed, left behind.
pub(crate) struct Book {
    memo: Memo,
    earlier: Option<Made>,
}

/// A slot that a clone made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    slot: String,
    /// Where.
    upstream: String,
}

impl Book {
    pub(crate) fn open(claim: &Claim, target: &Target) -> Self {
        Self {
            memo: claim.memo(),
            earlier: Made::noted(target),
        }
    }

    /// Says what an earlier run left, where nothing more will be done about it.
    pub(crate) fn remind(data_directory: &Path, context: &Context<'_>) {
        // Where it cannot be looked at, that is what was refused.
        let target = Target::inspect(data_directory);
        if let Some(made) = target.ok().as_ref().and_then(Made::noted) {
            let hint = "the same clone, run again, uses it; drop it if there will be none, or it keeps WAL there for ever";
            context.tell(made.left(format!("it is on {}", made.upstream), hint));
        }
    }

    fn note(&self, made: &Made) -> Result<(), CloneError> {
        let value = serde_json::to_value(made).unwrap_or_default();
        Ok(self.memo.write(&value)?)
    }

    fn clear(&self) {
        // Then a later run looks for a slot that is not there, and finds none.
        if let Err(error) = self.memo.clear() {
            log::warn!("{}", with_causes(&error));
        }
    }
}

impl Made {
    fn on(upstream: &Upstream, slot: &str) -> Self {
        Self {
            slot: slot.to_owned(),
            upstream: upstream.endpoint().to_string(),
        }
    }

    fn noted(target: &Target) -> Option<Self> {
        serde_json::from_value(target.memo()?.clone()).ok()
    }

    fn left(&self, why: String, hint: &'static str) -> Remark {
        let text = format!(
            "replication slot \"{}\", which an earlier run made, is still there",
            self.slot
        );
        Remark::warning(RemarkCode::Slot, text)
            .detail(why)
            .hint(Hint::from(hint))
    }
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
            .map_err(|source| {
                let source = ReplicationCheckError::Connect {
                    wanted: 1,
                    opened: 0,
                    source,
                };
                let role = "upstream node";
                NodeError::Replication { role, source }.into()
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
        book: Option<Book>,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let mut slot = Self {
            name: None,
            created: false,
            on_source: false,
            superuser: standby.upstream.superuser.clone(),
            book,
        };
        let wanted = standby.replication.slot_name.as_deref();
        if wanted.is_none() && slot.earlier().is_none() {
            return Ok(slot);
        }
        let upstream = match nodes.connect_upstream(context) {
            Ok(upstream) => upstream,
            // Nobody could be asked before either.
            Err(error) if nodes.source().is_none() => {
                if let Some(name) = wanted {
                    tell_unmade(name, &error, context);
                }
                return Ok(slot);
            }
            Err(error) => return Err(error),
        };
        slot.give_up_other(wanted, &upstream, nodes, context);
        if let Some(name) = wanted {
            slot.on_source = nodes.source_is_upstream(&upstream);
            slot.make(
                name,
                &upstream,
                Need::of(&upstream, name, in_use, context)?,
                nodes,
                context,
            )?;
        }
        Ok(slot)
    }

    fn make(
        &mut self,
        name: &str,
        upstream: &Upstream,
        need: Need,
        nodes: &Nodes,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        let made = Made::on(upstream, name);
        if matches!(need, Need::Nothing) {
            self.created = self.earlier() == Some(&made);
        } else {
            let maker = Maker::find(upstream, self.superuser.as_deref(), nodes, context)?;
            if matches!(need, Need::CreateAnew) {
                maker.drop_slot(upstream, name)?;
            }
            self.create_noted(&made, upstream, &maker)?;
            context.tell(NodeEvent::SlotCreated {
                name: name.to_owned(),
                node_id: nodes.upstream_id,
            });
        }
        self.name = Some(name.to_owned());
        Ok(())
    }

    /// Notes it first: a note of what is not there does no harm.
    fn create_noted(&mut self, made: &Made, upstream: &Upstream, maker: &Maker) -> Result<(), CloneError> {
        let Some(book) = &self.book else {
            maker.create(upstream, &made.slot)?;
            self.created = true;
            return Ok(());
        };
        book.note(made)?;
        maker.create(upstream, &made.slot).inspect_err(|_| book.clear())?;
        self.created = true;
        Ok(())
    }

    fn earlier(&self) -> Option<&Made> {
        self.book.as_ref()?.earlier.as_ref()
    }

    /// Drops what an earlier run made, if it is not what is wanted now.
    fn give_up_other(&self, wanted: Option<&str>, upstream: &Upstream, nodes: &Nodes, context: &Context<'_>) {
        let (Some(book), Some(earlier)) = (&self.book, self.earlier()) else {
            return;
        };
        let here = Made::on(upstream, wanted.unwrap_or(&earlier.slot));
        if wanted.is_some() && *earlier == here {
            return;
        }
        let dropped = match earlier.upstream == here.upstream {
            true => self
                .drop_from(upstream, &earlier.slot, nodes, context)
                .map_err(|error| with_causes(&error)),
            false => Err(format!("it is on {}", earlier.upstream)),
        };
        match dropped {
            Ok(()) => book.clear(),
            Err(why) => {
                let hint = "drop it if nobody uses it, or it keeps WAL there for ever";
                context.tell(earlier.left(why, hint));
            }
        }
    }

    fn drop_from(
        &self,
        upstream: &Upstream,
        name: &str,
        nodes: &Nodes,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        if upstream.slot_state(name)? == SlotState::Absent {
            return Ok(());
        }
        Maker::find(upstream, self.superuser.as_deref(), nodes, context)?.drop_slot(upstream, name)
    }

    /// Tells what [`Slot::create`] would do, and why it could not.
    pub(crate) fn check(
        standby: Standby<'_>,
        nodes: &Nodes,
        in_use: InUse,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        let (Some(name), Some(_)) = (&standby.replication.slot_name, nodes.source()) else {
            return Ok(());
        };
        let upstream = nodes.connect_upstream(context)?;
        let need = Need::of(&upstream, name, in_use, context)?;
        if matches!(need, Need::Nothing) {
            context.tell(NodeEvent::checked(format!(
                "replication slot \"{name}\" exists on the upstream node"
            )));
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
        context.tell(NodeEvent::SettingChecked { text });
        Ok(())
    }

    /// The slot for `pg_basebackup` to stream through: only where it connects to, and not without
    /// having been asked for.
    pub(crate) fn for_source(&self) -> Option<String> {
        self.name.clone().filter(|_| self.on_source)
    }

    /// Looks whether it is still there when all else is done: another clone of the same node that failed may have
    /// dropped it. A new one keeps WAL from now on; what lies before has to come from the archive.
    pub(crate) fn look_again(&mut self, nodes: &Nodes, context: &Context<'_>) {
        let Some(name) = self.name.clone() else { return };
        let warn = |text: String, detail: Option<String>| {
            let hint =
                Hint::from("look at the slot before you start the standby; it keeps the WAL that it needs");
            context.tell(Remark::warning(RemarkCode::Slot, text).detail(detail).hint(hint));
        };
        match self.made_sure_of(&name, nodes, context) {
            Ok(false) => {}
            Ok(true) => {
                warn(
                    format!(
                        "replication slot \"{name}\" was dropped or invalidated meanwhile, and was made anew"
                    ),
                    None,
                );
            }
            Err(error) => warn(
                format!("replication slot \"{name}\" could not be looked at again on the upstream node"),
                Some(with_causes(&error)),
            ),
        }
    }

    /// Whether it had to be made anew.
    fn made_sure_of(&mut self, name: &str, nodes: &Nodes, context: &Context<'_>) -> Result<bool, CloneError> {
        let upstream = nodes.connect_upstream(context)?;
        let state = upstream.slot_state(name)?;
        let is_there = match state {
            SlotState::Usable { .. } | SlotState::Active { .. } | SlotState::Logical => return Ok(false),
            SlotState::Absent => false,
            SlotState::KeepsNoWal | SlotState::Invalidated { .. } => true,
        };
        let maker = Maker::find(&upstream, self.superuser.as_deref(), nodes, context)?;
        if is_there {
            maker.drop_slot(&upstream, name)?;
        }
        self.create_noted(&Made::on(&upstream, name), &upstream, &maker)?;
        Ok(true)
    }

    /// Drops the slot again if we made it: without its standby it would keep WAL for ever.
    pub(crate) fn take_back(&self, nodes: &Nodes, context: &Context<'_>) {
        let Some(name) = self.name.as_ref().filter(|_| self.created) else {
            return;
        };
        let upstream = nodes.connect_upstream(context);
        match upstream.and_then(|upstream| self.drop_from(&upstream, name, nodes, context)) {
            Ok(()) => self.book.iter().for_each(Book::clear),
            Err(error) => context.tell(
                Remark::warning(
                    RemarkCode::Slot,
                    format!("replication slot \"{name}\" could not be dropped from the upstream node"),
                )
                .detail(with_causes(&error))
                .hint(Hint::from(
                    "drop it if no clone will use it, or it will keep WAL there for ever; the same clone, run again, \
                     uses it",
                )),
            ),
        }
    }
}

fn tell_unmade(name: &str, error: &CloneError, context: &Context<'_>) {
    let text = format!("replication slot \"{name}\" could not be created on the upstream node");
    let hint = format!(
        "create it before you start the standby: SELECT pg_create_physical_replication_slot('{name}', true)"
    );
    let remark = Remark::warning(RemarkCode::Slot, text).detail(with_causes(error));
    context.tell(remark.hint(Hint::from(hint)));
}

impl Need {
    fn of(upstream: &Upstream, name: &str, in_use: InUse, context: &Context<'_>) -> Result<Self, CloneError> {
        let refuse = |detail: &str| {
            Err(CloneError::from(NodeError::Refused {
                code: "slot_unusable",
                message: format!(
                    "replication slot \"{name}\" exists on the upstream node and cannot be used"
                ),
                detail: Some(detail.to_owned()),
                hint: Some("check that no other node has this node_id".into()),
            }))
        };
        let slots = upstream.slots()?;
        let found = slots.iter().find(|slot| slot.name == name);
        match found.map_or(SlotState::Absent, ReplicationSlot::state) {
            SlotState::Logical => refuse("it is a logical slot"),
            SlotState::Active { .. } if in_use == InUse::Refuse => refuse("another standby streams from it"),
            SlotState::Active { .. } => {
                let text = format!(
                    "an active replication slot named \"{name}\" already exists on the upstream node"
                );
                context.tell(
                    Remark::warning(RemarkCode::Slot, text).detail(
                        "it can be used only if it is this very node that streams from it".to_owned(),
                    ),
                );
                Ok(Self::Nothing)
            }
            SlotState::KeepsNoWal | SlotState::Invalidated { .. } => Ok(Self::CreateAnew),
            SlotState::Usable { .. } => Ok(Self::Nothing),
            SlotState::Absent => {
                let max = upstream.setting("max_replication_slots")?;
                let max: Option<usize> = max.and_then(|max| max.parse().ok());
                match max {
                    Some(max) if slots.len() >= max => Err(NodeError::Refused {
                        code: "slots_exhausted",
                        message: format!(
                            "replication slot \"{name}\" cannot be created: all {max} of the upstream node are in use"
                        ),
                        detail: None,
                        hint: Some(
                            "increase \"max_replication_slots\" there and restart it, or drop slots that nobody needs"
                                .into(),
                        ),
                    }
                    .into()),
                    _ => Ok(Self::Create),
                }
            }
        }
    }
}
