use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::marker::{LOCK, MARKER, STATE_DIR};

/// Something that taking a directory did could not be taken back.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {path:?}")]
pub struct UndoError {
    /// What was tried, as a verb: "remove".
    pub action: &'static str,
    /// The path.
    pub path: PathBuf,
    #[source]
    source: io::Error,
}

/// What taking a directory did so far.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Created directories, outermost first.
    pub(super) created: Vec<PathBuf>,
    /// The mode before it was corrected.
    pub(super) mode: Option<u32>,
    pub(super) state_dir: bool,
    pub(super) lock: bool,
    pub(super) marker: bool,
}

/// Takes back what was done when dropped, unless disarmed.
#[derive(Debug)]
pub(super) struct Undo {
    path: PathBuf,
    pub(super) done: Done,
}

impl Undo {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            done: Done::default(),
        }
    }

    /// From now on everything stays.
    pub(super) fn disarm(&mut self) {
        self.done = Done::default();
    }

    /// Takes back what was done, in reverse order, all of it even when a part fails.
    pub(super) fn run(&mut self) -> Result<(), UndoError> {
        let done = std::mem::take(&mut self.done);
        let mut first = Ok(());
        let mut attempt = |action, path: PathBuf, result: io::Result<()>| {
            let harmless = |error: &io::Error| {
                // Gone already, or somebody else has put something in it, which stays.
                matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                )
            };
            match result {
                Err(source) if !harmless(&source) && first.is_ok() => {
                    first = Err(UndoError { action, path, source });
                }
                _ => {}
            }
        };
        for (made, file) in [(done.marker, MARKER), (done.lock, LOCK)] {
            if made {
                let path = self.path.join(file);
                attempt("remove", path.clone(), fs::remove_file(path));
            }
        }
        if done.state_dir {
            let path = self.path.join(STATE_DIR);
            attempt("remove", path.clone(), fs::remove_dir(path));
        }
        if let Some(mode) = done.mode {
            let permissions = fs::Permissions::from_mode(mode);
            attempt(
                "restore the mode of",
                self.path.clone(),
                fs::set_permissions(&self.path, permissions),
            );
        }
        for dir in done.created.iter().rev() {
            attempt("remove", dir.clone(), fs::remove_dir(dir));
        }
        first
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Err(error) = self.run() {
            log::warn!("{error}: {}", error.source);
        }
    }
}
