//! Whether WAL leads from the backup to where the upstream node is.

use repmgr_barman::{Backup, WalCoverage, WalGap, WalPath};
use repmgr_pgfile::TimelineHistory;
use repmgr_types::{Timeline, WalSegmentName};
use repmgr_upstream::UpstreamWal;

use crate::nodes::node::Nodes;
use crate::source::backup::BackupSource;
use crate::{CloneError, CloneRequest, Context, Hint, NodeError, Remark, RemarkCode, Remedy};

/// Segments of a hole in the archive that are looked for one by one, 5 ms each: they may have arrived and not
/// been put there yet.
const ASKED_FOR: usize = 512;

/// Where the standby's first WAL can come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstWal {
    /// From the source node as well as from the archive.
    Node,
    /// From the archive only, as far as can be seen.
    Archive,
}

/// Whether a standby that is made of the backup can follow the source node, as far as a session with it and the
/// archive tell: timelines, and WAL without a hole.
pub(crate) fn check(
    request: &CloneRequest,
    source: &mut BackupSource,
    nodes: &Nodes,
    context: &Context<'_>,
) -> Result<FirstWal, CloneError> {
    match look(request, source, nodes, context) {
        Err(CloneError::Node(error @ NodeError::NoWal { .. })) if request.accept_missing_wal => {
            let hint = "without it the standby will not stream; it waits for it";
            let remark = Remark::warning(RemarkCode::MissingWalAccepted, error.to_string());
            context.tell(remark.hint(Hint::from(hint)));
            Ok(FirstWal::Archive)
        }
        outcome => outcome,
    }
}

fn look(
    request: &CloneRequest,
    source: &mut BackupSource,
    nodes: &Nodes,
    context: &Context<'_>,
) -> Result<FirstWal, CloneError> {
    let has_command = request.replication.restore_command.is_some();
    let mut path = Some(WalPath::on(source.wanted.backup.timeline));
    let mut wal = None;
    if let Some(node) = nodes.source() {
        let node_timeline = node.timeline()?;
        path = check_timeline(source, nodes, node_timeline, context)?;
        wal = Some(node.wal()?);
    }
    if !has_command {
        check_node_alone(source, wal.as_ref(), context)?;
        return Ok(FirstWal::Node);
    }
    let backup = source.wanted.backup.clone();
    let coverage = source.barman.wal_coverage(&backup)?;
    // A standby may be a moment behind its primary.
    if let (Some(node), Some(wal)) = (nodes.source(), &wal)
        && !node.is_in_recovery()?
    {
        check_archive(&coverage, wal.timeline)?;
    }
    // Without the history there is no way to tell which segments are the right ones; that was told.
    let Some(path) = path else {
        return Ok(FirstWal::Archive);
    };
    let files = wal.as_ref().and_then(|wal| wal.files.as_ref());
    let oldest = wal.as_ref().and_then(UpstreamWal::oldest);
    let until = match (files, oldest) {
        (Some(_), Some(oldest)) => Until::Node(oldest),
        _ => Until::Archive(backup.end_wal.next(backup.segment_size)),
    };
    let has = |name| Ok(source.barman.has_wal(&backup, name)?);
    match first_missing(&coverage, &path, &backup, until, has)? {
        None => Ok(until.first_wal(&backup)),
        Some(gap) => Err(NodeError::NoWal {
            backup: backup.id.clone(),
            reason: until.describe(&gap),
            hint: Hint::new(
                "check the archive with \"barman check-backup\"; take a new backup, or choose another with ",
            )
            .remedy(Remedy::Backup),
        }
        .into()),
    }
}

/// How far the archive alone has to lead.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// To this segment, from which on the source node has everything.
    Node(WalSegmentName),
    /// As far as it goes; at the least to before this segment, where the backup is consistent. What the source
    /// node has cannot be seen.
    Archive(WalSegmentName),
}

impl Until {
    fn gap(self, coverage: &WalCoverage, path: &WalPath, from: WalSegmentName) -> Option<WalGap> {
        match self {
            Self::Node(oldest) => coverage.gap(path, from, Some(oldest)),
            Self::Archive(end) => coverage
                .gap(path, from, Some(end))
                .or_else(|| coverage.gap(path, from, None)),
        }
    }

    fn first_wal(self, backup: &Backup) -> FirstWal {
        let (begin, size) = (backup.begin_wal, backup.segment_size);
        match self {
            Self::Node(oldest)
                if oldest.timeline() == begin.timeline() && oldest.number(size) <= begin.number(size) =>
            {
                FirstWal::Node
            }
            _ => FirstWal::Archive,
        }
    }

    fn describe(self, gap: &WalGap) -> String {
        let mut text = format!("{} is not in Barman's archive", gap.missing);
        match (gap.before, gap.after) {
            (Some(before), Some(after)) => text += &format!(", which goes to {before} and on from {after}"),
            (Some(before), None) => text += &format!(", which ends with {before}"),
            (None, Some(after)) => text += &format!(", which begins with {after}"),
            (None, None) => {}
        }
        if let Self::Node(oldest) = self {
            text += &format!("; the source node has WAL from {oldest} on");
        }
        text
    }
}

/// The first segment on the way that is neither in the archive's directory nor known to Barman otherwise.
fn first_missing(
    coverage: &WalCoverage,
    path: &WalPath,
    backup: &Backup,
    until: Until,
    mut has: impl FnMut(WalSegmentName) -> Result<bool, CloneError>,
) -> Result<Option<WalGap>, CloneError> {
    let mut from = backup.begin_wal;
    for _ in 0..ASKED_FOR {
        match until.gap(coverage, path, from) {
            Some(gap) if has(gap.missing)? => from = gap.missing.next(backup.segment_size),
            gap => return Ok(gap),
        }
    }
    Ok(until.gap(coverage, path, from))
}

/// A standby can leave the backup's timeline only where its upstream's history does, and not before
/// the backup is consistent. The way through the timelines, where it can be known.
fn check_timeline(
    source: &mut BackupSource,
    nodes: &Nodes,
    node_timeline: Timeline,
    context: &Context<'_>,
) -> Result<Option<WalPath>, CloneError> {
    let backup = &source.wanted.backup;
    let (backup_timeline, end) = (backup.timeline, backup.end_lsn);
    let wrong = |reason: String, backup: &Backup| {
        Err(CloneError::from(NodeError::OtherTimeline {
            backup: backup.id.clone(),
            backup_timeline,
            node_timeline,
            reason,
        }))
    };
    if backup_timeline == node_timeline {
        return Ok(Some(WalPath::on(node_timeline)));
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
        let why = format!("{} cannot be had", node_timeline.history_file_name());
        tell_unchecked(backup_timeline, node_timeline, why, context);
        return Ok(None);
    };
    let damaged = |why: String| {
        let name = node_timeline.history_file_name();
        wrong(format!("{name} is damaged: {why}"), backup)
    };
    let left_at = match TimelineHistory::parse(node_timeline, &history) {
        Ok(history) => history.left_at(backup_timeline),
        Err(error) => return damaged(error.to_string()),
    };
    match left_at {
        Some(left_at) if end <= left_at => {}
        Some(left_at) => {
            let reason = format!(
                "the node left timeline {backup_timeline} at {left_at}, before the backup was finished"
            );
            return wrong(reason, backup);
        }
        None => {
            let reason = format!("timeline {node_timeline} does not descend from timeline {backup_timeline}");
            return wrong(reason, backup);
        }
    }
    match WalPath::from_history(node_timeline, &history) {
        Ok(path) => Ok(Some(path)),
        Err(error) => damaged(error.to_string()),
    }
}

fn tell_unchecked(from: Timeline, to: Timeline, why: String, context: &Context<'_>) {
    let text = format!(
        "whether timeline {from} of the backup leads to timeline {to} of the source node cannot be checked"
    );
    context.tell(Remark::warning(RemarkCode::TimelineUnchecked, text).detail(why));
}

/// A standby follows the newest timeline that it finds. What a server of the cluster archived that was promoted and
/// given up leads it away from a primary that is on an older one.
fn check_archive(archived: &WalCoverage, node_timeline: Timeline) -> Result<(), CloneError> {
    let newer = archived.timelines().iter().copied();
    match newer.filter(|timeline| *timeline > node_timeline).max() {
        None => Ok(()),
        Some(stray) => Err(NodeError::StrayTimeline {
            history: stray.history_file_name(),
            node_timeline,
        }
        .into()),
    }
}

/// Without a `restore_command` the source node must still have all WAL from the backup's begin on.
fn check_node_alone(
    source: &BackupSource,
    wal: Option<&UpstreamWal>,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    let backup = &source.wanted.backup;
    let begin = backup.begin_wal;
    let set = Hint::new("set ")
        .remedy(Remedy::RestoreCommand)
        .words(" to fetch WAL from Barman");
    let Some((wal, files)) = wal.and_then(|wal| Some((wal, wal.files.as_ref()?))) else {
        let text = format!("the upstream node must still have WAL from {begin} on");
        let why = "\"restore_command\" is not configured, and we cannot see what WAL the node has".to_owned();
        context.tell(
            Remark::warning(RemarkCode::WalUnchecked, text)
                .detail(why)
                .hint(set),
        );
        return Ok(());
    };
    let number = |name: WalSegmentName| name.number(backup.segment_size);
    let reaches_back = match begin.timeline() == wal.timeline {
        true => wal.oldest().is_some_and(|oldest| number(oldest) <= number(begin)),
        false => files.has(begin),
    };
    if reaches_back {
        return Ok(());
    }
    Err(NodeError::NoWal {
        backup: backup.id.clone(),
        reason: format!(
            "the source node no longer has all from {begin} on, and \"restore_command\" is not configured"
        ),
        hint: set,
    }
    .into())
}
