//! The replication settings of the standby.

use repmgr_recovery::{PrimaryConninfo, RecoveryTarget, ReplicationSettings};
use repmgr_types::PgVersion;

use crate::nodes::node::Nodes;
use crate::request::Standby;
use crate::{CloneRequest, Context, Outcome, PlannedSetting, Remark, RemarkCode};

/// Those of what the data directory becomes.
pub(crate) fn settings(
    request: &CloneRequest,
    version: PgVersion,
    nodes: &Nodes,
    context: &Context<'_>,
) -> ReplicationSettings {
    match &request.outcome {
        Outcome::Standby => replication_settings(request.standby(), version, nodes, context),
        Outcome::ManagedStandby => ReplicationSettings {
            drop_restore_command: true,
            ..ReplicationSettings::default()
        },
        Outcome::Recovered(target) => ReplicationSettings {
            restore_command: request.replication.restore_command.clone(),
            recovery: Some(target.clone()),
            ..ReplicationSettings::default()
        },
    }
}

/// Those of a standby that follows the chosen upstream node.
pub(crate) fn replication_settings(
    standby: Standby<'_>,
    version: PgVersion,
    nodes: &Nodes,
    context: &Context<'_>,
) -> ReplicationSettings {
    let options = standby.replication;
    let built = PrimaryConninfo::new(&nodes.upstream_conninfo, standby.application_name())
        .user(nodes.replication_user.as_deref())
        .password(options.password.as_deref())
        .passfile(options.passfile.as_deref())
        .typed_here(standby.upstream.conninfo.is_some())
        .build(version);
    for dropped in &built.dropped {
        let text = format!(
            "\"{}\" of the upstream node's connection string is not written to primary_conninfo: {}",
            dropped.keyword, dropped.reason
        );
        context.tell(Remark::warning(RemarkCode::KeywordDropped, text).hint(dropped.hint()));
    }
    ReplicationSettings {
        primary_conninfo: built.conninfo,
        primary_slot_name: options.slot_name.clone(),
        recovery_min_apply_delay: options.recovery_min_apply_delay.clone(),
        restore_command: options.restore_command.clone(),
        archive_cleanup_command: options.archive_cleanup_command.clone(),
        ..ReplicationSettings::default()
    }
}

/// The same for the plan.
pub(crate) fn planned(settings: &ReplicationSettings) -> Vec<PlannedSetting> {
    // `Display` of a connection string hides its secrets.
    let primary_conninfo = settings.primary_conninfo.to_string();
    let primary_conninfo = Some(primary_conninfo).filter(|conninfo| !conninfo.is_empty());
    let all = [
        ("primary_conninfo", &primary_conninfo),
        ("primary_slot_name", &settings.primary_slot_name),
        ("recovery_min_apply_delay", &settings.recovery_min_apply_delay),
        ("restore_command", &settings.restore_command),
        ("archive_cleanup_command", &settings.archive_cleanup_command),
    ];
    let set = all.into_iter().filter_map(|(name, value)| {
        let value = value.clone()?;
        Some(PlannedSetting { name, value })
    });
    let target = settings.recovery.iter().flat_map(RecoveryTarget::settings);
    set.chain(target.map(|(name, value)| PlannedSetting { name, value }))
        .collect()
}
