use serde::Serialize;

use crate::Method;
use crate::event::Message;

/// What is found out about the servers, and done there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeEvent {
    /// A connection to the source node is being made.
    ConnectingToSource {
        /// How the base backup will come here; `None` when there will be none.
        method: Option<Method>,
    },
    /// It is there.
    ConnectedToSource,
    /// The source node is fit to be cloned.
    SourceChecked {
        /// The size of its databases in words, where it may be known.
        size: Option<String>,
    },
    /// The extension with repmgr's metadata is there.
    ExtensionInstalled {
        /// The database.
        database: String,
        /// The extension's version.
        version: String,
    },
    /// The node that will be followed.
    UpstreamChosen {
        /// Its `node_id`, when it has a record.
        node_id: Option<i32>,
        /// How it will be reached, without secrets.
        conninfo: String,
    },
    /// Something about the servers was looked at and is right.
    SettingChecked {
        /// In words.
        text: String,
    },
    /// A replication slot was created on the upstream node.
    SlotCreated {
        /// Its name.
        name: String,
        /// The upstream node.
        node_id: Option<i32>,
    },
}

impl NodeEvent {
    pub(crate) fn checked(text: impl Into<String>) -> Self {
        Self::SettingChecked { text: text.into() }
    }

    pub(crate) fn message(&self) -> Message {
        match self {
            Self::ConnectingToSource {
                method: Some(Method::Barman),
            } => Message::info("connecting to upstream node"),
            Self::ConnectingToSource { .. } => Message::info("connecting to source node"),
            Self::ConnectedToSource => Message::info("connected to source node, checking its state"),
            Self::SourceChecked { size } => {
                let size = size.as_ref();
                Message::info("successfully connected to source node")
                    .detail(size.map(|size| format!("current installation size is {size}")))
            }
            Self::ExtensionInstalled { database, .. } => Message::info(format!(
                "\"repmgr\" extension is installed in database \"{database}\""
            )),
            Self::UpstreamChosen {
                node_id: Some(id), ..
            } => Message::notice(format!("standby will attach to upstream node {id}")),
            Self::UpstreamChosen {
                node_id: None,
                conninfo,
            } => Message::notice(format!("standby will attach to \"{conninfo}\"")),
            Self::SettingChecked { text } => Message::info(text),
            Self::SlotCreated {
                name,
                node_id: Some(id),
            } => Message::notice(format!(
                "replication slot \"{name}\" created on upstream node (ID: {id})"
            )),
            Self::SlotCreated { name, node_id: None } => {
                Message::notice(format!("replication slot \"{name}\" created on upstream node"))
            }
        }
    }
}
