//! The tar files of a backup, unpacked on the way into the data directory and its tablespaces.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use repmgr_datadir::{
    CopyRule, Existing, FileSpec, Kind, PG_CONTROL, PG_CONTROL_SIZE, Tree, copy_rule, tablespace_copy_rule,
};
use repmgr_transfer::{
    ArchiveMember, Counters, EntryKind, FileSink, MemberSink, Options, SinkError, TransferError, unpack,
};

use crate::copy::files::{ReceivedFile, wire_options};
use crate::copy::judge::Judge;
use crate::copy::threads::on_threads;
use crate::copy::watch::watched;
use crate::request::BarmanSource;
use crate::source::backup::{Archive, Archives, ServerParameters, as_path, expected, manifest_path};
use crate::source::hold::Holds;
use crate::trees::Trees;
use crate::{CloneError, Context, CopySummary, ErrorKind, Progress};

/// What is to be unpacked, and where to.
pub(crate) struct Unpack<'a> {
    pub(crate) barman: &'a BarmanSource,
    /// Where the archives lie.
    pub(crate) directory: String,
    pub(crate) archives: &'a Archives,
    pub(crate) parameters: &'a ServerParameters,
    /// Without them the files are only judged.
    pub(crate) trees: Option<&'a Trees<'a>>,
    /// An interrupted clone is continued: its files may be here already.
    pub(crate) resumed: bool,
    /// What was done before, and how much there is in all.
    pub(crate) base: Progress,
}

/// What the workers found, together.
#[derive(Default)]
struct Gains {
    control: Option<Vec<u8>>,
    /// Files as a manifest names them.
    seen: HashSet<Vec<u8>>,
    files: u64,
    bytes: u64,
    reused_files: u64,
    reused_bytes: u64,
}

impl Unpack<'_> {
    /// Unpacks all archives, several at once; the control file, which is kept back, and the figures.
    pub(crate) fn run(
        &self,
        judge: &Judge<'_>,
        holds: &mut Holds,
        context: &Context<'_>,
    ) -> Result<(Option<Vec<u8>>, CopySummary), CloneError> {
        let progress = Counters::with_max_rate(self.barman.transfer.max_rate);
        let started = Instant::now();
        let options = Options {
            cancel: context.cancel.child(),
            ..wire_options(self.barman, context)
        };
        let jobs = self.archives.sessions(&options);
        let gains = Mutex::new(Gains::default());
        let retries = AtomicU32::new(0);
        watched(&progress, self.base, holds, context, || {
            let work = Work {
                unpack: self,
                judge,
                options: &options,
                progress: &progress,
                gains: &gains,
                retries: &retries,
                next: AtomicUsize::new(0),
            };
            on_threads(jobs, || work.until_done())
                .into_iter()
                .fold(Ok(()), first_cause)
        })?;
        let gains = gains.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(manifest) = &self.parameters.manifest {
            for (path, _) in expected(manifest).filter(|(path, _)| !gains.seen.contains(path)) {
                judge.missing(path);
            }
        }
        let summary = CopySummary {
            files: gains.files + gains.reused_files,
            bytes: gains.bytes.saturating_add(gains.reused_bytes),
            reused_files: gains.reused_files,
            reused_bytes: gains.reused_bytes,
            wire_bytes: progress.wire_bytes(),
            elapsed: started.elapsed(),
            jobs,
            compression: self.archives.codec.name().to_owned(),
            retries: retries.into_inner(),
            ..CopySummary::empty()
        };
        Ok((gains.control, summary))
    }
}

/// The error that made the others stop, not one of theirs.
fn first_cause(all: Result<(), CloneError>, one: Result<(), CloneError>) -> Result<(), CloneError> {
    match (all, one) {
        (Ok(()), one) => one,
        (Err(stopped), Err(cause)) if stopped.kind() == ErrorKind::Interrupted => Err(cause),
        (all, _) => all,
    }
}

/// What the workers share.
struct Work<'a> {
    unpack: &'a Unpack<'a>,
    judge: &'a Judge<'a>,
    options: &'a Options,
    progress: &'a Counters,
    gains: &'a Mutex<Gains>,
    retries: &'a AtomicU32,
    next: AtomicUsize,
}

impl Work<'_> {
    /// Takes one archive after the other; the one of the data directory is the first.
    fn until_done(&self) -> Result<(), CloneError> {
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(archive) = self.unpack.archives.all.get(n) else {
                return Ok(());
            };
            let tree = self.unpack.trees.map(|trees| trees.get(n));
            if let Err(error) = self.with_retries(archive, tree) {
                // What the others bring is of no use any more.
                self.options.cancel.cancel();
                return Err(error);
            }
        }
    }

    fn with_retries(&self, archive: &Archive, tree: Option<&Tree>) -> Result<(), CloneError> {
        let mut pause = self.options.retry_pause;
        let mut attempts = 0;
        loop {
            match self.one(archive, tree) {
                Err(error) if error.is_transient() && attempts < self.options.retries => {
                    log::debug!("archive {}: {error}; trying again", archive.name);
                    attempts += 1;
                    self.retries.fetch_add(1, Ordering::Relaxed);
                    let until = Instant::now() + pause;
                    while Instant::now() < until {
                        self.options.cancel.check()?;
                        thread::sleep(Duration::from_millis(50));
                    }
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
                done => return Ok(done?),
            }
        }
    }

    fn one(&self, archive: &Archive, tree: Option<&Tree>) -> Result<(), TransferError> {
        let host = &*self.unpack.barman.host;
        let mut connection = host.connect().map_err(|source| TransferError::Connect {
            attempts: 1,
            source: Box::new(source),
        })?;
        let mut receiver = Receiver {
            archive,
            tree,
            judge: self.judge,
            resumed: self.unpack.resumed,
            received: Vec::new(),
            reused: Vec::new(),
            control: Vec::new(),
        };
        let directory = &self.unpack.directory;
        let codec = self.unpack.archives.codec;
        let (files, bytes) = unpack(
            &mut *connection,
            directory,
            &archive.name,
            codec,
            self.options,
            &mut receiver,
            self.progress,
        )?;
        receiver.confirm().map_err(|source| TransferError::Malformed {
            host: host.name().to_owned(),
            directory: format!("{directory}/{}", archive.name),
            reason: source.to_string(),
        })?;
        let mut gains = self.gains.lock().unwrap_or_else(PoisonError::into_inner);
        gains.files += files;
        gains.bytes = gains.bytes.saturating_add(bytes);
        if !receiver.control.is_empty() {
            gains.control = Some(receiver.control);
        }
        for (path, size) in receiver.reused {
            gains.reused_files += 1;
            gains.reused_bytes = gains.reused_bytes.saturating_add(size);
            gains.seen.insert(manifest_path(archive.tablespace, &path));
        }
        let received = receiver.received.into_iter();
        gains
            .seen
            .extend(received.map(|(path, _)| manifest_path(archive.tablespace, &path)));
        Ok(())
    }
}

/// Takes the members of one archive.
struct Receiver<'a> {
    archive: &'a Archive,
    tree: Option<&'a Tree>,
    judge: &'a Judge<'a>,
    resumed: bool,
    /// Path and time of what was written.
    received: Vec<(Vec<u8>, SystemTime)>,
    /// Path and size of what was here.
    reused: Vec<(Vec<u8>, u64)>,
    control: Vec<u8>,
}

impl Receiver<'_> {
    /// The archive is whole: from now on its files count as good.
    fn confirm(&self) -> Result<(), repmgr_datadir::TreeError> {
        let Some(tree) = self.tree else { return Ok(()) };
        for (path, modified) in &self.received {
            if !self.judge.rejects(&manifest_path(self.archive.tablespace, path)) {
                tree.set_modified(as_path(path), *modified)?;
            }
        }
        Ok(())
    }

    fn is_here(&self, member: &ArchiveMember<'_>) -> Result<bool, SinkError> {
        let here = match self.tree {
            Some(tree) => tree.metadata(as_path(member.path))?,
            None => None,
        };
        Ok(here.is_some_and(|here| {
            here.kind == Kind::File && here.size == member.size && here.modified == member.modified
        }))
    }
}

impl MemberSink for Receiver<'_> {
    fn member(&mut self, member: &ArchiveMember<'_>) -> Result<Option<Box<dyn FileSink + '_>>, SinkError> {
        let rule = match self.archive.tablespace {
            Some(_) => tablespace_copy_rule,
            None => copy_rule,
        };
        let is_dir = member.kind == EntryKind::Directory;
        // Verified when it was read before the copy.
        if self.archive.tablespace.is_none() && member.path == b"backup_manifest" {
            return Ok(None);
        }
        match rule(member.path, is_dir) {
            CopyRule::Copy | CopyRule::DirOnly if is_dir => {
                // A WAL directory outside is linked already, and an archive has no more of it than its name.
                if let Some(tree) = self.tree
                    && tree
                        .metadata(as_path(member.path))?
                        .is_none_or(|here| here.kind != Kind::Symlink)
                {
                    tree.create_dir(as_path(member.path))?;
                }
                Ok(None)
            }
            CopyRule::Last if member.size == PG_CONTROL_SIZE as u64 => {
                self.control.clear();
                Ok(Some(Box::new(ControlFile(&mut self.control))))
            }
            CopyRule::Last => Err(format!("{PG_CONTROL} has {} bytes", member.size).into()),
            CopyRule::Copy if member.kind == EntryKind::File => {
                if self.resumed && self.is_here(member)? {
                    self.reused.push((member.path.to_vec(), member.size));
                    return Ok(None);
                }
                // Its time is set when the whole archive is known to be good.
                let spec = FileSpec {
                    size: Some(member.size),
                    mode: member.mode,
                    modified: None,
                    existing: Existing::Replace,
                };
                let file = self.tree.map(|tree| tree.create_file(as_path(member.path), spec));
                let file = file.transpose()?;
                self.received.push((member.path.to_vec(), member.modified));
                Ok(Some(Box::new(ReceivedFile {
                    file,
                    case: self
                        .judge
                        .begin(manifest_path(self.archive.tablespace, member.path)),
                    judge: self.judge,
                })))
            }
            _ => Ok(None),
        }
    }
}

/// Kept in memory until everything else is on disk.
struct ControlFile<'a>(&'a mut Vec<u8>);

impl FileSink for ControlFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}
