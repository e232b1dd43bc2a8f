//! The clone itself: from an accepted plan to a standby that can be started.

use std::path::PathBuf;

use repmgr_datadir::{Building, FinishError, Tree, create_skeleton};

use crate::barman::{BackupSource, Content, ServerParameters};
use crate::combine::Combine;
use crate::configure::{configure, link_tablespace};
use crate::copy::{Trees, create_directories};
use crate::fetch::Fetch;
use crate::gather::{Base, Gathered, can_resume, gather};
use crate::hold::Holds;
use crate::place::Places;
use crate::record::record;
use crate::request::BarmanSource;
use crate::reuse::{Rule, remove_others};
use crate::slot::{InUse, Slot};
use crate::{CloneError, CloneRequest, Context, CopySummary, Event, Existing, Plan, Progress};

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
    /// The first. If it came before anything was changed (the slot could not be created, or a server was started
    /// meanwhile), what was there is as it was. Otherwise PostgreSQL cannot start on the directory, and the same
    /// clone, run again, continues where this one stopped as far as that is safe.
    /// [`CloneState::of`](crate::CloneState::of) tells which.
    pub fn execute(self, context: &Context<'_>) -> Result<Summary, CloneError> {
        let Self {
            request,
            mut gathered,
        } = self;
        let slot = Slot::create(request.standby(), &gathered.nodes, InUse::Refuse, context)
            .inspect_err(|error| record(request, &gathered, Some(error), context))?;
        match run(request, &mut gathered, &slot, context) {
            Ok(copy) => {
                record(request, &gathered, None, context);
                Ok(conclude(request, gathered, copy, context))
            }
            Err(error) => {
                slot.take_back(&gathered.nodes, context);
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
    let (building, ground) = begin(gathered, context)?;
    let data = building.tree();
    // What was combined can only be combined anew.
    let keep = ground.keeps_files() && !gathered.base.is_combined();
    let prepared = gathered.places.prepare(building.permissions(), keep, context)?;
    let (tablespaces, wal) = &prepared;
    let (control, summary) = match &mut gathered.base {
        Base::Barman {
            request,
            source,
            parameters,
            holds,
            delta,
        } => {
            let trees = Trees {
                data: &data,
                tablespaces,
                wal: wal.as_ref(),
            };
            context.observer.event(Event::RetrievingBackup {
                backup: source.wanted.backup.id.to_string(),
                files: source.total_files(),
                bytes: source.total_size(),
            });
            context.observer.event(Event::ReceivingFileList);
            let Some(holds) = holds.take() else {
                unreachable!("a prepared clone has taken its holds");
            };
            let rule = ground.rule(*delta);
            let places = &gathered.places;
            let (control, summary) = if let Some(chain) = &source.chain {
                let combine = Combine {
                    barman: request,
                    chain,
                    wanted: &source.wanted,
                    parameters,
                    places,
                    building: &building,
                    rule,
                };
                let combined = combine.run(&mut source.barman, holds, context)?;
                create_all_directories(source, parameters, places, &trees)?;
                combined
            } else {
                if let (Some(_), Content::Files(files)) = (&delta, &source.wanted.content) {
                    remove_others(files, &trees, context)?;
                }
                create_all_directories(source, parameters, places, &trees)?;
                fetch(request, source, parameters, holds, &trees, rule, context)?
            };
            (control, Some(summary))
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
    if let Base::Barman { request, source, .. } = &mut gathered.base {
        source.recheck_after_copy(&*request.host)?;
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

/// Brings the files of the backup here; the control file, which goes in last, and the figures.
fn fetch(
    barman: &BarmanSource,
    source: &mut BackupSource,
    parameters: &ServerParameters,
    mut holds: Holds<'_>,
    trees: &Trees<'_>,
    rule: Rule,
    context: &Context<'_>,
) -> Result<(Vec<u8>, CopySummary), CloneError> {
    let (files, bytes) = source.wanted.load(parameters);
    let fetch = Fetch {
        barman,
        stored: &source.wanted,
        parameters,
        trees,
        rule,
        base: Progress::to_do(files, bytes),
    };
    let (control, summary) = fetch.run(&mut source.barman, &mut holds, context)?;
    context.observer.event(Event::CopyFinished {
        summary: summary.clone(),
    });
    Ok((control, summary))
}

/// What a clone begins upon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ground {
    /// Nothing, or what was erased.
    Bare,
    /// An interrupted clone of the same backup.
    Interrupted,
    /// An instance that is replaced.
    Instance,
}

impl Ground {
    fn keeps_files(self) -> bool {
        self != Self::Bare
    }

    fn rule(self, delta: Option<Rule>) -> Rule {
        match (self, delta) {
            (Self::Bare, _) => Rule::Nothing,
            (_, Some(rule)) => rule,
            (_, None) => Rule::SizeAndTime,
        }
    }
}

/// From here on the directory says that it is unfinished.
fn begin(gathered: &mut Gathered<'_>, context: &Context<'_>) -> Result<(Building, Ground), CloneError> {
    let Some(claim) = gathered.claim.take() else {
        unreachable!("a prepared clone has taken its directory");
    };
    let identity = &gathered.identity;
    if can_resume(&gathered.target, identity, &gathered.base) {
        context.observer.event(Event::Resuming);
        return Ok((claim.resume()?, Ground::Interrupted));
    }
    if gathered.plan.existing == Existing::Reused {
        return Ok((claim.build_upon(identity.value())?, Ground::Instance));
    }
    if gathered.plan.existing.is_erased() {
        context.observer.event(Event::Erasing {
            path: gathered.target.path().to_owned(),
        });
    }
    Ok((claim.start_over(identity.value(), context.cancel)?, Ground::Bare))
}

fn create_all_directories(
    source: &BackupSource,
    parameters: &ServerParameters,
    places: &Places,
    trees: &Trees<'_>,
) -> Result<(), CloneError> {
    for place in &places.tablespaces {
        link_tablespace(trees.data, place.origin.oid, place.dir.path())?;
    }
    let version = source.wanted.backup.version;
    if let (Some(_), Some(dir)) = (trees.wal, &places.wal) {
        let link = if version.num() < 100_000 {
            "pg_xlog"
        } else {
            "pg_wal"
        };
        trees.data.symlink(link, dir.path())?;
    }
    if let (None, Content::Files(files)) = (&source.chain, &source.wanted.content) {
        create_directories(files, trees)?;
    }
    create_skeleton(trees.data, trees.wal, version)?;
    // An empty tablespace without it would accept no table after a promotion.
    if let Some(catalog) = parameters.catalog_version {
        for tree in trees.tablespaces {
            tree.create_dir(format!("PG_{}_{catalog}", version.major_name()))?;
        }
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
