//! The process that runs ahead of replay.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use repmgr_types::{CancelToken, SystemId, Timeline, WalSegmentName, WalSegmentSize};

use crate::archive::{Archive, RunEnd};
use crate::cluster::Server;
use crate::deliver::{DirectoryFlush, FileError, Shelf, sweep};
use crate::receive::Received;
use crate::spool::{Answer, Call, CallKind, HeldSpool};
use crate::{Cluster, FetchError, Spool, WalFileName};

/// How a prefetcher behaves.
#[derive(Debug, Clone)]
pub struct PrefetchOptions {
    /// The segment delivered last; it begins behind it.
    pub delivered: WalSegmentName,
    /// The size of the cluster's segments.
    pub segment_size: WalSegmentSize,
    /// The cluster.
    pub system_id: SystemId,
    /// Segments to hold at most.
    pub max_segments: u32,
    /// Bytes to hold at most; one segment in any case.
    pub max_bytes: u64,
    /// It ends after so long without a call.
    pub idle: Duration,
}

/// Why a prefetcher ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefetchEnd {
    /// Another one serves this spool.
    AlreadyServed,
    /// Nobody called for the time allowed.
    Idle,
    /// The server, its data directory or the spool is gone.
    Deserted,
    /// The caller's token was cancelled.
    Cancelled,
}

/// How often the spool is looked at for a call.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often server and directories are looked at.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// How long a segment that was not in the archive is not asked for again on our own account.
const RETRY_MISSING: Duration = Duration::from_secs(2);
/// The same for an archive that could not be reached: doubled each time up to the second value.
const RETRY_FAILED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Segments being flushed at the same time: one alone does not keep a disk busy.
const FLUSHERS: usize = 3;
/// Segments asked for in one go: their names must fit into a command line.
const LONGEST_RUN: u64 = 64;
/// Of the file system a tenth is left to PostgreSQL, or this much if that is less.
const KEEP_FREE: u64 = 2 << 30;

/// Fetches the segments behind [`PrefetchOptions::delivered`] into the spool, follows the calls of
/// [`restore`](crate::restore), and returns when nobody needs it any more.
///
/// It never gives an answer that could end a recovery wrongly: "missing" only where the archive was
/// asked after the call came; after any other failure the caller has to try himself.
///
/// `open` makes the archive. It gets a child of `cancel`, which ends a transfer when nobody waits for it
/// any more: given to the archive's host, it ends connecting as well. The caller's own token is only looked
/// at, so that other work may share it.
///
/// # Errors
/// If the archive cannot be opened, or the spool cannot be used. The archive's failures from then on are
/// not errors here.
pub fn prefetch(
    open: impl FnOnce(&CancelToken) -> Result<Archive, FetchError>,
    spool: Spool,
    cluster: &Cluster,
    options: PrefetchOptions,
    cancel: &CancelToken,
) -> Result<PrefetchEnd, FetchError> {
    let own = cancel.child();
    let mut archive = open(&own)?;
    let Some(held) = HeldSpool::hold(spool, options.system_id)? else {
        return Ok(PrefetchEnd::AlreadyServed);
    };
    // An unfinished segment must not lie ready until it has become a whole one.
    archive.only_whole_segments();
    archive.expect_segments_of(options.segment_size);
    // For a host that many share, and that has another token.
    archive.cancel_by(own.clone());
    sweep(held.spool.dir());
    let server = Arc::new(Server::of(cluster));
    let now = Instant::now();
    let mut prefetcher = Prefetcher {
        shelf: Shelf::of(held.spool.dir(), Arc::clone(&server)),
        cancelled: cancel.clone(),
        deserted: own.clone(),
        archive,
        position: options.delivered,
        called: now,
        seen: String::new(),
        not_before: now,
        backoff: RETRY_FAILED.0,
        stuck_at: None,
        held,
        options,
    };
    let lock = prefetcher.held.lock_path();
    let watch = Watch::new(cluster, server, lock);
    let end = thread::scope(|scope| {
        let (running, ended) = channel::<()>();
        let watch = &watch;
        scope.spawn(move || {
            while ended.recv_timeout(CHECK_EVERY) == Err(RecvTimeoutError::Timeout) {
                if watch.is_deserted() {
                    own.cancel();
                }
            }
        });
        let end = prefetcher.run();
        drop(running);
        end
    });
    // pg_rewind fails on a file that it has seen and that is gone when it wants to remove it. What is left is
    // used or removed when the server runs again.
    if !prefetcher.shelf.is_closed() {
        prefetcher.held.spool.clear();
    }
    Ok(end?)
}

struct Prefetcher {
    archive: Archive,
    /// The spool's directory.
    shelf: Shelf,
    held: HeldSpool,
    options: PrefetchOptions,
    /// The caller's.
    cancelled: CancelToken,
    /// Ours; a child of it.
    deserted: CancelToken,
    /// What the caller had last.
    position: WalSegmentName,
    called: Instant,
    /// The last call answered.
    seen: String,
    /// When to ask the archive again after it had nothing, or was not there.
    not_before: Instant,
    backoff: Duration,
    /// A segment that was refused: nothing behind it is of use.
    stuck_at: Option<WalSegmentName>,
}

impl Prefetcher {
    fn run(&mut self) -> Result<PrefetchEnd, FileError> {
        self.forget_others(self.position.timeline())?;
        loop {
            if let Some(call) = self.held.call(&self.seen) {
                self.seen.clone_from(&call.token);
                self.called = Instant::now();
                self.serve(&call)?;
                continue;
            }
            if self.cancelled.is_cancelled() {
                return Ok(PrefetchEnd::Cancelled);
            }
            if self.called.elapsed() > self.options.idle {
                return Ok(PrefetchEnd::Idle);
            }
            if self.deserted.is_cancelled() || !self.held.is_there() {
                return Ok(PrefetchEnd::Deserted);
            }
            let run = self.wanted_ahead()?;
            if run.is_empty() {
                sleep(LOOK_EVERY);
            } else {
                self.run_ahead(&run)?;
            }
        }
    }

    fn serve(&mut self, call: &Call) -> Result<(), FileError> {
        match (call.what, call.name) {
            (CallKind::Took, WalFileName::Segment(name)) => self.move_to(name),
            (CallKind::Took, _) => Ok(()),
            (CallKind::Want, name) => {
                if self.held.spool.path(name).exists() {
                    return Ok(());
                }
                let answer = match self.archive.fetch(name, &self.shelf) {
                    Ok(received) => {
                        self.succeeded();
                        let path = self.held.spool.path(name);
                        if let Err(error) = received.file.publish(&path, DirectoryFlush::No) {
                            return self.no_room(error);
                        }
                        if let WalFileName::Segment(name) = name {
                            // The caller has it in a moment; what follows is not there yet.
                            self.stuck_at = None;
                            self.forget_others(name.timeline())?;
                            self.position = name;
                        }
                        return Ok(());
                    }
                    Err(FetchError::NotInArchive { .. }) => Answer::Missing,
                    Err(FetchError::File(error)) => return self.no_room(error),
                    Err(error) => {
                        self.failed(&error);
                        Answer::Unknown
                    }
                };
                // Else nobody waits for it any more.
                if self.shelf.is_closed() {
                    Ok(())
                } else {
                    self.held.reply(call, answer)
                }
            }
        }
    }

    fn move_to(&mut self, name: WalSegmentName) -> Result<(), FileError> {
        if name.timeline() != self.position.timeline() {
            self.forget_others(name.timeline())?;
        }
        self.position = name;
        self.not_before = self.not_before.min(Instant::now() + RETRY_MISSING);
        let size = self.options.segment_size;
        self.held.remove(|file| match file {
            WalFileName::Segment(ready) => ready.number(size) <= name.number(size),
            _ => true,
        })
    }

    /// Removes what no run on `timeline` from here will ask for.
    fn forget_others(&self, timeline: Timeline) -> Result<(), FileError> {
        self.held.remove(|file| match file {
            WalFileName::Segment(ready) => ready.timeline() != timeline,
            _ => false,
        })
    }

    /// The next segments there is room for; none while it is too early to ask, or too few to be
    /// worth a round trip.
    fn wanted_ahead(&self) -> Result<Vec<WalSegmentName>, FileError> {
        let size = self.options.segment_size;
        let most =
            (self.options.max_bytes / size.bytes()).clamp(1, u64::from(self.options.max_segments.max(1)));
        let ready = self.held.segments()?;
        let mut next = self.position.next(size);
        let mut held = 0;
        while ready.contains(&next) {
            next = next.next(size);
            held += 1;
        }
        let room = most
            .saturating_sub(held)
            .min(self.room_on_disk(size))
            .min(LONGEST_RUN);
        let worth_it = room > most / 8;
        if Instant::now() < self.not_before || Some(next) == self.stuck_at || !worth_it {
            return Ok(Vec::new());
        }
        let mut run = Vec::new();
        for _ in 0..room {
            run.push(next);
            next = next.next(size);
        }
        Ok(run)
    }

    /// Segments that fit while enough of the file system stays free for PostgreSQL.
    fn room_on_disk(&self, size: WalSegmentSize) -> u64 {
        let Ok(fs) = rustix::fs::statvfs(self.held.spool.dir()) else {
            return 0;
        };
        let keep = (fs.f_blocks * fs.f_frsize / 10).min(KEEP_FREE);
        fs.f_bavail.saturating_mul(fs.f_frsize).saturating_sub(keep) / size.bytes()
    }

    fn run_ahead(&mut self, run: &[WalSegmentName]) -> Result<(), FileError> {
        let (archive, held, shelf) = (&mut self.archive, &self.held, &self.shelf);
        let spool = &held.spool;
        // Flushed by others, several at a time, while the next segments come.
        let result = thread::scope(|scope| {
            let (to_flush, flushing) = sync_channel::<(WalSegmentName, Received)>(1);
            // Held by the flushers alone: when all have failed, there is nobody to send to.
            let flushing = Arc::new(Mutex::new(flushing));
            let flushers = [(); FLUSHERS].map(|()| {
                let flushing = Arc::clone(&flushing);
                scope.spawn(move || flush(&flushing, spool))
            });
            drop(flushing);
            // Whoever removes the spool must not find new files in it again and again.
            let mut keep = |name, received| held.is_there() && to_flush.send((name, received)).is_ok();
            let result = archive.fetch_run(run, shelf, &mut keep);
            drop(to_flush);
            for flusher in flushers {
                flusher.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            }
            result
        });
        match result {
            Ok(RunEnd::Complete) => self.succeeded(),
            Ok(RunEnd::Missing(_)) => {
                self.succeeded();
                self.not_before = Instant::now() + RETRY_MISSING;
            }
            Ok(RunEnd::Refused(name)) => self.stuck_at = Some(name),
            Err(FetchError::File(error)) => return self.no_room(error),
            Err(error) => self.failed(&error),
        }
        Ok(())
    }

    fn succeeded(&mut self) {
        self.backoff = RETRY_FAILED.0;
        self.held.spool.forget_silence();
    }

    fn failed(&mut self, error: &FetchError) {
        log::debug!("{error}");
        self.not_before = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(RETRY_FAILED.1);
    }

    /// A full disk is no reason to go, and none to try at once again.
    fn no_room(&mut self, error: FileError) -> Result<(), FileError> {
        if self.shelf.is_closed() {
            self.deserted.cancel();
            return Ok(());
        }
        if error.source.kind() != std::io::ErrorKind::StorageFull {
            return Err(error);
        }
        self.failed(&FetchError::File(error));
        Ok(())
    }
}

/// Gives whole segments their names in the spool, until there are no more.
fn flush(segments: &Mutex<Receiver<(WalSegmentName, Received)>>, spool: &Spool) -> Result<(), FileError> {
    let next = || segments.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok((name, received)) = next() {
        received
            .file
            .publish(&spool.path(name.into()), DirectoryFlush::No)?;
    }
    Ok(())
}

/// Whether those we work for are still there.
struct Watch<'c> {
    cluster: &'c Cluster,
    server: Arc<Server>,
    wal_dir: Option<(u64, u64)>,
    lock: PathBuf,
}

impl<'c> Watch<'c> {
    fn new(cluster: &'c Cluster, server: Arc<Server>, lock: PathBuf) -> Self {
        Self {
            cluster,
            server,
            wal_dir: identity(cluster.wal_dir()),
            lock,
        }
    }

    fn is_deserted(&self) -> bool {
        let directory_gone = self.wal_dir.is_none() || identity(self.cluster.wal_dir()) != self.wal_dir;
        // Somebody is removing the spool, perhaps with all that is around it.
        self.server.is_gone() || directory_gone || !self.lock.exists()
    }
}

fn identity(dir: &Path) -> Option<(u64, u64)> {
    fs::metadata(dir).map(|m| (m.dev(), m.ino())).ok()
}
