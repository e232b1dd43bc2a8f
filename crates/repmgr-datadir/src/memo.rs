//! What a clone made elsewhere and has to take back if it fails, noted in the directory so that a later run
//! knows of it too.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::marker::read_bounded;
use crate::tree::{Tree, TreeError};

/// The note, below the data directory.
pub(crate) const MEMO: &str = "repmgr/memo.json";
/// The name it has while it is written.
pub(crate) const MEMO_NEW: &str = ".memo.json.repmgr-new";
/// No note needs more.
const MEMO_MAX: u64 = 64 << 10;

/// A note beside the marker, in the caller's words. It stays when a claim is dropped, when content is erased and
/// when the clone is continued, and goes with the clone's own state when that is complete.
#[derive(Debug, Clone)]
pub struct Memo {
    tree: Arc<Tree>,
}

impl Memo {
    pub(crate) fn of(tree: &Arc<Tree>) -> Self {
        Self {
            tree: Arc::clone(tree),
        }
    }

    /// Writes it, so that it outlives a crash.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(&self, value: &serde_json::Value) -> Result<(), TreeError> {
        self.tree.write_durable(MEMO, value.to_string().as_bytes(), 0o600)
    }

    /// Removes it: nothing is left to be taken back.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn clear(&self) -> Result<(), TreeError> {
        self.tree.remove(MEMO).map(drop)
    }
}

/// The note below `dir`; `None` when it is missing or is none.
pub(crate) fn read(dir: &Path) -> io::Result<Option<serde_json::Value>> {
    match read_bounded(&dir.join(MEMO), MEMO_MAX) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
