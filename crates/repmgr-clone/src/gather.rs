//! Finding out everything that can be known before a byte is changed.

use std::panic::resume_unwind;
use std::thread;

use repmgr_barman::Backup;
use repmgr_datadir::{Claim, Permissions, Target, TargetState};
use repmgr_recovery::{PrimaryConninfo, ReplicationSettings};
use repmgr_remote::one_line;
use repmgr_types::PgVersion;

use crate::barman::{BackupSource, ServerParameters};
use crate::copy::wire_options;
use crate::error::with_causes;
use crate::external::{self, Fetched};
use crate::hold::Holds;
use crate::node::{Cluster, Nodes};
use crate::place::{self, Identity, Places};
use crate::request::{BarmanSource, ServerSource, Source, Standby};
use crate::reuse::{Rule, delta_rule};
use crate::server::{self, ServerBase};
use crate::slot::{InUse, Slot};
use crate::{CloneError, CloneRequest, Context, Event, Existing, Method, Plan, reach};

/// sshd turns some away when more than ten log in at once.
const LOGINS_AT_ONCE: usize = 8;

/// Where the base backup comes from, with all that is known of it.
pub(crate) enum Base<'r> {
    Barman {
        request: &'r BarmanSource,
        source: Box<BackupSource>,
        parameters: Box<ServerParameters>,
        holds: Option<Holds<'r>>,
        /// What is reused of the instance that is replaced.
        delta: Option<Rule>,
    },
    Server(ServerBase<'r>),
}

impl Base<'_> {
    /// Whether it is made of several backups.
    pub(crate) fn is_combined(&self) -> bool {
        matches!(self, Self::Barman { source, .. } if source.chain.is_some())
    }
}

/// All that planning found out, for the clone itself.
pub(crate) struct Gathered<'r> {
    pub(crate) target: Target,
    /// Taken unless only a plan is wanted.
    pub(crate) claim: Option<Claim>,
    pub(crate) version: PgVersion,
    pub(crate) base: Base<'r>,
    pub(crate) places: Places,
    pub(crate) nodes: Nodes,
    pub(crate) external: Option<Fetched>,
    pub(crate) settings: ReplicationSettings,
    pub(crate) identity: Identity,
    pub(crate) plan: Plan,
}

/// What one of the two ways found out.
struct Found<'r> {
    claim: Option<Claim>,
    cluster: Cluster,
    base: Base<'r>,
    places: Places,
    nodes: Nodes,
    identity: serde_json::Value,
}

/// Finds out everything, in the order in which repmgr tells of it.
pub(crate) fn gather<'r>(
    request: &'r CloneRequest,
    context: &Context<'_>,
    take: bool,
) -> Result<Gathered<'r>, CloneError> {
    context.observer.event(Event::DestinationProvided {
        path: request.data_directory.clone(),
    });
    let target = place::inspect(request, context)?;
    context.cancel.check()?;
    let gathering = Gathering {
        request,
        context,
        target: &target,
        take,
    };
    let found = match &request.source {
        Source::Barman(barman) => gathering.barman(barman)?,
        Source::Server(server) => gathering.server(server)?,
    };
    found
        .nodes
        .check_replication(request, &found.cluster, context, !take)?;
    if !take {
        Slot::check(request.standby(), &found.nodes, InUse::Refuse, context)?;
    }
    let external = gathering.external_files(&found.nodes)?;
    if let Base::Barman {
        source, parameters, ..
    } = &found.base
    {
        source.warn_of_missing_configuration(parameters, external.as_ref(), context);
    }
    let settings = replication_settings(request.standby(), found.cluster.version, &found.nodes, context);
    found.nodes.check_written(&settings.primary_conninfo, context);
    let identity = Identity::new(
        found.identity.clone(),
        found.cluster.version.major_name(),
        &found.places,
    );
    let plan = gathering.plan(&found, &settings, &identity);
    Ok(Gathered {
        version: found.cluster.version,
        claim: found.claim,
        base: found.base,
        places: found.places,
        nodes: found.nodes,
        external,
        settings,
        identity,
        plan,
        target,
    })
}

struct Gathering<'r, 'a, 'c> {
    request: &'r CloneRequest,
    context: &'a Context<'c>,
    target: &'a Target,
    take: bool,
}

impl<'r> Gathering<'r, '_, '_> {
    fn barman(&self, barman: &'r BarmanSource) -> Result<Found<'r>, CloneError> {
        let (request, context) = (self.request, self.context);
        // One for the hold, and those of the copy.
        let sessions = || match self.take {
            true => (1 + wire_options(barman, context).jobs.get()).min(LOGINS_AT_ONCE),
            false => 0,
        };
        let mut source = BackupSource::open(barman, request, sessions, context)?;
        if !self.take {
            context.observer.event(Event::BackupFound {
                server: barman.address.server.clone(),
                backup: source.wanted.backup.id.to_string(),
                bytes: source.total_size(),
                files: source.total_files(),
            });
        }
        let claim = self.claim(source.permissions())?;
        let places = place::inspect_outside(request, self.target, source.origins(), context)?;
        self.check_space(&source, &places)?;
        context.cancel.check()?;
        context.observer.event(Event::FetchingServerParameters);
        let backups: Vec<Backup> = source.backups().cloned().collect();
        // From far away each takes its time, and neither needs the other.
        let (holds, both) = thread::scope(|scope| {
            let take = || Holds::take(barman, &backups, context);
            let taking = self.take.then(|| {
                let builder = thread::Builder::new().name("hold".to_owned());
                builder.spawn_scoped(scope, take)
            });
            let both = self.both_sides(barman, &mut source);
            let holds = taking.map(|taking| match taking {
                Ok(taking) => taking.join().unwrap_or_else(|panic| resume_unwind(panic)),
                // No more threads: one thing after the other, then.
                Err(_) => take(),
            });
            (holds.transpose(), both)
        });
        let holds = holds?;
        if self.take {
            // Between our look and the hold Barman may have begun to delete it.
            source.recheck()?;
        }
        let (mut parameters, mut nodes) = both?;
        let cluster = source.cluster(&parameters);
        nodes.check(request, Some(&cluster), context, !self.take)?;
        if let Some(node) = nodes.source() {
            parameters.learn_of_checksums(node.setting("data_checksums")?.as_deref());
        }
        reach::check(request, &mut source, &nodes, context)?;
        let delta = delta_rule(
            request,
            self.target.state(),
            &cluster,
            &source,
            &parameters,
            context,
        );
        self.tell_of_other_clone(&source);
        let identity = serde_json::json!({
            "delta": delta.map(Rule::name),
            "method": Method::Barman,
            "host": barman.host.name(),
            "server": barman.address.server,
            "backup": source.wanted.backup.id.to_string(),
            "system_id": cluster.system_id.to_string(),
        });
        Ok(Found {
            claim,
            cluster,
            base: Base::Barman {
                request: barman,
                source: Box::new(source),
                parameters: Box::new(parameters),
                holds,
                delta,
            },
            places,
            nodes,
            identity,
        })
    }

    /// A newer backup may have come since the clone was begun.
    fn tell_of_other_clone(&self, source: &BackupSource) {
        let TargetState::Unfinished { marker: Some(marker) } = self.target.state() else {
            return;
        };
        let id = &source.wanted.backup.id;
        let begun = marker.identity["backup"].as_str().map(one_line);
        if let Some(begun) = begun.filter(|begun| marker.is_resumable() && begun != id.as_str()) {
            self.context.observer.event(Event::Warning {
                text: format!("the unfinished clone of backup {begun} is given up for one of backup {id}"),
                detail: None,
                hint: Some(format!("--backup-id={begun} continues it instead")),
            });
        }
    }

    /// What the backup says of its server, and the nodes.
    fn both_sides(
        &self,
        barman: &BarmanSource,
        source: &mut BackupSource,
    ) -> Result<(ServerParameters, Nodes), CloneError> {
        let parameters = source.wanted.parameters(&mut source.barman, self.context)?;
        if source.chain.is_some() && parameters.manifest.is_none() {
            return Err(source.wanted.incomplete("backup_manifest"));
        }
        if barman.transfer.require_manifest && parameters.manifest.is_none() {
            return Err(CloneError::NoManifest {
                backup: source.wanted.backup.id.clone(),
            });
        }
        if !self.take {
            self.context.observer.event(Event::ServerParametersFetched);
        }
        let nodes = self.nodes(source)?;
        Ok((parameters, nodes))
    }

    /// The node that was asked for cannot be reached; this one of repmgr's records can.
    fn tell_of_other_node(&self, node_id: i32, failure: &CloneError) {
        self.context.observer.event(Event::Warning {
            text: format!(
                "the source node cannot be reached; node {node_id} of repmgr's records can, and is used instead"
            ),
            detail: Some(with_causes(failure)),
            hint: Some("check -h, -p and -d".to_owned()),
        });
    }

    fn server(&self, server: &'r ServerSource) -> Result<Found<'r>, CloneError> {
        let (request, context) = (self.request, self.context);
        let mut nodes = Nodes::connect(request.standby(), context)?;
        nodes.check(request, None, context, !self.take)?;
        let Some(node) = nodes.source() else {
            return Err(CloneError::Metadata {
                message: "pg_basebackup needs a connection to the source node".to_owned(),
                detail: None,
                hint: Some("leave out --no-upstream-connection".to_owned()),
            });
        };
        let (cluster, origins, permissions) = server::origin(request, node)?;
        let base = ServerBase::check(request, server, node, context)?;
        let places = place::inspect_outside(request, self.target, origins, context)?;
        let claim = self.claim(permissions)?;
        let identity = serde_json::json!({
            "method": Method::PgBasebackup,
            "system_id": cluster.system_id.to_string(),
        });
        Ok(Found {
            claim,
            cluster,
            base: Base::Server(base),
            places,
            nodes,
            identity,
        })
    }

    fn check_space(&self, source: &BackupSource, places: &Places) -> Result<(), CloneError> {
        let check = |bytes: &[u64], backups| place::check_space(self.target, places, bytes, backups);
        let Some(chain) = &source.chain else {
            return check(&source.wanted.space_needed(), 1);
        };
        let backups = chain.below.len() + 1;
        let (parts, mut bytes) = chain.space_needed(&source.wanted);
        bytes[0] += parts;
        if !(chain.can_link && places.share_a_filesystem(self.target)?) {
            return check(&bytes, backups);
        }
        // What did not change since the full backup takes no room a second time; how much that is only
        // turns out in the end.
        check(&[parts], backups)?;
        if let Err(error) = check(&bytes, backups) {
            self.context.observer.event(Event::Warning {
                text: "there may not be enough space to combine the backups".to_owned(),
                detail: Some(error.to_string()),
                hint: error.hint(),
            });
        }
        Ok(())
    }

    /// Only when the clone will follow; a dry run leaves no trace.
    fn claim(&self, permissions: Permissions) -> Result<Option<Claim>, CloneError> {
        match self.take {
            true => place::take(self.target, self.request, permissions, self.context).map(Some),
            false => Ok(None),
        }
    }

    /// A session with the source node; where there can be none, what the Barman host can find out.
    fn nodes(&self, source: &mut BackupSource) -> Result<Nodes, CloneError> {
        let (request, context) = (self.request, self.context);
        let mut failure = None;
        if !request.upstream.no_connection {
            match Nodes::connect(request.standby(), context) {
                Ok(nodes) => return Ok(nodes),
                Err(error) if error.is_unreachable() => failure = Some(CloneError::from(error)),
                Err(error) => return Err(error.into()),
            }
        }
        let mut nodes = match &request.upstream.conninfo {
            Some(conninfo) => Nodes::unconnected(conninfo.clone()),
            None => {
                let dbname = request.connection.get("dbname");
                match (
                    source.barman.upstream_record(dbname, request.upstream.node_id),
                    failure,
                ) {
                    (Ok(record), lost) => {
                        if let Some(failure) = &lost
                            && let Ok(nodes) =
                                Nodes::connect_to(&record.conninfo, Some(Method::Barman), context)
                        {
                            self.tell_of_other_node(record.node_id, failure);
                            return Ok(nodes);
                        }
                        failure = lost;
                        let mut nodes = Nodes::unconnected(record.conninfo);
                        nodes.upstream_id = Some(record.node_id);
                        nodes.replication_user = record.repluser;
                        nodes
                    }
                    (Err(error), Some(lost)) => {
                        log::debug!("the Barman host does not know the upstream node either: {error}");
                        return Err(lost);
                    }
                    (Err(error), None) => return Err(error.into()),
                }
            }
        };
        nodes.upstream_id = nodes.upstream_id.or(request.upstream.node_id);
        let chosen = request.upstream.replication_user.clone();
        nodes.replication_user = chosen.or(nodes.replication_user);
        if let Some(failure) = failure {
            context.observer.event(Event::Warning {
                text: "the source node cannot be reached from here, so that nothing about it is checked"
                    .to_owned(),
                detail: failure.detail().map(|detail| format!("{failure}: {detail}")),
                hint: Some("the standby will not stream before its upstream node can be reached".to_owned()),
            });
        }
        Ok(nodes)
    }

    /// Reads configuration files outside the source's data directory, if they are wanted.
    fn external_files(&self, nodes: &Nodes) -> Result<Option<Fetched>, CloneError> {
        let (Some(wanted), Some(_)) = (&self.request.external_files, nodes.source()) else {
            return Ok(None);
        };
        let fetched = nodes
            .config_files(self.request.upstream.superuser.as_deref(), self.context)
            .and_then(|files| external::fetch(wanted, files));
        match fetched {
            Ok(fetched) => Ok(Some(fetched)),
            Err(error) if self.request.force => {
                self.context.observer.event(Event::Warning {
                    text: error.to_string(),
                    detail: error.detail(),
                    hint: error.hint(),
                });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn plan(&self, found: &Found<'_>, settings: &ReplicationSettings, identity: &Identity) -> Plan {
        let (source, backup, files, bytes) = match &found.base {
            Base::Barman { request, source, .. } => {
                let backup = &source.wanted.backup;
                let combined = match &source.chain {
                    Some(chain) => format!(", combined from {} backups", chain.below.len() + 1),
                    None => String::new(),
                };
                let text = format!(
                    "backup {} of server \"{}\" on {} (PostgreSQL {}, timeline {}, finished {}){combined}",
                    backup.id,
                    request.address.server,
                    request.host.name(),
                    backup.version,
                    backup.timeline,
                    backup.end_time
                );
                let (files, bytes) = (source.total_files(), source.total_size());
                (text, Some(backup.id.to_string()), Some(files), Some(bytes))
            }
            Base::Server(_) => {
                let endpoint = found.nodes.source().map(|node| node.endpoint().to_string());
                let text = format!(
                    "{} (PostgreSQL {})",
                    endpoint.unwrap_or_default(),
                    found.cluster.version
                );
                (text, None, None, None)
            }
        };
        let shown: [(&'static str, Option<String>); 5] = [
            // `Display` of a connection string hides its secrets.
            ("primary_conninfo", Some(settings.primary_conninfo.to_string())),
            ("primary_slot_name", settings.primary_slot_name.clone()),
            (
                "recovery_min_apply_delay",
                settings.recovery_min_apply_delay.clone(),
            ),
            ("restore_command", settings.restore_command.clone()),
            (
                "archive_cleanup_command",
                settings.archive_cleanup_command.clone(),
            ),
        ];
        let tablespaces = found.places.tablespaces.iter();
        Plan {
            method: self.request.source.method(),
            source,
            backup,
            files,
            bytes,
            data_directory: self.target.path().to_owned(),
            existing: match self.target.state() {
                TargetState::Absent { .. } => Existing::Absent,
                TargetState::Empty { .. } => Existing::Empty,
                TargetState::Unfinished { .. } if can_resume(self.target, identity, &found.base) => {
                    Existing::Interrupted
                }
                TargetState::Unfinished { .. } => Existing::OtherClone,
                TargetState::Instance(_) => match &found.base {
                    Base::Barman { delta: Some(_), .. } => Existing::Reused,
                    _ => Existing::Instance,
                },
                TargetState::NonEmpty { .. } => Existing::Files,
            },
            tablespaces: tablespaces
                .map(|place| {
                    (
                        place.origin.name.clone(),
                        place.origin.oid,
                        place.dir.path().to_owned(),
                    )
                })
                .collect(),
            wal_directory: found.places.wal.as_ref().map(|dir| dir.path().to_owned()),
            upstream_node_id: found.nodes.upstream_id,
            settings: shown
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
        }
    }
}

pub(crate) fn replication_settings(
    standby: Standby<'_>,
    version: PgVersion,
    nodes: &Nodes,
    context: &Context<'_>,
) -> ReplicationSettings {
    let options = standby.replication;
    let built = PrimaryConninfo::new(&nodes.upstream_conninfo, &standby.node.name)
        .user(nodes.replication_user.as_deref())
        .password(options.password.as_deref())
        .passfile(options.passfile.as_deref())
        .build(version);
    for dropped in &built.dropped {
        context.observer.event(Event::Warning {
            text: format!(
                "\"{}\" of the upstream node's connection string is not written to primary_conninfo: {}",
                dropped.keyword, dropped.reason
            ),
            detail: None,
            hint: None,
        });
    }
    ReplicationSettings {
        primary_conninfo: built.conninfo,
        primary_slot_name: options.use_slot.then(|| standby.node.slot_name()),
        recovery_min_apply_delay: options.recovery_min_apply_delay.clone(),
        restore_command: options.restore_command.clone(),
        archive_cleanup_command: options.archive_cleanup_command.clone(),
        pin_latest_timeline: false,
    }
}

/// Whether what stands in the target is this very clone, and its files can be trusted. What
/// `pg_basebackup` began can only be begun anew.
pub(crate) fn can_resume(target: &Target, identity: &Identity, base: &Base<'_>) -> bool {
    match (target.state(), base) {
        (TargetState::Unfinished { marker: Some(marker) }, Base::Barman { .. }) => {
            marker.is_resumable() && marker.identity == identity.value()
        }
        _ => false,
    }
}
