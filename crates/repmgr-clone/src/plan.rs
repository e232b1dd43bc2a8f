//! Everything that can be known before a byte is changed.

use std::fmt;
use std::path::PathBuf;

use repmgr_barman::{Backup, Hold};
use repmgr_datadir::{Claim, Target, TargetState};
use repmgr_recovery::{PrimaryConninfo, ReplicationSettings};
use repmgr_types::{Conninfo, Lsn, Timeline};

use crate::backup::{BackupSource, ServerParameters};
use crate::event::ByteSize;
use crate::node::{Nodes, check_system_id};
use crate::place::{self, Identity, Places};
use crate::request::{BarmanSource, Source};
use crate::{CloneError, CloneRequest, Context, Event};

/// What a clone will do. Its `Display` is for people, several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Barman's name of the server.
    pub server: String,
    /// The backup's id.
    pub backup: String,
    /// About the backup, in words.
    pub backup_detail: String,
    /// Files to copy at most.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The data directory, symbolic links resolved.
    pub data_directory: PathBuf,
    /// What is in it now.
    pub existing: Existing,
    /// Tablespaces: name, oid, directory here.
    pub tablespaces: Vec<(String, u32, PathBuf)>,
    /// A WAL directory outside the data directory.
    pub wal_directory: Option<PathBuf>,
    /// The node the standby will follow, where it has a record.
    pub upstream_node_id: Option<i32>,
    /// What will be configured.
    pub settings: Vec<(&'static str, String)>,
}

/// What is in the data directory before the clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is not there.
    Absent,
    /// Nothing.
    Empty,
    /// An interrupted clone of the same backup, which will be continued.
    Interrupted,
    /// An interrupted clone of something else, which will be erased.
    OtherClone,
    /// A stopped PostgreSQL instance, which will be erased.
    Instance,
    /// Other files, which will be erased.
    Files,
}

impl Existing {
    /// Whether something will be erased.
    pub fn is_erased(self) -> bool {
        matches!(self, Self::OtherClone | Self::Instance | Self::Files)
    }
}

impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "will be created",
            Self::Empty => "is empty",
            Self::Interrupted => "holds an interrupted clone of the same backup, which will be continued",
            Self::OtherClone => "holds another interrupted clone, which will be erased",
            Self::Instance => "holds a stopped PostgreSQL instance, WHICH WILL BE ERASED",
            Self::Files => "holds other files, WHICH WILL BE ERASED",
        })
    }
}

/// All that planning found out, for the clone itself.
pub(crate) struct Gathered {
    pub(crate) target: Target,
    /// Taken unless only a plan is wanted.
    pub(crate) claim: Option<Claim>,
    pub(crate) source: BackupSource,
    pub(crate) parameters: ServerParameters,
    pub(crate) places: Places,
    pub(crate) hold: Option<Hold>,
    pub(crate) nodes: Nodes,
    pub(crate) settings: ReplicationSettings,
    pub(crate) identity: Identity,
    pub(crate) plan: Plan,
}

/// Finds out everything, in the order in which repmgr tells of it.
pub(crate) fn gather(
    request: &CloneRequest,
    context: &Context<'_>,
    take: bool,
) -> Result<Gathered, CloneError> {
    let Source::Barman(barman) = &request.source;
    context.observer.event(Event::DestinationProvided {
        path: request.data_directory.clone(),
    });
    let target = place::inspect(request, context)?;
    context.cancel.check()?;
    let mut source = BackupSource::open(barman, context)?;
    if !take {
        context.observer.event(Event::BackupFound {
            server: barman.address.server.clone(),
            backup: source.files.backup.id.to_string(),
            bytes: source.files.total_size(),
            files: source.files.total_files(),
        });
    }
    let claim = match take {
        true => Some(place::take(
            &target,
            request,
            source.files.permissions(),
            context,
        )?),
        false => None,
    };
    let places = place::inspect_outside(request, &target, &source.files.backup, context)?;
    place::check_space(
        &target,
        &places,
        &source.files.listings[0],
        &source.files.listings[1..],
    )?;
    context.cancel.check()?;

    context.observer.event(Event::FetchingServerParameters);
    let hold = match take {
        true => hold(barman, &source.files.backup, context),
        false => None,
    };
    let parameters = source.parameters()?;
    if !take {
        context.observer.event(Event::ServerParametersFetched);
    }

    let nodes = Nodes::gather(request, &source.files.backup, context, !take)?;
    // Where Barman did not record it, the backup's own control file did.
    if source.files.backup.system_id.is_none() {
        check_system_id(
            nodes.source(),
            &source.files.backup,
            parameters.control.system_id,
            "source node",
        )?;
    }
    check_timeline(&mut source, &nodes, context)?;
    check_wal(request, &mut source, &nodes, context)?;
    let settings = replication_settings(request, &source.files.backup, &nodes, context);
    let identity = Identity::new(
        &source.files.backup,
        barman.host.name(),
        &barman.address.server,
        &places,
    );
    let plan = Plan::new(
        request, barman, &source, &target, &places, &nodes, &settings, &identity,
    );
    Ok(Gathered {
        target,
        claim,
        source,
        parameters,
        places,
        hold,
        nodes,
        settings,
        identity,
        plan,
    })
}

/// Without a hold the clone goes on: that the backup is still whole is looked at in the end anyway.
fn hold(barman: &BarmanSource, backup: &Backup, context: &Context<'_>) -> Option<Hold> {
    match Hold::take(&*barman.host, &barman.address, backup) {
        Ok(hold) => Some(hold),
        Err(error) => {
            context.observer.event(Event::Warning {
                text: "the backup cannot be held against Barman's retention while it is copied".to_owned(),
                detail: Some(error.to_string()),
                hint: error.hint(),
            });
            None
        }
    }
}

/// A standby can leave the backup's timeline only where its upstream's history does, and not before
/// the backup is consistent.
fn check_timeline(source: &mut BackupSource, nodes: &Nodes, context: &Context<'_>) -> Result<(), CloneError> {
    let node_timeline = nodes.source().timeline()?;
    let (backup_timeline, end) = (source.files.backup.timeline, source.files.backup.end_lsn);
    let wrong = |reason: String, backup: &Backup| CloneError::OtherTimeline {
        backup: backup.id.clone(),
        backup_timeline,
        node_timeline,
        reason,
    };
    if backup_timeline == node_timeline {
        return Ok(());
    }
    if backup_timeline > node_timeline {
        let reason = format!("the backup was taken from a server that has left timeline {node_timeline}");
        return Err(wrong(reason, &source.files.backup));
    }
    let Some(history) = source.barman.timeline_history(node_timeline)? else {
        context.observer.event(Event::Warning {
            text: format!(
                "whether timeline {backup_timeline} of the backup leads to timeline {node_timeline} of the \
                 source node cannot be checked"
            ),
            detail: Some(format!(
                "Barman's archive does not have {}",
                node_timeline.history_file_name()
            )),
            hint: None,
        });
        return Ok(());
    };
    match switch_point(&history, backup_timeline) {
        Some(left_at) if end <= left_at => Ok(()),
        Some(left_at) => Err(wrong(
            format!("the node left timeline {backup_timeline} at {left_at}, before the backup was finished"),
            &source.files.backup,
        )),
        None => Err(wrong(
            format!("timeline {node_timeline} does not descend from timeline {backup_timeline}"),
            &source.files.backup,
        )),
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

/// The WAL from the backup's begin must be somewhere where the standby can get it.
fn check_wal(
    request: &CloneRequest,
    source: &mut BackupSource,
    nodes: &Nodes,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    let begin = source.files.backup.begin_wal;
    let on_node = nodes.source().has_wal_segment(begin)?;
    if on_node == Some(true) {
        return Ok(());
    }
    let no_wal = |reason: String, hint: &str| CloneError::NoWal {
        backup: source.files.backup.id.clone(),
        reason,
        hint: hint.to_owned(),
    };
    match (request.replication.restore_command.is_some(), on_node) {
        (true, _) => {
            if source.barman.has_wal(begin)? {
                return Ok(());
            }
            Err(no_wal(
                format!("neither Barman's archive nor the source node has {begin}"),
                "check the archive with \"barman check-backup\", and choose another backup with --backup-id",
            ))
        }
        (false, Some(_)) => Err(no_wal(
            format!("the source node no longer has {begin}, and \"restore_command\" is not configured"),
            "set restore_command in repmgr.conf to fetch WAL from Barman",
        )),
        (false, None) => {
            context.observer.event(Event::Warning {
                text: format!("\"restore_command\" is not configured; the source node must still have WAL from {begin} on"),
                detail: Some("the role we are connected as may not look".to_owned()),
                hint: Some("set restore_command in repmgr.conf to fetch WAL from Barman".to_owned()),
            });
            Ok(())
        }
    }
}

fn replication_settings(
    request: &CloneRequest,
    backup: &Backup,
    nodes: &Nodes,
    context: &Context<'_>,
) -> ReplicationSettings {
    let options = &request.replication;
    let built = PrimaryConninfo::new(&nodes.upstream_conninfo, &request.node.name)
        .user(nodes.replication_user.as_deref())
        .password(options.password.as_deref())
        .passfile(options.passfile.as_deref())
        .build(backup.version);
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
        primary_slot_name: options.use_slot.then(|| request.slot_name()),
        recovery_min_apply_delay: options.recovery_min_apply_delay.clone(),
        restore_command: options.restore_command.clone(),
        archive_cleanup_command: options.archive_cleanup_command.clone(),
        pin_latest_timeline: false,
    }
}

impl Plan {
    #[allow(clippy::too_many_arguments, reason = "the one place where everything meets")]
    fn new(
        request: &CloneRequest,
        barman: &BarmanSource,
        source: &BackupSource,
        target: &Target,
        places: &Places,
        nodes: &Nodes,
        settings: &ReplicationSettings,
        identity: &Identity,
    ) -> Self {
        let shown: [(&'static str, Option<String>); 5] = [
            (
                "primary_conninfo",
                Some(without_secrets(&settings.primary_conninfo)),
            ),
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
        Self {
            server: barman.address.server.clone(),
            backup: source.files.backup.id.to_string(),
            backup_detail: format!(
                "PostgreSQL {}, timeline {}, {}",
                source.files.backup.version,
                source.files.backup.timeline,
                finished(&source.files.backup)
            ),
            files: source.files.total_files(),
            bytes: source.files.total_size(),
            data_directory: target.path().to_owned(),
            existing: match target.state() {
                TargetState::Absent { .. } => Existing::Absent,
                TargetState::Empty { .. } => Existing::Empty,
                TargetState::Unfinished { .. } if can_resume(target, identity) => Existing::Interrupted,
                TargetState::Unfinished { .. } => Existing::OtherClone,
                TargetState::Instance(_) => Existing::Instance,
                TargetState::NonEmpty { .. } => Existing::Files,
            },
            tablespaces: places
                .tablespaces
                .iter()
                .map(|place| (place.name.clone(), place.oid, place.dir.path().to_owned()))
                .collect(),
            wal_directory: places.wal.as_ref().map(|dir| dir.path().to_owned()),
            upstream_node_id: nodes
                .upstream
                .as_ref()
                .map(|record| record.node_id)
                .or(request.upstream.node_id),
            settings: shown
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
        }
    }
}

/// Whether what stands in the target is this very clone, and its files can be trusted.
pub(crate) fn can_resume(target: &Target, identity: &Identity) -> bool {
    match target.state() {
        TargetState::Unfinished { marker: Some(marker) } => {
            marker.is_resumable() && marker.identity == identity.value()
        }
        _ => false,
    }
}

fn finished(backup: &Backup) -> String {
    format!("finished {}", backup.end_time)
}

/// `Display` of a connection string hides its secrets.
fn without_secrets(conninfo: &Conninfo) -> String {
    conninfo.to_string()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "backup {} of server \"{}\" ({}), {} files, {}",
            self.backup,
            self.server,
            self.backup_detail,
            self.files,
            ByteSize(self.bytes)
        )?;
        write!(
            f,
            "data directory \"{}\" {}",
            self.data_directory.display(),
            self.existing
        )?;
        for (name, oid, path) in &self.tablespaces {
            write!(
                f,
                "\ntablespace \"{name}\" ({oid}) goes to \"{}\"",
                path.display()
            )?;
        }
        if let Some(path) = &self.wal_directory {
            write!(f, "\nWAL directory goes to \"{}\"", path.display())?;
        }
        if let Some(id) = self.upstream_node_id {
            write!(f, "\nupstream node {id}")?;
        }
        for (name, value) in &self.settings {
            write!(f, "\n{name} = '{value}'")?;
        }
        Ok(())
    }
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
