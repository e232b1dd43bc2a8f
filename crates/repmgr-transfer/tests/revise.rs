//! Files that are here in an older state.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;

use common::{Bench, Disk, content, options};
use repmgr_transfer::{
    Codec, Compression, FileSink, Listing, OldFiles, Options, Revision, Sink, SinkError, TransferError,
};

/// A directory with files in it already.
struct Old<'a> {
    disk: Disk<'a>,
    listing: &'a Listing,
    /// Bytes that were written, by path.
    written: Mutex<BTreeMap<Vec<u8>, usize>>,
}

impl<'a> Old<'a> {
    fn new(listing: &'a Listing, files: &[(&[u8], Vec<u8>)]) -> Self {
        let disk = Disk::new(listing);
        for (path, bytes) in files {
            let entry = listing.iter().find(|entry| entry.path == *path).unwrap();
            fs::write(disk.path(&entry), bytes).unwrap();
        }
        Self {
            disk,
            listing,
            written: Mutex::default(),
        }
    }

    fn written(&self, path: &[u8]) -> usize {
        self.written.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}

impl Sink for Old<'_> {
    fn create(&self, source: usize, index: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
        self.disk.create(source, index)
    }

    fn confirm(&self, source: usize, indexes: &[usize]) -> Result<(), SinkError> {
        self.disk.confirm(source, indexes)
    }

    fn old_files(&self) -> Option<&dyn OldFiles> {
        Some(self)
    }
}

impl OldFiles for Old<'_> {
    fn has(&self, _: usize, index: usize) -> bool {
        self.disk.path(&self.listing.get(index)).exists()
    }

    fn open(&self, _: usize, index: usize) -> Result<Option<Box<dyn Read + '_>>, SinkError> {
        let file = File::open(self.disk.path(&self.listing.get(index)))?;
        Ok(Some(Box::new(file)))
    }

    fn revise(&self, _: usize, index: usize) -> Result<Box<dyn Revision + '_>, SinkError> {
        let entry = self.listing.get(index);
        let path = self.disk.path(&entry);
        Ok(Box::new(OldFile {
            file: File::options().read(true).write(true).open(path)?,
            path: entry.path.to_vec(),
            old: self,
        }))
    }
}

struct OldFile<'s> {
    file: File,
    path: Vec<u8>,
    old: &'s Old<'s>,
}

impl FileSink for OldFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        *self
            .old
            .written
            .lock()
            .unwrap()
            .entry(self.path.clone())
            .or_default() += bytes.len();
        Ok(self.file.write_all(bytes)?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), SinkError> {
        let end = self.file.stream_position()?;
        Ok(self.file.set_len(end)?)
    }
}

impl Revision for OldFile<'_> {
    fn keep(&mut self, length: u64) -> Result<(), SinkError> {
        self.file.seek(SeekFrom::Current(length.cast_signed()))?;
        Ok(())
    }
}

const PAGE: usize = 8192;

#[test]
fn only_blocks_that_differ_travel_in_every_compression() {
    let bench = Bench::new();
    let big = content(1, 300 * PAGE + 100);
    let names: [&[u8]; 7] = [
        b"same",
        b"one",
        b"ends",
        b"longer",
        b"shorter",
        b"-n 'x'\n\xff",
        b"empty",
    ];
    for name in &names[..6] {
        bench.file(name, &big);
    }
    bench.file("empty", b"");
    bench.file("new", &content(2, 3 * PAGE));
    let listing = bench.list();
    let with = |changes: &[usize]| {
        let mut bytes = big.clone();
        for at in changes {
            bytes[*at] ^= 1;
        }
        bytes
    };
    let longer = [&big[..], &[7; 20_000]].concat();
    let shorter = big[..100 * PAGE + 5].to_vec();
    let files = [
        (names[0], big.clone()),
        (names[1], with(&[130 * PAGE])),
        (names[2], with(&[0, big.len() - 1])),
        (names[3], longer),
        (names[4], shorter),
        (names[5], with(&[127 * PAGE, 128 * PAGE, 200 * PAGE, 202 * PAGE])),
        (names[6], b"something".to_vec()),
    ];
    let compressions = [
        (Compression::Auto, Codec::Lz4),
        (Compression::Zstd, Codec::Zstd),
        (Compression::Gzip, Codec::Gzip),
        (Compression::None, Codec::None),
    ];
    for (compression, codec) in compressions {
        let old = Old::new(&listing, &files);
        let options = Options {
            compression,
            ..options(2)
        };
        let summary = bench.fetch(&listing, &old, &options).unwrap();
        old.disk.assert_whole(&bench.source);
        let written = names.map(|name| old.written(name));
        let rest = big.len() - 100 * PAGE;
        assert_eq!(written, [0, PAGE, PAGE + 100, 0, rest, 4 * PAGE, 0], "{codec}");
        assert_eq!((summary.files, summary.bytes), (8, listing.total_size()));
        assert_eq!(
            (summary.kept_files, summary.codec),
            (3, Some(codec)),
            "{summary:?}"
        );
        let moved = (written.iter().sum::<usize>() + 3 * PAGE) as u64;
        assert_eq!(summary.kept_bytes, summary.bytes - moved);
        // An archive has up to 64 KiB of padding.
        assert!(summary.wire_bytes < moved + 70_000, "{summary:?}");
        assert!(!summary.without_python);
    }
}

#[test]
fn any_change_anywhere_is_found() {
    let bench = Bench::new();
    let mut files = Vec::new();
    for seed in 0..300u64 {
        let length = (seed * seed * 37) as usize % 400_000;
        let bytes = content(seed, length);
        let name = format!("d{}/{seed}", seed % 7).into_bytes();
        bench.file(&name, &bytes);
        let mut old = bytes;
        old.resize((length + seed as usize * 91 % 3000).saturating_sub(1500), 3);
        for change in 0..seed % 5 {
            let at = (seed * 7919 + change * 104_729) as usize;
            if let Some(byte) = old.get_mut(at % length.max(1)) {
                *byte ^= 0x40;
            }
        }
        files.push((name, old));
    }
    let listing = bench.list();
    let disk_files: Vec<(&[u8], Vec<u8>)> = files
        .iter()
        .map(|(name, old)| (name.as_slice(), old.clone()))
        .collect();
    let old = Old {
        disk: Disk::new(&listing),
        listing: &listing,
        written: Mutex::default(),
    };
    for (path, bytes) in &disk_files {
        let entry = listing.iter().find(|entry| entry.path == *path).unwrap();
        fs::create_dir_all(old.disk.path(&entry).parent().unwrap()).unwrap();
        fs::write(old.disk.path(&entry), bytes).unwrap();
    }
    let summary = bench.fetch(&listing, &old, &options(2)).unwrap();
    old.disk.assert_whole(&bench.source);
    assert!(summary.kept_bytes > summary.bytes / 2, "{summary:?}");
}

#[test]
fn a_file_that_is_not_as_listed_is_named() {
    let bench = Bench::new();
    let path = bench.file("f", &content(1, 50_000));
    let listing = bench.list();
    let refused = || {
        let old = Old::new(&listing, &[(b"f", content(2, 50_000))]);
        let error = bench.fetch(&listing, &old, &options(1)).unwrap_err();
        assert!(old.disk.confirmed.lock().unwrap().is_empty());
        assert!(error.to_string().contains("/f\" on \"barmansrv\""), "{error}");
        error
    };
    let link = bench.file("other", b"secret");
    fs::remove_file(&path).unwrap();
    assert!(matches!(refused(), TransferError::Unreadable { .. }));
    std::os::unix::fs::symlink(&link, &path).unwrap();
    assert!(matches!(refused(), TransferError::Unreadable { .. }));
    fs::remove_file(&path).unwrap();
    // Nobody writes into it, and nobody waits for that.
    let made = std::process::Command::new("mkfifo")
        .args(["-m", "644"])
        .arg(&path)
        .status();
    assert!(made.unwrap().success());
    let error = refused().to_string();
    assert!(error.contains("no regular file"), "{error}");
    fs::remove_file(&path).unwrap();
    // The same size at another time, and another size.
    bench.file("f", &content(1, 50_000));
    assert!(matches!(refused(), TransferError::Changed { .. }));
    bench.file("f", b"short");
    assert!(matches!(refused(), TransferError::Changed { .. }));
}

#[test]
fn without_python_there_files_come_whole() {
    let bench = Bench::new();
    let new = content(1, 50_000);
    bench.file("f", &new);
    bench.file("g", &new);
    let listing = bench.list();
    let bin = bench.scratch.dir("few").unwrap();
    for program in ["sh", "tar", "find", "xargs", "lz4"] {
        let found = ["/usr/bin", "/bin"].map(|dir| format!("{dir}/{program}"));
        let found = found.iter().find(|p| fs::exists(p).unwrap()).unwrap();
        std::os::unix::fs::symlink(found, bin.join(program)).unwrap();
    }
    bench.sshd.set_env("PATH", bin.to_str().unwrap()).unwrap();
    let old = Old::new(&listing, &[(b"f", new.clone()), (b"g", content(3, 9))]);
    let summary = bench.fetch(&listing, &old, &options(1)).unwrap();
    old.disk.assert_whole(&bench.source);
    assert!(summary.without_python, "{summary:?}");
    assert_eq!((summary.kept_bytes, summary.retries, summary.files), (0, 0, 2));

    // One that cannot even start is as good as none: too old, or broken.
    let program = bin.join(OsStr::from_bytes(b"python3"));
    repmgr_lab::write_program(&program, "#!/bin/sh\necho 'python3: broken' >&2\nexit 3\n").unwrap();
    for compression in [Compression::Auto, Compression::None] {
        let old = Old::new(&listing, &[(b"f", new.clone())]);
        let options = Options {
            compression,
            ..options(1)
        };
        let summary = bench.fetch(&listing, &old, &options).unwrap();
        old.disk.assert_whole(&bench.source);
        assert!(summary.without_python, "{summary:?}");
    }
}
