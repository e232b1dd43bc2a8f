//! Where the clone goes on this host: data directory, tablespaces, WAL directory, and room for them.

pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod identity;
pub(crate) mod lasting;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use repmgr_datadir::{
    Claim, InspectError, Kind, OldContent, OutsideDir, OutsideState, Permissions, Space, TakeOptions, Target,
    TargetState, Tree, TreeError,
};

use self::identity::CloneIdentity;
use crate::copy::reuse::Rule;
use crate::event::ByteSize;
use crate::nodes::node::CopiedCluster;
use crate::{CloneError, CloneRequest, Context, Hint, PlaceError, PlaceEvent, Remark, RemarkCode};

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

/// What a clone begins upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Nothing, or what was erased.
    Bare,
    /// An interrupted clone of the same backup.
    Interrupted,
    /// An instance that is replaced.
    Instance,
}

impl Ground {
    pub(crate) fn keeps_files(self) -> bool {
        self != Self::Bare
    }

    /// By what a file that is there counts as the backup's.
    pub(crate) fn rule(self, delta: Option<Rule>) -> Rule {
        match (self, delta) {
            (Self::Bare, _) => Rule::Nothing,
            (_, Some(rule)) => rule,
            (_, None) => Rule::SizeAndTime,
        }
    }
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
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) tablespaces: Vec<TablespacePlace>,
    pub(crate) wal: Option<OutsideDir>,
}

const WAL_PURPOSE: &str = "the WAL directory";

/// Looks at the data directory and refuses what must not be touched.
pub(crate) fn inspect(request: &CloneRequest, context: &Context<'_>) -> Result<Target, CloneError> {
    let target = Target::inspect(&request.data_directory)?;
    for warning in target.warnings() {
        context.tell(Remark::warning(RemarkCode::LeftOver, warning.to_string()));
    }
    // First: what is never replaced is not to be forced.
    target.check_replaceable()?;
    match target.state() {
        TargetState::Instance(instance) if !request.force => Err(PlaceError::NotEmpty {
            path: target.path().to_owned(),
            what: format!(
                "it holds a PostgreSQL {} instance, which is not running",
                instance.major
            ),
        }
        .into()),
        _ => Ok(target),
    }
}

/// Refuses an instance that is not to be replaced because it is of another cluster, or of who knows which.
pub(crate) fn check_same_cluster(
    request: &CloneRequest,
    target: &Target,
    cluster: &CopiedCluster,
) -> Result<(), CloneError> {
    let TargetState::Instance(instance) = target.state() else {
        return Ok(());
    };
    let its_id = instance.control.as_ref().map(|control| control.system_id);
    if !request.only_same_cluster || its_id == Some(cluster.system_id) {
        return Ok(());
    }
    Err(PlaceError::OtherCluster {
        path: target.path().to_owned(),
        its_id,
        what: cluster.what.clone(),
        copied_id: cluster.system_id,
    }
    .into())
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
        context.tell(PlaceEvent::from(step));
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
    let unfinished = CloneIdentity::of_unfinished(target);
    let unfinished = unfinished.as_ref();
    let mut tablespaces = Vec::with_capacity(origins.len());
    warn_of_unused_mappings(request, &origins, context);
    for origin in origins {
        let location = request.mapped(&origin.location);
        let purpose = format!("the directory of tablespace \"{}\"", origin.name);
        let ours = unfinished
            .and_then(|clone| clone.major_of_tablespace(origin.oid, location))
            .or(old_major.filter(|_| target.links_to(location)));
        let dir = OutsideDir::tablespace(location, target, ours)
            .map_err(|source| PlaceError::Outside { purpose, source })?;
        tablespaces.push(TablespacePlace { origin, dir });
    }
    let wal = request
        .wal_directory
        .as_deref()
        .map(|location| {
            let ours = unfinished.is_some_and(|clone| clone.has_wal_at(location))
                || (old_major.is_some() && target.wal_link() == Some(location));
            OutsideDir::wal(location, target, ours).map_err(|source| PlaceError::Outside {
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
            context.tell(Remark::warning(
                RemarkCode::MappingUnused,
                format!(
                    "tablespace_mapping for \"{}\" is not used: no tablespace is there",
                    old.display()
                ),
            ));
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
        let inside = target.contains(location);
        let fate = if inside { "erased with it" } else { "left as it is" };
        let text = format!(
            "\"{}\" belongs to the instance that is replaced and will be {fate}",
            location.display()
        );
        let hint = (!inside).then(|| Hint::from("remove it when it is not needed any more"));
        context.tell(Remark::warning(RemarkCode::OldDirectoryStays, text).hint(hint));
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
                    return Err(PlaceError::Overlap {
                        first: first.clone(),
                        second: second.clone(),
                        path: a.path().to_owned(),
                    }
                    .into());
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
            lasting::erasing(dir.path(), context, |erasing| {
                dir.prepare(permissions, old, erasing, &mut |step| {
                    context.tell(PlaceEvent::from(step));
                })
            })
            .map_err(|source| CloneError::from(PlaceError::Prepare { purpose, source }))
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
        entry.2 = entry.2.saturating_add(*bytes);
    }
    for (filesystem, (path, space, needed)) in needs {
        let available = space
            .available
            .saturating_add(erasable(target, places, filesystem));
        if needed > available {
            return Err(PlaceError::Space {
                path,
                needed: ByteSize(needed).to_string(),
                available: ByteSize(available).to_string(),
                backups,
            }
            .into());
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
                        bytes = u64::saturating_add(bytes, meta.size);
                    }
                    Ok(())
                })
            });
            if let Err(error) = walked {
                log::debug!("could not measure \"{}\": {error}", dir.display());
            }
            bytes
        })
        .fold(0, u64::saturating_add)
}
