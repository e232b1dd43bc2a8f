//! Files that lie in the backup as they were, into the data directory and its tablespaces.

use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::path::Path;
use std::time::{Duration, Instant};

use repmgr_datadir::{Existing, FileSpec, Tree, TreeError, TreeFile};
use repmgr_transfer::{Codec, Counters, FileSink, OldFiles, Options, Revision, Sink, SinkError, transfer};

use crate::copy::judge::{Case, Judge};
use crate::copy::reuse::Reused;
use crate::copy::watch::watched;
use crate::request::BarmanSource;
use crate::source::backup::{Files, as_path};
use crate::source::hold::Holds;
use crate::trees::Trees;
use crate::{CloneError, Context, CopySummary, Progress, Remark, RemarkCode};

/// What is to be copied, and where to.
pub(crate) struct Copy<'a> {
    pub(crate) barman: &'a BarmanSource,
    pub(crate) files: &'a Files,
    /// Without them the files are only judged.
    pub(crate) trees: Option<&'a Trees<'a>>,
    pub(crate) reused: &'a Reused,
    /// What was done before, and how much there is in all.
    pub(crate) base: Progress,
}

impl Copy<'_> {
    /// Copies all files that are not here yet. How they were verified is for the judge to say, in the end.
    pub(crate) fn run(
        &self,
        judge: &Judge<'_>,
        holds: &mut Holds,
        context: &Context<'_>,
    ) -> Result<CopySummary, CloneError> {
        let progress = Counters::with_max_rate(self.barman.transfer.max_rate);
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
                judge,
                reused: self.reused,
            };
            let wanted = |source: usize, index: usize| !self.reused.has(source, index);
            let options = wire_options(self.barman, context);
            let (host, listings) = (&*self.barman.host, &self.files.listings);
            watched(&progress, begun, holds, context, || {
                transfer(host, listings, &wanted, &options, &receiver, &progress)
            })?
        };
        if moved.without_python {
            context.tell(
                Remark::warning(
                    RemarkCode::WholeFiles,
                    "files that differ were fetched whole, not by blocks",
                )
                .detail(format!(
                    "python3 on \"{}\" is missing or does not work",
                    self.barman.host.name()
                )),
            );
        }
        Ok(CopySummary {
            files: self.files.total_files(),
            bytes: self.files.total_size(),
            reused_files: self.reused.files + moved.kept_files,
            reused_bytes: self.reused.bytes.saturating_add(moved.kept_bytes),
            wire_bytes: moved.wire_bytes,
            elapsed: started.elapsed(),
            jobs: moved.jobs,
            compression: moved.codec.map_or("", Codec::name).to_owned(),
            retries: moved.retries,
            ..CopySummary::empty()
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
        compression: options.compression.towards(&*barman.host),
        retries: options.retries.unwrap_or(defaults.retries),
        cancel: context.cancel.clone(),
        ..defaults
    }
}

/// sshd turns some away when more than ten log in at once.
const LOGINS_AT_ONCE: usize = 8;

/// How many sessions are of use for a clone: one for the hold, and those of the copy.
pub(crate) fn sessions(barman: &BarmanSource, context: &Context<'_>) -> usize {
    (1 + wire_options(barman, context).jobs.get()).min(LOGINS_AT_ONCE)
}

/// Takes files and has them judged.
struct Receiver<'a> {
    files: &'a Files,
    trees: Option<&'a Trees<'a>>,
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
        let tree = self.trees.map(|trees| trees.get(source));
        Ok(ReceivedFile {
            file: tree
                .map(|tree| open(tree, as_path(entry.path), spec))
                .transpose()?,
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
        let Some(trees) = self.trees else { return Ok(()) };
        for index in indexes {
            let entry = self.files.listings[source].get(*index);
            if !self.judge.rejects(&self.files.manifest_path(source, entry.path)) {
                let tree = trees.get(source);
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
        let Some(trees) = self.trees else { return Ok(None) };
        let file = trees.get(source).open_revisable(as_path(entry.path))?;
        Ok(file.map(|file| Box::new(file) as _))
    }

    fn revise(&self, source: usize, index: usize) -> Result<Box<dyn Revision + '_>, SinkError> {
        let file = self.begin(source, index, |tree, path, spec| tree.revise_file(path, spec))?;
        Ok(Box::new(file))
    }
}

/// A file on its way, under judgement.
pub(crate) struct ReceivedFile<'a> {
    /// Where it is written to, if it is.
    pub(crate) file: Option<TreeFile>,
    pub(crate) case: Case,
    pub(crate) judge: &'a Judge<'a>,
}

impl FileSink for ReceivedFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.case.update(bytes);
        match &mut self.file {
            Some(file) => Ok(file.write_all(bytes)?),
            None => Ok(()),
        }
    }

    fn copy(&mut self, from: &File, buffer: &mut [u8]) -> Result<Option<usize>, SinkError> {
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        let copied = file.copy_from(from, buffer)?;
        if let Some(length) = copied {
            self.case.update(&buffer[..length]);
        }
        Ok(copied)
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        self.judge.end(self.case);
        match self.file {
            Some(file) => Ok(file.finish()?),
            None => Ok(()),
        }
    }
}

impl Revision for ReceivedFile<'_> {
    fn keep(&mut self, length: u64) -> Result<(), SinkError> {
        let Self { file, case, .. } = self;
        // Nothing is kept of a file that is not here.
        let Some(file) = file else { return Ok(()) };
        match case.looks_at_bytes() {
            true => file.keep(length, &mut |bytes| case.update(bytes))?,
            false => file.skip(length)?,
        }
        Ok(())
    }
}
