//! Where the clone goes on this host: data directory, tablespaces, WAL directory, and room for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use repmgr_datadir::{
    Claim, InspectError, InspectWarning, Kind, OldContent, OutsideDir, OutsideState, Permissions, Space,
    TakeOptions, Target, TargetState, Tree, TreeError,
};

use crate::event::ByteSize;
use crate::{CloneError, CloneRequest, Context, Event};

/// Room left over for what a server writes when it starts, and for file system overhead.
const SPARE_BYTES: u64 = 64 << 20;

/// Whether a clone has to do with a directory, for whoever would start PostgreSQL on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneState {
    /// No clone is being made here, and none was left unfinished.
    None,
    /// One was begun and not finished: PostgreSQL cannot start, the same clone can continue.
    Unfinished,
    /// One is being made at this moment.
    InProgress {
        /// The process that does so, where known.
        pid: Option<u32>,
    },
}

impl CloneState {
    /// Looks at a directory, and changes nothing.
    ///
    /// # Errors
    /// When the directory cannot be looked into, or is none.
    pub fn of(data_directory: &Path) -> Result<Self, InspectError> {
        match Target::inspect(data_directory) {
            Ok(target) => Ok(match target.state() {
                TargetState::Unfinished { .. } => Self::Unfinished,
                _ => Self::None,
            }),
            Err(InspectError::CloneInProgress { pid, .. }) => Ok(Self::InProgress { pid }),
            // What runs was whole when it was started.
            Err(InspectError::Running { .. }) => Ok(Self::None),
            Err(error) => Err(error),
        }
    }
}

/// What identifies a clone that may be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity(serde_json::Value);

impl Identity {
    /// `source` says what is cloned; where tablespaces and WAL go belongs to it.
    pub(crate) fn new(mut source: serde_json::Value, major: String, places: &Places) -> Self {
        let tablespaces: BTreeMap<String, &Path> = places
            .tablespaces
            .iter()
            .map(|place| (place.origin.oid.to_string(), place.dir.path()))
            .collect();
        source["major"] = major.into();
        source["tablespaces"] = serde_json::json!(tablespaces);
        source["wal_directory"] = serde_json::json!(places.wal.as_ref().map(OutsideDir::path));
        Self(source)
    }

    pub(crate) fn value(&self) -> serde_json::Value {
        self.0.clone()
    }

    /// The major version of the unfinished clone in `target`, if it has its tablespace `oid` or its
    /// WAL directory at `location`.
    fn major_of_unfinished(target: &Target, key: &OutsideKey, location: &Path) -> Option<String> {
        let TargetState::Unfinished { marker: Some(marker) } = target.state() else {
            return None;
        };
        let place = match key {
            OutsideKey::Tablespace(oid) => &marker.identity["tablespaces"][oid.to_string()],
            OutsideKey::Wal => &marker.identity["wal_directory"],
        };
        let is_same = place.as_str().is_some_and(|place| Path::new(place) == location);
        is_same
            .then(|| marker.identity["major"].as_str().map(str::to_owned))
            .flatten()
    }
}

enum OutsideKey {
    Tablespace(u32),
    Wal,
}

/// A tablespace where it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) location: PathBuf,
}

/// A tablespace's directory here.
#[derive(Debug)]
pub(crate) struct TablespacePlace {
    pub(crate) origin: Origin,
    pub(crate) dir: OutsideDir,
}

impl TablespacePlace {
    pub(crate) fn purpose(&self) -> String {
        format!("the directory of tablespace \"{}\"", self.origin.name)
    }
}

/// Everything outside the data directory.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) tablespaces: Vec<TablespacePlace>,
    pub(crate) wal: Option<OutsideDir>,
}

const WAL_PURPOSE: &str = "the WAL directory";

/// Looks at the data directory and refuses what must not be touched.
pub(crate) fn inspect(request: &CloneRequest, context: &Context<'_>) -> Result<Target, CloneError> {
    let target = Target::inspect(&request.data_directory)?;
    for warning in target.warnings() {
        context.observer.event(Event::warning(describe(warning)));
    }
    let what = match target.state() {
        TargetState::Instance(instance) => Some(format!(
            "it holds a PostgreSQL {} instance, which is not running",
            instance.major
        )),
        TargetState::NonEmpty { .. } => Some(String::new()),
        _ => None,
    };
    match what.filter(|_| !request.force) {
        Some(what) => Err(CloneError::NotEmpty {
            path: target.path().to_owned(),
            what,
        }),
        None => {
            target.check_removable()?;
            Ok(target)
        }
    }
}

fn describe(warning: &InspectWarning) -> String {
    warning.to_string()
}

/// Takes the data directory. Dropping the claim gives it back as it was.
pub(crate) fn take(
    target: &Target,
    request: &CloneRequest,
    permissions: Permissions,
    context: &Context<'_>,
) -> Result<Claim, CloneError> {
    let options = TakeOptions {
        permissions,
        force: request.force,
    };
    Ok(Claim::take(target, options, &mut |step| {
        context.observer.event(Event::preparing(step));
    })?)
}

/// Looks at all directories outside the data directory.
pub(crate) fn inspect_outside(
    request: &CloneRequest,
    target: &Target,
    origins: Vec<Origin>,
    context: &Context<'_>,
) -> Result<Places, CloneError> {
    let old_major = match target.state() {
        TargetState::Instance(instance) => Some(instance.major.as_str()),
        _ => None,
    };
    let mut tablespaces = Vec::with_capacity(origins.len());
    warn_of_unused_mappings(request, &origins, context);
    for origin in origins {
        let location = request.mapped(&origin.location);
        let purpose = format!("the directory of tablespace \"{}\"", origin.name);
        let unfinished = Identity::major_of_unfinished(target, &OutsideKey::Tablespace(origin.oid), location);
        let ours = unfinished
            .as_deref()
            .or(old_major.filter(|_| target.links_to(location)));
        let dir = OutsideDir::tablespace(location, target, ours)
            .map_err(|source| CloneError::Outside { purpose, source })?;
        tablespaces.push(TablespacePlace { origin, dir });
    }
    let wal = request
        .wal_directory
        .as_deref()
        .map(|location| {
            let ours = Identity::major_of_unfinished(target, &OutsideKey::Wal, location).is_some()
                || (old_major.is_some() && target.wal_link() == Some(location));
            OutsideDir::wal(location, target, ours).map_err(|source| CloneError::Outside {
                purpose: WAL_PURPOSE.to_owned(),
                source,
            })
        })
        .transpose()?;
    let places = Places { tablespaces, wal };
    places.check_apart()?;
    warn_of_leftovers(target, &places, context);
    Ok(places)
}

fn warn_of_unused_mappings(request: &CloneRequest, origins: &[Origin], context: &Context<'_>) {
    for (old, _) in &request.tablespace_mapping {
        let used = origins.iter().any(|origin| origin.location == *old);
        if !used {
            context.observer.event(Event::Warning {
                text: format!(
                    "tablespace_mapping for \"{}\" is not used: no tablespace is there",
                    old.display()
                ),
                detail: None,
                hint: None,
            });
        }
    }
}

/// What the replaced instance has outside and the clone will not use stays where it is.
fn warn_of_leftovers(target: &Target, places: &Places, context: &Context<'_>) {
    if !matches!(target.state(), TargetState::Instance(_)) {
        return;
    }
    let used = |path: &Path| places.all().any(|(_, dir)| dir.path() == path);
    let old = target
        .tablespaces()
        .iter()
        .map(|link| link.location.as_path())
        .chain(target.wal_link());
    for location in old.filter(|location| !used(location)) {
        context.observer.event(Event::Warning {
            text: format!(
                "\"{}\" belongs to the instance that is replaced and will be left as it is",
                location.display()
            ),
            detail: None,
            hint: Some("remove it when it is not needed any more".to_owned()),
        });
    }
}

impl Places {
    fn all(&self) -> impl Iterator<Item = (String, &OutsideDir)> {
        let tablespaces = self.tablespaces.iter().map(|place| (place.purpose(), &place.dir));
        tablespaces.chain(self.wal.iter().map(|dir| (WAL_PURPOSE.to_owned(), dir)))
    }

    fn check_apart(&self) -> Result<(), CloneError> {
        let all: Vec<_> = self.all().collect();
        for (n, (first, a)) in all.iter().enumerate() {
            for (second, b) in &all[n + 1..] {
                if a.path().starts_with(b.path()) || b.path().starts_with(a.path()) {
                    return Err(CloneError::Overlap {
                        first: first.clone(),
                        second: second.clone(),
                        path: a.path().to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether the data directory and all tablespaces are on one file system.
    pub(crate) fn share_a_filesystem(&self, target: &Target) -> Result<bool, CloneError> {
        let data = Space::at(target.path())?.filesystem;
        for place in &self.tablespaces {
            if Space::at(place.dir.path())?.filesystem != data {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Prepares all of them; the trees of the tablespaces in order, then that of the WAL directory.
    pub(crate) fn prepare(
        &self,
        permissions: Permissions,
        keep: bool,
        context: &Context<'_>,
    ) -> Result<(Vec<Tree>, Option<Tree>), CloneError> {
        let prepare = |purpose: String, dir: &OutsideDir, keep: bool| {
            let old = match dir.state() {
                OutsideState::Ours if keep => OldContent::Keep,
                OutsideState::Ours => OldContent::Erase,
                _ => OldContent::Refuse,
            };
            dir.prepare(permissions, old, context.cancel, &mut |step| {
                context.observer.event(Event::preparing(step));
            })
            .map_err(|source| CloneError::Prepare { purpose, source })
        };
        let tablespaces = self
            .tablespaces
            .iter()
            .map(|place| prepare(place.purpose(), &place.dir, keep))
            .collect::<Result<_, _>>()?;
        let wal = self
            .wal
            .as_ref()
            .map(|dir| prepare(WAL_PURPOSE.to_owned(), dir, false))
            .transpose()?;
        Ok((tablespaces, wal))
    }
}

/// Refuses when `bytes`, those of the data directory first and then of each tablespace, do not fit.
/// What will be erased counts as free.
/// `backups` is for the error.
pub(crate) fn check_space(
    target: &Target,
    places: &Places,
    bytes: &[u64],
    backups: usize,
) -> Result<(), CloneError> {
    let mut needs: BTreeMap<u64, (PathBuf, Space, u64)> = BTreeMap::new();
    let dirs = places.tablespaces.iter().map(|place| place.dir.path());
    for (path, bytes) in std::iter::once(target.path()).chain(dirs).zip(bytes) {
        let space = Space::at(path)?;
        let entry = needs
            .entry(space.filesystem)
            .or_insert_with(|| (path.to_owned(), space, SPARE_BYTES));
        entry.2 += bytes;
    }
    for (filesystem, (path, space, needed)) in needs {
        let available = space
            .available
            .saturating_add(erasable(target, places, filesystem));
        if needed > available {
            return Err(CloneError::Space {
                path,
                needed: ByteSize(needed).to_string(),
                available: ByteSize(available).to_string(),
                backups,
            });
        }
    }
    Ok(())
}

/// Bytes on `filesystem` that the clone will erase or use again. What cannot be looked at counts as nothing.
fn erasable(target: &Target, places: &Places, filesystem: u64) -> u64 {
    let mut dirs: Vec<&Path> = places
        .all()
        .filter(|(_, dir)| *dir.state() == OutsideState::Ours)
        .map(|(_, dir)| dir.path())
        .collect();
    if !matches!(
        target.state(),
        TargetState::Absent { .. } | TargetState::Empty { .. }
    ) {
        dirs.push(target.path());
    }
    dirs.into_iter()
        .filter(|dir| Space::at(dir).is_ok_and(|space| space.filesystem == filesystem))
        .map(|dir| {
            let mut bytes = 0;
            let walked = Tree::open(dir, Permissions::default()).and_then(|tree| {
                tree.walk::<TreeError>(|_, meta| {
                    if meta.kind == Kind::File {
                        bytes += meta.size;
                    }
                    Ok(())
                })
            });
            if let Err(error) = walked {
                log::debug!("could not measure \"{}\": {error}", dir.display());
            }
            bytes
        })
        .sum()
}
