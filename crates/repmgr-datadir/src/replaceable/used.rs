//! What running servers use, whatever the path it is reached by.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::server::{Server, servers};
use crate::target::{InspectError, outside_links};

/// A server that runs.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) pid: i32,
    /// Its data directory.
    pub(super) data: PathBuf,
}

/// The data directories, tablespaces and WAL directories of the servers that run on this host.
#[derive(Debug)]
pub(super) struct Used(HashMap<(u64, u64), Running>);

impl Used {
    pub(super) fn find() -> Result<Self, InspectError> {
        let mut all = HashMap::new();
        for server in servers()? {
            // One that is just starting, or a program of a similar name, works anywhere, also in "/".
            if server.dir.join("PG_VERSION").symlink_metadata().is_err() {
                continue;
            }
            let running = Running {
                pid: server.pid,
                data: fs::read_link(&server.dir).unwrap_or_else(|_| server.dir.clone()),
            };
            for place in places(&server)? {
                if let Ok(meta) = fs::metadata(&place) {
                    all.insert((meta.dev(), meta.ino()), running.clone());
                }
            }
        }
        Ok(Self(all))
    }

    /// The server that uses the directory of this identity.
    pub(super) fn by(&self, identity: (u64, u64)) -> Option<&Running> {
        self.0.get(&identity)
    }
}

fn places(server: &Server) -> Result<Vec<PathBuf>, InspectError> {
    use io::ErrorKind::{NotADirectory, NotFound};
    let (tablespaces, wal) = match outside_links(&server.dir) {
        Ok(links) => links,
        // It ended meanwhile.
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(Vec::new()),
        Err(source) => return Err(InspectError::not_accessible(&server.dir, source)),
    };
    let root = PathBuf::from(format!("/proc/{}/root", server.pid));
    // A server in a container means its own root, and may mean ours if we cannot look there.
    let seen = |link: PathBuf| {
        let own = root.join(link.strip_prefix("/").unwrap_or(Path::new("")));
        if link.starts_with("/proc") || !own.exists() {
            link
        } else {
            own
        }
    };
    let links = tablespaces.into_iter().map(|link| link.location).chain(wal);
    Ok(links.map(seen).chain([server.dir.clone()]).collect())
}
