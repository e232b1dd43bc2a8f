//! The nodes the clone has to do with: the source node, the primary, the upstream node.

use repmgr_barman::Backup;
use repmgr_types::{Conninfo, SystemId};
use repmgr_upstream::{ExtensionState, NodeRecord, Requirements, Severity, Upstream, connect};

use crate::{CloneError, CloneRequest, Context, Event};

/// Sessions and facts about the nodes, gathered while planning.
#[derive(Debug)]
pub(crate) struct Nodes {
    source: Upstream,
    /// The primary, when the source node is a standby.
    primary: Option<Upstream>,
    /// The node the standby will follow; `None` without metadata.
    pub(crate) upstream: Option<NodeRecord>,
    /// How the standby reaches it.
    pub(crate) upstream_conninfo: Conninfo,
    /// As whom; `None` for the user in `upstream_conninfo`.
    pub(crate) replication_user: Option<String>,
    /// Whether this node has a record; `None` when that could not be asked.
    pub(crate) registered: Option<bool>,
}

impl Nodes {
    /// Connects to the source node and checks that a standby of it can be made from `backup`.
    pub(crate) fn gather(
        request: &CloneRequest,
        backup: &Backup,
        context: &Context<'_>,
        dry_run: bool,
    ) -> Result<Self, CloneError> {
        context.observer.event(Event::ConnectingToSource);
        let source =
            connect(&request.connection, context.environment).map_err(|source| CloneError::Connect {
                role: "source node",
                source,
            })?;
        context.observer.event(Event::ConnectedToSource);
        let size = source.database_size_pretty()?;
        check_same_cluster(&source, backup, "source node")?;
        let primary = if source.is_in_recovery()? {
            find_primary(&source, context)?
        } else {
            None
        };
        context.observer.event(Event::SourceChecked { size });
        let mut nodes = Self {
            source,
            primary,
            upstream: None,
            upstream_conninfo: Conninfo::new(),
            replication_user: None,
            registered: None,
        };
        let has_metadata = nodes.check_extension(request, context, dry_run)?;
        nodes.choose_upstream(request, has_metadata)?;
        nodes.check_settings(request, context)?;
        if dry_run {
            context.observer.event(Event::UpstreamChosen {
                node_id: nodes.upstream.as_ref().map(|record| record.node_id),
                conninfo: nodes.upstream_conninfo.to_string(),
            });
        }
        Ok(nodes)
    }

    /// The node that was connected to.
    pub(crate) fn source(&self) -> &Upstream {
        &self.source
    }

    /// The node with repmgr's metadata, which can be written if it is a primary.
    pub(crate) fn metadata(&self) -> &Upstream {
        self.primary.as_ref().unwrap_or(&self.source)
    }

    /// A session with the upstream node: one that is there already, or a new one.
    pub(crate) fn with_upstream<T>(
        &self,
        context: &Context<'_>,
        ask: impl FnOnce(&Upstream) -> Result<T, CloneError>,
    ) -> Result<T, CloneError> {
        let upstream =
            connect(&self.upstream_conninfo, context.environment).map_err(|source| CloneError::Connect {
                role: "upstream node",
                source,
            })?;
        ask(&upstream)
    }

    fn check_extension(
        &self,
        request: &CloneRequest,
        context: &Context<'_>,
        dry_run: bool,
    ) -> Result<bool, CloneError> {
        let node = self.metadata();
        let database = node.dbname().to_owned();
        let (message, detail, hint) = match node.extension_state()? {
            ExtensionState::Installed { version } => {
                if dry_run {
                    context.observer.event(Event::ExtensionInstalled { database, version });
                }
                return Ok(true);
            }
            ExtensionState::Outdated { installed, available } => (
                format!("the \"repmgr\" extension in database \"{database}\" is older than the one installed on its host"),
                format!("version {installed} is in the database, {available} is available"),
                "execute \"ALTER EXTENSION repmgr UPDATE\" there".to_owned(),
            ),
            ExtensionState::Available { .. } => (
                format!("repmgr extension is available but not installed in database \"{database}\""),
                format!("connected to {}", node.endpoint()),
                "check that the connection parameters name the database with repmgr's metadata (-d), or register \
                 the primary first"
                    .to_owned(),
            ),
            ExtensionState::NotAvailable => (
                format!("repmgr extension not found in database \"{database}\""),
                format!("connected to {}", node.endpoint()),
                "install the repmgr extension there and register the primary".to_owned(),
            ),
        };
        if request.force {
            context.observer.event(Event::Warning {
                text: message,
                detail: Some(detail),
                hint: None,
            });
            return Ok(false);
        }
        Err(CloneError::Metadata {
            message,
            detail: Some(detail),
            hint: Some(format!("{hint}; -F/--force goes on without")),
        })
    }

    fn choose_upstream(&mut self, request: &CloneRequest, has_metadata: bool) -> Result<(), CloneError> {
        let metadata = |message: String, detail: Option<String>, hint: &str| CloneError::Metadata {
            message,
            detail,
            hint: Some(hint.to_owned()),
        };
        if has_metadata {
            let node = self.metadata();
            let twin = node.nodes_by_name(&request.node.name)?;
            if let Some(twin) = twin.iter().find(|record| record.node_id != request.node.id) {
                return Err(metadata(
                    format!(
                        "another node ({}) already uses the name \"{}\"",
                        twin.node_id, request.node.name
                    ),
                    None,
                    "give each node its own node_name",
                ));
            }
            let record = match request.upstream.node_id {
                Some(id) => node.node_by_id(id)?,
                None => node.primary_node()?,
            };
            let own = node.node_by_id(request.node.id)?;
            self.registered = Some(own.is_some());
            match (&record, request.upstream.node_id) {
                (Some(record), _) if record.node_id == request.node.id => {
                    return Err(metadata(
                        format!("node {} cannot be its own upstream node", record.node_id),
                        None,
                        "check node_id in repmgr.conf, and --upstream-node-id",
                    ));
                }
                (Some(_), _) => {}
                (None, Some(id)) => {
                    return Err(metadata(
                        format!("unable to find record for upstream node {id}"),
                        None,
                        "check --upstream-node-id against \"repmgr cluster show\"",
                    ));
                }
                (None, None) => {
                    return Err(metadata(
                        "unable to find record for the active primary node".to_owned(),
                        None,
                        "register the primary with \"repmgr primary register\", or give --upstream-node-id",
                    ));
                }
            }
            self.upstream = record;
        }
        self.upstream_conninfo = match (&request.upstream.conninfo, &self.upstream) {
            (Some(conninfo), _) => conninfo.clone(),
            (None, Some(record)) => record.conninfo.clone(),
            (None, None) => self.connection_used(request),
        };
        self.replication_user = request
            .upstream
            .replication_user
            .clone()
            .or_else(|| self.upstream.as_ref().map(|record| record.repluser.clone()))
            .filter(|user| !user.is_empty());
        Ok(())
    }

    /// Without metadata the standby follows the node we are connected to, as we are connected.
    fn connection_used(&self, request: &CloneRequest) -> Conninfo {
        let mut conninfo = request.connection.clone();
        let endpoint = self.source.endpoint();
        conninfo.set("host", endpoint.host.clone());
        conninfo.set("port", endpoint.port.to_string());
        conninfo.set("user", self.source.user());
        conninfo
    }

    fn check_settings(&self, request: &CloneRequest, context: &Context<'_>) -> Result<(), CloneError> {
        let requirements = Requirements {
            replication_slot: request.replication.use_slot,
            ..Requirements::default()
        };
        let (errors, warnings): (Vec<_>, Vec<_>) = self
            .source
            .checks(&requirements)?
            .into_iter()
            .partition(|problem| problem.severity == Severity::Error);
        for problem in warnings {
            context.observer.event(Event::Warning {
                text: problem.message,
                detail: problem.detail,
                hint: problem.hint,
            });
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(CloneError::Problems(errors)),
        }
    }
}

fn find_primary(source: &Upstream, context: &Context<'_>) -> Result<Option<Upstream>, CloneError> {
    if !matches!(source.extension_state()?, ExtensionState::Installed { .. }) {
        return Ok(None);
    }
    let search = source.find_primary(context.environment)?;
    let unreachable: Vec<String> = search
        .unreachable
        .iter()
        .map(|(record, error)| format!("node {} ({}): {error}", record.node_id, record.node_name))
        .collect();
    match search.found {
        Some((_, primary)) => Ok(Some(primary)),
        None => Err(CloneError::Metadata {
            message: "unable to find the primary node".to_owned(),
            detail: Some(match unreachable.is_empty() {
                true => "the source node is a standby, and no other node is a primary".to_owned(),
                false => unreachable.join("\n"),
            }),
            hint: Some("check with \"repmgr cluster show\" on the source node".to_owned()),
        }),
    }
}

/// The backup must be one of the cluster that `node` is part of, and of its major version.
pub(crate) fn check_same_cluster(
    node: &Upstream,
    backup: &Backup,
    role: &'static str,
) -> Result<(), CloneError> {
    let node_version = node.server_version();
    if !node_version.same_major(backup.version) {
        return Err(CloneError::OtherVersion {
            backup: backup.id.clone(),
            role,
            backup_version: backup.version,
            node_version,
        });
    }
    match backup.system_id {
        Some(backup_id) => check_system_id(node, backup, backup_id, role),
        None => Ok(()),
    }
}

pub(crate) fn check_system_id(
    node: &Upstream,
    backup: &Backup,
    backup_id: SystemId,
    role: &'static str,
) -> Result<(), CloneError> {
    let node_id = node.system_identifier()?;
    if node_id == backup_id {
        return Ok(());
    }
    Err(CloneError::OtherCluster {
        backup: backup.id.clone(),
        role,
        backup_id,
        node_id,
    })
}
