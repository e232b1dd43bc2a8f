use std::fmt;
use std::time::{Duration, SystemTime};

use crate::path::is_sound;

/// What is in a directory of a far host, compactly: about 32 bytes and the path for each entry.
///
/// Made by [`list`](crate::list) from a real directory, or entry by entry with [`push`](Self::push).
#[derive(Clone, Default)]
pub struct Listing {
    directory: String,
    /// All paths, one after the other.
    paths: Vec<u8>,
    records: Vec<Record>,
    total_size: u64,
}

#[derive(Clone, Copy)]
struct Record {
    size: u64,
    seconds: i64,
    nanoseconds: u32,
    /// Where its path ends in `paths`; it begins where the one before ends.
    end: u32,
    mode: u16,
    kind: EntryKind,
    readable: bool,
}

/// What kind of thing an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; it is not followed.
    Symlink,
    /// A socket, a pipe, a device.
    Other,
}

/// One thing in a directory tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Relative to the listed directory. Checked: no `..`, not absolute, no empty part.
    pub path: &'a [u8],
    /// What it is.
    pub kind: EntryKind,
    /// Bytes; means something for files only.
    pub size: u64,
    /// Permission bits, with set-user-ID, set-group-ID and sticky: at most `0o7777`.
    pub mode: u32,
    /// When its content was last changed.
    pub modified: SystemTime,
    /// Whether the user on the far side may read the file, or list and enter the directory.
    /// Below a directory that is not readable nothing is known. Always true for other kinds.
    pub readable: bool,
}

/// An entry that a [`Listing`] cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Its path leads out of the directory, or is no path.
    #[error("the path is not a plain relative one")]
    Path,
    /// There are 256 MiB of paths in it already, or 10 million entries.
    #[error("too many entries")]
    Full,
}

/// More paths than any PostgreSQL cluster has; who sends more wants to fill our memory.
const MAX_PATHS: usize = 256 << 20;
/// The same for the entries, for paths may be as short as one byte. Of ordinary clusters 200,000 files take
/// about 12 MB; so many as this with paths to the limit take 576 MiB, and more is refused.
const MAX_ENTRIES: usize = 10_000_000;

/// What listings that are made together may still hold: the limits of one count for all of them.
#[derive(Debug)]
pub(crate) struct Room {
    entries: usize,
    paths: usize,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self {
            entries: MAX_ENTRIES,
            paths: MAX_PATHS,
        }
    }

    /// Makes `listing` hold one entry more, if there is room.
    pub(crate) fn push(&mut self, listing: &mut Listing, entry: &Entry<'_>) -> Result<(), PushError> {
        let left = (
            self.entries.checked_sub(1),
            self.paths.checked_sub(entry.path.len()),
        );
        let (Some(entries), Some(paths)) = left else {
            return Err(PushError::Full);
        };
        listing.push(entry)?;
        (self.entries, self.paths) = (entries, paths);
        Ok(())
    }
}

impl Listing {
    /// An empty one of `directory`, an absolute path on the far side.
    pub fn new(directory: impl Into<String>) -> Self {
        Self {
            directory: directory.into(),
            ..Self::default()
        }
    }

    /// Adds an entry at the end.
    ///
    /// # Errors
    /// If its path is not sound, or the listing is full.
    pub fn push(&mut self, entry: &Entry<'_>) -> Result<(), PushError> {
        if !is_sound(entry.path) {
            return Err(PushError::Path);
        }
        let end = end_of_path(self.len(), self.paths.len() + entry.path.len()).ok_or(PushError::Full)?;
        let (seconds, nanoseconds) = split(entry.modified);
        self.paths.extend_from_slice(entry.path);
        self.records.push(Record {
            size: entry.size,
            seconds,
            nanoseconds,
            end,
            mode: (entry.mode & 0o7777) as u16,
            kind: entry.kind,
            readable: entry.readable,
        });
        if entry.kind == EntryKind::File {
            self.total_size = self.total_size.saturating_add(entry.size);
        }
        Ok(())
    }

    /// The directory, as it was given.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes in all files together.
    pub fn total_size(&self) -> u64 {
        self.total_size
    }

    /// Entry number `index`.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn get(&self, index: usize) -> Entry<'_> {
        let start = match index {
            0 => 0,
            _ => self.records[index - 1].end as usize,
        };
        let record = &self.records[index];
        Entry {
            path: &self.paths[start..record.end as usize],
            kind: record.kind,
            size: record.size,
            mode: record.mode.into(),
            modified: join(record.seconds, record.nanoseconds),
            readable: record.readable,
        }
    }

    /// All entries in the order of their numbers: a directory comes before what is in it.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    pub(crate) fn modified_seconds(&self, index: usize) -> i64 {
        self.records[index].seconds
    }

    pub(crate) fn shrink(&mut self) {
        self.paths.shrink_to_fit();
        self.records.shrink_to_fit();
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("directory", &self.directory)
            .field("entries", &self.len())
            .field("total_size", &self.total_size)
            .finish()
    }
}

/// Where the path of entry number `index` ends, if there is room for it.
fn end_of_path(index: usize, end: usize) -> Option<u32> {
    let fits = index < MAX_ENTRIES && end <= MAX_PATHS;
    u32::try_from(end).ok().filter(|_| fits)
}

/// Seconds since 1970, rounded down, and nanoseconds.
fn split(time: SystemTime) -> (i64, u32) {
    let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (seconds(after), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            match before.subsec_nanos() {
                0 => (-seconds(before), 0),
                nanos => (-seconds(before) - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

/// The nearest time there is.
pub(crate) fn join(seconds: i64, nanoseconds: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    time.and_then(|t| t.checked_add(Duration::from_nanos(nanoseconds.into())))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn file(path: &[u8], size: u64) -> Entry<'_> {
        Entry {
            path,
            kind: EntryKind::File,
            size,
            mode: 0o600,
            modified: SystemTime::UNIX_EPOCH,
            readable: true,
        }
    }

    #[test]
    fn entries_come_back_as_they_were_put_in() {
        let mut listing = Listing::new("/d");
        let odd = Entry {
            path: b"a/\xff\n",
            kind: EntryKind::Symlink,
            size: 7,
            mode: 0o7777,
            modified: SystemTime::UNIX_EPOCH - Duration::from_millis(1500),
            readable: false,
        };
        listing.push(&file(b"first", u64::MAX)).unwrap();
        listing.push(&odd).unwrap();
        listing.push(&file(b"x", 1)).unwrap();
        assert_eq!(
            listing.iter().collect::<Vec<_>>(),
            [file(b"first", u64::MAX), odd, file(b"x", 1)]
        );
        assert_eq!((listing.len(), listing.total_size()), (3, u64::MAX));
        assert_eq!(listing.push(&file(b"../x", 1)), Err(PushError::Path));
        assert_eq!(listing.len(), 3);
    }

    #[test]
    fn neither_long_paths_nor_many_short_ones_fill_the_memory() {
        assert_eq!(end_of_path(MAX_ENTRIES - 1, MAX_PATHS), Some(256 << 20));
        assert_eq!(end_of_path(MAX_ENTRIES, MAX_ENTRIES + 1), None);
        assert_eq!(end_of_path(1, MAX_PATHS + 1), None);
        assert!(MAX_ENTRIES * size_of::<Record>() + MAX_PATHS < 600 << 20);
    }

    #[test]
    fn many_directories_together_have_no_more_room_than_one() {
        let mut room = Room {
            entries: 3,
            paths: 10,
        };
        let mut listings = [Listing::new("/a"), Listing::new("/b")];
        room.push(&mut listings[0], &file(b"1234", 1)).unwrap();
        room.push(&mut listings[1], &file(b"1234", 1)).unwrap();
        assert_eq!(
            room.push(&mut listings[0], &file(b"123", 1)),
            Err(PushError::Full)
        );
        room.push(&mut listings[0], &file(b"12", 1)).unwrap();
        assert_eq!(room.push(&mut listings[1], &file(b"", 1)), Err(PushError::Full));
        assert_eq!(listings.map(|listing| listing.len()), [2, 1]);
    }

    #[test]
    fn half_a_million_entries_need_tens_of_megabytes() {
        assert_eq!(size_of::<Record>(), 32);
    }

    proptest! {
        #[test]
        fn times_survive(seconds in -1_000_000_000_000i64..1_000_000_000_000, nanos in 0u32..1_000_000_000) {
            prop_assert_eq!(split(join(seconds, nanos)), (seconds, nanos));
        }
    }
}
