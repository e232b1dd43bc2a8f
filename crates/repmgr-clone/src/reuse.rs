//! What is in the data directory already and need not be fetched: the beginning of this very clone, or
//! an instance that is rebuilt (`--delta`).

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};

use repmgr_datadir::{Kind, TargetState, Tree, TreeError};
use repmgr_transfer::{EntryKind, Listing, TransferError, digests};
use repmgr_verify::{Checksum, ChecksumAlgorithm, FileDigest};

use crate::barman::{BackupSource, Content, Files, ServerParameters, as_path};
use crate::copy::{Trees, wire_options};
use crate::node::Cluster;
use crate::request::{BarmanSource, Delta};
use crate::{CloneError, CloneRequest, Context, Event};

/// By what a file here counts as that of the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Nothing is here that may count.
    Nothing,
    /// Size and time: a clone sets the time of a file when it is known to be whole, and PostgreSQL changes
    /// it with the first byte it writes.
    SizeAndTime,
    /// Size, and the checksum in the backup's manifest.
    Manifest,
    /// Size, and checksums computed on both sides.
    Checksums,
}

impl Rule {
    /// A word for the marker of an unfinished clone.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::SizeAndTime => "size and time",
            Self::Manifest => "manifest",
            Self::Checksums => "checksums",
        }
    }
}

/// Which rule is to be used for what the target holds, if a delta is wanted and possible.
pub(crate) fn delta_rule(
    request: &CloneRequest,
    target: &TargetState,
    cluster: &Cluster,
    source: &BackupSource,
    parameters: &ServerParameters,
    context: &Context<'_>,
) -> Option<Rule> {
    let delta = request.delta?;
    let useless = |reason: &str| {
        context.observer.event(Event::Warning {
            text: "nothing of the existing data directory can be reused".to_owned(),
            detail: Some(reason.to_owned()),
            hint: None,
        });
        None
    };
    if source.chain.is_some() {
        return useless("the backup is an increment, which has to be combined with others first");
    }
    if matches!(source.wanted.content, Content::Archives(_)) {
        return useless("the backup is made of tar files, which can only be fetched whole");
    }
    let by_content = match (delta, &parameters.manifest) {
        (_, Some(manifest)) if manifest.iter().all(|entry| entry.checksum.is_some()) => Some(Rule::Manifest),
        (Delta::Checksums, _) => Some(Rule::Checksums),
        (Delta::Quick, _) => None,
    };
    match target {
        TargetState::Instance(instance) => match &instance.control {
            Some(control) if control.system_id != cluster.system_id => {
                useless("it is an instance of another cluster")
            }
            Some(_) if by_content.is_some() => by_content,
            Some(control) if control.shut_down => Some(Rule::SizeAndTime),
            Some(_) => useless(
                "the instance was not shut down in an orderly way, so that the times of its files say nothing; \
                 --delta=checksum compares their content",
            ),
            None => useless("its control file is missing or damaged"),
        },
        // A rebuilding that was interrupted goes on as it began; the marker says by which rule.
        TargetState::Unfinished { .. } => Some(by_content.unwrap_or(Rule::SizeAndTime)),
        _ => None,
    }
}

/// Files that are here already and right, by listing and index.
pub(crate) struct Reused {
    bits: Vec<Vec<bool>>,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Reused {
    /// Nothing is here.
    pub(crate) fn nothing() -> Self {
        Self {
            bits: Vec::new(),
            files: 0,
            bytes: 0,
        }
    }

    /// Looks for files of the backup that are here and right by `rule`.
    pub(crate) fn find(
        rule: Rule,
        barman: &BarmanSource,
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
            let same_size = of_same_size(listing, trees.get(n), rule == Rule::SizeAndTime)?;
            let look = Look {
                listing,
                tree: trees.get(n),
                candidates: &same_size,
                next: AtomicUsize::new(0),
                context,
            };
            let right = match rule {
                Rule::Nothing => Vec::new(),
                Rule::SizeAndTime => same_size.clone(),
                Rule::Manifest => look.by(|index| {
                    let path = files.manifest_path(n, listing.get(index).path);
                    let entry = parameters
                        .manifest
                        .as_ref()
                        .and_then(|manifest| manifest.get(&path));
                    entry.and_then(|entry| entry.checksum)
                })?,
                Rule::Checksums => {
                    let theirs = look.theirs(barman)?;
                    look.by(|index| theirs.get(&index).copied())?
                }
            };
            let mut bits = vec![false; listing.len()];
            for index in right {
                let entry = listing.get(index);
                bits[index] = true;
                reused.files += 1;
                reused.bytes += entry.size;
                if rule != Rule::SizeAndTime {
                    // From now on its time says so, too.
                    trees.get(n).set_modified(as_path(entry.path), entry.modified)?;
                }
            }
            reused.bits.push(bits);
        }
        Ok(reused)
    }

    pub(crate) fn has(&self, source: usize, index: usize) -> bool {
        self.bits.get(source).is_some_and(|bits| bits[index])
    }
}

/// Files that may be right, as far as it costs nothing to see.
fn of_same_size(listing: &Listing, tree: &Tree, and_time: bool) -> Result<Vec<usize>, TreeError> {
    let mut found = Vec::new();
    for (index, entry) in listing
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.kind == EntryKind::File)
    {
        let here = tree.metadata(as_path(entry.path))?;
        let fits = here.is_some_and(|here| {
            here.kind == Kind::File
                && here.size == entry.size
                && (!and_time || here.modified == entry.modified)
        });
        if fits {
            found.push(index);
        }
    }
    Ok(found)
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
        thread::scope(|scope| {
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(look)).collect();
            joined(workers)
        })
    }

    fn digest(
        &self,
        index: usize,
        algorithm: ChecksumAlgorithm,
        buffer: &mut [u8],
    ) -> Result<Option<Checksum>, CloneError> {
        let path = as_path(self.listing.get(index).path);
        let Some(mut file) = self.tree.open_file(path)? else {
            return Ok(None);
        };
        let mut digest = FileDigest::new(algorithm);
        loop {
            match file.read(buffer) {
                Ok(0) => return Ok(Some(digest.finish())),
                Ok(n) => digest.update(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(CloneError::Write(TreeError::Io {
                        action: "read",
                        path: self.tree.path().join(path),
                        source,
                    }));
                }
            }
        }
    }

    /// The checksums of the candidates in the backup.
    fn theirs(&self, barman: &BarmanSource) -> Result<HashMap<usize, Checksum>, CloneError> {
        let options = wire_options(barman, self.context);
        let share = self.candidates.len().div_ceil(options.jobs.get()).max(1);
        let ask = |indexes: &[usize]| -> Result<Vec<(usize, Checksum)>, CloneError> {
            let mut connection = barman.host.connect().map_err(|source| {
                CloneError::Transfer(TransferError::Connect {
                    attempts: 1,
                    source: Box::new(source),
                })
            })?;
            let found = digests(
                &mut *connection,
                self.listing,
                indexes,
                options.idle_timeout,
                self.context.cancel,
            )?;
            let checksums = indexes.iter().zip(&found).filter_map(|(index, raw)| {
                let checksum = Checksum::new(ChecksumAlgorithm::Sha256, raw)?;
                Some((*index, checksum))
            });
            Ok(checksums.collect())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = self
                .candidates
                .chunks(share)
                .map(|indexes| scope.spawn(move || ask(indexes)))
                .collect();
            joined(workers)
        })
    }
}

/// What all the workers found.
fn joined<T, All: Default + Extend<T>>(
    workers: Vec<ScopedJoinHandle<'_, Result<Vec<T>, CloneError>>>,
) -> Result<All, CloneError> {
    let mut all = All::default();
    for worker in workers {
        all.extend(
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
        );
    }
    Ok(all)
}

/// Removes what the backup does not have, links to tablespaces included; `repmgr/` and `lost+found` stay.
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
                EntryKind::Directory => Some((entry.path, Kind::Directory)),
                _ => None,
            })
            .collect();
        let mut others: Vec<PathBuf> = Vec::new();
        tree.walk::<TreeError>(|path, here| {
            let inside_other = others.last().is_some_and(|other| path.starts_with(other));
            let is_ours = (n == 0 && path.starts_with("repmgr")) || path.starts_with("lost+found");
            if !inside_other && !is_ours && wanted.get(path.as_os_str().as_bytes()) != Some(&here.kind) {
                others.push(path.to_owned());
            }
            Ok(())
        })?;
        for path in others {
            tree.remove_all(&path, context.cancel)?;
        }
    }
    Ok(())
}
