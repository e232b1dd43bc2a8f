//! The clone itself: from an accepted plan to a standby that can be started.

use std::path::PathBuf;

use repmgr_barman::Hold;
use repmgr_datadir::{Building, FinishError, Tree, create_skeleton};

use crate::barman::{BackupSource, ServerParameters};
use crate::configure::{configure, link_tablespace};
use crate::copy::{Copy, Reused, Trees, create_directories};
use crate::place::Places;
use crate::plan::{Base, Gathered, can_resume, gather};
use crate::record::record;
use crate::request::BarmanSource;
use crate::slot::Slot;
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
pub fn prepare<'r>(
    request: &'r CloneRequest,
    context: &Context<'_>,
) -> Result<PreparedClone<'r>, CloneError> {
    let gathered = gather(request, context, true)?;
    Ok(PreparedClone { request, gathered })
}

/// A clone that can begin.
pub struct PreparedClone<'r> {
    request: &'r CloneRequest,
    gathered: Gathered<'r>,
}

/// A standby that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its data directory.
    pub data_directory: PathBuf,
    /// What was done.
    pub plan: Plan,
    /// Figures of the copy, when it came from Barman.
    pub copy: Option<CopySummary>,
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
        let slot = Slot::create(request, &gathered, context)?;
        match run(request, &mut gathered, &slot, context) {
            Ok(copy) => {
                record(request, &gathered, None, context);
                Ok(conclude(request, gathered, copy, context))
            }
            Err(error) => {
                slot.take_back(&gathered, context);
                record(request, &gathered, Some(&error), context);
                Err(error)
            }
        }
    }
}

fn run(
    request: &CloneRequest,
    gathered: &mut Gathered<'_>,
    slot: &Slot,
    context: &Context<'_>,
) -> Result<Option<CopySummary>, CloneError> {
    let (building, resumed) = begin(gathered, context)?;
    let data = building.tree();
    let prepared = gathered
        .places
        .prepare(building.permissions(), resumed, context)?;
    let (tablespaces, wal) = &prepared;
    let (control, summary) = match &mut gathered.base {
        Base::Barman {
            request,
            source,
            parameters,
            hold,
        } => {
            for place in &gathered.places.tablespaces {
                link_tablespace(&data, place.origin.oid, place.dir.path())?;
            }
            let trees = Trees {
                data: &data,
                tablespaces,
                wal: wal.as_ref(),
            };
            create_all_directories(source, parameters, &gathered.places, &trees)?;
            let summary = fetch(request, source, parameters, hold.take(), &trees, resumed, context)?;
            (source.read_control()?, Some(summary))
        }
        Base::Server(base) => {
            let slot = slot.for_source();
            let control = base.copy(
                request,
                &gathered.nodes,
                &gathered.places,
                slot,
                &building,
                context,
            )?;
            (control, None)
        }
    };
    if let Some(external) = &gathered.external {
        external.write(&data, context)?;
    }
    configure(&data, gathered.version, &gathered.settings, context)?;
    if let Base::Barman { source, .. } = &mut gathered.base {
        source.barman.recheck(&source.files.backup)?;
    }
    context.cancel.check()?;
    let others: Vec<&Tree> = tablespaces.iter().chain(wal).collect();
    match building.finish(&others, &control) {
        // The standby is complete; what is left over disturbs nobody.
        Err(error @ FinishError::TidyUp(_)) => context.observer.event(Event::Warning {
            text: error.to_string(),
            detail: std::error::Error::source(&error).map(ToString::to_string),
            hint: error.hint(),
        }),
        finished => finished?,
    }
    Ok(summary)
}

fn fetch(
    barman: &BarmanSource,
    source: &BackupSource,
    parameters: &ServerParameters,
    hold: Option<Hold>,
    trees: &Trees<'_>,
    resumed: bool,
    context: &Context<'_>,
) -> Result<CopySummary, CloneError> {
    let files = &source.files;
    context.observer.event(Event::RetrievingBackup {
        backup: files.backup.id.to_string(),
        files: files.total_files(),
        bytes: files.total_size(),
    });
    context.observer.event(Event::ReceivingFileList);
    let reused = match resumed {
        true => Reused::find(files, trees)?,
        false => Reused::nothing(),
    };
    if resumed {
        context.observer.event(Event::Resuming {
            files: reused.files,
            bytes: reused.bytes,
        });
    }
    let copy = Copy {
        host: &*barman.host,
        files,
        parameters,
        trees,
        reused: &reused,
        options: &barman.transfer,
    };
    let summary = copy.run(hold, context)?;
    context.observer.event(Event::CopyFinished {
        summary: summary.clone(),
    });
    Ok(summary)
}

/// From here on the directory says that it is unfinished. Whether an interrupted clone is continued.
fn begin(gathered: &mut Gathered<'_>, context: &Context<'_>) -> Result<(Building, bool), CloneError> {
    let Some(claim) = gathered.claim.take() else {
        unreachable!("a prepared clone has taken its directory");
    };
    if can_resume(&gathered.target, &gathered.identity, &gathered.base) {
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

fn create_all_directories(
    source: &BackupSource,
    parameters: &ServerParameters,
    places: &Places,
    trees: &Trees<'_>,
) -> Result<(), CloneError> {
    let version = source.files.backup.version;
    if let (Some(_), Some(dir)) = (trees.wal, &places.wal) {
        let link = if version.num() < 100_000 {
            "pg_xlog"
        } else {
            "pg_wal"
        };
        trees.data.symlink(link, dir.path())?;
    }
    create_directories(&source.files, trees)?;
    create_skeleton(trees.data, trees.wal, version)?;
    // An empty tablespace without it would accept no table after a promotion.
    let catalog = parameters.control.catalog_version;
    for tree in trees.tablespaces {
        tree.create_dir(format!("PG_{}_{catalog}", version.major_name()))?;
    }
    Ok(())
}

fn conclude(
    request: &CloneRequest,
    gathered: Gathered<'_>,
    copy: Option<CopySummary>,
    context: &Context<'_>,
) -> Summary {
    context.observer.event(Event::Complete {
        method: gathered.plan.method,
    });
    let start = request.start_command.clone().unwrap_or_else(|| {
        let directory = request.data_directory.to_string_lossy();
        format!("pg_ctl -D {} start", repmgr_remote::quote(&directory))
    });
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
