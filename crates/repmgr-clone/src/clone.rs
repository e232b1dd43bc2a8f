//! The clone itself: from an accepted plan to a standby that can be started.

use std::path::PathBuf;

use repmgr_datadir::{Building, FinishError, Tree, create_skeleton};

use crate::configure::{configure, link_tablespace};
use crate::copy::{Copy, Reused, Trees, create_directories};
use crate::plan::{Gathered, can_resume, gather};
use crate::request::{BarmanSource, Source};
use crate::{CloneError, CloneRequest, Context, CopySummary, Event, Plan};

/// Finds every reason to refuse, and touches nothing anywhere.
///
/// # Errors
/// The first reason.
pub fn plan(request: &CloneRequest, context: &Context<'_>) -> Result<Plan, CloneError> {
    let gathered = gather(request, context, false)?;
    context.observer.event(Event::PrerequisitesMet {
        plan: gathered.plan.to_string(),
    });
    Ok(gathered.plan)
}

/// As [`plan`], and takes the target directory for the clone. Nothing in it is changed yet; dropping
/// the result gives it back as it was.
///
/// # Errors
/// The first reason to refuse.
pub fn prepare<'a>(
    request: &'a CloneRequest,
    context: &Context<'_>,
) -> Result<PreparedClone<'a>, CloneError> {
    let gathered = gather(request, context, true)?;
    Ok(PreparedClone { request, gathered })
}

/// A clone that can begin.
pub struct PreparedClone<'a> {
    request: &'a CloneRequest,
    gathered: Gathered,
}

/// A standby that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its data directory.
    pub data_directory: PathBuf,
    /// What was done.
    pub plan: Plan,
    /// Figures of the copy.
    pub copy: CopySummary,
}

impl PreparedClone<'_> {
    /// What will be done.
    pub fn plan(&self) -> &Plan {
        &self.gathered.plan
    }

    /// Makes the standby.
    ///
    /// # Errors
    /// PostgreSQL cannot start on the directory then. The same clone, run again, continues where
    /// this one stopped as far as that is safe.
    pub fn execute(self, context: &Context<'_>) -> Result<Summary, CloneError> {
        let Self {
            request,
            mut gathered,
        } = self;
        let Source::Barman(barman) = &request.source;
        let slot = create_slot(request, &gathered, context)?;
        let done = run(barman, &mut gathered, context);
        match done {
            Ok(copy) => {
                record_event(request, &gathered, true, context);
                Ok(conclude(request, gathered, copy, context))
            }
            Err(error) => {
                if slot.is_some() {
                    drop_slot(request, &gathered, context);
                }
                Err(error)
            }
        }
    }
}

fn run(
    barman: &BarmanSource,
    gathered: &mut Gathered,
    context: &Context<'_>,
) -> Result<CopySummary, CloneError> {
    let (building, resumed) = begin(gathered, context)?;
    let data = building.tree();
    for place in &gathered.places.tablespaces {
        link_tablespace(&data, place.oid, place.dir.path())?;
    }
    let (tablespaces, wal) = gathered
        .places
        .prepare(building.permissions(), resumed, context)?;
    let trees = Trees {
        data: &data,
        tablespaces: &tablespaces,
        wal: wal.as_ref(),
    };
    create_all_directories(gathered, &trees)?;
    context.observer.event(Event::RetrievingBackup {
        backup: gathered.plan.backup.clone(),
        files: gathered.plan.files,
        bytes: gathered.plan.bytes,
    });
    context.observer.event(Event::ReceivingFileList);
    let reused = match resumed {
        true => Reused::find(&gathered.source.files, &trees)?,
        false => Reused::nothing(),
    };
    if resumed {
        context.observer.event(Event::Resuming {
            files: reused.files,
            bytes: reused.bytes,
        });
    }
    let hold = gathered.hold.take();
    let copy = Copy {
        host: &*barman.host,
        files: &gathered.source.files,
        parameters: &gathered.parameters,
        trees: &trees,
        reused: &reused,
        options: &barman.transfer,
    };
    let summary = copy.run(hold, context)?;
    context.observer.event(Event::CopyFinished {
        summary: summary.clone(),
    });
    let control = gathered.source.read_control()?;
    gathered.source.barman.recheck(&gathered.source.files.backup)?;
    configure(
        &data,
        gathered.source.files.backup.version,
        &gathered.settings,
        context,
    )?;
    context.cancel.check()?;
    let others: Vec<&Tree> = tablespaces.iter().chain(&wal).collect();
    match building.finish(&others, &control) {
        // The standby is complete; what is left over disturbs nobody.
        Err(error @ FinishError::TidyUp(_)) => {
            let hint = error.hint();
            context.observer.event(Event::Warning {
                text: error.to_string(),
                detail: std::error::Error::source(&error).map(ToString::to_string),
                hint,
            });
        }
        finished => finished?,
    }
    Ok(summary)
}

/// From here on the directory says that it is unfinished. Whether an interrupted clone is continued.
fn begin(gathered: &mut Gathered, context: &Context<'_>) -> Result<(Building, bool), CloneError> {
    let Some(claim) = gathered.claim.take() else {
        unreachable!("a prepared clone has taken its directory");
    };
    if can_resume(&gathered.target, &gathered.identity) {
        return Ok((claim.resume()?, true));
    }
    if gathered.plan.existing.is_erased() {
        context.observer.event(Event::Erasing {
            path: gathered.target.path().to_owned(),
        });
    }
    Ok((
        claim.start_over(gathered.identity.value(), context.cancel)?,
        false,
    ))
}

fn create_all_directories(gathered: &Gathered, trees: &Trees<'_>) -> Result<(), CloneError> {
    let version = gathered.source.files.backup.version;
    if let (Some(_), Some(dir)) = (trees.wal, &gathered.places.wal) {
        let link = if version.num() < 100_000 {
            "pg_xlog"
        } else {
            "pg_wal"
        };
        trees.data.symlink(link, dir.path())?;
    }
    create_directories(&gathered.source.files, trees)?;
    create_skeleton(trees.data, trees.wal, version)?;
    // An empty tablespace without it would accept no table after a promotion.
    let catalog = gathered.parameters.control.catalog_version;
    for tree in trees.tablespaces {
        tree.create_dir(format!("PG_{}_{catalog}", version.major_name()))?;
    }
    Ok(())
}

/// Before the copy, so that it keeps the WAL the standby will need. `None` when it is there already.
fn create_slot(
    request: &CloneRequest,
    gathered: &Gathered,
    context: &Context<'_>,
) -> Result<Option<String>, CloneError> {
    if !request.replication.use_slot {
        return Ok(None);
    }
    let name = request.slot_name();
    let created = gathered
        .nodes
        .with_upstream(context, |upstream| match upstream.slot(&name)? {
            Some(slot) if slot.active || !slot.physical => Err(CloneError::Metadata {
                message: format!(
                    "replication slot \"{name}\" exists on the upstream node and cannot be used"
                ),
                detail: Some(match slot.physical {
                    true => "somebody streams from it".to_owned(),
                    false => "it is a logical slot".to_owned(),
                }),
                hint: Some("check that no other node has this node_id".to_owned()),
            }),
            Some(_) => Ok(None),
            None => {
                upstream.create_physical_slot(&name)?;
                Ok(Some(name.clone()))
            }
        })?;
    if let Some(name) = &created {
        context.observer.event(Event::SlotCreated {
            name: name.clone(),
            node_id: gathered.plan.upstream_node_id,
        });
    }
    Ok(created)
}

fn drop_slot(request: &CloneRequest, gathered: &Gathered, context: &Context<'_>) {
    let name = request.slot_name();
    let dropped = gathered
        .nodes
        .with_upstream(context, |upstream| Ok(upstream.drop_slot(&name)?));
    if let Err(error) = dropped {
        context.observer.event(Event::Warning {
            text: format!("replication slot \"{name}\" could not be dropped from the upstream node"),
            detail: Some(error.to_string()),
            hint: Some("drop it when no clone will use it, or it will keep WAL there for ever".to_owned()),
        });
    }
}

fn record_event(request: &CloneRequest, gathered: &Gathered, successful: bool, context: &Context<'_>) {
    let endpoint = gathered.nodes.source().endpoint();
    let details = format!(
        "cloned from host \"{}\", port {}; backup method: barman; --force: {}",
        endpoint.host,
        endpoint.port,
        if request.force { "Y" } else { "N" }
    );
    if gathered.nodes.registered.is_none() {
        return;
    }
    let recorded =
        gathered
            .nodes
            .metadata()
            .insert_event(request.node.id, "standby_clone", successful, &details);
    if let Err(error) = recorded {
        context.observer.event(Event::Warning {
            text: "unable to create event record".to_owned(),
            detail: Some(format!("{error}: {}", error.failure)),
            hint: None,
        });
    }
}

fn conclude(request: &CloneRequest, gathered: Gathered, copy: CopySummary, context: &Context<'_>) -> Summary {
    context.observer.event(Event::Complete);
    let start = match &request.start_command {
        Some(command) => command.clone(),
        None => format!(
            "pg_ctl -D {} start",
            repmgr_remote::quote(&request.data_directory.to_string_lossy())
        ),
    };
    context.observer.event(Event::NextSteps {
        start,
        registered: gathered.nodes.registered,
    });
    Summary {
        data_directory: gathered.target.path().to_owned(),
        plan: gathered.plan,
        copy,
    }
}
