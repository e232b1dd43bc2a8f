use std::path::Path;
use std::time::{Duration, Instant};

use repmgr_types::WalSegmentName;

use crate::archive::Archive;
use crate::check::SegmentHeader;
use crate::spool::{Asked, CallKind, flush_for, is_recovery_file};
use crate::{FetchError, Spool, WalFileName, deliver};

/// How long a prefetcher may get nothing before the caller goes to the archive himself.
const PATIENCE: Duration = Duration::from_secs(15);

/// A file was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Where a prefetcher should begin, if there should be one and is none.
    pub prefetch: Option<PrefetchStart>,
}

/// The segment just delivered, and what it says of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefetchStart {
    /// The segment behind which to go on.
    pub delivered: WalSegmentName,
    /// Its header.
    pub header: SegmentHeader,
}

/// Delivers `name` to `destination`: out of the spool if it is there, by the spool's prefetcher if
/// one runs, else from the archive, which `open` makes only then.
///
/// The file appears whole, checked and flushed, by rename, or not at all. `may_be_partial` is what
/// [`ArchiveOptions::partial`](crate::ArchiveOptions::partial) is: a prefetcher does not look for
/// unfinished segments, so its "missing" is not the last word.
///
/// With a spool, a call that waited for the Barman host in vain makes the next ones fail at once for some
/// seconds ([`FetchError::NoAnswer`]), unless what they ask for lies ready.
///
/// # Errors
/// See [`FetchError`].
pub fn restore(
    name: WalFileName,
    destination: &Path,
    spool: Option<&Spool>,
    may_be_partial: bool,
    open: impl FnOnce() -> Result<Archive, FetchError>,
) -> Result<Restored, FetchError> {
    let Some(spool) = spool else {
        let header = from_archive(name, destination, open)?;
        return Ok(delivered(name, header, destination, None));
    };
    if let Asked::Taken(header) = spool.take(name, destination)? {
        return Ok(delivered(name, header, destination, Some(spool)));
    }
    spool.ask_only_who_answers()?;
    let started = Instant::now();
    let had = ask(name, destination, spool, may_be_partial, open);
    spool.remember(&had, started.elapsed());
    if matches!(had, Err(FetchError::NotInArchive { .. })) && name.segment().is_some() {
        spool.drop_rests();
    }
    Ok(delivered(name, had?, destination, Some(spool)))
}

/// By the prefetcher if there is one that can, else from the archive.
fn ask(
    name: WalFileName,
    destination: &Path,
    spool: &Spool,
    may_be_partial: bool,
    open: impl FnOnce() -> Result<Archive, FetchError>,
) -> Result<Option<SegmentHeader>, FetchError> {
    if spool.is_served() {
        match spool.ask(name, destination, PATIENCE)? {
            Asked::Taken(header) => return Ok(header),
            Asked::Missing if !may_be_partial => return Err(open()?.not_in_archive(name)),
            Asked::Missing | Asked::Unknown => {}
        }
    } else {
        spool.sweep_others();
    }
    from_archive(name, destination, open)
}

fn from_archive(
    name: WalFileName,
    destination: &Path,
    open: impl FnOnce() -> Result<Archive, FetchError>,
) -> Result<Option<SegmentHeader>, FetchError> {
    let received = open()?.fetch(name, &deliver::directory_of(destination).into())?;
    received.file.publish(destination, flush_for(destination))?;
    Ok(received.header)
}

fn delivered(
    name: WalFileName,
    header: Option<SegmentHeader>,
    destination: &Path,
    spool: Option<&Spool>,
) -> Restored {
    let mut restored = Restored { prefetch: None };
    if let (Some(spool), WalFileName::Segment(segment), Some(header)) = (spool, name, header) {
        if spool.is_served() {
            spool.tell(CallKind::Took, name);
        } else if is_recovery_file(destination) {
            restored.prefetch = Some(PrefetchStart {
                delivered: segment,
                header,
            });
        }
    }
    restored
}
