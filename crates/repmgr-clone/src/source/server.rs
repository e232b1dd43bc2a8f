//! The base backup straight from the source node, by `pg_basebackup`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use repmgr_datadir::{Building, Permissions};
use repmgr_upstream::{BaseBackup, Upstream, VerifyBackup};

use crate::nodes::node::{CopiedCluster, Nodes};
use crate::place::{Origin, Places};
use crate::request::ServerSource;
use crate::{CloneError, CloneRequest, Context, CopyEvent, Hint, NodeError, Progress, Remedy};

/// What was found out about the source node.
pub(crate) struct ServerBase {
    source: ServerSource,
    program: PathBuf,
    verify: Option<VerifyBackup>,
}

impl ServerBase {
    /// Checks that the programs are there and can do it.
    pub(crate) fn check(
        request: &CloneRequest,
        source: &ServerSource,
        node: &Upstream,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let program = program(request, "pg_basebackup");
        let version = node.server_version();
        BaseBackup::new(&program, request.connection.clone(), "").check(version, context.cancel)?;
        let verify = source.verify.then(|| VerifyBackup {
            program: self::program(request, "pg_verifybackup"),
        });
        if let Some(verify) = &verify {
            verify.check(version, context.cancel)?;
        }
        Ok(Self {
            source: source.clone(),
            program,
            verify,
        })
    }

    /// Copies into the building's staging directory and takes over what is there; the control file.
    pub(crate) fn copy(
        &self,
        request: &CloneRequest,
        nodes: &Nodes,
        places: &Places,
        slot: Option<String>,
        building: &Building,
        context: &Context<'_>,
    ) -> Result<Vec<u8>, CloneError> {
        let source = &self.source;
        let staging = building.staging();
        let backup = BaseBackup {
            fast_checkpoint: source.fast_checkpoint,
            tablespace_mapping: places
                .tablespaces
                .iter()
                .map(|place| (place.origin.location.clone(), place.dir.path().to_owned()))
                .collect(),
            stream_wal: source.wal_method.is_none(),
            slot: slot.filter(|_| source.streams_wal() && !source.chooses_slot),
            max_rate: source.max_rate,
            options: source.options.clone(),
            ..BaseBackup::new(
                &self.program,
                nodes.source_replication_conninfo(request),
                staging.clone(),
            )
        };
        context.tell(CopyEvent::StartingBaseBackup {
            command: shown(&self.program, backup.arguments()),
            waits_for_checkpoint: !source.fast_checkpoint,
        });
        let started = Instant::now();
        backup.run(context.environment, context.cancel, &mut |progress| {
            context.observer.progress(&Progress {
                files_done: 0,
                files_total: 0,
                bytes_done: progress.bytes_done,
                bytes_total: progress.bytes_total,
                bytes_reused: 0,
                wire_bytes: progress.bytes_done,
                elapsed: started.elapsed(),
            });
        })?;
        if let Some(verify) = &self.verify {
            let with_wal = source
                .wal_method
                .as_deref()
                .is_none_or(|method| !matches!(method, "n" | "none"));
            verify.run(&staging, with_wal, context.cancel)?;
            context.tell(CopyEvent::BaseBackupVerified);
        }
        let control = building.adopt_staged()?;
        // A server has no use for it, and who copies its directory later would take it for that of the copy.
        building.tree().remove("backup_manifest")?;
        Ok(control)
    }
}

/// What the clone needs to know of the cluster; and that each mapping has a tablespace.
pub(crate) fn origin(
    request: &CloneRequest,
    node: &Upstream,
) -> Result<(CopiedCluster, Vec<Origin>, Permissions), CloneError> {
    let cluster = CopiedCluster {
        what: "the source node".to_owned(),
        version: node.server_version(),
        system_id: node.system_identifier()?,
    };
    let tablespaces: Vec<Origin> = node
        .tablespaces()?
        .into_iter()
        .map(|tablespace| Origin {
            oid: tablespace.oid,
            name: tablespace.name,
            location: PathBuf::from(tablespace.location),
        })
        .collect();
    let unknown: Vec<String> = request
        .tablespace_mapping
        .iter()
        .filter(|(old, _)| !tablespaces.iter().any(|tablespace| tablespace.location == *old))
        .map(|(old, _)| format!("\"{}\"", old.display()))
        .collect();
    if !unknown.is_empty() {
        return Err(NodeError::Refused {
            code: "mapping_unknown",
            message: "tablespaces named in tablespace_mapping do not exist on the source node".to_owned(),
            detail: Some(unknown.join(", ")),
            hint: Some(Hint::new("check ").remedy(Remedy::TablespaceMapping)),
        }
        .into());
    }
    let mode = node.setting("data_directory_mode")?;
    let mode = mode
        .and_then(|mode| u32::from_str_radix(&mode, 8).ok())
        .unwrap_or(0o700);
    let permissions = match cluster.version.allows_group_access() {
        true => Permissions::of_directory(mode),
        false => Permissions::default(),
    };
    Ok((cluster, tablespaces, permissions))
}

/// The path of one of PostgreSQL's programs here, or its name for `$PATH`.
pub(crate) fn program(request: &CloneRequest, name: &str) -> PathBuf {
    request
        .bin_dir
        .as_deref()
        .map_or_else(|| PathBuf::from(name), |dir| dir.join(name))
}

/// A command line for people.
pub(crate) fn shown(program: &Path, words: Vec<OsString>) -> String {
    let words = words.iter().map(|word| word.to_string_lossy());
    let quoted = words.map(|word| repmgr_remote::quote(&word).into_owned());
    std::iter::once(repmgr_remote::quote(&program.to_string_lossy()).into_owned())
        .chain(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}
