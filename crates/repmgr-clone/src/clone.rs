//! The clone itself: from a request to a standby that can be started.

use std::path::PathBuf;

use repmgr_datadir::{Building, Claim, FinishError, Tree};
use serde::Serialize;

use crate::copy;
use crate::error::said;
use crate::event::WithoutChecks;
use crate::look::{Base, Outline, Outlook};
use crate::nodes::slot::{Book, InUse, Slot};
use crate::place::identity::can_resume;
use crate::place::{self, Ground, lasting};
use crate::source::hold::Holds;
use crate::standby::configure::{CONF, configure};
use crate::standby::{limits, own_conf};
use crate::start;
use crate::start::service::Service;
use crate::told::record::record;
use crate::{
    CloneError, CloneRequest, Context, CopySummary, Hint, NodeError, Outcome, PlaceEvent, Plan, Present,
    Remark, RemarkCode, Remedy, StandbyEvent, Start,
};

/// Finds every reason to refuse, and touches nothing anywhere.
///
/// # Errors
/// The first reason.
pub fn plan(request: &CloneRequest, context: &Context<'_>) -> Result<Plan, CloneError> {
    let outline = Outline::look(request, None, context)?;
    let (outlook, ()) = outline.look_on(request, |_| Ok(()), context)?;
    Slot::check(request.standby(), &outlook.nodes, InUse::Refuse, context)?;
    context.tell(StandbyEvent::PrerequisitesMet {
        plan: Box::new(outlook.plan.clone()),
    });
    Ok(outlook.plan)
}

/// As [`plan`], and reads every byte of the backup as a clone would, judging it and writing nothing: what ends well
/// is proof that a standby can be made of it now. Meant for watching over backups as well, so a directory that cannot
/// be cloned into, as that of a running standby, is a warning.
///
/// Of a chain every backup is judged by itself; they are not combined.
///
/// # Errors
/// The first reason to refuse, or what is wrong with the backup. [`Source::Server`] has nothing to read.
pub fn verify(request: &CloneRequest, context: &Context<'_>) -> Result<Summary, CloneError> {
    let outline = Outline::look_for_proof(request, copy::files::sessions, context)?;
    let hold = |backups: &_| Holds::take(&request.source, backups, context);
    let (mut outlook, holds) = outline.look_on(request, hold, context)?;
    let Base::Barman(base) = &mut outlook.base else {
        return Err(nothing_to_verify());
    };
    base.backup.recheck()?;
    let summary = copy::verify::verify(base, holds, context)?;
    base.backup.recheck_after_copy(&*base.source.host)?;
    context.tell(StandbyEvent::BackupVerified {
        plan: Box::new(outlook.plan.clone()),
    });
    Ok(Summary {
        data_directory: outlook.target.path().to_owned(),
        plan: outlook.plan,
        copy: Some(summary),
    })
}

fn nothing_to_verify() -> CloneError {
    let hint = Hint::new("clone from a backup in Barman's catalogue: set ").remedy(Remedy::BarmanHost);
    NodeError::Refused {
        code: "nothing_to_verify",
        message: "there is no backup that could be read: the base backup comes from the source node"
            .to_owned(),
        detail: None,
        hint: Some(hint),
    }
    .into()
}

/// As [`plan`], and takes the target directory for the clone. Nothing in it is changed yet; dropping
/// the result gives it back as it was.
///
/// # Errors
/// The first reason to refuse.
pub fn prepare(request: &CloneRequest, context: &Context<'_>) -> Result<PreparedClone, CloneError> {
    take(request, context).inspect_err(|_| Book::remind(&request.data_directory, context))
}

fn take(request: &CloneRequest, context: &Context<'_>) -> Result<PreparedClone, CloneError> {
    let observer = WithoutChecks(context.observer);
    let context = &context.with_observer(&observer);
    let outline = Outline::look(request, Some(copy::files::sessions), context)?;
    let claim = place::take(&outline.target, request, outline.permissions, context)?;
    let hold = |backups: &_| Holds::take(&request.source, backups, context);
    let (mut outlook, holds) = outline.look_on(request, hold, context)?;
    if let Base::Barman(base) = &mut outlook.base {
        // Between our look and the hold Barman may have begun to delete it.
        base.backup.recheck()?;
    }
    Ok(PreparedClone {
        request: request.clone(),
        claim,
        holds,
        outlook,
    })
}

/// A clone that can begin: the directory is taken, the backup is held. It may be kept while somebody decides,
/// and executed in another thread.
pub struct PreparedClone {
    request: CloneRequest,
    claim: Claim,
    holds: Holds,
    outlook: Outlook,
}

/// A standby that can be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Its data directory.
    #[serde(serialize_with = "crate::plan::as_text")]
    pub data_directory: PathBuf,
    /// What was done.
    pub plan: Plan,
    /// Figures of the copy, when it came from Barman.
    pub copy: Option<CopySummary>,
}

impl PreparedClone {
    /// What will be done.
    pub fn plan(&self) -> &Plan {
        &self.outlook.plan
    }

    /// Makes the standby.
    ///
    /// # Errors
    /// The first. If it came before anything was changed (the slot could not be created, or a server was started
    /// meanwhile), what was there is as it was. Otherwise PostgreSQL cannot start on the directory, and the same
    /// clone, run again, continues where this one stopped as far as that is safe.
    /// [`CloneState::of`](crate::CloneState::of) tells which.
    pub fn execute(self, context: &Context<'_>) -> Result<Summary, CloneError> {
        let Self {
            request,
            claim,
            holds,
            mut outlook,
        } = self;
        let book = Book::open(&claim, &outlook.target);
        let mut slot = Slot::create(
            request.standby(),
            &outlook.nodes,
            InUse::Refuse,
            Some(book),
            context,
        )
        .inspect_err(|error| record(&request, &outlook, Some(error), context))?;
        match run(&request, &mut outlook, claim, holds, &mut slot, context) {
            Ok(copy) => {
                if let Some(start) = &request.start {
                    start_and_follow(&request, start, &outlook, context)
                        .inspect_err(|error| record(&request, &outlook, Some(error), context))?;
                }
                record(&request, &outlook, None, context);
                Ok(conclude(&request, outlook, copy, context))
            }
            Err(error) => {
                slot.take_back(&outlook.nodes, context);
                record(&request, &outlook, Some(&error), context);
                Err(error)
            }
        }
    }
}

/// From here on the directory says that it is unfinished, until the control file comes at the very end.
fn run(
    request: &CloneRequest,
    outlook: &mut Outlook,
    claim: Claim,
    holds: Holds,
    slot: &mut Slot,
    context: &Context<'_>,
) -> Result<Option<CopySummary>, CloneError> {
    let (building, ground) = begin(outlook, claim, context)?;
    let data = building.tree();
    // What was combined can only be combined anew.
    let keep = ground.keeps_files() && !outlook.base.is_combined();
    let (tablespaces, wal) = outlook.places.prepare(building.permissions(), keep, context)?;
    let (control, summary) = match &mut outlook.base {
        Base::Barman(base) => {
            let destination = copy::Destination {
                building: &building,
                places: &outlook.places,
                tablespaces: &tablespaces,
                wal: wal.as_ref(),
                rule: ground.rule(base.delta),
            };
            let (control, summary) = copy::from_backup(base, &destination, holds, context)?;
            (control, Some(summary))
        }
        Base::Server(base) => {
            let slot = slot.for_source();
            let control = base.copy(request, &outlook.nodes, &outlook.places, slot, &building, context)?;
            (control, None)
        }
    };
    if let Some(external) = &outlook.external {
        external.write(&data, context)?;
    }
    if request.outcome != Outcome::Standby {
        own_conf::supply(&data, outlook.version, context)?;
    }
    configure(&data, outlook.version, &outlook.settings, context)?;
    if request.outcome == Outcome::Standby {
        let copied = outlook.external.as_ref();
        let copied = copied.and_then(|external| external.brought_outside(CONF));
        let needed = limits::needed(outlook.limits, &control);
        limits::raise(&data, outlook.version, copied, &needed, context)?;
    }
    if let Base::Barman(base) = &mut outlook.base {
        base.backup.recheck_after_copy(&*base.source.host)?;
    }
    slot.look_again(&outlook.nodes, context);
    context.cancel.check()?;
    let others: Vec<&Tree> = tablespaces.iter().chain(&wal).collect();
    finish(building, &others, &control, context)?;
    Ok(summary)
}

fn begin(outlook: &Outlook, claim: Claim, context: &Context<'_>) -> Result<(Building, Ground), CloneError> {
    let identity = &outlook.identity;
    if can_resume(&outlook.target, identity) {
        context.tell(PlaceEvent::Resuming);
        return Ok((claim.resume()?, Ground::Interrupted));
    }
    if outlook.plan.present == Present::Reused {
        return Ok((claim.build_upon(identity.value())?, Ground::Instance));
    }
    if outlook.plan.present.is_erased() {
        let path = outlook.target.path().to_owned();
        context.tell(PlaceEvent::Erasing { path });
    }
    let building = lasting::erasing(outlook.target.path(), context, |erasing| {
        claim.start_over(identity.value(), erasing)
    })?;
    Ok((building, Ground::Bare))
}

/// Flushes everything, and lets PostgreSQL start.
fn finish(
    building: Building,
    others: &[&Tree],
    control: &[u8],
    context: &Context<'_>,
) -> Result<(), CloneError> {
    match lasting::flushing(context, || building.finish(others, control)) {
        // The standby is complete; what is left over disturbs nobody.
        Err(error @ FinishError::TidyUp { .. }) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let remark = Remark::warning(RemarkCode::NotTidied, error.to_string());
            context.tell(remark.detail(cause).hint(said(error.hint())));
            Ok(())
        }
        finished => Ok(finished?),
    }
}

/// The standby is complete on disk. Its slot stays, whatever comes.
fn start_and_follow(
    request: &CloneRequest,
    start: &Start,
    outlook: &Outlook,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    let service = Service::of(request, outlook.version);
    let position = start::start(request, start, &service, &outlook.nodes, context)?;
    context.tell(StandbyEvent::Streaming {
        position: position.to_string(),
    });
    Ok(())
}

fn conclude(
    request: &CloneRequest,
    outlook: Outlook,
    copy: Option<CopySummary>,
    context: &Context<'_>,
) -> Summary {
    context.tell(StandbyEvent::Complete {
        method: outlook.plan.method,
    });
    let start = || Service::of(request, outlook.version).advice(&request.data_directory);
    context.tell(StandbyEvent::NextSteps {
        start: request.start.is_none().then(start),
        registered: outlook.nodes.registered,
    });
    Summary {
        data_directory: outlook.target.path().to_owned(),
        plan: outlook.plan,
        copy,
    }
}
