//! Finding out everything that can be known before a byte is changed; nothing here changes one.
//!
//! There are two looks, because repmgr tells of the directory before it tells of the servers: [`Outline::look`]
//! finds what is copied and where it goes, [`Outline::look_on`] all the rest. A clone takes the directory between
//! them, and the holds on its backups beside the second.

use std::panic::resume_unwind;
use std::thread;

use repmgr_barman::Backup;
use repmgr_datadir::{Permissions, Target, TargetState};
use repmgr_recovery::ReplicationSettings;
use repmgr_types::{PgVersion, Rate};
use repmgr_upstream::StandbyLimits;

use crate::copy::reuse::{Rule, delta_rule};
use crate::nodes::find;
use crate::nodes::node::{CopiedCluster, Nodes};
use crate::nodes::reach::{self, FirstWal};
use crate::place::identity::{CloneIdentity, IdentitySource, can_resume};
use crate::place::{self, Places};
use crate::request::{BarmanSource, Source};
use crate::source::backup::{BackupSource, Pages, ServerParameters};
use crate::source::external::{self, Fetched};
use crate::source::server::{self, ServerBase};
use crate::standby::restore_command::Trial;
use crate::standby::settings::{planned, settings};
use crate::standby::{host, limits};
use crate::{
    BackupError, BackupEvent, CloneError, CloneRequest, Context, Outcome, PlaceEvent, Plan, PlannedLimit,
    PlannedSource, PlannedTablespace, Present, Remark, RemarkCode,
};

/// How many sessions shall be logged in to a Barman host ahead of the copy.
pub(crate) type Sessions = fn(&BarmanSource, &Context<'_>) -> usize;

/// Where the base backup comes from, with all that is known of it.
pub(crate) enum Base {
    Barman(BarmanBase),
    Server(ServerBase),
}

/// A backup in Barman's catalogue, with all that is known of it.
pub(crate) struct BarmanBase {
    pub(crate) source: BarmanSource,
    pub(crate) backup: Box<BackupSource>,
    pub(crate) parameters: Box<ServerParameters>,
    /// What is reused of the instance that is replaced.
    pub(crate) delta: Option<Rule>,
}

impl Base {
    /// Whether it is made of several backups.
    pub(crate) fn is_combined(&self) -> bool {
        matches!(self, Self::Barman(base) if base.backup.chain.is_some())
    }
}

/// What is copied, and where it goes.
pub(crate) struct Outline {
    pub(crate) target: Target,
    pub(crate) permissions: Permissions,
    places: Places,
    sort: Sort,
}

/// What was asked so far: pg_basebackup needs the source node first, Barman needs it last.
enum Sort {
    Barman(BarmanSource, Box<BackupSource>),
    Server(ServerBase, Box<Nodes>, CopiedCluster),
}

/// All that can be known beforehand.
pub(crate) struct Outlook {
    pub(crate) target: Target,
    pub(crate) version: PgVersion,
    pub(crate) base: Base,
    pub(crate) places: Places,
    pub(crate) nodes: Nodes,
    pub(crate) external: Option<Fetched>,
    pub(crate) settings: ReplicationSettings,
    /// What the standby must not have lower; `None` where no node can be asked.
    pub(crate) limits: Option<StandbyLimits>,
    pub(crate) identity: CloneIdentity,
    pub(crate) plan: Plan,
}

/// What one of the two ways found out of the servers.
struct Asked {
    base: Base,
    nodes: Nodes,
    cluster: CopiedCluster,
}

impl Outline {
    /// The first look, in the order in which repmgr tells of it.
    pub(crate) fn look(
        request: &CloneRequest,
        ahead: Option<Sessions>,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        context.tell(PlaceEvent::DestinationProvided {
            path: request.data_directory.clone(),
        });
        let target = place::inspect(request, context)?;
        context.cancel.check()?;
        match &request.source {
            Source::Barman(barman) => Self::of_backup(request, barman, target, ahead, context),
            Source::Server(server) => {
                let mut nodes = Nodes::connect(request.standby(), context)?;
                nodes.check(request, None, context)?;
                let node = nodes.source_or_refuse()?;
                let (cluster, origins, permissions) = server::origin(request, node)?;
                let base = ServerBase::check(request, server, node, context)?;
                let places = place::inspect_outside(request, &target, origins, context)?;
                Ok(Self {
                    target,
                    permissions,
                    places,
                    sort: Sort::Server(base, Box::new(nodes), cluster),
                })
            }
        }
    }

    /// The same for who wants to know what the backup is worth, and clones nothing now: places that cannot be used
    /// are warned of.
    pub(crate) fn look_for_proof(
        request: &CloneRequest,
        ahead: Sessions,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let Source::Barman(barman) = &request.source else {
            return Self::look(request, Some(ahead), context);
        };
        let warn = |error: &CloneError| {
            let remark = Remark::warning(RemarkCode::PlaceUnusable, error.to_string());
            context.tell(remark.detail(error.detail()).hint(error.hint()));
        };
        let target = match place::inspect(request, context) {
            Ok(target) => target,
            Err(error) => {
                warn(&error);
                Target::assumed_absent(&request.data_directory)
            }
        };
        let source = Self::open(request, barman, &target, Some(ahead), context)?;
        let places = place::inspect_outside(request, &target, source.origins(), context)
            .and_then(|places| source.check_space(&target, &places, context).map(|()| places));
        let places = places.unwrap_or_else(|error| {
            warn(&error);
            Places::default()
        });
        context.cancel.check()?;
        Ok(Self::with(barman, source, target, places))
    }

    fn of_backup(
        request: &CloneRequest,
        barman: &BarmanSource,
        target: Target,
        ahead: Option<Sessions>,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let source = Self::open(request, barman, &target, ahead, context)?;
        let places = place::inspect_outside(request, &target, source.origins(), context)?;
        source.check_space(&target, &places, context)?;
        context.cancel.check()?;
        Ok(Self::with(barman, source, target, places))
    }

    fn open(
        request: &CloneRequest,
        barman: &BarmanSource,
        target: &Target,
        ahead: Option<Sessions>,
        context: &Context<'_>,
    ) -> Result<BackupSource, CloneError> {
        let ahead = || ahead.map_or(0, |sessions| sessions(barman, context));
        let source = BackupSource::open(barman, request, target, ahead, context)?;
        context.tell(BackupEvent::BackupFound {
            server: barman.address.server.clone(),
            backup: source.wanted.backup.id.to_string(),
            bytes: source.total_size(),
            files: source.total_files(),
        });
        Ok(source)
    }

    fn with(barman: &BarmanSource, source: BackupSource, target: Target, places: Places) -> Self {
        Self {
            target,
            permissions: source.permissions(),
            places,
            sort: Sort::Barman(barman.clone(), Box::new(source)),
        }
    }

    /// The second look. `beside` is done meanwhile, with the backups that will be read.
    pub(crate) fn look_on<T: Send>(
        self,
        request: &CloneRequest,
        beside: impl Fn(&[Backup]) -> Result<T, CloneError> + Sync,
        context: &Context<'_>,
    ) -> Result<(Outlook, T), CloneError> {
        let Self {
            target, places, sort, ..
        } = self;
        let (asked, beside) = match sort {
            Sort::Barman(source, backup) => {
                ask_both_sides(request, source, backup, &target, beside, context)?
            }
            Sort::Server(base, nodes, cluster) => {
                if let Some(command) = &request.replication.restore_command {
                    let accepted = request.accept_missing_wal;
                    Trial::of_nodes(command, &nodes, cluster.system_id, accepted, context)?;
                }
                let asked = Asked {
                    base: Base::Server(base),
                    nodes: *nodes,
                    cluster,
                };
                (asked, beside(&[])?)
            }
        };
        let outlook = conclude(request, target, places, asked, context)?;
        Ok((outlook, beside))
    }
}

/// What the backup says of its server, and the nodes. From far away each takes its time, and what is done beside
/// needs neither; nor does a trial of the `restore_command`.
fn ask_both_sides<T: Send>(
    request: &CloneRequest,
    source: BarmanSource,
    backup: Box<BackupSource>,
    target: &Target,
    beside: impl Fn(&[Backup]) -> Result<T, CloneError> + Sync,
    context: &Context<'_>,
) -> Result<(Asked, T), CloneError> {
    let wanted = backup.wanted.backup.clone();
    let command = request.replication.restore_command.as_deref();
    let trial = command.map(|command| Trial::of(command, &wanted));
    let cancel = context.cancel.child();
    thread::scope(|scope| {
        let trying = trial.map(|trial| {
            let (cancel, builder) = (&cancel, thread::Builder::new().name("restore_command".to_owned()));
            (trial, builder.spawn_scoped(scope, move || trial.run(cancel)))
        });
        let asked = ask_servers(request, source, backup, target, beside, context);
        if asked.is_err() {
            cancel.cancel();
        }
        let (asked, first_wal, done) = asked?;
        if let Some((trial, trying)) = trying {
            let delivered = match trying {
                Ok(trying) => trying.join().unwrap_or_else(|panic| resume_unwind(panic))?,
                Err(_) => trial.run(&cancel)?,
            };
            let (expected, accepted) = (asked.cluster.system_id, request.accept_missing_wal);
            trial.conclude(delivered, expected, first_wal, accepted, context)?;
        }
        Ok((asked, done))
    })
}

fn ask_servers<T: Send>(
    request: &CloneRequest,
    source: BarmanSource,
    mut backup: Box<BackupSource>,
    target: &Target,
    beside: impl Fn(&[Backup]) -> Result<T, CloneError> + Sync,
    context: &Context<'_>,
) -> Result<(Asked, FirstWal, T), CloneError> {
    context.tell(BackupEvent::FetchingServerParameters);
    let backups: Vec<Backup> = backup.backups().cloned().collect();
    let (done, both) = thread::scope(|scope| {
        let builder = thread::Builder::new().name("hold".to_owned());
        let doing = builder.spawn_scoped(scope, || beside(&backups));
        let both = parameters(&source, &mut backup, context)
            .and_then(|parameters| Ok((parameters, find::nodes(request, &mut backup.barman, context)?)));
        let done = match doing {
            Ok(doing) => doing.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // No more threads: one thing after the other, then.
            Err(_) => beside(&backups),
        };
        (done, both)
    });
    let done = done?;
    let (mut parameters, mut nodes) = both?;
    let cluster = backup.cluster(&parameters);
    nodes.check(request, Some(&cluster), context)?;
    if let Some(node) = nodes.source() {
        let setting = node.setting("data_checksums")?;
        parameters.pages.learn(setting.map(|setting| setting == "on"));
    }
    if let Pages::Unjudged(reason) = &parameters.pages {
        context.tell(Remark::pages_not_verified(reason));
    }
    host::check_newer_tablespaces(&backup.origins(), &nodes, context)?;
    let first_wal = reach::check(request, &mut backup, &nodes, context)?;
    let delta = delta_rule(request, target, &cluster, &backup, &parameters, context);
    let base = BarmanBase {
        source,
        backup,
        parameters: Box::new(parameters),
        delta,
    };
    let asked = Asked {
        base: Base::Barman(base),
        nodes,
        cluster,
    };
    Ok((asked, first_wal, done))
}

fn parameters(
    barman: &BarmanSource,
    source: &mut BackupSource,
    context: &Context<'_>,
) -> Result<ServerParameters, CloneError> {
    let parameters = source
        .wanted
        .parameters(&mut source.barman, &barman.transfer, context)?;
    if source.chain.is_some() && parameters.manifest.is_none() {
        return Err(source.wanted.incomplete("backup_manifest"));
    }
    if barman.transfer.require_manifest && parameters.manifest.is_none() {
        let backup = source.wanted.backup.id.clone();
        return Err(BackupError::NoManifest { backup }.into());
    }
    context.tell(BackupEvent::ServerParametersFetched);
    Ok(parameters)
}

fn conclude(
    request: &CloneRequest,
    target: Target,
    places: Places,
    asked: Asked,
    context: &Context<'_>,
) -> Result<Outlook, CloneError> {
    let Asked {
        mut base,
        nodes,
        cluster,
    } = asked;
    place::check_same_cluster(request, &target, &cluster)?;
    nodes.check_replication(request, &cluster, context)?;
    let external = external::find(request, &nodes, context)?;
    if let Base::Barman(base) = &base {
        let external = external.as_ref();
        base.backup
            .warn_of_missing_configuration(&base.parameters, external, context);
    }
    host::check_programs(request, cluster.version, context);
    let limits = nodes.limits()?;
    let raised = raised(
        request,
        &target,
        &mut base,
        external.as_ref(),
        limits,
        &cluster,
        context,
    );
    let settings = settings(request, cluster.version, &nodes, context);
    if request.outcome == Outcome::Standby {
        nodes.check_written(&settings.primary_conninfo, context);
    }
    let identity = CloneIdentity::new(
        identity_source(&base),
        cluster.system_id,
        cluster.version,
        &places,
    );
    let plan = Plan {
        method: request.source.method(),
        source: planned_source(&base, &nodes, &cluster),
        files: base.backup().map(BackupSource::total_files),
        bytes: base.backup().map(BackupSource::total_size),
        max_rate: request.source.max_rate().map(Rate::bytes),
        data_directory: target.path().to_owned(),
        present: present(&target, &identity, &base),
        tablespaces: planned_tablespaces(&places),
        wal_directory: places.wal.as_ref().map(|dir| dir.path().to_owned()),
        upstream_node_id: nodes.upstream_id,
        settings: planned(&settings),
        raised,
    };
    Ok(Outlook {
        target,
        version: cluster.version,
        base,
        places,
        nodes,
        external,
        settings,
        limits,
        identity,
        plan,
    })
}

/// Of the settings that a standby must not have lower: what will be raised; what cannot be is warned of.
fn raised(
    request: &CloneRequest,
    target: &Target,
    base: &mut Base,
    external: Option<&Fetched>,
    now: Option<StandbyLimits>,
    cluster: &CopiedCluster,
    context: &Context<'_>,
) -> Vec<PlannedLimit> {
    let Some(now) = now.filter(|_| request.outcome == Outcome::Standby) else {
        return Vec::new();
    };
    let had = match base {
        Base::Barman(base) => base.parameters.settings.as_ref().map(limits::recorded),
        Base::Server(_) => None,
    };
    let needed = had.map_or(now, |had| now.highest(had));
    let line = limits::command_line(request.start_command.as_deref(), target.path(), cluster.version);
    limits::check_command_line(&line, &needed, context);
    match base {
        Base::Barman(base) => {
            limits::foresee(&mut base.backup, target.path(), external, had, &needed, context)
        }
        // The files are those of the very server that has the values.
        Base::Server(_) => Vec::new(),
    }
}

impl Base {
    fn backup(&self) -> Option<&BackupSource> {
        match self {
            Self::Barman(base) => Some(&base.backup),
            Self::Server(_) => None,
        }
    }
}

fn identity_source(base: &Base) -> IdentitySource {
    match base {
        Base::Barman(base) => IdentitySource::Barman {
            server: base.source.address.server.clone(),
            backup: base.backup.wanted.backup.id.clone(),
            delta: base.delta,
        },
        Base::Server(_) => IdentitySource::PgBasebackup,
    }
}

fn planned_source(base: &Base, nodes: &Nodes, cluster: &CopiedCluster) -> PlannedSource {
    match base {
        Base::Barman(base) => {
            let backup = &base.backup.wanted.backup;
            PlannedSource::Barman {
                host: base.source.host.name().to_owned(),
                server: base.source.address.server.clone(),
                backup: backup.id.to_string(),
                version: backup.version.to_string(),
                timeline: backup.timeline.id(),
                end_time: backup.end_time.to_string(),
                chain: match &base.backup.chain {
                    Some(_) => base
                        .backup
                        .backups()
                        .map(|backup| backup.id.to_string())
                        .collect(),
                    None => Vec::new(),
                },
            }
        }
        Base::Server(_) => PlannedSource::Server {
            endpoint: nodes
                .source()
                .map(|node| node.endpoint().to_string())
                .unwrap_or_default(),
            version: cluster.version.to_string(),
        },
    }
}

fn planned_tablespaces(places: &Places) -> Vec<PlannedTablespace> {
    let tablespaces = places.tablespaces.iter();
    tablespaces
        .map(|place| PlannedTablespace {
            name: place.origin.name.clone(),
            oid: place.origin.oid,
            directory: place.dir.path().to_owned(),
        })
        .collect()
}

fn present(target: &Target, identity: &CloneIdentity, base: &Base) -> Present {
    match target.state() {
        TargetState::Absent { .. } => Present::Absent,
        TargetState::Empty { .. } => Present::Empty,
        TargetState::Unfinished { .. } if can_resume(target, identity) => Present::Interrupted,
        TargetState::Unfinished { .. } => Present::OtherClone,
        // What is none was refused.
        TargetState::Instance(_) | TargetState::NonEmpty { .. } => match base {
            Base::Barman(BarmanBase { delta: Some(_), .. }) => Present::Reused,
            _ => Present::Instance,
        },
    }
}
