//! Files of this host.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Disk, Watch, content, options};
use repmgr_remote::{Host, LocalHost};
use repmgr_transfer::{
    Counters, FileSink, Listing, Options, Sink, SinkError, TransferError, Transferred, list, transfer,
};
use repmgr_types::CancelToken;

fn listing(of: &Path) -> Listing {
    let mut connection = LocalHost::default().connect().unwrap();
    let never = CancelToken::new();
    list(&mut *connection, of.to_str().unwrap(), &mut |_| true, &never).unwrap()
}

fn fetch(listing: &Listing, sink: &dyn Sink, options: &Options) -> Result<Transferred, TransferError> {
    let counters = Counters::default();
    let sources = std::slice::from_ref(listing);
    let result = transfer(
        &LocalHost::default(),
        sources,
        &|_, _| true,
        options,
        sink,
        &counters,
    );
    if let Ok(summary) = &result {
        assert_eq!(
            (counters.files(), counters.bytes()),
            (summary.files, summary.bytes)
        );
    } else {
        assert_eq!(counters.bytes(), 0, "what was not confirmed is not counted");
    }
    result
}

#[test]
fn everything_arrives_without_a_stream() {
    let source = tempfile::tempdir().unwrap();
    let names: [&[u8]; 6] = [
        b"plain",
        b"-rf",
        b"new\nline",
        b"\xff\xfe",
        b"'\"$(id)`",
        b"empty",
    ];
    for (seed, name) in names.iter().enumerate() {
        let length = (names.len() - 1 - seed) * 3_000_000;
        fs::write(
            source.path().join(OsStr::from_bytes(name)),
            content(seed as u64, length),
        )
        .unwrap();
    }
    fs::create_dir(source.path().join("empty directory")).unwrap();
    let listing = listing(source.path());
    let disk = Disk::new(&listing);
    let summary = fetch(&listing, &disk, &options(2)).unwrap();
    disk.assert_whole(source.path());
    let expected = Transferred {
        files: 6,
        bytes: 45_000_000,
        ..Transferred::default()
    };
    assert_eq!(summary, expected);
}

/// Has the kernel copy the first bytes of each file only.
struct Partly<'a> {
    disk: Disk<'a>,
    listing: &'a Listing,
    by_kernel: AtomicU64,
}

struct PartlyFile<'a>(File, &'a AtomicU64, bool);

impl Sink for Partly<'_> {
    fn create(&self, _: usize, index: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
        let file = File::create(self.disk.path(&self.listing.get(index)))?;
        Ok(Box::new(PartlyFile(file, &self.by_kernel, false)))
    }

    fn confirm(&self, source: usize, indexes: &[usize]) -> Result<(), SinkError> {
        self.disk.confirm(source, indexes)
    }
}

impl FileSink for PartlyFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        Ok(std::io::Write::write_all(&mut self.0, bytes)?)
    }

    fn copy(&mut self, mut from: &File, buffer: &mut [u8]) -> Result<Option<usize>, SinkError> {
        if std::mem::replace(&mut self.2, true) {
            return Ok(None);
        }
        let length = std::io::Read::read(&mut from, buffer)?;
        self.write(&buffer[..length])?;
        self.1.fetch_add(length as u64, Ordering::Relaxed);
        Ok(Some(length))
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

#[test]
fn what_the_kernel_does_not_copy_comes_as_bytes() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), content(1, 1_000_000)).unwrap();
    let listing = listing(source.path());
    let sink = Partly {
        disk: Disk::new(&listing),
        listing: &listing,
        by_kernel: AtomicU64::new(0),
    };
    fetch(&listing, &sink, &options(1)).unwrap();
    sink.disk.assert_whole(source.path());
    assert_eq!(sink.by_kernel.into_inner(), 256 * 1024);
}

#[test]
fn a_file_that_is_not_as_listed_is_named() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 5] = [
        (|file| fs::remove_file(file).unwrap(), "No such file"),
        (
            |file| {
                fs::remove_file(file).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", file).unwrap();
            },
            "symbolic links",
        ),
        (
            |file| {
                fs::remove_file(file).unwrap();
                let made = std::process::Command::new("mkfifo").arg(file).status();
                assert!(made.unwrap().success());
            },
            "no regular file any more",
        ),
        (
            |file| fs::write(file, b"longer than it was").unwrap(),
            "had 5 in the listing",
        ),
        (
            |file| {
                let file = File::options().write(true).open(file).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            },
            "after the listing was made",
        ),
    ];
    for (change, message) in changes {
        let source = tempfile::tempdir().unwrap();
        let file = source.path().join("16384");
        fs::write(&file, b"12345").unwrap();
        let listing = listing(source.path());
        change(&file);
        let disk = Disk::new(&listing);
        let error = fetch(&listing, &disk, &options(1)).unwrap_err().to_string();
        assert!(
            error.contains("16384\"") && error.contains(message),
            "{message}: {error}"
        );
        assert!(disk.confirmed.lock().unwrap().is_empty());
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_is_not_confirmed() {
    let source = tempfile::tempdir().unwrap();
    let file = source.path().join("16384");
    fs::write(&file, content(1, 2_000_000)).unwrap();
    let listing = listing(source.path());
    let sink = Watch::new(|_| {
        let mut file = File::options().append(true).open(&file).unwrap();
        std::io::Write::write_all(&mut file, b"more").unwrap();
    });
    let error = fetch(&listing, &sink, &options(1)).unwrap_err();
    assert!(
        matches!(&error, TransferError::Changed { message, .. } if message.contains("while it was read")),
        "{error}"
    );
}

#[test]
fn cancelling_ends_it() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), content(1, 2_000_000)).unwrap();
    let listing = listing(source.path());
    let options = options(1);
    let sink = Watch::new(|bytes| {
        assert!(bytes < 1_000_000);
        options.cancel.cancel();
    });
    let error = fetch(&listing, &sink, &options).unwrap_err();
    assert!(matches!(error, TransferError::Cancelled(_)), "{error}");
}
