//! Files that lie in the backup as they were, into the data directory and its tablespaces.

use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::path::Path;
use std::time::{Duration, Instant};

use repmgr_datadir::{Existing, FileSpec, Tree, TreeError, TreeFile};
use repmgr_transfer::{
    Codec, Compression, EntryKind, FileSink, OldFiles, Options, Progress as TransferProgress, Revision, Sink,
    SinkError, transfer,
};

use crate::barman::{Files, ServerParameters, as_path};
use crate::hold::Holds;
use crate::judge::{Case, Judge};
use crate::request::BarmanSource;
use crate::reuse::Reused;
use crate::watch::watched;
use crate::{CloneError, Context, CopySummary, Event, Progress};

/// Where the files go, in the order of the listings.
pub(crate) struct Trees<'a> {
    pub(crate) data: &'a Tree,
    pub(crate) tablespaces: &'a [Tree],
    pub(crate) wal: Option<&'a Tree>,
}

impl Trees<'_> {
    /// That of a listing or archive: the data directory's is the first.
    pub(crate) fn get(&self, source: usize) -> &Tree {
        match source {
            0 => self.data,
            n => &self.tablespaces[n - 1],
        }
    }

    /// Whether this directory of a listing is the one with the WAL, which goes to another place.
    pub(crate) fn is_elsewhere(&self, source: usize, path: &[u8]) -> bool {
        source == 0 && self.wal.is_some() && [&b"pg_wal"[..], b"pg_xlog"].contains(&path)
    }
}

/// Creates the directories of the backup, empty ones too.
pub(crate) fn create_directories(files: &Files, trees: &Trees<'_>) -> Result<(), TreeError> {
    for (n, listing) in files.listings.iter().enumerate() {
        for entry in listing.iter().filter(|entry| entry.kind == EntryKind::Directory) {
            if !trees.is_elsewhere(n, entry.path) {
                trees.get(n).create_dir(as_path(entry.path))?;
            }
        }
    }
    Ok(())
}

/// What is to be copied, and where to.
pub(crate) struct Copy<'a> {
    pub(crate) barman: &'a BarmanSource,
    pub(crate) files: &'a Files,
    pub(crate) parameters: &'a ServerParameters,
    pub(crate) trees: &'a Trees<'a>,
    pub(crate) reused: &'a Reused,
    /// What was done before, and how much there is in all.
    pub(crate) base: Progress,
}

impl Copy<'_> {
    /// Copies all files that are not here yet.
    pub(crate) fn run(
        &self,
        judge: Judge<'_>,
        holds: &mut Holds<'_>,
        context: &Context<'_>,
    ) -> Result<CopySummary, CloneError> {
        let progress = TransferProgress::default();
        let base = self.base;
        let begun = Progress {
            files_done: base.files_done + self.reused.files,
            bytes_done: base.bytes_done + self.reused.bytes,
            bytes_reused: base.bytes_reused + self.reused.bytes,
            ..base
        };
        let started = Instant::now();
        let moved = {
            let receiver = Receiver {
                files: self.files,
                trees: self.trees,
                judge: &judge,
                reused: self.reused,
            };
            let wanted = |source: usize, index: usize| !self.reused.has(source, index);
            let options = wire_options(self.barman, context);
            let (host, listings) = (&*self.barman.host, &self.files.listings);
            watched(&progress, begun, holds, context, || {
                transfer(host, listings, &wanted, &options, &receiver, &progress)
            })?
        };
        judge.conclude(context)?;
        if moved.without_python {
            context.observer.event(Event::Warning {
                text: "files that differ were fetched whole, not by blocks".to_owned(),
                detail: Some(format!(
                    "python3 on \"{}\" is missing or does not work",
                    self.barman.host.name()
                )),
                hint: None,
            });
        }
        Ok(CopySummary {
            files: self.files.total_files(),
            bytes: self.files.total_size(),
            reused_files: self.reused.files + moved.kept_files,
            reused_bytes: self.reused.bytes + moved.kept_bytes,
            wire_bytes: moved.wire_bytes,
            elapsed: started.elapsed(),
            verified: self.parameters.verified_by(),
            jobs: moved.jobs,
            compression: moved.codec.map_or("", Codec::name).to_owned(),
            retries: moved.retries,
        })
    }
}

/// The options of a transfer as the request wants it.
pub(crate) fn wire_options(barman: &BarmanSource, context: &Context<'_>) -> Options {
    let options = &barman.transfer;
    let defaults = Options::default();
    // Far away a session spends much of its time waiting, and costs no core here.
    const FAR: Duration = Duration::from_millis(10);
    const JOBS_FAR: NonZero<usize> = NonZero::new(4).unwrap();
    let far = barman.host.round_trip().is_some_and(|time| time >= FAR);
    let jobs = if far { JOBS_FAR } else { defaults.jobs };
    Options {
        jobs: options.jobs.unwrap_or(jobs),
        compression: match barman.host.is_local() {
            true => Compression::None,
            false => options.compression,
        },
        retries: options.retries.unwrap_or(defaults.retries),
        cancel: context.cancel.clone(),
        ..defaults
    }
}

/// Takes files and has them judged.
struct Receiver<'a> {
    files: &'a Files,
    trees: &'a Trees<'a>,
    judge: &'a Judge<'a>,
    reused: &'a Reused,
}

impl Receiver<'_> {
    /// Its time is set when it is confirmed; until then it says that it is not.
    fn begin<'s>(
        &'s self,
        source: usize,
        index: usize,
        open: impl FnOnce(&Tree, &Path, FileSpec) -> Result<TreeFile, TreeError>,
    ) -> Result<ReceivedFile<'s>, TreeError> {
        let entry = self.files.listings[source].get(index);
        let spec = FileSpec {
            size: Some(entry.size),
            mode: entry.mode,
            modified: None,
            existing: Existing::Replace,
        };
        Ok(ReceivedFile {
            file: open(self.trees.get(source), as_path(entry.path), spec)?,
            case: self.judge.begin(self.files.manifest_path(source, entry.path)),
            judge: self.judge,
        })
    }
}

impl Sink for Receiver<'_> {
    fn create(&self, source: usize, index: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
        let file = self.begin(source, index, |tree, path, spec| tree.create_file(path, spec))?;
        Ok(Box::new(file))
    }

    /// A damaged file keeps the time of its arrival, so that no later run takes it for a good one.
    fn confirm(&self, source: usize, indexes: &[usize]) -> Result<(), SinkError> {
        for index in indexes {
            let entry = self.files.listings[source].get(*index);
            if !self.judge.rejects(&self.files.manifest_path(source, entry.path)) {
                let tree = self.trees.get(source);
                tree.set_modified(as_path(entry.path), entry.modified)?;
            }
        }
        Ok(())
    }

    fn old_files(&self) -> Option<&dyn OldFiles> {
        Some(self)
    }
}

impl OldFiles for Receiver<'_> {
    fn has(&self, source: usize, index: usize) -> bool {
        self.reused.is_old(source, index)
    }

    fn open(&self, source: usize, index: usize) -> Result<Option<Box<dyn Read + '_>>, SinkError> {
        let entry = self.files.listings[source].get(index);
        let file = self.trees.get(source).open_revisable(as_path(entry.path))?;
        Ok(file.map(|file| Box::new(file) as _))
    }

    fn revise(&self, source: usize, index: usize) -> Result<Box<dyn Revision + '_>, SinkError> {
        let file = self.begin(source, index, |tree, path, spec| tree.revise_file(path, spec))?;
        Ok(Box::new(file))
    }
}

/// A file on its way into a tree, under judgement.
pub(crate) struct ReceivedFile<'a> {
    pub(crate) file: TreeFile,
    pub(crate) case: Case,
    pub(crate) judge: &'a Judge<'a>,
}

impl FileSink for ReceivedFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.case.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }

    fn copy(&mut self, from: &File, buffer: &mut [u8]) -> Result<Option<usize>, SinkError> {
        let copied = self.file.copy_from(from, buffer)?;
        if let Some(length) = copied {
            self.case.update(&buffer[..length]);
        }
        Ok(copied)
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        self.judge.end(self.case);
        Ok(self.file.finish()?)
    }
}

impl Revision for ReceivedFile<'_> {
    fn keep(&mut self, length: u64) -> Result<(), SinkError> {
        let Self { file, case, .. } = self;
        match case.looks_at_bytes() {
            true => file.keep(length, &mut |bytes| case.update(bytes))?,
            false => file.skip(length)?,
        }
        Ok(())
    }
}
