//! The files of the backup into the data directory and its tablespaces, judged as they arrive.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use repmgr_barman::Hold;
use repmgr_datadir::{Existing, FileSpec, Kind, Tree, TreeError, TreeFile};
use repmgr_remote::Host;
use repmgr_transfer::{
    Codec, EntryKind, FileSink, Options, Progress as TransferProgress, Sink, SinkError, transfer,
};
use repmgr_verify::{FileCheck, Fork, PageCheck, PageRules, RelationFile};

use crate::barman::{BackupFiles, ServerParameters, as_path};
use crate::event::Event;
use crate::request::TransferOptions;
use crate::{CloneError, Context, CopySummary, Progress};

/// How often observers hear of the progress.
const TICK: Duration = Duration::from_millis(100);
/// How often the hold on the backup is looked after.
const HOLD_EVERY: Duration = Duration::from_secs(5);
/// More damages are counted, not listed.
const MAX_DAMAGES: usize = 50;
const MAX_BLOCKS: usize = 3;

/// Where the files go, in the order of the listings.
pub(crate) struct Trees<'a> {
    pub(crate) data: &'a Tree,
    pub(crate) tablespaces: &'a [Tree],
    pub(crate) wal: Option<&'a Tree>,
}

impl Trees<'_> {
    fn get(&self, source: usize) -> &Tree {
        match source {
            0 => self.data,
            n => &self.tablespaces[n - 1],
        }
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

    /// Files received whole by an interrupted clone: they have the announced size and time, which
    /// they get only when they are complete.
    pub(crate) fn find(source: &BackupFiles, trees: &Trees<'_>) -> Result<Self, TreeError> {
        let mut reused = Self::nothing();
        for (n, listing) in source.listings.iter().enumerate() {
            let tree = trees.get(n);
            let mut bits = Vec::with_capacity(listing.len());
            for entry in listing.iter() {
                let here = match entry.kind {
                    EntryKind::File => tree.metadata(as_path(entry.path))?.is_some_and(|here| {
                        here.kind == Kind::File && here.size == entry.size && here.modified == entry.modified
                    }),
                    _ => false,
                };
                if here {
                    reused.files += 1;
                    reused.bytes += entry.size;
                }
                bits.push(here);
            }
            reused.bits.push(bits);
        }
        Ok(reused)
    }

    fn has(&self, source: usize, index: usize) -> bool {
        self.bits.get(source).is_some_and(|bits| bits[index])
    }
}

/// Creates the directories of the backup, empty ones too.
pub(crate) fn create_directories(source: &BackupFiles, trees: &Trees<'_>) -> Result<(), TreeError> {
    for (n, listing) in source.listings.iter().enumerate() {
        for entry in listing.iter().filter(|entry| entry.kind == EntryKind::Directory) {
            let outside = n == 0 && trees.wal.is_some() && [&b"pg_wal"[..], b"pg_xlog"].contains(&entry.path);
            if !outside {
                trees.get(n).create_dir(as_path(entry.path))?;
            }
        }
    }
    Ok(())
}

/// What is to be copied, from where, to where.
pub(crate) struct Copy<'a> {
    pub(crate) host: &'a dyn Host,
    pub(crate) files: &'a BackupFiles,
    pub(crate) parameters: &'a ServerParameters,
    pub(crate) trees: &'a Trees<'a>,
    pub(crate) reused: &'a Reused,
    pub(crate) options: &'a TransferOptions,
}

impl Copy<'_> {
    /// Copies all files that are not here yet.
    pub(crate) fn run(&self, hold: Option<Hold>, context: &Context<'_>) -> Result<CopySummary, CloneError> {
        let receiver = Receiver {
            source: self.files,
            trees: self.trees,
            parameters: self.parameters,
            page_rules: self.parameters.page_rules(&self.files.backup),
            accept_damage: self.options.accept_damage,
            damages: Mutex::default(),
        };
        let progress = TransferProgress::default();
        let totals = Progress {
            files_done: 0,
            files_total: self.files.total_files(),
            bytes_done: 0,
            bytes_total: self.files.total_size(),
            bytes_reused: self.reused.bytes,
            wire_bytes: 0,
            elapsed: Duration::ZERO,
        };
        let started = Instant::now();
        let done = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            let watch = || watch(&progress, totals, self.reused, hold, started, &done, context);
            let ticker = scope.spawn(watch);
            let wanted = |source: usize, index: usize| !self.reused.has(source, index);
            let options = self.wire_options(context);
            let result = transfer(
                self.host,
                &self.files.listings,
                &wanted,
                &options,
                &receiver,
                &progress,
            );
            done.store(true, Ordering::Relaxed);
            ticker.thread().unpark();
            result
        });
        let moved = result?;
        let damages = receiver
            .damages
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        damages.report(self.options.accept_damage, context)?;
        Ok(CopySummary {
            files: totals.files_total,
            bytes: totals.bytes_total,
            reused_files: self.reused.files,
            reused_bytes: self.reused.bytes,
            wire_bytes: moved.wire_bytes,
            elapsed: started.elapsed(),
            verified: self.parameters.verified_by(),
            jobs: moved.jobs,
            compression: moved.codec.map_or("", Codec::name).to_owned(),
            retries: moved.retries,
        })
    }

    fn wire_options(&self, context: &Context<'_>) -> Options {
        let defaults = Options::default();
        Options {
            jobs: self.options.jobs.unwrap_or(defaults.jobs),
            compression: self.options.compression,
            retries: self.options.retries.unwrap_or(defaults.retries),
            cancel: context.cancel.clone(),
            ..defaults
        }
    }
}

impl ServerParameters {
    /// How the files are verified, in words.
    fn verified_by(&self) -> String {
        let mut ways = vec!["sizes".to_owned()];
        if self.manifest.is_some() {
            ways.push("backup_manifest checksums".to_owned());
        }
        if self.pages.is_some_and(|pages| pages.checksums) {
            ways.push("data page checksums".to_owned());
        }
        ways.join(", ")
    }
}

/// Tells of the progress and looks after the hold until the copy is done.
fn watch(
    progress: &TransferProgress,
    totals: Progress,
    reused: &Reused,
    mut hold: Option<Hold>,
    started: Instant,
    done: &AtomicBool,
    context: &Context<'_>,
) {
    let mut held_at = Instant::now();
    loop {
        let finished = done.load(Ordering::Relaxed);
        context.observer.progress(&Progress {
            files_done: progress.files() + reused.files,
            bytes_done: progress.bytes() + reused.bytes,
            wire_bytes: progress.wire_bytes(),
            elapsed: started.elapsed(),
            ..totals
        });
        if finished {
            return;
        }
        if held_at.elapsed() >= HOLD_EVERY {
            held_at = Instant::now();
            if let Some(error) = hold.as_mut().and_then(|hold| hold.check().err()) {
                // It is looked at again when the copy is done; until then nothing is wrong.
                context.observer.event(Event::Warning {
                    text: "the backup is no longer held against Barman's retention".to_owned(),
                    detail: Some(error.to_string()),
                    hint: None,
                });
                hold = None;
            }
        }
        thread::park_timeout(TICK);
    }
}

/// Takes files and judges them.
struct Receiver<'a> {
    source: &'a BackupFiles,
    trees: &'a Trees<'a>,
    parameters: &'a ServerParameters,
    page_rules: Option<PageRules>,
    accept_damage: bool,
    damages: Mutex<Damages>,
}

#[derive(Default)]
struct Damages {
    /// Each file once, though it may have arrived twice.
    files: BTreeSet<(usize, usize)>,
    lines: Vec<String>,
}

struct ReceivedFile<'a> {
    receiver: &'a Receiver<'a>,
    /// Listing and index.
    place: (usize, usize),
    file: TreeFile,
    path: PathBuf,
    recorded: Option<FileCheck>,
    pages: Option<PageCheck>,
}

impl Sink for Receiver<'_> {
    fn create(&self, source: usize, index: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
        let entry = self.source.listings[source].get(index);
        let spec = FileSpec {
            size: Some(entry.size),
            mode: entry.mode,
            // Set when the file is confirmed; until then its time says that it is not.
            modified: None,
            existing: Existing::Replace,
        };
        let file = self.trees.get(source).create_file(as_path(entry.path), spec)?;
        let path = self.source.manifest_path(source, entry.path);
        let recorded = self
            .parameters
            .manifest
            .as_ref()
            .and_then(|manifest| manifest.get(&path));
        Ok(Box::new(ReceivedFile {
            receiver: self,
            place: (source, index),
            file,
            path: as_path(&path).to_owned(),
            recorded: recorded.map(|entry| entry.check()),
            pages: self.page_check(&path),
        }))
    }

    fn confirm(&self, source: usize, indexes: &[usize]) -> Result<(), SinkError> {
        let tree = self.trees.get(source);
        for index in indexes {
            let entry = self.source.listings[source].get(*index);
            if !self.is_damaged(source, *index) {
                tree.set_modified(as_path(entry.path), entry.modified)?;
            }
        }
        Ok(())
    }
}

impl Receiver<'_> {
    /// Free space and visibility maps are left alone: PostgreSQL puts bad pages of them right by itself,
    /// and changes of the former are not in the WAL, so that a torn page is nothing special.
    fn page_check(&self, path: &[u8]) -> Option<PageCheck> {
        let fork = RelationFile::parse(path)?.fork;
        let rules = self
            .page_rules
            .filter(|_| matches!(fork, Fork::Main | Fork::Init))?;
        PageCheck::for_file(path, &rules)
    }

    /// A damaged file keeps the time of its arrival, so that no later run takes it for a good one.
    fn is_damaged(&self, source: usize, index: usize) -> bool {
        let damages = self.damages.lock().unwrap_or_else(PoisonError::into_inner);
        !self.accept_damage && damages.files.contains(&(source, index))
    }
}

impl FileSink for ReceivedFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        if let Some(recorded) = &mut self.recorded {
            recorded.update(bytes);
        }
        if let Some(pages) = &mut self.pages {
            pages.update(bytes);
        }
        Ok(self.file.write_all(bytes)?)
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        let mut faults = Vec::new();
        if let Some(Err(fault)) = self.recorded.map(FileCheck::finish) {
            faults.push(format!("by backup_manifest {fault}"));
        }
        if let Some(report) = self.pages.map(PageCheck::finish)
            && report.bad_pages > 0
        {
            let told: Vec<String> = report
                .bad
                .iter()
                .take(MAX_BLOCKS)
                .map(|page| format!("block {}: {}", page.block, page.fault))
                .collect();
            let more = report.bad_pages - told.len() as u64;
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            faults.push(format!("damaged pages: {}{more}", told.join(", ")));
        }
        if !faults.is_empty() {
            let line = format!("\"{}\": {}", self.path.display(), faults.join("; "));
            let mut damages = self
                .receiver
                .damages
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            damages.add(self.place, line);
        }
        Ok(self.file.finish()?)
    }
}

impl Damages {
    fn add(&mut self, place: (usize, usize), line: String) {
        if self.files.insert(place) && self.lines.len() < MAX_DAMAGES {
            self.lines.push(line);
        }
    }

    fn report(mut self, accept: bool, context: &Context<'_>) -> Result<(), CloneError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.lines.sort();
        let more = self.files.len() - self.lines.len();
        if more > 0 {
            self.lines.push(format!("and {more} more"));
        }
        if !accept {
            return Err(CloneError::Damaged {
                count: self.files.len(),
                damages: self.lines,
            });
        }
        context.observer.event(Event::Warning {
            text: "files of the backup failed verification and are accepted as they are".to_owned(),
            detail: Some(self.lines.join("\n")),
            hint: Some("check the standby with pg_amcheck, and take a new backup".to_owned()),
        });
        Ok(())
    }
}
