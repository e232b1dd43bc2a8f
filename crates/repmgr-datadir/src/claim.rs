//! Taking a directory for a clone, and handing it over when the clone is complete.

mod error;
mod staging;
#[cfg(test)]
mod tests;
mod undo;

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use repmgr_types::CancelToken;
use rustix::fs::{AtFlags, FlockOperation, Mode};
use rustix::io::Errno;

pub use error::{ClaimError, FinishError, ResumeError};
pub use staging::AdoptError;
use undo::Undo;
pub use undo::UndoError;

use crate::control::{PG_CONTROL, PgControlHead};
use crate::erase::{EraseError, Erasing, disable_instance, remove_children};
use crate::marker::{LOCK, MARKER, Marker, Phase, STATE_DIR};
use crate::memo::Memo;
use crate::server::{ServerState, server_state};
use crate::target::{Target, TargetState, names_in};
use crate::tree::{Tree, TreeError};
use crate::{Permissions, sys};

/// How a directory is to be taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct TakeOptions {
    /// What the cluster allows. An existing stricter mode stays; see [`Claim::permissions`].
    pub permissions: Permissions,
    /// Take a directory that holds a stopped instance. Taking erases nothing yet.
    pub force: bool,
}

/// What [`Claim::take`] is about to do; for telling the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preparation<'a> {
    /// Create this directory, and missing parents.
    CreatingDirectory(&'a Path),
    /// Check the mode of this existing directory and correct it if need be.
    CorrectingPermissions(&'a Path),
}

/// A directory that is ours to clone into, with nothing in it changed so far. Dropping it takes back
/// what taking it did: created directories, a corrected mode, the lock.
#[derive(Debug)]
pub struct Claim {
    // Taken back before the lock below is given up.
    undo: Undo,
    place: Place,
    target: Target,
}

/// A directory in which a clone is being made. Dropping it leaves everything as it is: the directory
/// says that it is unfinished, and PostgreSQL cannot start on it.
#[derive(Debug)]
pub struct Building {
    place: Place,
    identity: serde_json::Value,
}

#[derive(Debug)]
struct Place {
    tree: Arc<Tree>,
    #[expect(dead_code, reason = "held, not read")]
    lock: Lock,
}

/// An exclusive lock on a file. Closing the file is not enough to give it up: a child that another
/// thread has just forked holds the same open file until it executes its program.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(errno) = rustix::fs::flock(&self.0, FlockOperation::Unlock) {
            log::warn!("could not unlock {LOCK}: {errno}");
        }
    }
}

impl Claim {
    /// Takes a directory: creates it (parents as the umask says, itself 0700 or 0750) or corrects its
    /// mode, and locks it against other clones. `announce` hears of each step before it is taken.
    ///
    /// # Errors
    /// When the directory has content without [`TakeOptions::force`], was changed since it was
    /// inspected, or is being cloned into already. What was done is undone.
    pub fn take(
        target: &Target,
        options: TakeOptions,
        announce: &mut dyn FnMut(Preparation<'_>),
    ) -> Result<Self, ClaimError> {
        let path = target.path();
        let mut undo = Undo::new(path);
        match target.state() {
            TargetState::Absent { .. } => {
                announce(Preparation::CreatingDirectory(path));
                undo.done.created =
                    sys::make_dirs(path, options.permissions.directory()).map_err(|(at, source)| {
                        let lost_race = at == path && source.kind() == io::ErrorKind::AlreadyExists;
                        if lost_race {
                            ClaimError::Changed(at)
                        } else {
                            failed("create the directory", at, source)
                        }
                    })?;
                if undo.done.created.is_empty() {
                    return Err(ClaimError::Changed(path.to_owned()));
                }
            }
            TargetState::NonEmpty { .. } => {
                target.check_replaceable()?;
                return Err(ClaimError::NotEmpty(path.to_owned()));
            }
            TargetState::Instance(_) if !options.force => {
                return Err(ClaimError::NotEmpty(path.to_owned()));
            }
            _ => announce(Preparation::CorrectingPermissions(path)),
        }
        let mut tree = Tree::open(path, options.permissions)?;
        let mode = check_same(&tree, target)?;
        let correct = options.permissions.correct_directory(mode);
        if correct != mode {
            rustix::fs::fchmod(tree.root(), Mode::from_raw_mode(correct))
                .map_err(|errno| failed("set the mode of", path.to_owned(), errno.into()))?;
            undo.done.mode = Some(mode);
        }
        tree.set_permissions(Permissions::of_directory(correct));
        let left_over = tree.metadata(LOCK)?.is_some();
        let lock = take_lock(&tree, &mut undo, announce)?;
        if left_over && !matches!(target.state(), TargetState::Unfinished { .. }) {
            // By a clone that was killed before it changed anything: goes with ours.
            undo.done.lock = true;
            undo.done.state_dir = true;
        }
        let claim = Self {
            undo,
            place: Place {
                tree: Arc::new(tree),
                lock,
            },
            target: target.clone(),
        };
        check_unchanged(target)?;
        Ok(claim)
    }

    /// What the directory's mode allows; the rest of the clone should follow it, as PostgreSQL does.
    pub fn permissions(&self) -> Permissions {
        self.place.tree.permissions()
    }

    /// Notes what is made elsewhere for this clone.
    pub fn memo(&self) -> Memo {
        Memo::of(&self.place.tree)
    }

    /// Gives the directory back as it was. As dropping the claim, but tells of failures.
    ///
    /// # Errors
    /// The first thing that could not be taken back; the rest was tried.
    pub fn release(mut self) -> Result<(), UndoError> {
        self.undo.run()
    }

    /// Begins a clone with nothing: marks the directory as unfinished and erases its content, the
    /// control file first. `identity` says what is being cloned, for a later run to compare.
    ///
    /// Links are not followed: tablespaces and WAL directories elsewhere keep their content. `repmgr/`
    /// stays, emptied, for the clone's own state, and `lost+found`; so do mount points, emptied.
    ///
    /// # Errors
    /// Before anything is erased when a server was started meanwhile. Later errors leave a directory
    /// that says of itself that it has to be erased.
    pub fn start_over<'a>(
        self,
        identity: serde_json::Value,
        erasing: impl Into<Erasing<'a>>,
    ) -> Result<Building, EraseError> {
        let erasing = erasing.into();
        // Dropped in reverse: what was done is undone before the lock is given up.
        let Self {
            place,
            target,
            mut undo,
        } = self;
        let state = target.state();
        let tree = &place.tree;
        let path = tree.path();
        erasing.check()?;
        if let ServerState::Running { pid, .. } = server_state(path)? {
            return Err(EraseError::Running {
                path: path.to_owned(),
                pid,
            });
        }
        if !matches!(state, TargetState::Absent { .. } | TargetState::Empty { .. }) {
            target.check_replaceable()?;
            if matches!(state, TargetState::Unfinished { .. }) {
                undo.disarm();
            }
            undo.done.marker = true;
            place.mark(Marker::new(identity.clone(), Phase::Discard))?;
            disable_instance(tree.root(), path)?;
            undo.disarm();
            place.erase(&[], erasing)?;
        }
        undo.done.marker = true;
        place.mark(Marker::new(identity.clone(), Phase::Copying))?;
        undo.disarm();
        Ok(Building { place, identity })
    }

    /// Begins a clone over what is there: marks the directory as unfinished and takes the control file
    /// away, so that no server can start on it, and leaves the rest for the caller to compare, replace
    /// and remove ([`Tree::remove_all`]). Only for an instance that was shut down in an orderly way
    /// ([`PgControlHead::shut_down`]), or an unfinished clone; anything else is no ground to build on.
    ///
    /// # Errors
    /// As for [`Claim::start_over`].
    pub fn build_upon(self, identity: serde_json::Value) -> Result<Building, EraseError> {
        // Dropped in reverse: what was done is undone before the lock is given up.
        let Self {
            place,
            target,
            mut undo,
        } = self;
        let path = place.tree.path();
        if let ServerState::Running { pid, .. } = server_state(path)? {
            return Err(EraseError::Running {
                path: path.to_owned(),
                pid,
            });
        }
        target.check_replaceable()?;
        undo.done.marker = true;
        place.mark(Marker::new(identity.clone(), Phase::Copying))?;
        disable_instance(place.tree.root(), path)?;
        undo.disarm();
        Ok(Building { place, identity })
    }

    /// Continues the unfinished clone that was found here. Whether it is the wanted one is for the
    /// caller to see, from its [`Marker::identity`].
    ///
    /// # Errors
    /// When there is none, or its files cannot be trusted ([`Marker::is_resumable`]).
    pub fn resume(self) -> Result<Building, ResumeError> {
        // Dropped in reverse: what was done is undone before the lock is given up.
        let Self {
            place,
            target,
            mut undo,
        } = self;
        match target.state() {
            TargetState::Unfinished { marker: Some(marker) } if marker.is_resumable() => {
                let identity = marker.identity.clone();
                place.mark(Marker::new(identity.clone(), Phase::Copying))?;
                undo.disarm();
                Ok(Building { place, identity })
            }
            _ => Err(ResumeError::NotResumable(place.tree.path().to_owned())),
        }
    }
}

impl Building {
    /// The data directory, for writing.
    pub fn tree(&self) -> Arc<Tree> {
        Arc::clone(&self.place.tree)
    }

    /// What the directory's mode allows.
    pub fn permissions(&self) -> Permissions {
        self.place.tree.permissions()
    }

    /// Completes the clone: brings the data directory and the `others` (tablespaces, a WAL directory
    /// elsewhere) to disk, then moves the control file into place, then removes the clone's own state.
    /// Only after that can PostgreSQL start on the directory. All in it must be closed by now.
    ///
    /// # Errors
    /// See [`FinishError`]. Except for [`FinishError::TidyUp`], PostgreSQL still cannot start, and the clone
    /// can be continued or begun anew.
    pub fn finish(self, others: &[&Tree], pg_control: &[u8]) -> Result<(), FinishError> {
        PgControlHead::parse_whole(pg_control)?;
        let tree = &self.place.tree;
        if let Err(error) = others.iter().copied().chain([&**tree]).try_for_each(Tree::sync) {
            // Lost writes are reported once: the next run must not trust what looks complete.
            self.discard();
            return Err(FinishError::Flush(error));
        }
        if let Err(error) = tree.write_durable(PG_CONTROL, pg_control, 0o640) {
            // It may be in place, only not known to be on disk: then this would be neither a standby to rely
            // on nor a clone to continue.
            if let Err(second) = tree.remove(PG_CONTROL) {
                log::warn!(
                    "could not take the control file of {:?} out again: {second}",
                    tree.path()
                );
            }
            return Err(error.into());
        }
        self.place.remove_state().map_err(|source| FinishError::TidyUp {
            state: tree.path().join(STATE_DIR),
            source,
        })
    }
}

impl Building {
    /// Marks what is there as useless. It still says what it is a clone of: what belongs to it elsewhere is
    /// known by that.
    fn discard(&self) {
        let marker = Marker::new(self.identity.clone(), Phase::Discard);
        if let Err(error) = self.place.mark(marker) {
            log::warn!("could not mark {:?} as useless: {error}", self.place.tree.path());
        }
    }
}

impl Place {
    fn mark(&self, marker: Marker) -> Result<(), TreeError> {
        let json = serde_json::to_vec_pretty(&marker).map_err(|error| TreeError::Io {
            action: "describe the clone in",
            path: MARKER.into(),
            source: error.into(),
        })?;
        self.tree.write_durable(MARKER, &json, 0o600)?;
        rustix::fs::fsync(self.tree.root()).map_err(|errno| TreeError::Io {
            action: "flush",
            path: self.tree.path().to_owned(),
            source: errno.into(),
        })
    }

    /// Removes everything but the marker, its lock, and what else of our own state is to stay.
    fn erase(&self, keep_too: &[&[u8]], erasing: Erasing<'_>) -> Result<(), EraseError> {
        let (root, path) = (self.tree.root(), self.tree.path());
        let keep = |name: &CStr| name == sys::LOST_AND_FOUND || name.to_bytes() == STATE_DIR.as_bytes();
        remove_children(root, path, &keep, erasing)?;
        let path = path.join(STATE_DIR);
        let state_dir = sys::open_dir(root, STATE_DIR).map_err(|errno| removing(&path, errno))?;
        let keep = |name: &CStr| {
            let name = name.to_bytes();
            [&b"clone.json"[..], b"clone.lock", b"memo.json"].contains(&name) || keep_too.contains(&name)
        };
        remove_children(state_dir.as_fd(), &path, &keep, erasing)?;
        self.tree.forget_handles();
        Ok(())
    }

    fn remove_state(&self) -> Result<(), EraseError> {
        let path = self.tree.path().join(STATE_DIR);
        let dir = sys::open_dir(self.tree.root(), STATE_DIR).map_err(|errno| removing(&path, errno))?;
        let never = CancelToken::new();
        remove_children(dir.as_fd(), &path, &|_| false, Erasing::new(&never))?;
        rustix::fs::unlinkat(self.tree.root(), STATE_DIR, AtFlags::REMOVEDIR)
            .and_then(|()| rustix::fs::fsync(self.tree.root()))
            .map_err(|errno| removing(&path, errno))
    }
}

fn failed(action: &'static str, path: PathBuf, source: io::Error) -> ClaimError {
    ClaimError::Io { action, path, source }
}

fn removing(path: &Path, errno: Errno) -> EraseError {
    EraseError::Remove {
        path: path.to_owned(),
        source: errno.into(),
    }
}

/// The directory's mode, if it is the one that was inspected.
fn check_same(tree: &Tree, target: &Target) -> Result<u32, ClaimError> {
    let stat = rustix::fs::fstat(tree.root())
        .map_err(|errno| failed("look at", tree.path().to_owned(), errno.into()))?;
    match target.identity() {
        Some(known) if known != sys::identity(&stat) => Err(ClaimError::Changed(tree.path().to_owned())),
        _ => Ok(stat.st_mode & 0o7777),
    }
}

/// Looks again, now that no other clone can come in between. Where nothing was, nothing may be: it
/// would get mixed up with the clone. An unfinished clone must be the same one, and still unfinished.
fn check_unchanged(target: &Target) -> Result<(), ClaimError> {
    let path = target.path();
    let reading = |error| failed("read the directory", path.to_owned(), error);
    let unchanged = match target.state() {
        TargetState::Absent { .. } | TargetState::Empty { .. } => {
            names_in(path).map_err(reading)? == [STATE_DIR]
        }
        TargetState::Unfinished { marker } => {
            path.join(PG_CONTROL).symlink_metadata().is_err()
                && Marker::read(path).map_err(reading)? == *marker
        }
        TargetState::Instance(_) | TargetState::NonEmpty { .. } => true,
    };
    if unchanged {
        Ok(())
    } else {
        Err(ClaimError::Changed(path.to_owned()))
    }
}

fn take_lock(
    tree: &Tree,
    undo: &mut Undo,
    announce: &mut dyn FnMut(Preparation<'_>),
) -> Result<Lock, ClaimError> {
    let state_dir = tree.path().join(STATE_DIR);
    if tree.metadata(STATE_DIR)?.is_none() {
        announce(Preparation::CreatingDirectory(&state_dir));
        tree.create_dir(STATE_DIR)?;
        undo.done.state_dir = true;
    }
    if tree
        .metadata(STATE_DIR)?
        .is_none_or(|meta| meta.kind != crate::Kind::Directory)
    {
        return Err(ClaimError::Tree(TreeError::NotADirectory {
            path: tree.path().join(LOCK),
            at: state_dir,
        }));
    }
    let is_new = tree.metadata(LOCK)?.is_none();
    let path = tree.path().join(LOCK);
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nofollow)
        .open(&path)
        .map_err(|source| failed("create", path.clone(), source))?;
    undo.done.lock = is_new;
    let lock = match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Lock(file),
        Err(Errno::WOULDBLOCK) => {
            // Somebody else's now; they take it back themselves.
            undo.disarm();
            let pid = Marker::read(tree.path()).ok().flatten().map(|marker| marker.pid);
            return Err(ClaimError::InProgress {
                path: tree.path().to_owned(),
                pid,
            });
        }
        Err(errno) => return Err(failed("lock", path, errno.into())),
    };
    // The clone that held it before may have removed it while we waited for nothing.
    match rustix::fs::fstat(&lock.0) {
        Ok(stat) if stat.st_nlink > 0 => Ok(lock),
        Ok(_) => Err(ClaimError::Changed(tree.path().to_owned())),
        Err(errno) => Err(failed("look at", path, errno.into())),
    }
}
