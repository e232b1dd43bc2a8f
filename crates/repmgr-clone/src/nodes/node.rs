//! The nodes the clone has to do with: the source node, the primary, the upstream node.

use std::path::PathBuf;

use repmgr_types::{Conninfo, PgVersion, SystemId, Timeline, WalSegmentName, WalSegmentSize};
use repmgr_upstream::{
    ConfigFile, ConnectError, ConnectErrorKind, ExtensionState, NewNode, NodeRecord, PasswordSource,
    Requirements, Severity, StandbyLimits, Upstream, check_replication, connect, connect_replication,
    standby_password,
};

use crate::error::{said, with_causes};
use crate::request::Standby;
use crate::{
    CloneError, CloneRequest, Context, Hint, Method, NodeError, NodeEvent, NodeIdentity, Remark, RemarkCode,
    Remedy, Source,
};

/// The cluster that is copied, as the base backup's source knows it.
#[derive(Debug, Clone)]
pub(crate) struct CopiedCluster {
    /// For messages: "backup 20261126T010513", "the source node".
    pub(crate) what: String,
    pub(crate) version: PgVersion,
    pub(crate) system_id: SystemId,
}

/// A node we are connected to, and how.
#[derive(Debug)]
struct Session {
    node: Upstream,
    conninfo: Conninfo,
}

/// Sessions and facts about the nodes, gathered while planning.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// `None` when no node can or may be connected to.
    source: Option<Session>,
    /// The primary, when the source node is a standby.
    primary: Option<Session>,
    /// The node the standby will follow; `None` without metadata.
    pub(crate) upstream_id: Option<i32>,
    /// How the standby reaches it.
    pub(crate) upstream_conninfo: Conninfo,
    /// As whom; `None` for the user in `upstream_conninfo`.
    pub(crate) replication_user: Option<String>,
    /// Whether this node has a record; `None` when that could not be asked.
    pub(crate) registered: Option<bool>,
}

/// Where the source node has its data, and its configuration.
#[derive(Debug, Default)]
pub(crate) struct SourceConfiguration {
    pub(crate) data_directory: PathBuf,
    pub(crate) files: Vec<ConfigFile>,
}

impl SourceConfiguration {
    fn of(node: &Upstream) -> Result<Self, CloneError> {
        Ok(Self {
            data_directory: node.data_directory()?,
            files: node.config_files()?,
        })
    }
}

impl Nodes {
    /// Connects to the source node, and to the primary if that is another.
    pub(crate) fn connect(standby: Standby<'_>, context: &Context<'_>) -> Result<Self, ConnectFailure> {
        Self::connect_to(standby.connection, standby.method, context)
    }

    /// The same by another connection string.
    pub(crate) fn connect_to(
        conninfo: &Conninfo,
        method: Option<Method>,
        context: &Context<'_>,
    ) -> Result<Self, ConnectFailure> {
        context.tell(NodeEvent::ConnectingToSource { method });
        let conninfo = conninfo.clone();
        let node = connect(&conninfo, context.environment).map_err(ConnectFailure::Source)?;
        context.tell(NodeEvent::ConnectedToSource);
        let source = Session { node, conninfo };
        let primary = match source.node.is_in_recovery().map_err(CloneError::from)? {
            true => find_primary(&source.node, context)?,
            false => None,
        };
        Ok(Self {
            source: Some(source),
            primary,
            ..Self::unconnected(Conninfo::new())
        })
    }

    /// Without any connection: all that is known is how to reach the upstream node.
    pub(crate) fn unconnected(upstream_conninfo: Conninfo) -> Self {
        Self {
            source: None,
            primary: None,
            upstream_id: None,
            upstream_conninfo,
            replication_user: None,
            registered: None,
        }
    }

    /// Checks that a standby can be made of the source node, and chooses the node it will follow.
    pub(crate) fn check(
        &mut self,
        request: &CloneRequest,
        cluster: Option<&CopiedCluster>,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        let Some(source) = &self.source else { return Ok(()) };
        let size = source.node.database_size_pretty()?;
        if let Some(cluster) = cluster {
            check_same_cluster(&source.node, cluster, "source node")?;
        }
        context.tell(NodeEvent::SourceChecked { size });
        // A standby that repmgr does not manage has nothing to do with its metadata.
        let has_metadata = request.node.is_some() && self.check_extension(request.force, context)?;
        self.choose_upstream(request.standby(), has_metadata)?;
        if has_metadata {
            self.check_records(request, context);
        }
        self.check_settings(request, context)?;
        self.tell_upstream(context);
        Ok(())
    }

    pub(crate) fn tell_upstream(&self, context: &Context<'_>) {
        context.tell(NodeEvent::UpstreamChosen {
            node_id: self.upstream_id,
            conninfo: self.upstream_conninfo.to_string(),
        });
    }

    /// Checks that the nodes are those of the instance that is to be configured, and chooses the one it
    /// will follow. The result is the instance's own record.
    pub(crate) fn check_registered(
        &mut self,
        standby: Standby<'_>,
        node: &NodeIdentity,
        cluster: &CopiedCluster,
        context: &Context<'_>,
    ) -> Result<NodeRecord, CloneError> {
        if let Some(source) = self.source() {
            check_same_cluster(source, cluster, "source node")?;
        }
        // Without records there is no way: force or not.
        self.check_extension(false, context)?;
        self.choose_upstream(standby, true)?;
        let record = match self.metadata() {
            Some(session) => session.node.node_by_id(node.id)?,
            None => None,
        };
        Ok(record.ok_or_else(|| NodeError::Refused {
            code: "not_registered",
            message: format!("unable to retrieve node record for local node {}", node.id),
            detail: None,
            hint: Some(
                "standby must be registered before replication can be configured: execute \"repmgr standby register\", \
                 with --force where it is not running"
                    .into(),
            ),
        })?)
    }

    /// Records which slot this node uses.
    pub(crate) fn record_slot(&self, node: &NodeIdentity, slot_name: &str) -> Result<(), CloneError> {
        match self.metadata() {
            Some(session) => Ok(session.node.set_slot_name(node.id, slot_name)?),
            None => Ok(()),
        }
    }

    /// The settings that the standby must not have lower; `None` where nobody can be asked.
    pub(crate) fn limits(&self) -> Result<Option<StandbyLimits>, CloneError> {
        let mut highest: Option<StandbyLimits> = None;
        for session in self.source.iter().chain(&self.primary) {
            let limits = session.node.standby_limits()?;
            highest = Some(highest.map_or(limits, |other| other.highest(limits)));
        }
        Ok(highest)
    }

    /// The node that was connected to.
    pub(crate) fn source(&self) -> Option<&Upstream> {
        self.source.as_ref().map(|session| &session.node)
    }

    /// The same for what cannot be done without.
    pub(crate) fn source_or_refuse(&self) -> Result<&Upstream, NodeError> {
        self.source().ok_or_else(|| NodeError::Refused {
            code: "connection_needed",
            message: "pg_basebackup needs a connection to the source node".to_owned(),
            detail: None,
            hint: Some(Hint::new("leave out ").remedy(Remedy::NoUpstreamConnection)),
        })
    }

    /// A segment that the archive holds by the word of the server that fills it, and how large it is.
    pub(crate) fn archived_segment(&self) -> Result<Option<(WalSegmentName, WalSegmentSize)>, CloneError> {
        let Some(session) = self.metadata() else {
            return Ok(None);
        };
        let Some(segment) = session.node.last_archived_segment()? else {
            return Ok(None);
        };
        Ok(Some((segment, session.node.wal_segment_size()?)))
    }

    /// The node with repmgr's metadata, which can be written if it is a primary.
    fn metadata(&self) -> Option<&Session> {
        self.primary.as_ref().or(self.source.as_ref())
    }

    /// A new session with the upstream node.
    pub(crate) fn connect_upstream(&self, context: &Context<'_>) -> Result<Upstream, CloneError> {
        self.connect_upstream_as(None, context)
    }

    /// The same as another user than that of its connection string.
    pub(crate) fn connect_upstream_as(
        &self,
        user: Option<&str>,
        context: &Context<'_>,
    ) -> Result<Upstream, CloneError> {
        let conninfo = as_user(&self.upstream_conninfo, user);
        connect(&conninfo, context.environment).map_err(|source| {
            NodeError::Connect {
                role: "upstream node",
                source,
            }
            .into()
        })
    }

    /// The source node's configuration files, asked as `superuser` if our own role may not know.
    pub(crate) fn configuration(
        &self,
        superuser: Option<&str>,
        context: &Context<'_>,
    ) -> Result<SourceConfiguration, CloneError> {
        let Some(source) = &self.source else {
            return Ok(SourceConfiguration::default());
        };
        let role = match superuser {
            Some(role) if !source.node.privileges()?.can_read_settings() => role,
            _ => return SourceConfiguration::of(&source.node),
        };
        let session = connect(&as_user(&source.conninfo, Some(role)), context.environment);
        let session = session.map_err(|source| NodeError::Connect {
            role: "source node",
            source,
        })?;
        SourceConfiguration::of(&session)
    }

    /// Records an event where repmgr keeps them. A long copy may have outlived the session.
    pub(crate) fn insert_event(
        &self,
        node_id: i32,
        event: &str,
        successful: bool,
        details: &str,
        context: &Context<'_>,
    ) -> Result<(), String> {
        let Some(session) = self.metadata().filter(|_| self.registered.is_some()) else {
            return Ok(());
        };
        let insert = |node: &Upstream| node.insert_event(node_id, event, successful, details);
        let Err(first) = insert(&session.node) else {
            return Ok(());
        };
        log::debug!("{first}: {}; connecting anew", first.failure);
        let again = connect(&session.conninfo, context.environment).map_err(|error| error.to_string())?;
        insert(&again).map_err(|error| format!("{error}: {}", error.failure))
    }

    /// The history of `timeline` as the upstream node has it.
    pub(crate) fn timeline_history(&self, timeline: Timeline, context: &Context<'_>) -> Option<Vec<u8>> {
        let connection = connect_replication(&self.replication_conninfo(), context.environment);
        let history = match connection {
            Ok(connection) => connection
                .timeline_history(timeline)
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match history {
            Ok(history) => history.map(String::into_bytes),
            Err(error) => {
                log::debug!("no timeline history from the upstream node: {error}");
                None
            }
        }
    }

    /// How replication connections to the upstream node are made.
    pub(crate) fn replication_conninfo(&self) -> Conninfo {
        as_user(&self.upstream_conninfo, self.replication_user.as_deref())
    }

    /// How replication connections to the source node are made.
    pub(crate) fn source_replication_conninfo(&self, request: &CloneRequest) -> Conninfo {
        as_user(&request.connection, self.replication_user.as_deref())
    }

    /// Whether the standby will stream from the very node that is copied.
    pub(crate) fn source_is_upstream(&self, upstream: &Upstream) -> bool {
        self.source()
            .is_some_and(|source| source.endpoint() == upstream.endpoint())
    }

    /// Opens as many replication connections as will be needed, as the user that will need them.
    pub(crate) fn check_replication(
        &self,
        request: &CloneRequest,
        cluster: &CopiedCluster,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        // Nobody can be reached from here.
        if self.source.is_none() {
            return Ok(());
        }
        let mut wanted = vec![("upstream node", self.replication_conninfo(), 1)];
        if let Source::Server(server) = &request.source {
            let connections = if server.streams_wal() { 2 } else { 1 };
            wanted.push((
                "source node",
                self.source_replication_conninfo(request),
                connections,
            ));
        }
        for (role, conninfo, count) in wanted {
            check_connections(role, &conninfo, count, cluster, request.force, context)?;
        }
        Ok(())
    }

    /// Tells when the standby will have no password where this process has one.
    pub(crate) fn check_written(&self, written: &Conninfo, context: &Context<'_>) {
        let without = context.environment.without_password();
        let (ours, its) = (self.replication_conninfo(), written);
        let same = |keyword| ours.get(keyword) == its.get(keyword);
        let is_same = same("password") && same("passfile") && its.get("passfile").is_none();
        if self.source.is_none() || (without.is_none() && is_same) {
            return;
        }
        let environment = without.as_ref().unwrap_or(context.environment);
        if let Err(error) = check_replication(written, environment, 1) {
            let mut why = format!("with primary_conninfo as it is written: {}", with_causes(&error));
            if let Ok(PasswordSource::Missing {
                passfile: Some(passfile),
                reason,
                ..
            }) = standby_password(written, environment)
            {
                why += &format!("; \"{}\": {reason}", passfile.display());
            }
            context.tell(
                Remark::warning(
                    RemarkCode::StandbyCannotConnect,
                    "the standby will not be able to connect to its upstream node",
                )
                .detail(why)
                .hint(
                    Hint::new("give it the password: in .pgpass of the user it runs as, or with ")
                        .remedy(Remedy::PasswordFile)
                        .words(" or ")
                        .remedy(Remedy::Password),
                ),
            );
        }
    }

    /// Opens a replication connection as the standby's WAL receiver will.
    pub(crate) fn check_streaming(
        &self,
        standby: Standby<'_>,
        cluster: &CopiedCluster,
        context: &Context<'_>,
    ) -> Result<(), CloneError> {
        let conninfo = self.replication_conninfo();
        check_connections("upstream node", &conninfo, 1, cluster, standby.force, context)
    }

    fn check_extension(&self, force: bool, context: &Context<'_>) -> Result<bool, CloneError> {
        let Some(Session { node, .. }) = self.metadata() else {
            return Ok(false);
        };
        let database = node.dbname().to_owned();
        let (message, detail, hint) = match node.extension_state()? {
            ExtensionState::Installed { version } => {
                context.tell(NodeEvent::ExtensionInstalled { database, version });
                return Ok(true);
            }
            ExtensionState::Outdated { installed, available } => (
                format!(
                    "the \"repmgr\" extension in database \"{database}\" is older than the one installed on its host"
                ),
                format!("version {installed} is in the database, {available} is available"),
                Hint::from("execute \"ALTER EXTENSION repmgr UPDATE\" there"),
            ),
            ExtensionState::Available { .. } => (
                format!("repmgr extension is available but not installed in database \"{database}\""),
                format!("connected to {}", node.endpoint()),
                Hint::new("check that the connection parameters name the database with repmgr's metadata (")
                    .remedy(Remedy::Database)
                    .words("), or register the primary first"),
            ),
            ExtensionState::NotAvailable => (
                format!("repmgr extension not found in database \"{database}\""),
                format!("connected to {}", node.endpoint()),
                "install the repmgr extension there and register the primary".into(),
            ),
        };
        if force {
            context.tell(Remark::warning(RemarkCode::Extension, message).detail(detail));
            return Ok(false);
        }
        Err(NodeError::Refused {
            code: "extension",
            message,
            detail: Some(detail),
            hint: Some(hint.words("; ").remedy(Remedy::Force).words(" goes on without")),
        }
        .into())
    }

    fn choose_upstream(&mut self, standby: Standby<'_>, has_metadata: bool) -> Result<(), CloneError> {
        let mut record = None;
        if let Some(session) = self.metadata().filter(|_| has_metadata) {
            record = upstream_record(standby, &session.node)?;
            if let Some(node) = standby.node {
                let own = session.node.node_by_id(node.id)?;
                self.registered = Some(own.is_some_and(|own| as_new(node).is_recorded_as(&own)));
            }
        }
        self.upstream_id = record
            .as_ref()
            .map(|record| record.node_id)
            .or(standby.upstream.node_id);
        self.upstream_conninfo = match (&standby.upstream.conninfo, &record) {
            (Some(conninfo), _) => conninfo.clone(),
            (None, Some(record)) => record.conninfo.clone(),
            (None, None) => self.connection_used(standby.connection),
        };
        let chosen = standby.upstream.replication_user.clone();
        self.replication_user = chosen
            .or(record.map(|record| record.repluser))
            .filter(|user| !user.is_empty());
        Ok(())
    }

    /// Warns where the records speak of another node than the one that is to be made.
    fn check_records(&self, request: &CloneRequest, context: &Context<'_>) {
        let (Some(node), Some(session)) = (&request.node, self.metadata()) else {
            return;
        };
        let records = match session.node.nodes() {
            Ok(records) => records,
            Err(error) => {
                log::warn!(
                    "the records of the other nodes cannot be read: {}",
                    with_causes(&error)
                );
                return;
            }
        };
        for problem in as_new(node).problems(&records) {
            let remark = Remark::warning(RemarkCode::NodeRecord, problem.message);
            context.tell(remark.detail(problem.detail).hint(problem.hint));
        }
    }

    /// Without metadata the standby follows the node we are connected to, as we are connected.
    fn connection_used(&self, given: &Conninfo) -> Conninfo {
        let mut conninfo = given.clone();
        if let Some(source) = self.source() {
            conninfo.set("host", source.endpoint().host.clone());
            conninfo.set("port", source.endpoint().port.to_string());
            conninfo.set("user", source.user());
        }
        conninfo
    }

    fn check_settings(&self, request: &CloneRequest, context: &Context<'_>) -> Result<(), CloneError> {
        let Some(source) = self.source() else {
            return Ok(());
        };
        let mut requirements = Requirements {
            replication_slot: request.replication.slot_name.is_some(),
            ..Requirements::default()
        };
        if let Source::Server(server) = &request.source {
            requirements.wal_senders = if server.streams_wal() { 2 } else { 1 };
            requirements.server_keeps_wal = request.replication.slot_name.is_none()
                && !server.streams_wal()
                && request.replication.restore_command.is_none();
        }
        let problems = source.checks(&requirements)?;
        let (errors, warnings): (Vec<_>, Vec<_>) = problems
            .into_iter()
            .partition(|problem| problem.severity == Severity::Error);
        for problem in warnings {
            context.tell(
                Remark::warning(RemarkCode::SourceSetting, problem.message)
                    .detail(problem.detail)
                    .hint(said(problem.hint)),
            );
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(NodeError::Problems(errors).into()),
        }
    }
}

/// Why there is no session with the source node.
pub(crate) enum ConnectFailure {
    /// It cannot be connected to.
    Source(ConnectError),
    /// It can, but something else went wrong.
    Other(CloneError),
}

impl From<CloneError> for ConnectFailure {
    fn from(error: CloneError) -> Self {
        Self::Other(error)
    }
}

impl ConnectFailure {
    /// Whether another way to the same node may work.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Source(error) if error.kind() == ConnectErrorKind::Unreachable)
    }
}

impl From<ConnectFailure> for CloneError {
    fn from(failure: ConnectFailure) -> Self {
        match failure {
            ConnectFailure::Source(source) => NodeError::Connect {
                role: "source node",
                source,
            }
            .into(),
            ConnectFailure::Other(error) => error,
        }
    }
}

fn as_user(conninfo: &Conninfo, user: Option<&str>) -> Conninfo {
    let mut conninfo = conninfo.clone();
    if let Some(user) = user {
        conninfo.set("user", user);
    }
    conninfo
}

/// The record of the node to follow: the one asked for, or the primary's.
fn upstream_record(standby: Standby<'_>, session: &Upstream) -> Result<Option<NodeRecord>, CloneError> {
    let Some(node) = standby.node else { return Ok(None) };
    check_name(node, session)?;
    let wanted = standby.upstream.node_id;
    let record = match wanted {
        Some(id) => session.node_by_id(id)?,
        None => session.primary_node()?,
    };
    let refuse = |code, message, hint| {
        Err(CloneError::from(NodeError::Refused {
            code,
            message,
            detail: None,
            hint: Some(hint),
        }))
    };
    match (record, wanted) {
        (Some(record), _) if record.node_id == node.id => refuse(
            "own_upstream",
            format!("node {} cannot be its own upstream node", record.node_id),
            Hint::new("check ")
                .remedy(Remedy::NodeId)
                .words(", and ")
                .remedy(Remedy::UpstreamNode),
        ),
        (Some(record), _) => Ok(Some(record)),
        (None, Some(id)) => refuse(
            "upstream_not_registered",
            format!("unable to find record for upstream node {id}"),
            Hint::new("check ")
                .remedy(Remedy::UpstreamNode)
                .words(" against \"repmgr cluster show\""),
        ),
        (None, None) => refuse(
            "primary_not_registered",
            "unable to find record for the active primary node".to_owned(),
            Hint::new("register the primary with \"repmgr primary register\", or give ")
                .remedy(Remedy::UpstreamNode),
        ),
    }
}

fn as_new(node: &NodeIdentity) -> NewNode<'_> {
    NewNode {
        id: node.id,
        name: &node.name,
        conninfo: node.conninfo.as_ref(),
    }
}

/// Names are unique among the nodes.
fn check_name(node: &NodeIdentity, session: &Upstream) -> Result<(), CloneError> {
    let namesakes = session.nodes_by_name(&node.name)?;
    let Some(other) = namesakes.iter().find(|record| record.node_id != node.id) else {
        return Ok(());
    };
    Err(NodeError::Refused {
        code: "node_name_taken",
        message: format!(
            "another node ({}) already uses the name \"{}\"",
            other.node_id, node.name
        ),
        detail: None,
        hint: Some("give each node its own node_name".into()),
    }
    .into())
}

fn find_primary(source: &Upstream, context: &Context<'_>) -> Result<Option<Session>, CloneError> {
    if !matches!(source.extension_state()?, ExtensionState::Installed { .. }) {
        return Ok(None);
    }
    let search = source.find_primary(context.environment)?;
    if let Some((record, node)) = search.found {
        return Ok(Some(Session {
            node,
            conninfo: record.conninfo,
        }));
    }
    let unreachable: Vec<String> = search
        .unreachable
        .iter()
        .map(|(record, error)| format!("node {} ({}): {error}", record.node_id, record.node_name))
        .collect();
    Err(NodeError::Refused {
        code: "no_primary",
        message: "unable to find the primary node".to_owned(),
        detail: Some(match unreachable.is_empty() {
            true => "the source node is a standby, and no other node is a primary".to_owned(),
            false => unreachable.join("\n"),
        }),
        hint: Some("check with \"repmgr cluster show\" on the source node".into()),
    }
    .into())
}

/// The base backup must be one of the cluster that `node` is part of, and of its major version.
pub(crate) fn check_same_cluster(
    node: &Upstream,
    cluster: &CopiedCluster,
    role: &'static str,
) -> Result<(), CloneError> {
    let node_version = node.server_version();
    if !node_version.same_major(cluster.version) {
        return Err(NodeError::OtherVersion {
            what: cluster.what.clone(),
            role,
            its_version: cluster.version,
            node_version,
        }
        .into());
    }
    let node_id = node.system_identifier()?;
    if node_id == cluster.system_id {
        return Ok(());
    }
    Err(NodeError::OtherCluster {
        what: cluster.what.clone(),
        role,
        its_id: cluster.system_id,
        node_id,
    }
    .into())
}

/// Opens `count` replication connections at once, and looks whether the server behind them is of the
/// cluster.
fn check_connections(
    role: &'static str,
    conninfo: &Conninfo,
    count: u32,
    cluster: &CopiedCluster,
    force: bool,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    match check_replication(conninfo, context.environment, count) {
        Ok(found) if found.system_identifier != cluster.system_id => Err(NodeError::OtherCluster {
            what: cluster.what.clone(),
            role,
            its_id: cluster.system_id,
            node_id: found.system_identifier,
        }
        .into()),
        Ok(_) => {
            context.tell(NodeEvent::checked(format!(
                "replication connections to the {role} are possible ({count} required)"
            )));
            Ok(())
        }
        Err(source) if force => {
            context.tell(
                Remark::warning(
                    RemarkCode::NoReplication,
                    format!("no replication connection to the {role}"),
                )
                .detail(with_causes(&source))
                .hint(said(source.hint())),
            );
            Ok(())
        }
        Err(source) => Err(NodeError::Replication { role, source }.into()),
    }
}
