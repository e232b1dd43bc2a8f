//! What is in the data directory already and need not be fetched: the beginning of this very clone, or
//! an instance that is rebuilt (`--delta`).

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Display;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use repmgr_datadir::{Kind, Target, TargetState, Tree, TreeError};
use repmgr_transfer::{EntryKind, Listing};
use repmgr_verify::{Checksum, ChecksumAlgorithm, FileDigest};
use serde::{Deserialize, Serialize};

use crate::copy::threads::on_threads;
use crate::nodes::node::CopiedCluster;
use crate::place::identity::CloneIdentity;
use crate::place::lasting;
use crate::request::Delta;
use crate::source::backup::{BackupSource, Content, Files, ServerParameters, as_path};
use crate::trees::Trees;
use crate::{CloneError, CloneRequest, Context, Remark, RemarkCode};

/// By what a file here counts as that of the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rule {
    /// Nothing is here that may count.
    Nothing,
    /// Size and time: a clone sets the time of a file when it is known to be whole, and PostgreSQL changes
    /// it with the first byte it writes.
    SizeAndTime,
    /// Size, and the checksum in the backup's manifest.
    Manifest,
    /// No file by itself: all are compared with the backup's block by block.
    Blocks,
}

/// Which rule is to be used for what the target holds, if a delta is wanted and possible.
pub(crate) fn delta_rule(
    request: &CloneRequest,
    target: &Target,
    cluster: &CopiedCluster,
    source: &BackupSource,
    parameters: &ServerParameters,
    context: &Context<'_>,
) -> Option<Rule> {
    let delta = request.delta?;
    let useless = |reason: &str| {
        context.tell(
            Remark::warning(
                RemarkCode::NothingReusable,
                "nothing of the existing data directory can be reused",
            )
            .detail(reason.to_owned()),
        );
        None
    };
    if source.chain.is_some() {
        return useless("the backup is an increment, which has to be combined with others first");
    }
    if matches!(source.wanted.content, Content::Archives(_)) {
        return useless("the backup is made of tar files, which can only be fetched whole");
    }
    let by_content = match (delta, &parameters.manifest) {
        (Delta::Checksum, _) => Some(Rule::Blocks),
        (Delta::Quick, Some(manifest)) if manifest.iter().all(|entry| entry.checksum.is_some()) => {
            Some(Rule::Manifest)
        }
        (Delta::Quick, _) => None,
    };
    match target.state() {
        TargetState::Instance(instance) => match &instance.control {
            Some(control) if control.system_id != cluster.system_id => {
                useless("it is an instance of another cluster")
            }
            Some(_) if by_content.is_some() => by_content,
            Some(control) if control.shut_down => Some(Rule::SizeAndTime),
            // It crashed: what was written last may be lost, and the times of files say nothing.
            Some(_) => Some(Rule::Blocks),
            None => useless("its control file is missing or damaged"),
        },
        // A rebuilding that was interrupted goes on as it began; the marker says by which rule.
        TargetState::Unfinished { .. } => {
            let begun_by = CloneIdentity::of_unfinished(target).and_then(|clone| clone.delta());
            Some(by_content.unwrap_or(match begun_by {
                Some(Rule::Blocks) => Rule::Blocks,
                _ => Rule::SizeAndTime,
            }))
        }
        _ => None,
    }
}

/// What is here of the backup's files, by listing and index.
pub(crate) struct Reused {
    state: Vec<Vec<Here>>,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Those that are worth to be compared.
    pub(crate) old_files: u64,
    pub(crate) old_bytes: u64,
}

/// What is here of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Here {
    Nothing,
    /// Something that may be right in parts.
    Old,
    Right,
}

impl Reused {
    /// No file is here.
    pub(crate) fn nothing() -> Self {
        Self {
            state: Vec::new(),
            files: 0,
            bytes: 0,
            old_files: 0,
            old_bytes: 0,
        }
    }

    /// Looks for files of the backup that are here, and which of them are right by `rule`.
    pub(crate) fn find(
        rule: Rule,
        files: &Files,
        parameters: &ServerParameters,
        trees: &Trees<'_>,
        context: &Context<'_>,
    ) -> Result<Self, CloneError> {
        let mut reused = Self::nothing();
        if rule == Rule::Nothing {
            return Ok(reused);
        }
        for (n, listing) in files.listings.iter().enumerate() {
            let tree = trees.get(n);
            let (mut state, same_size) = look_at(listing, tree, rule)?;
            let right = match rule {
                Rule::Nothing | Rule::Blocks => Vec::new(),
                Rule::SizeAndTime => same_size,
                Rule::Manifest => {
                    let look = Look {
                        listing,
                        tree,
                        candidates: &same_size,
                        next: AtomicUsize::new(0),
                        context,
                    };
                    look.by(|index| {
                        let path = files.manifest_path(n, listing.get(index).path);
                        let entry = parameters
                            .manifest
                            .as_ref()
                            .and_then(|manifest| manifest.get(&path));
                        entry.and_then(|entry| entry.checksum)
                    })?
                }
            };
            for index in right {
                let entry = listing.get(index);
                // From now on its time says so, too. Of a file of somebody else it cannot.
                if rule != Rule::SizeAndTime
                    && let Err(error) = tree.set_modified(as_path(entry.path), entry.modified)
                {
                    log::debug!("{error}: {:?}; it is fetched", error.source());
                    continue;
                }
                state[index] = Here::Right;
                reused.files += 1;
                reused.bytes = reused.bytes.saturating_add(entry.size);
            }
            for (_, entry) in state
                .iter()
                .zip(listing.iter())
                .filter(|(here, _)| **here == Here::Old)
            {
                reused.old_files += 1;
                reused.old_bytes = reused.old_bytes.saturating_add(entry.size);
            }
            reused.state.push(state);
        }
        Ok(reused)
    }

    /// Whether a file need not be fetched.
    pub(crate) fn has(&self, source: usize, index: usize) -> bool {
        self.is(Here::Right, source, index)
    }

    /// Whether a file is worth to be compared.
    pub(crate) fn is_old(&self, source: usize, index: usize) -> bool {
        self.is(Here::Old, source, index)
    }

    fn is(&self, state: Here, source: usize, index: usize) -> bool {
        self.state
            .get(source)
            .is_some_and(|listing| listing[index] == state)
    }
}

/// What is here of each file, as far as it costs nothing to see; and those that may be right.
fn look_at(listing: &Listing, tree: &Tree, rule: Rule) -> Result<(Vec<Here>, Vec<usize>), TreeError> {
    // A smaller file that is known to differ is fetched as soon as it is compared.
    let worth_it = if rule == Rule::Blocks { 1 } else { 64 << 10 };
    let (mut state, mut same_size) = (vec![Here::Nothing; listing.len()], Vec::new());
    for (index, entry) in listing.iter().enumerate() {
        if entry.kind != EntryKind::File {
            continue;
        }
        let Some(here) = tree.metadata(as_path(entry.path))? else {
            continue;
        };
        if here.kind == Kind::File && here.size >= worth_it {
            state[index] = Here::Old;
        }
        let same_time = rule != Rule::SizeAndTime || here.modified == entry.modified;
        if here.kind == Kind::File && here.size == entry.size && same_time {
            same_size.push(index);
        }
    }
    Ok((state, same_size))
}

/// Candidates of one listing, looked at by several threads.
struct Look<'a> {
    listing: &'a Listing,
    tree: &'a Tree,
    candidates: &'a [usize],
    next: AtomicUsize,
    context: &'a Context<'a>,
}

impl Look<'_> {
    /// Those whose content here has the checksum that `expected` tells.
    fn by(&self, expected: impl Fn(usize) -> Option<Checksum> + Sync) -> Result<Vec<usize>, CloneError> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let look = || -> Result<Vec<usize>, CloneError> {
            let mut right = Vec::new();
            let mut buffer = vec![0; 256 << 10];
            while let Some(index) = self.candidates.get(self.next.fetch_add(1, Ordering::Relaxed)) {
                self.context.cancel.check()?;
                if let Some(expected) = expected(*index)
                    && self.digest(*index, expected.algorithm(), &mut buffer)? == Some(expected)
                {
                    right.push(*index);
                }
            }
            Ok(right)
        };
        let found = on_threads(cores, look)
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        Ok(found.concat())
    }

    fn digest(
        &self,
        index: usize,
        algorithm: ChecksumAlgorithm,
        buffer: &mut [u8],
    ) -> Result<Option<Checksum>, CloneError> {
        let path = as_path(self.listing.get(index).path);
        // What cannot be read here is fetched; damage like that is why instances are rebuilt.
        let unreadable = |error: &dyn Display| {
            log::warn!(
                "\"{}\" cannot be read and is fetched: {error}",
                self.tree.path().join(path).display()
            );
            Ok(None)
        };
        let mut file = match self.tree.open_file(path) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(None),
            Err(error) => return unreadable(&error),
        };
        let mut digest = FileDigest::new(algorithm);
        loop {
            match file.read(buffer) {
                Ok(0) => return Ok(Some(digest.finish())),
                Ok(n) => digest.update(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return unreadable(&error),
            }
        }
    }
}

/// Removes what the backup does not have, links to tablespaces included; `repmgr/` and `lost+found` stay. A WAL
/// directory that goes elsewhere is not in the backup: a link comes in its place.
pub(crate) fn remove_others(
    files: &Files,
    trees: &Trees<'_>,
    context: &Context<'_>,
) -> Result<(), CloneError> {
    for (n, listing) in files.listings.iter().enumerate() {
        let tree = trees.get(n);
        let wanted: HashMap<&[u8], Kind> = listing
            .iter()
            .filter_map(|entry| match entry.kind {
                EntryKind::File => Some((entry.path, Kind::File)),
                EntryKind::Directory if trees.is_elsewhere(n, entry.path) => None,
                EntryKind::Directory => Some((entry.path, Kind::Directory)),
                _ => None,
            })
            .collect();
        let mut others: Vec<PathBuf> = Vec::new();
        tree.walk::<TreeError>(|path, here| {
            let inside_other = others.last().is_some_and(|other| path.starts_with(other));
            // The latter is in every file system of its own that is mounted below, and belongs to root.
            let is_ours = (n == 0 && path.starts_with("repmgr"))
                || path.components().any(|part| part.as_os_str() == "lost+found");
            if !inside_other && !is_ours && wanted.get(path.as_os_str().as_bytes()) != Some(&here.kind) {
                others.push(path.to_owned());
            }
            Ok(())
        })?;
        lasting::erasing(tree.path(), context, |erasing| {
            others
                .iter()
                .try_for_each(|path| tree.remove_all(path, erasing).map(drop))
        })?;
    }
    Ok(())
}
