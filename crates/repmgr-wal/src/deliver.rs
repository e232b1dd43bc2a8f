//! Files that appear whole and flushed, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Pid, test_kill_process};

use crate::cluster::Server;

/// An operation on a file of this host failed.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} \"{}\"", path.display())]
pub struct FileError {
    /// What was tried: "write".
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }
}

/// How temporary files begin; the process that writes one follows.
const PREFIX: &str = ".repmgr-wal.";

/// A directory for new files. Once the server for which they are is gone, nothing in it changes any more:
/// `pg_rewind` fails if a file that it has seen there has vanished when it wants to remove it, or if a
/// directory that it has emptied is not empty.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    dir: PathBuf,
    server: Option<Arc<Server>>,
}

impl Shelf {
    pub(crate) fn of(dir: &Path, server: Arc<Server>) -> Self {
        Self {
            dir: dir.to_owned(),
            server: Some(server),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.is_gone())
    }

    fn check(&self, action: &'static str) -> Result<(), FileError> {
        if self.is_closed() {
            let gone = io::Error::other("the server is gone");
            return Err(FileError::new(action, &self.dir)(gone));
        }
        Ok(())
    }
}

/// Open as long as the process runs.
impl From<&Path> for Shelf {
    fn from(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            server: None,
        }
    }
}

/// A file being written under a temporary name; gone when dropped.
#[derive(Debug)]
pub(crate) struct NewFile {
    shelf: Shelf,
    file: File,
    path: PathBuf,
    moved: bool,
}

impl NewFile {
    /// Begins a file in `dir`. Rests of processes that were killed are removed from there first.
    pub(crate) fn create(shelf: &Shelf, name: &str) -> Result<Self, FileError> {
        shelf.check("write to")?;
        let dir = &shelf.dir;
        sweep(dir);
        let path = dir.join(format!("{PREFIX}{}.{name}", std::process::id()));
        // Never what lies under that name already: it may be a link, or a pipe. Else create_new tells.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            // PostgreSQL's own mode; its umask takes the group's bit away unless the cluster allows it.
            .mode(0o640)
            .open(&path)
            .map_err(FileError::new("create", &path))?;
        Ok(Self {
            shelf: shelf.clone(),
            file,
            path,
            moved: false,
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file
            .write_all(bytes)
            .map_err(FileError::new("write", &self.path))
    }

    /// What has been written, for files that fit into memory.
    pub(crate) fn contents(&self) -> Result<Vec<u8>, FileError> {
        fs::read(&self.path).map_err(FileError::new("read", &self.path))
    }

    /// Flushes the contents and gives the file its name, over whatever has it.
    pub(crate) fn publish(mut self, to: &Path, flush: DirectoryFlush) -> Result<(), FileError> {
        self.file
            .sync_all()
            .map_err(FileError::new("flush", &self.path))?;
        self.shelf.check("keep a file in")?;
        rename(&self.path, to)?;
        self.moved = true;
        flush.apply(to)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.moved && !self.shelf.is_closed() {
            // Else the next process sweeps it away.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether the name itself must survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectoryFlush {
    /// Yes: nobody will give it another name.
    Yes,
    /// No: PostgreSQL renames `RECOVERYXLOG` durably itself, and drops what a crash left there.
    No,
}

impl DirectoryFlush {
    pub(crate) fn apply(self, file: &Path) -> Result<(), FileError> {
        if self == Self::No {
            return Ok(());
        }
        let dir = directory_of(file);
        File::open(dir)
            .and_then(|d| d.sync_all())
            .map_err(FileError::new("flush", dir))
    }
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::new("rename a file to", to))
}

/// The directory a path names a file in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Removes temporary files whose writers are gone. Best effort: they only take space.
pub(crate) fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|n| n.strip_prefix(PREFIX))
            .and_then(|n| n.split('.').next())
            .and_then(|n| n.parse().ok());
        if pid.is_some_and(|pid| !is_alive(pid)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a process of this number exists, whoever owns it.
pub(crate) fn is_alive(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Cluster;

    #[test]
    fn a_file_appears_when_published_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("RECOVERYXLOG");
        fs::write(&to, "old").unwrap();
        let mut new = NewFile::create(&dir.path().into(), "x").unwrap();
        new.write(b"new").unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"old");
        new.publish(&to, DirectoryFlush::Yes).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_dropped_file_leaves_nothing_and_a_killed_writers_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        drop(NewFile::create(&dir.path().into(), "x").unwrap());
        // No process has a number this high.
        let dead = dir.path().join(format!("{PREFIX}2147483646.y"));
        let ours = dir.path().join(format!("{PREFIX}{}.z", std::process::id()));
        let other = dir.path().join("000000010000000000000001");
        for path in [&dead, &ours, &other] {
            fs::write(path, "").unwrap();
        }
        sweep(dir.path());
        assert!(!dead.exists() && ours.exists() && other.exists());
    }

    #[test]
    fn nothing_changes_once_the_server_is_gone() {
        let data = tempfile::tempdir().unwrap();
        let wal = data.path().join("pg_wal");
        fs::create_dir(&wal).unwrap();
        let pid = data.path().join("postmaster.pid");
        fs::write(&pid, format!("{}\n", std::process::id())).unwrap();
        let cluster = Cluster::of_destination(&wal.join("RECOVERYXLOG"));
        let shelf = Shelf::of(&wal, Arc::new(Server::of(&cluster)));
        NewFile::create(&shelf, "a")
            .unwrap()
            .publish(&wal.join("kept"), DirectoryFlush::No)
            .unwrap();
        let half = NewFile::create(&shelf, "half").unwrap();
        let whole = NewFile::create(&shelf, "whole").unwrap();
        let names = || {
            let entries = fs::read_dir(&wal).unwrap().flatten();
            entries.map(|e| e.file_name()).collect::<BTreeSet<_>>()
        };
        let seen = names();
        assert_eq!(seen.len(), 3);
        fs::remove_file(&pid).unwrap();
        assert!(whole.publish(&wal.join("whole"), DirectoryFlush::No).is_err());
        drop(half);
        assert!(NewFile::create(&shelf, "more").is_err());
        assert_eq!(names(), seen);
    }

    #[test]
    fn a_directory_in_the_way_is_an_error_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("d");
        fs::create_dir(&to).unwrap();
        let new = NewFile::create(&dir.path().into(), "x").unwrap();
        let error = new.publish(&to, DirectoryFlush::Yes).unwrap_err();
        assert!(error.to_string().contains("/d\""), "{error}");
    }
}
