//! The replication configuration alone, for an instance that is there already.

use std::path::PathBuf;

use repmgr_datadir::{InstanceDir, ServerState, Tree, server_state};
use repmgr_recovery::{Mechanism, ReplicationSettings};
use repmgr_types::PgVersion;

use crate::error::said;
use crate::event::{Observer, WithoutChecks};
use crate::nodes::node::{CopiedCluster, Nodes, check_same_cluster};
use crate::nodes::slot::{InUse, Slot};
use crate::standby::configure::{STANDBY_SIGNAL, StandbyFiles, heed_own_conf};
use crate::standby::restore_command::Trial;
use crate::standby::settings::replication_settings;
use crate::{
    CloneError, Context, Effective, Hint, NodeError, NodeEvent, PlaceError, PlaceEvent, ReconfigureRequest,
    Remark, RemarkCode, Remedy, StandbyEvent,
};

/// An instance that was configured anew, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconfiguration {
    /// Its data directory, symbolic links resolved.
    pub data_directory: PathBuf,
    /// The file with the settings, relative to it.
    pub file: &'static str,
    /// Lines of that file, without secrets.
    pub lines: Vec<String>,
    /// The node it will follow.
    pub upstream_node_id: Option<i32>,
    /// When it will.
    pub effective: Effective,
}

/// Makes the instance in the data directory a standby of the chosen upstream node, or, with `dry_run`,
/// finds every reason not to and touches nothing anywhere.
///
/// All is found out before the first change: that a whole instance is there, of the cluster and the major
/// version of its nodes, that it has a node record, that its upstream node can be reached and streamed
/// from. Then comes the slot, then the files, then the slot's name in the node record. A running server
/// is not told of anything.
///
/// # Errors
/// The first reason not to. Files are replaced as a whole: after an error, the old configuration counts
/// or, where `standby.signal` or the removal of a contradicting file failed, the new one.
pub fn write_replication_configuration(
    request: &ReconfigureRequest,
    context: &Context<'_>,
    dry_run: bool,
) -> Result<Reconfiguration, CloneError> {
    let without_checks = WithoutChecks(context.observer);
    let observer: &dyn Observer = if dry_run {
        context.observer
    } else {
        &without_checks
    };
    let context = &context.with_observer(observer);
    context.tell(PlaceEvent::DestinationProvided {
        path: request.data_directory.clone(),
    });
    let instance = Instance::inspect(request, context, dry_run)?;
    if request.upstream.no_connection {
        return Err(NodeError::Refused {
            code: "connection_needed",
            message: "the replication configuration needs a connection to the source node".to_owned(),
            detail: None,
            hint: Some(Hint::new("leave out ").remedy(Remedy::NoUpstreamConnection)),
        }
        .into());
    }
    let standby = request.standby();
    let mut nodes = Nodes::connect(standby, context)?;
    let record = nodes.check_registered(standby, &request.node, &instance.cluster, context)?;
    nodes.tell_upstream(context);
    context.cancel.check()?;
    let upstream = nodes.connect_upstream(context).map_err(|error| match error {
        CloneError::Node(NodeError::Connect { source, .. }) => NodeError::Upstream(source).into(),
        other => other,
    })?;
    check_same_cluster(&upstream, &instance.cluster, "upstream node")?;
    nodes.check_streaming(standby, &instance.cluster, context)?;
    if let Some(command) = &request.replication.restore_command {
        Trial::of_nodes(command, &nodes, instance.cluster.system_id, true, context)?;
    }
    let mut settings = replication_settings(standby, instance.version(), &nodes, context);
    let files = instance.files(&mut settings, context)?;
    let in_use = match request.force {
        true => InUse::Keep,
        false => InUse::Refuse,
    };
    let result = Reconfiguration {
        data_directory: instance.dir.path().to_owned(),
        file: files.name(),
        lines: settings.shown_lines(instance.mechanism())?,
        upstream_node_id: nodes.upstream_id,
        effective: instance.effective(),
    };
    let slot_name = request.replication.slot_name.as_deref();
    let names_slot = slot_name.filter(|_| record.slot_name.is_none());
    if dry_run {
        Slot::check(standby, &nodes, in_use, context)?;
        if let Some(slot_name) = names_slot {
            context.tell(NodeEvent::checked(format!(
                "would set \"slot_name\" for node \"{}\" (ID: {}) to \"{slot_name}\"",
                request.node.name, request.node.id
            )));
        }
        instance.tell_plan(&files, &result, context);
        return Ok(result);
    }
    drop(upstream);
    context.cancel.check()?;
    let slot = Slot::create(standby, &nodes, in_use, None, context)?;
    if let Err(error) = instance.write(&files, context) {
        slot.take_back(&nodes, context);
        return Err(error);
    }
    if let Some(slot_name) = names_slot
        && let Err(error) = nodes.record_slot(&request.node, slot_name)
    {
        // The standby streams without it.
        context.tell(
            Remark::warning(
                RemarkCode::NotRecorded,
                format!(
                    "unable to set \"slot_name\" in the record of node {}",
                    request.node.id
                ),
            )
            .detail(error.detail().map(|detail| format!("{error}: {detail}")))
            .hint(said(error.hint())),
        );
    }
    context.tell(StandbyEvent::ConfigurationWritten {
        file: result.file.to_owned(),
        directory: result.data_directory.clone(),
        lines: result.lines.clone(),
        effective: result.effective,
    });
    Ok(result)
}

/// The instance that is to be configured.
struct Instance {
    dir: InstanceDir,
    tree: Tree,
    cluster: CopiedCluster,
    force: bool,
}

impl Instance {
    /// Looks at the data directory and refuses what must not be touched. As in repmgr a dry run wants
    /// force for the same things as a real run, which would otherwise be refused after it.
    fn inspect(
        request: &ReconfigureRequest,
        context: &Context<'_>,
        dry_run: bool,
    ) -> Result<Self, CloneError> {
        let dir = InstanceDir::inspect(&request.data_directory)?;
        match dir.server() {
            ServerState::Running { pid, .. } if !request.force => {
                return Err(PlaceError::Running {
                    path: dir.path().to_owned(),
                    pid: *pid,
                }
                .into());
            }
            ServerState::Running { .. } => context.tell(Remark::warning(
                RemarkCode::InstanceRunning,
                match dry_run {
                    true => "replication configuration would be created in an active data directory",
                    false => "creating replication configuration in an active data directory",
                },
            )),
            ServerState::Stopped { stale } => {
                if let Some(stale) = stale {
                    context.tell(Remark::warning(RemarkCode::LeftOver, stale.to_string()));
                }
            }
        }
        let Some(version) = version_of(dir.major()) else {
            return Err(PlaceError::UnknownMajor {
                path: dir.path().to_owned(),
                major: dir.major().to_owned(),
            }
            .into());
        };
        let tree = dir.tree()?;
        let file = Mechanism::for_version(version).file();
        if version.uses_recovery_conf() && !request.force && tree.metadata(file)?.is_some() {
            return Err(PlaceError::RecoveryConf {
                path: dir.path().join(file),
            }
            .into());
        }
        let cluster = CopiedCluster {
            what: "the data directory".to_owned(),
            version,
            system_id: dir.control().system_id,
        };
        let force = request.force;
        Ok(Self {
            dir,
            tree,
            cluster,
            force,
        })
    }

    fn version(&self) -> PgVersion {
        self.cluster.version
    }

    fn mechanism(&self) -> Mechanism {
        Mechanism::for_version(self.version())
    }

    fn is_running(&self) -> bool {
        matches!(self.dir.server(), ServerState::Running { .. })
    }

    /// `primary_conninfo` can be changed while the server runs from PostgreSQL 13 on.
    fn effective(&self) -> Effective {
        match self.is_running() {
            false => Effective::OnStart,
            true if self.version().major() >= 13 && self.is_standby() => Effective::OnReload,
            true => Effective::OnRestart,
        }
    }

    /// A server that runs without it is a primary, and remains one until it is started anew.
    fn is_standby(&self) -> bool {
        self.tree
            .metadata(STANDBY_SIGNAL)
            .is_ok_and(|found| found.is_some())
    }

    fn files(
        &self,
        settings: &mut ReplicationSettings,
        context: &Context<'_>,
    ) -> Result<StandbyFiles, CloneError> {
        if self.mechanism() == Mechanism::StandbySignal {
            heed_own_conf(&self.tree, settings, context)?;
        }
        StandbyFiles::render(&self.tree, self.version(), settings)
    }

    fn tell_plan(&self, files: &StandbyFiles, result: &Reconfiguration, context: &Context<'_>) {
        self.tell_changes(files, "would be removed", context);
        context.tell(StandbyEvent::ConfigurationPlanned {
            file: result.file.to_owned(),
            directory: result.data_directory.clone(),
            lines: result.lines.clone(),
        });
        if self.mechanism() == Mechanism::StandbySignal {
            context.tell(NodeEvent::SettingChecked {
                text: format!("would write \"{STANDBY_SIGNAL}\" file"),
            });
        }
    }

    /// Tells what becomes of settings that are not configured.
    fn tell_changes(&self, files: &StandbyFiles, removed: &str, context: &Context<'_>) {
        for setting in &files.dropped {
            context.tell(
                Remark::notice(
                    RemarkCode::Configuration,
                    format!(
                        "\"{}\" {removed} from \"{}\", as it is not configured",
                        setting.name,
                        files.name()
                    ),
                )
                .detail(format!("its value was \"{}\"", setting.value))
                .hint(said(
                    (setting.name == "primary_slot_name" && !setting.value.is_empty()).then(|| {
                        "drop that slot on the node it was on, if no other standby uses it: it keeps WAL"
                            .to_owned()
                    }),
                )),
            );
        }
        if let Some(command) = &files.inherited_restore_command {
            context.tell(
                Remark::notice(
                    RemarkCode::RestoreCommandStays,
                    format!(
                        "\"restore_command\" is not configured; the one in \"{}\" stays",
                        files.name()
                    ),
                )
                .detail(format!("it is \"{command}\"")),
            );
        }
    }

    fn write(&self, files: &StandbyFiles, context: &Context<'_>) -> Result<(), CloneError> {
        // It may have been started meanwhile.
        match server_state(self.dir.path()) {
            Ok(ServerState::Running { pid, .. }) if !self.force => {
                return Err(PlaceError::Running {
                    path: self.dir.path().to_owned(),
                    pid,
                }
                .into());
            }
            Ok(_) => {}
            Err(error) => return Err(PlaceError::Inspect(error.into()).into()),
        }
        let removed = files.write(&self.tree)?;
        self.tell_changes(files, "was removed", context);
        for file in removed {
            context.tell(Remark::notice(
                RemarkCode::Configuration,
                format!("\"{file}\" was removed, as it would contradict the configuration"),
            ));
        }
        Ok(())
    }
}

/// The version that the content of `PG_VERSION` stands for: "15", "9.6".
fn version_of(major: &str) -> Option<PgVersion> {
    let mut parts = major.split('.').map(str::parse::<u32>);
    let first = parts.next()?.ok()?;
    let second = match (first, parts.next()) {
        (10.., None) => 0,
        (9, Some(second)) => second.ok()?,
        _ => return None,
    };
    PgVersion::from_num(first.checked_mul(10_000)?.checked_add(second.checked_mul(100)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_major_stands_for_its_versions() {
        for (major, num) in [
            ("18", Some(180_000)),
            ("10", Some(100_000)),
            ("9.6", Some(90_600)),
            ("9", None),
            ("15.2", None),
            ("", None),
            ("x", None),
            ("99999999999", None),
            ("4294967295", None),
        ] {
            assert_eq!(version_of(major).map(PgVersion::num), num, "{major}");
        }
    }
}
