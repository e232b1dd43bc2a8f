//! Whether WAL leads from the backup to where the upstream node is.

use repmgr_barman::Backup;
use repmgr_types::{Lsn, Timeline};

use crate::barman::BackupSource;
use crate::node::Nodes;
use crate::{CloneError, CloneRequest, Context, Event};

/// Whether a standby that is made of the backup can follow the source node, as far as a session with it tells.
pub(crate) fn check(
    request: &CloneRequest,
    source: &mut BackupSource,
    nodes: &Nodes,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    if let Some(node) = nodes.source() {
        let node_timeline = node.timeline()?;
        check_timeline(source, nodes, node_timeline, context)?;
        // A standby may be a moment behind its primary.
        if request.replication.restore_command.is_some() && !node.is_in_recovery()? {
            check_archive(source, node_timeline)?;
        }
    }
    check_wal(request, source, nodes, context)
}

/// A standby can leave the backup's timeline only where its upstream's history does, and not before
/// the backup is consistent.
fn check_timeline(
    source: &mut BackupSource,
    nodes: &Nodes,
    node_timeline: Timeline,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    let backup = &source.wanted.backup;
    let (backup_timeline, end) = (backup.timeline, backup.end_lsn);
    let wrong = |reason: String, backup: &Backup| {
        Err(CloneError::OtherTimeline {
            backup: backup.id.clone(),
            backup_timeline,
            node_timeline,
            reason,
        })
    };
    if backup_timeline == node_timeline {
        return Ok(());
    }
    if backup_timeline > node_timeline {
        let reason = format!("the backup was taken from a server that has left timeline {node_timeline}");
        return wrong(reason, backup);
    }
    let history = match nodes.timeline_history(node_timeline, context) {
        Some(history) => Some(history),
        None => source.barman.timeline_history(node_timeline)?,
    };
    let backup = &source.wanted.backup;
    let Some(history) = history else {
        context.observer.event(Event::Warning {
            text: format!(
                "whether timeline {backup_timeline} of the backup leads to timeline {node_timeline} of the \
                 source node cannot be checked"
            ),
            detail: Some(format!("{} cannot be had", node_timeline.history_file_name())),
            hint: None,
        });
        return Ok(());
    };
    match switch_point(&history, backup_timeline) {
        Some(left_at) if end <= left_at => Ok(()),
        Some(left_at) => wrong(
            format!("the node left timeline {backup_timeline} at {left_at}, before the backup was finished"),
            backup,
        ),
        None => wrong(
            format!("timeline {node_timeline} does not descend from timeline {backup_timeline}"),
            backup,
        ),
    }
}

/// A standby follows the newest timeline that it finds. What a server of the cluster archived that was promoted and
/// given up leads it away from a primary that is on an older one.
fn check_archive(source: &mut BackupSource, node_timeline: Timeline) -> Result<(), CloneError> {
    let archived = source.barman.archived_timelines(&source.wanted.backup)?;
    match archived
        .into_iter()
        .filter(|timeline| *timeline > node_timeline)
        .max()
    {
        None => Ok(()),
        Some(stray) => Err(CloneError::StrayTimeline {
            history: stray.history_file_name(),
            node_timeline,
        }),
    }
}

/// The WAL from the backup's begin on must be somewhere where the standby can get it.
fn check_wal(
    request: &CloneRequest,
    source: &mut BackupSource,
    nodes: &Nodes,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    let begin = source.wanted.backup.begin_wal;
    let on_node = match nodes.source() {
        Some(node) => node.has_wal_segment(begin)?,
        None => None,
    };
    if on_node == Some(true) {
        return Ok(());
    }
    let has_command = request.replication.restore_command.is_some();
    if has_command && source.barman.has_wal(&source.wanted.backup, begin)? {
        return Ok(());
    }
    let no_wal = |reason: String, hint: &str| {
        Err(CloneError::NoWal {
            backup: source.wanted.backup.id.clone(),
            reason,
            hint: hint.to_owned(),
        })
    };
    const SET: &str = "set restore_command in repmgr.conf to fetch WAL from Barman";
    match (has_command, on_node) {
        (true, _) => no_wal(
            format!("neither Barman's archive nor the source node has {begin}"),
            "check the archive with \"barman check-backup\", and choose another backup with --backup-id",
        ),
        (false, Some(_)) => no_wal(
            format!("the source node no longer has {begin}, and \"restore_command\" is not configured"),
            SET,
        ),
        (false, None) => {
            context.observer.event(Event::Warning {
                text: format!("the upstream node must still have WAL from {begin} on"),
                detail: Some(
                    "\"restore_command\" is not configured, and we cannot see what WAL the node has"
                        .to_owned(),
                ),
                hint: Some(SET.to_owned()),
            });
            Ok(())
        }
    }
}

/// Where a timeline history says that `timeline` was left. Lines: timeline, position, reason.
fn switch_point(history: &[u8], timeline: Timeline) -> Option<Lsn> {
    String::from_utf8_lossy(history).lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let id: u32 = words.next()?.parse().ok()?;
        (id == timeline.id())
            .then(|| words.next()?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_tells_where_a_timeline_was_left() {
        let history = b"# comment\n1\t0/5000000\tno recovery target specified\n\n2\t1/A0\tbefore 2026\n";
        let at = |id| switch_point(history, Timeline::new(id).unwrap());
        assert_eq!(at(1), Some(Lsn(0x500_0000)));
        assert_eq!(at(2), Some(Lsn(0x1_0000_00A0)));
        assert_eq!(at(3), None);
        assert_eq!(switch_point(b"1 nonsense\n\xff", Timeline::new(1).unwrap()), None);
    }
}
