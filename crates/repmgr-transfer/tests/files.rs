//! Real files over a real sshd.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Once;
use std::time::{Duration, SystemTime};

use common::{Bench, Disk, Watch, content, options};
use repmgr_remote::Host;
use repmgr_transfer::{
    Codec, Compression, Counters, Entry, EntryKind, FileSink, Listing, Options, Sink, SinkError,
    TransferError, Transferred, list, transfer,
};
use repmgr_types::CancelToken;

/// Everything arrives whole.
#[track_caller]
fn arrives(bench: &Bench, listing: &Listing, compression: Compression, jobs: usize) -> Transferred {
    let disk = Disk::new(listing);
    let options = Options {
        compression,
        ..options(jobs)
    };
    let summary = bench.fetch(listing, &disk, &options).unwrap();
    disk.assert_whole(&bench.source);
    summary
}

#[test]
fn odd_names_arrive_in_every_compression() {
    let bench = Bench::new();
    let long = vec![b'n'; 255];
    let deep = [&[b'd'; 255][..], b"/", &long, b"/", &long].concat();
    let names: [&[u8]; 17] = [
        b"plain",
        b"-rf",
        b"--help",
        b"@file",
        b"a b",
        b" ",
        b"new\nline",
        b"\\n",
        b"back\\slash",
        b"tab\t",
        b"*?[a]",
        b"\xff\xfe",
        "\u{fc}".as_bytes(),
        b"co:lon",
        b"'\"$(id)`",
        &long,
        &deep,
    ];
    for (seed, name) in names.iter().enumerate() {
        bench.file(name, &content(seed as u64, seed * 300));
    }
    bench.file("empty/empty", b"");
    bench.file("big", &content(9, 3_000_000));
    let listing = bench.list();
    // Three directories in addition.
    assert_eq!(listing.len(), names.len() + 2 + 3);
    for (compression, codec) in [
        (Compression::Auto, Codec::Lz4),
        (Compression::Zstd, Codec::Zstd),
        (Compression::Lz4, Codec::Lz4),
        (Compression::Gzip, Codec::Gzip),
        (Compression::None, Codec::None),
    ] {
        let summary = arrives(&bench, &listing, compression, 2);
        assert_eq!(summary.codec, Some(codec));
        assert_eq!(
            (summary.files, summary.bytes),
            (names.len() as u64 + 2, listing.total_size())
        );
        assert_eq!(
            codec == Codec::None,
            summary.wire_bytes > summary.bytes,
            "{summary:?}"
        );
    }
}

#[test]
fn what_does_not_shrink_is_not_compressed_unless_it_is_asked_for() {
    let bench = Bench::new();
    let noise = content(1, 16_000_000);
    let noise: Vec<u8> = noise.chunks(8).flat_map(|c| &c[..2]).copied().collect();
    // It begins and ends as if it could be compressed.
    let noise = [vec![0; 100_000], noise, vec![0; 100_000]].concat();
    bench.file("dir with a ' quote/no\nise", &noise);
    let listing = bench.list();
    for (compression, codec) in [
        (Compression::Auto, Codec::None),
        (Compression::Lz4, Codec::Lz4),
        (Compression::Zstd, Codec::Zstd),
    ] {
        let summary = arrives(&bench, &listing, compression, 1);
        assert_eq!(summary.codec, Some(codec));
    }
}

#[test]
fn a_listing_tells_kind_size_mode_and_time_of_everything() {
    let bench = Bench::new();
    let path = bench.file("dir/file", b"12345");
    fs::set_permissions(&path, Permissions::from_mode(0o4644)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_600_000_000_123_456_789);
    fs::File::open(&path).unwrap().set_modified(time).unwrap();
    let early = SystemTime::UNIX_EPOCH - Duration::from_millis(2500);
    let old = bench.file("old", b"");
    fs::File::open(&old).unwrap().set_modified(early).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", bench.source.join("link")).unwrap();
    std::os::unix::net::UnixListener::bind(bench.source.join("socket")).unwrap();
    fs::create_dir(bench.source.join("empty")).unwrap();
    let listing = bench.list();
    let find = |path: &str| listing.iter().find(|e| e.path == path.as_bytes()).unwrap();
    let file = find("dir/file");
    let seen = (file.kind, file.size, file.mode, file.modified, file.readable);
    assert_eq!(seen, (EntryKind::File, 5, 0o4644, time, true));
    assert_eq!(find("old").modified, early);
    assert_eq!(find("link").kind, EntryKind::Symlink);
    assert_eq!(find("socket").kind, EntryKind::Other);
    assert_eq!(
        (find("empty").kind, find("dir").kind),
        (EntryKind::Directory, EntryKind::Directory)
    );
    assert_eq!(listing.len(), 6);
    // A file from before 1970 can be fetched as well.
    let wanted = |_, index: usize| listing.get(index).path == b"old";
    let (sources, disk) = (std::slice::from_ref(&listing), Disk::new(&listing));
    let summary = transfer(
        &bench.host,
        sources,
        &wanted,
        &options(1),
        &disk,
        &Counters::default(),
    );
    assert_eq!(summary.unwrap().files, 1);
}

#[test]
fn what_cannot_be_listed_is_an_error_or_marked() {
    let bench = Bench::new();
    bench.file("open/a", b"a");
    bench.file("closed/b", b"b");
    fs::set_permissions(bench.source.join("closed"), Permissions::from_mode(0o0)).unwrap();
    let listing = bench.list();
    let seen: Vec<_> = listing.iter().map(|e| (e.path, e.readable)).collect();
    assert!(
        seen.contains(&(b"closed", false)) && seen.contains(&(b"open/a", true)),
        "{seen:?}"
    );
    assert_eq!(seen.len(), 3, "nothing below the closed one");
    let mut connection = bench.host.connect().unwrap();
    let mut all = |_: &Entry<'_>| true;
    let nowhere = format!("{}/nowhere", bench.directory());
    let error = list(&mut *connection, &nowhere, &mut all, &CancelToken::new()).unwrap_err();
    assert!(error.to_string().contains("cd: "), "{error}");
    let closed = format!("{}/closed", bench.directory());
    let error = list(&mut *connection, &closed, &mut all, &CancelToken::new()).unwrap_err();
    assert!(error.hint().is_some() && !error.is_transient(), "{error}");
    // So that it can be cleaned up.
    fs::set_permissions(bench.source.join("closed"), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let bench = Bench::new();
    bench.file("a", b"a");
    let secret = bench.file("secret: \n", b"b");
    bench.file("z", b"z");
    let before = bench.list();
    fs::set_permissions(&secret, Permissions::from_mode(0o0)).unwrap();
    for listing in [before, bench.list()] {
        let disk = Disk::new(&listing);
        let error = bench.fetch(&listing, &disk, &options(1)).unwrap_err();
        let TransferError::Unreadable { file, message } = &error else {
            panic!("{error}")
        };
        assert_eq!(
            (file.path.as_slice(), file.directory.as_str()),
            (&b"secret: \n"[..], bench.directory())
        );
        assert!(message.to_lowercase().contains("permission denied"), "{error}");
        assert!(disk.confirmed.lock().unwrap().is_empty());
    }
}

#[test]
fn a_file_that_changed_or_vanished_since_the_listing_is_named() {
    let bench = Bench::new();
    let path = bench.file("f", b"12345");
    bench.file("g", b"12345");
    let listing = bench.list();
    let error = || {
        let disk = Disk::new(&listing);
        bench.fetch(&listing, &disk, &options(1)).unwrap_err()
    };
    let change = |text: &str| {
        let error = error();
        assert!(error.to_string().contains(text), "{error}");
        assert!(matches!(error, TransferError::Changed { file, .. } if file.path == b"f"));
    };
    bench.file("f", b"123456");
    change("it has 6 bytes now and had 5");
    bench.file("f", b"54321");
    fs::File::open(&path)
        .unwrap()
        .set_modified(SystemTime::now() + Duration::from_secs(9))
        .unwrap();
    change("written after the listing");
    fs::remove_file(&path).unwrap();
    change("No such file or directory");
    std::os::unix::fs::symlink("g", &path).unwrap();
    change("no regular file any more");
}

/// More than a channel holds: the far side still reads it when its first bytes come.
const LONG: usize = 40_000_000;

#[test]
fn a_hard_link_made_meanwhile_is_no_change_and_a_write_is() {
    let bench = Bench::new();
    let path = bench.file("f", &content(1, LONG));
    let listing = bench.list();
    let plain = Options {
        compression: Compression::None,
        ..options(1)
    };
    let fetch = |change: &(dyn Fn() + Sync)| {
        let once = Once::new();
        let watch = Watch::new(|_| once.call_once(change));
        bench.fetch(&listing, &watch, &plain)
    };
    fetch(&|| fs::hard_link(&path, bench.source.join("link")).unwrap()).unwrap();
    let error = fetch(&|| {
        let file = fs::File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", LONG as u64 - 1).unwrap();
    });
    let error = error.unwrap_err();
    assert!(error.to_string().contains("written while it was read"), "{error}");
    let listing = bench.list();
    let watch = Watch::new(|_| {
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(LONG as u64 - 1).unwrap();
    });
    let error = bench.fetch(&listing, &watch, &plain).unwrap_err();
    assert!(matches!(error, TransferError::Changed { .. }), "{error}");
    assert!(error.to_string().contains("shrank"), "{error}");
}

#[test]
fn hard_links_among_the_files_are_files_like_others() {
    let bench = Bench::new();
    let path = bench.file("a", b"same");
    fs::hard_link(&path, bench.source.join("b")).unwrap();
    let listing = bench.list();
    let disk = Disk::new(&listing);
    bench.fetch(&listing, &disk, &options(1)).unwrap();
    disk.assert_whole(&bench.source);
}

/// Compares each file with what it should hold, without a disk.
struct Compare<'l>(&'l Listing);

struct CompareFile {
    expected: Vec<u8>,
    at: usize,
}

fn small(path: &[u8]) -> Vec<u8> {
    let seed = path.iter().fold(0, |seed, b| seed * 31 + u64::from(*b));
    content(seed, 600)
}

impl Sink for Compare<'_> {
    fn create(&self, _: usize, index: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
        let expected = small(self.0.get(index).path);
        Ok(Box::new(CompareFile { expected, at: 0 }))
    }

    fn confirm(&self, _: usize, _: &[usize]) -> Result<(), SinkError> {
        Ok(())
    }
}

impl FileSink for CompareFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        let expected = self.expected.get(self.at..self.at + bytes.len());
        self.at += bytes.len();
        expected
            .filter(|e| *e == bytes)
            .map(drop)
            .ok_or("another content".into())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        assert_eq!(self.at, 600);
        Ok(())
    }
}

#[test]
fn twenty_thousand_small_files_arrive() {
    let bench = Bench::new();
    for dir in 0..100 {
        fs::create_dir(bench.source.join(dir.to_string())).unwrap();
        for file in 0..200 {
            let path = format!("{dir}/{file}");
            fs::write(bench.source.join(&path), small(path.as_bytes())).unwrap();
        }
    }
    let listing = bench.list();
    let summary = bench.fetch(&listing, &Compare(&listing), &options(4)).unwrap();
    assert_eq!(
        (summary.files, summary.bytes, summary.retries),
        (20_000, 12_000_000, 0)
    );
}

#[test]
fn several_sources_go_in_one_transfer() {
    let bench = Bench::new();
    bench.file("data/a", b"1");
    bench.file("data/b", b"22");
    bench.file("16384/c", b"333");
    let list_of = |name: &str| {
        let mut connection = bench.host.connect().unwrap();
        let directory = format!("{}/{name}", bench.directory());
        list(&mut *connection, &directory, &mut |_| true, &CancelToken::new()).unwrap()
    };
    let sources = [list_of("data"), list_of("16384")];
    let counters = Counters::default();
    let watch = Watch::new(|_| ());
    let not_a = |source, index| (source, index) != (0, 0);
    let summary = transfer(&bench.host, &sources, &not_a, &options(2), &watch, &counters).unwrap();
    assert_eq!(
        (summary.files, counters.files(), counters.wire_bytes()),
        (2, 2, summary.wire_bytes)
    );
}

#[test]
fn a_compressor_that_is_missing_is_named_and_auto_does_without() {
    let bench = Bench::new();
    bench.file("f", &content(1, 100_000));
    let listing = bench.list();
    // A PATH without compressors for the far side's shell.
    let bin = bench.scratch.dir("few").unwrap();
    for program in ["sh", "tar", "find", "xargs", "cat"] {
        let found = ["/usr/bin", "/bin"].map(|dir| format!("{dir}/{program}"));
        let found = found.iter().find(|p| fs::exists(p).unwrap()).unwrap();
        std::os::unix::fs::symlink(found, bin.join(program)).unwrap();
    }
    bench.sshd.set_env("PATH", bin.to_str().unwrap()).unwrap();
    for (compression, name) in [
        (Compression::Zstd, "zstd"),
        (Compression::Lz4, "lz4"),
        (Compression::Gzip, "gzip"),
    ] {
        let options = Options {
            compression,
            ..options(1)
        };
        let error = bench.fetch(&listing, &Watch::new(|_| ()), &options).unwrap_err();
        assert!(
            matches!(&error, TransferError::NoProgram { program, .. } if program == name),
            "{error}"
        );
    }
    let summary = bench.fetch(&listing, &Watch::new(|_| ()), &options(1)).unwrap();
    assert_eq!(summary.codec, Some(Codec::None));
    fs::remove_file(bin.join("tar")).unwrap();
    let error = bench
        .fetch(&listing, &Watch::new(|_| ()), &options(1))
        .unwrap_err();
    assert!(
        matches!(&error, TransferError::NoProgram { program, .. } if program == "GNU tar"),
        "{error}"
    );
}
