//! The marker that says: a clone is being made here.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use repmgr_pgfile::read_beginning as read_bounded;
use serde::{Deserialize, Serialize};

/// Holds the state of a clone while it is being made, below the data directory.
pub(crate) const STATE_DIR: &str = "repmgr";
/// The marker itself.
pub(crate) const MARKER: &str = "repmgr/clone.json";
/// The name it has while it is written.
pub(crate) const MARKER_NEW: &str = ".clone.json.repmgr-new";
/// Locked as long as a clone is being made. Apart from the marker, which is replaced as a whole.
pub(crate) const LOCK: &str = "repmgr/clone.lock";
/// Where another program writes a whole data directory.
pub(crate) const INCOMING: &str = "repmgr/incoming";
/// What the data directory is made from.
pub(crate) const PARTS: &str = "repmgr/parts";
/// No marker needs more.
pub(crate) const MARKER_MAX: u64 = 1 << 20;

/// What a data directory says of the clone that was begun in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// What is being cloned, in the caller's words: a backup, a server, a system identifier.
    pub identity: serde_json::Value,
    /// How far it came.
    pub phase: Phase,
    /// The process that makes or made it.
    pub pid: u32,
    /// The host of that process.
    pub host: String,
    /// The boot of that host; files may be lost or torn when another one came after it.
    pub boot_id: String,
    /// Seconds since 1970.
    pub started: u64,
}

/// How far a clone came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// What is in the directory is of no use and has to be erased first.
    Discard,
    /// Files are being received; those of the announced size and time are whole.
    Copying,
    /// Written by a later version.
    #[serde(other)]
    Unknown,
}

impl Marker {
    pub(crate) fn new(identity: serde_json::Value, phase: Phase) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            identity,
            phase,
            pid: std::process::id(),
            host: kernel_value("hostname"),
            boot_id: kernel_value("random/boot_id"),
            started: since_1970.as_secs(),
        }
    }

    /// Whether the files here can be trusted by their size and time: they were being received, and the
    /// host was not restarted since. After a restart a file may have its size but not its content.
    pub fn is_resumable(&self) -> bool {
        self.phase == Phase::Copying
            && !self.boot_id.is_empty()
            && self.boot_id == kernel_value("random/boot_id")
    }

    /// The marker below `dir`; `None` when it is missing or is none.
    pub(crate) fn read(dir: &Path) -> io::Result<Option<Self>> {
        match read_bounded(&dir.join(MARKER), MARKER_MAX) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Empty when the kernel does not tell, which never equals a real value.
fn kernel_value(name: &str) -> String {
    let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).unwrap_or_default();
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_of_later_versions_are_read() {
        let marker = Marker::new(serde_json::json!({"backup": "20260824T101530"}), Phase::Copying);
        assert!(marker.is_resumable());
        let mut json = serde_json::to_value(&marker).unwrap();
        json["added_later"] = 1.into();
        assert_eq!(serde_json::from_value::<Marker>(json.clone()).unwrap(), marker);
        json["phase"] = "polishing".into();
        let later: Marker = serde_json::from_value(json).unwrap();
        assert!(later.phase == Phase::Unknown && !later.is_resumable());
    }

    #[test]
    fn files_are_not_trusted_after_a_restart_of_the_host() {
        let mut marker = Marker::new(serde_json::Value::Null, Phase::Copying);
        marker.boot_id = "0d4d2f5e-0000-0000-0000-000000000000".into();
        assert!(!marker.is_resumable());
    }
}
