//! Segments fetched ahead, in a directory that one prefetcher fills and any caller takes from.
//!
//! The two talk through small files, each replaced by rename: `caller` holds the last call, `answer`
//! what became of it. A segment has its own name once it is whole, checked and flushed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use repmgr_types::{SystemId, WalSegmentName};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::geteuid;

use crate::check::{HEADER_LEN, SegmentHeader, check_segment_header};
use crate::deliver::{DirectoryFlush, FileError, directory_of, rename};
use crate::{Cluster, WalFileName};

/// The spool's directory in `pg_wal`: the file system of the destination, so that delivery is a
/// rename; what lies there is in no base backup, and PostgreSQL looks only at names of WAL files.
const DIRECTORY: &str = "repmgr_spool";
const LOCK: &str = "lock";
const CALLER: &str = "caller";
const ANSWER: &str = "answer";
const SYSTEM_ID: &str = "system_id";

/// The spool of one cluster and one archive.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: PathBuf,
    system_id: Option<SystemId>,
    /// Where the spools of this cluster are unless a place is given: none of another lies there.
    own_place: PathBuf,
}

/// A call as the prefetcher sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) token: String,
    pub(crate) what: CallKind,
    pub(crate) name: WalFileName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// It was not in the spool: fetch it now.
    Want,
    /// It was had, from the spool or elsewhere: go on behind it.
    Took,
}

/// What became of a wanted file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The archive does not hold it.
    Missing,
    /// It cannot be told; whoever asked should try himself, and will see why.
    Unknown,
}

/// What asking the prefetcher gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Taken(Option<SegmentHeader>),
    Missing,
    /// No answer, or none that counts.
    Unknown,
}

impl Spool {
    /// The spool for an archive that `key` names in full (host, server, and all that leads there),
    /// below `dir`, or in the WAL directory of the cluster. Touches nothing yet.
    pub fn new(dir: Option<&Path>, cluster: &Cluster, system_id: Option<SystemId>, key: &[&str]) -> Self {
        let mut hash = Fnv::new();
        for part in key {
            hash.add(part.as_bytes());
        }
        // Two standbys of one cluster on this host must not share a directory given by hand.
        if let Ok(found) = fs::metadata(cluster.wal_dir()) {
            hash.add(&found.dev().to_ne_bytes());
            hash.add(&found.ino().to_ne_bytes());
        }
        let name = match system_id {
            Some(id) => format!("{id}-{:016x}", hash.0),
            None => format!("any-{:016x}", hash.0),
        };
        let own_place = cluster.wal_dir().join(DIRECTORY);
        Self {
            dir: dir.unwrap_or(&own_place).join(name),
            system_id,
            own_place,
        }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, name: WalFileName) -> PathBuf {
        self.dir.join(name.to_string())
    }

    /// Whether nobody else can put files here: a directory in `/var/tmp` may be somebody's who knows
    /// the name to expect.
    pub(crate) fn is_private(&self) -> bool {
        let foreign = |m: fs::Metadata| !m.is_dir() || m.uid() != geteuid().as_raw() || m.mode() & 0o022 != 0;
        fs::symlink_metadata(&self.dir).is_ok_and(|m| !foreign(m))
    }

    /// Makes its directory, which nobody else can put files into.
    pub(crate) fn make(&self) -> Result<(), FileError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(FileError::new("create", &self.dir))?;
        if self.is_private() {
            return Ok(());
        }
        let open = io::Error::new(
            io::ErrorKind::PermissionDenied,
            "others own it or can write to it",
        );
        Err(FileError::new("use", &self.dir)(open))
    }

    /// Moves a file to `destination` if it is here and still what it was.
    pub(crate) fn take(&self, name: WalFileName, destination: &Path) -> Result<Asked, FileError> {
        let path = self.path(name);
        let Some(mut file) = open_regular(&path) else {
            return Ok(Asked::Unknown);
        };
        if !self.is_private() {
            log::debug!("\"{}\" is open to others; it is not used", self.dir.display());
            return Ok(Asked::Unknown);
        }
        let header = match name {
            WalFileName::Segment(segment) => match self.check(segment, &mut file) {
                Some(header) => Some(header),
                None => {
                    log::debug!("\"{}\" is damaged; it is removed", path.display());
                    let _ = fs::remove_file(&path);
                    return Ok(Asked::Unknown);
                }
            },
            _ => None,
        };
        move_file(file, &path, destination)?;
        Ok(Asked::Taken(header))
    }

    /// The cheap part of the checks the file passed when it was put here.
    fn check(&self, segment: WalSegmentName, file: &mut File) -> Option<SegmentHeader> {
        let expected = match self.system_id {
            Some(id) => Some(id),
            // Only what this spool's prefetcher has seen proves that the file is of one cluster.
            None => Some(read_small(&self.dir.join(SYSTEM_ID))?.trim().parse().ok()?),
        };
        let mut first = [0; HEADER_LEN];
        file.read_exact(&mut first).ok()?;
        let header = check_segment_header(segment, &first, expected).ok()?;
        let size = file.metadata().ok()?.len();
        (size == header.segment_size.bytes()).then_some(header)
    }

    /// Whether a prefetcher serves it.
    pub(crate) fn is_served(&self) -> bool {
        let Some(file) = open_regular(&self.dir.join(LOCK)) else {
            return false;
        };
        // Given up with the file at the end of this function.
        let locked =
            flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK);
        locked && self.is_private()
    }

    /// Tells the prefetcher how far the caller is. Best effort: without, it is slower, not wrong.
    pub(crate) fn tell(&self, what: CallKind, name: WalFileName) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let token = format!("{}-{}-{count}", std::process::id(), since.as_nanos());
        let word = match what {
            CallKind::Want => "want",
            CallKind::Took => "took",
        };
        if let Err(error) = self.put(CALLER, &format!("{token} {word} {name}\n")) {
            log::debug!("{error}");
        }
        token
    }

    /// What the prefetcher has got so far, to see whether it gets on.
    fn progress(&self) -> u64 {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|e| Some(e.metadata().ok()?.len())).sum()
    }

    /// Asks the prefetcher for a file and waits for it, until nothing has come for `limit`.
    pub(crate) fn ask(
        &self,
        name: WalFileName,
        destination: &Path,
        limit: Duration,
    ) -> Result<Asked, FileError> {
        let token = self.tell(CallKind::Want, name);
        let (mut progress, mut moved) = (0, Instant::now());
        let mut pause = Duration::from_millis(1);
        let mut looked = Instant::now();
        while moved.elapsed() < limit {
            // The answer first: the file is there before an answer says so.
            let answer = self.answer(&token);
            let found = self.take(name, destination)?;
            if let Asked::Taken(_) = found {
                return Ok(found);
            }
            match answer {
                Some(Answer::Missing) => return Ok(Asked::Missing),
                Some(Answer::Unknown) => return Ok(Asked::Unknown),
                None => {}
            }
            if looked.elapsed() > Duration::from_millis(100) {
                looked = Instant::now();
                if !self.is_served() {
                    break;
                }
                let now = self.progress();
                if now != progress {
                    (progress, moved) = (now, Instant::now());
                }
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
        Ok(Asked::Unknown)
    }

    fn answer(&self, token: &str) -> Option<Answer> {
        let text = read_small(&self.dir.join(ANSWER))?;
        match text.strip_prefix(token)?.trim() {
            "missing" => Some(Answer::Missing),
            "unknown" => Some(Answer::Unknown),
            _ => None,
        }
    }

    /// Replaces a small file.
    pub(crate) fn put(&self, name: &str, text: &str) -> Result<(), FileError> {
        let path = self.dir.join(name);
        let new = self.dir.join(format!("{name}.{}", std::process::id()));
        // Never what lies under that name already: it may be a pipe, or a link.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&new)
            .map_err(FileError::new("create", &new))?;
        io::Write::write_all(&mut file, text.as_bytes()).map_err(FileError::new("write", &new))?;
        rename(&new, &path)
    }
}

/// What is left over.
impl Spool {
    /// Removes spools that came here with a copy of another server, or by `pg_rewind`, or that nobody serves any
    /// more: each is used under the name of its directory and archive, so nobody else would. Best effort.
    pub(crate) fn sweep_others(&self) {
        for entry in fs::read_dir(&self.own_place).into_iter().flatten().flatten() {
            let dir = entry.path();
            let is_spool = entry.file_name().to_str().is_some_and(is_spool_name);
            if !is_spool || dir == self.dir {
                continue;
            }
            let other = Self { dir, ..self.clone() };
            // One that remembers something may be of a second archive.
            if other.silence().is_none()
                && let Some(_lock) = other.drop_rests()
            {
                let _ = fs::remove_file(other.dir.join(LOCK));
                let _ = fs::remove_dir(&other.dir);
            }
        }
    }

    /// Removes what a prefetcher left behind, unless one is at work; the lock, if this was done.
    pub(crate) fn drop_rests(&self) -> Option<Option<File>> {
        if !self.is_private() {
            return None;
        }
        let lock = open_regular(&self.dir.join(LOCK));
        if let Some(lock) = &lock {
            flock(lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        }
        self.clear();
        Some(lock)
    }

    /// Removes everything but the lock file, which others may be looking at.
    pub(crate) fn clear(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name() != LOCK {
                // The next prefetcher tries again.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The spool as its one prefetcher has it.
#[derive(Debug)]
pub(crate) struct HeldSpool {
    pub(crate) spool: Spool,
    lock: File,
}

impl HeldSpool {
    /// Makes the spool's directory and locks it; `None` when another prefetcher has it.
    pub(crate) fn hold(spool: Spool, system_id: SystemId) -> Result<Option<Self>, FileError> {
        spool.make()?;
        let path = spool.dir.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // A pipe in its place would hold us up; the directory is private by now, but may not have been.
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(&path)
            .map_err(FileError::new("open", &path))?;
        // A caller that looks whether the spool is served holds the lock for some microseconds.
        let mut attempts = 3;
        while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            attempts -= 1;
            match error {
                rustix::io::Errno::WOULDBLOCK if attempts == 0 => return Ok(None),
                rustix::io::Errno::WOULDBLOCK => sleep(Duration::from_millis(20)),
                error => return Err(FileError::new("lock", &path)(error.into())),
            }
        }
        let held = Self { spool, lock };
        held.spool.put(SYSTEM_ID, &format!("{system_id}\n"))?;
        Ok(Some(held))
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.spool.dir.join(LOCK)
    }

    /// Whether the directory is still the one that was locked.
    pub(crate) fn is_there(&self) -> bool {
        let own = self.lock.metadata().map(|m| (m.dev(), m.ino()));
        let named = fs::metadata(self.lock_path()).map(|m| (m.dev(), m.ino()));
        matches!((own, named), (Ok(own), Ok(named)) if own == named)
    }

    /// The last call, if it is another than `seen`.
    pub(crate) fn call(&self, seen: &str) -> Option<Call> {
        let text = read_small(&self.spool.dir.join(CALLER))?;
        let mut words = text.split_whitespace();
        let token = words.next().filter(|token| *token != seen)?;
        let what = match words.next()? {
            "want" => CallKind::Want,
            "took" => CallKind::Took,
            _ => return None,
        };
        Some(Call {
            token: token.to_owned(),
            what,
            name: words.next()?.parse().ok()?,
        })
    }

    pub(crate) fn reply(&self, call: &Call, answer: Answer) -> Result<(), FileError> {
        let word = match answer {
            Answer::Missing => "missing",
            Answer::Unknown => "unknown",
        };
        self.spool.put(ANSWER, &format!("{} {word}\n", call.token))
    }

    /// The segments that are ready.
    pub(crate) fn segments(&self) -> Result<Vec<WalSegmentName>, FileError> {
        let entries = fs::read_dir(&self.spool.dir).map_err(FileError::new("list", &self.spool.dir))?;
        let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
        Ok(names.filter_map(|n| WalSegmentName::from_str(&n).ok()).collect())
    }

    /// Removes files by name. What is not there was taken meanwhile.
    pub(crate) fn remove(&self, unwanted: impl Fn(WalFileName) -> bool) -> Result<(), FileError> {
        let entries = fs::read_dir(&self.spool.dir).map_err(FileError::new("list", &self.spool.dir))?;
        for entry in entries.flatten() {
            let name = entry.file_name().into_string().ok().and_then(|n| n.parse().ok());
            if name.is_some_and(&unwanted) {
                let path = entry.path();
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(FileError::new("remove", &path)(e));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Opens a file of a directory that may be somebody else's: no pipe that would hold us up, and no link that
/// leads elsewhere.
pub(crate) fn open_regular(path: &Path) -> Option<File> {
    // Looked at first: opening a device can have effects.
    fs::symlink_metadata(path).ok().filter(|m| m.is_file())?;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path)
        .ok()?;
    file.metadata().is_ok_and(|m| m.is_file()).then_some(file)
}

/// One of the small files by which caller and prefetcher talk.
fn read_small(path: &Path) -> Option<String> {
    const LONGEST: u64 = 4096;
    let mut text = String::new();
    open_regular(path)?.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// By rename, or as a flushed copy where the spool is on another file system.
fn move_file(mut file: File, from: &Path, to: &Path) -> Result<(), FileError> {
    use crate::deliver::NewFile;
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
        result => {
            result.map_err(FileError::new("rename a file to", to))?;
            return flush_for(to).apply(to);
        }
    }
    let mut copy = NewFile::create(&directory_of(to).into(), "copy")?;
    io::Seek::rewind(&mut file).map_err(FileError::new("read", from))?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => copy.write(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(FileError::new("read", from)(e)),
        }
    }
    copy.publish(to, flush_for(to))?;
    // Else the prefetcher removes it with the ones behind us.
    let _ = fs::remove_file(from);
    Ok(())
}

/// PostgreSQL makes the names durable itself where it asks for a file under one of its own.
pub(crate) fn flush_for(destination: &Path) -> DirectoryFlush {
    if is_recovery_file(destination) {
        DirectoryFlush::No
    } else {
        DirectoryFlush::Yes
    }
}

/// As [`Spool::new`] makes them.
fn is_spool_name(name: &str) -> bool {
    name.split_once('-').is_some_and(|(id, hash)| {
        let known = id == "any" || id.parse::<SystemId>().is_ok();
        known && hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// Whether a server in recovery asks, and not `pg_rewind` or a person.
pub fn is_recovery_file(destination: &Path) -> bool {
    destination
        .file_name()
        .is_some_and(|name| name == "RECOVERYXLOG" || name == "RECOVERYHISTORY")
}

/// The 64-bit FNV-1a hash: short names for long keys, the same in every build.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        // The length first, so that the parts cannot run together.
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn a_pipe_or_a_link_in_the_spool_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("pg_wal");
        let destination = wal.join("RECOVERYXLOG");
        let spool = Spool::new(None, &Cluster::of_destination(&destination), None, &["host"]);
        let name: WalFileName = "000000010000000000000003".parse().unwrap();
        let text = dir.path().join("text");
        fs::write(&text, "0-0 missing").unwrap();
        for link in [false, true] {
            let _ = fs::remove_dir_all(&spool.dir);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&spool.dir)
                .unwrap();
            for file in [&name.to_string(), LOCK, CALLER, ANSWER, SYSTEM_ID] {
                let path = spool.dir.join(file);
                match link {
                    true => std::os::unix::fs::symlink(&text, path).unwrap(),
                    false => mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
                }
            }
            assert_eq!(spool.take(name, &destination).unwrap(), Asked::Unknown);
            assert!(!spool.is_served());
            assert_eq!(spool.answer("0-0"), None);
            assert!(!destination.exists());
        }
    }
}
