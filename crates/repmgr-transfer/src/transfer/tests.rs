use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

use repmgr_types::CancelToken;

use super::*;
use crate::Compression;
use crate::archive::tests::{archive, file as member, header};
use crate::compression::ON_THE_WIRE;
use crate::fake::compress;
use crate::fake::{FakeHost, Reply};
use crate::listing::Entry;
use crate::{EntryKind, FileSink, SinkError};
use std::num::NonZero;
use std::time::Duration;

/// Keeps files in memory.
#[derive(Default)]
struct Memory {
    finished: Mutex<BTreeMap<(usize, usize), Vec<u8>>>,
    confirmed: Mutex<Vec<(usize, usize)>>,
    created: AtomicUsize,
    refuse: bool,
}

struct MemoryFile<'s> {
    sink: &'s Memory,
    place: (usize, usize),
    bytes: Vec<u8>,
}

impl Sink for Memory {
    fn create(&self, source: usize, index: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
        self.created.fetch_add(1, Ordering::SeqCst);
        if self.refuse {
            return Err("disk full".into());
        }
        let confirmed = self.confirmed.lock().unwrap();
        assert!(
            !confirmed.contains(&(source, index)),
            "fetched again after it was confirmed"
        );
        Ok(Box::new(MemoryFile {
            sink: self,
            place: (source, index),
            bytes: Vec::new(),
        }))
    }

    fn confirm(&self, source: usize, indexes: &[usize]) -> Result<(), SinkError> {
        let finished = self.finished.lock().unwrap();
        for index in indexes {
            assert!(
                finished.contains_key(&(source, *index)),
                "confirmed and not finished"
            );
            self.confirmed.lock().unwrap().push((source, *index));
        }
        Ok(())
    }
}

impl FileSink for MemoryFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        self.sink.finished.lock().unwrap().insert(self.place, self.bytes);
        Ok(())
    }
}

fn listing(files: &[(&str, &[u8])]) -> Listing {
    let mut listing = Listing::new("/d");
    for (path, content) in files {
        let entry = Entry {
            path: path.as_bytes(),
            kind: EntryKind::File,
            size: content.len() as u64,
            mode: 0o600,
            modified: std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            readable: true,
        };
        listing.push(&entry).unwrap();
    }
    listing
}

const FILES: [(&str, &[u8]); 3] = [("a", b"one"), ("empty", b""), ("b", &[2; 5000])];

fn members() -> Vec<Vec<u8>> {
    FILES
        .map(|(path, content)| member(format!("./{path}").as_bytes(), content))
        .to_vec()
}

fn reply(members: &[Vec<u8>]) -> Reply {
    Reply::output(&[b"none\n".to_vec(), archive(members)].concat())
}

fn options() -> Options {
    Options {
        jobs: NonZero::new(1).unwrap(),
        retry_pause: Duration::from_millis(1),
        retries: 3,
        ..Options::default()
    }
}

fn run(host: &FakeHost, sink: &Memory) -> Result<Transferred, TransferError> {
    let counters = Counters::default();
    let result = transfer(
        host,
        &[listing(&FILES)],
        &|_, _| true,
        &options(),
        sink,
        &counters,
    );
    let (files, bytes) = match &result {
        Ok(summary) => (summary.files, summary.bytes),
        // What was not confirmed is not counted.
        Err(_) => (sink.confirmed.lock().unwrap().len() as u64, counters.bytes()),
    };
    assert_eq!((counters.files(), counters.bytes()), (files, bytes));
    result
}

fn error_of(reply: Reply) -> TransferError {
    let sink = Memory::default();
    let error = run(&FakeHost::answering(vec![reply]), &sink).unwrap_err();
    assert!(sink.confirmed.lock().unwrap().is_empty());
    error
}

#[test]
fn files_arrive_in_every_compression() {
    for codec in ON_THE_WIRE {
        let stream = [
            format!("{codec}\n").into_bytes(),
            compress(codec, &archive(&members())),
        ]
        .concat();
        let wire_bytes = stream.len() as u64;
        let sink = Memory::default();
        let summary = run(&FakeHost::answering(vec![Reply::output(&stream)]), &sink).unwrap();
        let expected = Transferred {
            files: 3,
            bytes: 5003,
            wire_bytes,
            retries: 0,
            codec: Some(codec),
            jobs: 1,
            ..Transferred::default()
        };
        assert_eq!(summary, expected);
        assert_eq!(*sink.confirmed.lock().unwrap(), [(0, 0), (0, 1), (0, 2)]);
        assert_eq!(sink.finished.lock().unwrap()[&(0, 2)], [2; 5000]);
    }
}

#[test]
fn the_far_side_is_asked_for_names_and_codecs() {
    let host = FakeHost::new(|line, input| {
        assert!(line.ends_with(" sh /d 'lz4 zstd none'"), "{line}");
        assert_eq!(input, b"./a\0./empty\0./b\0");
        reply(&members())
    });
    run(&host, &Memory::default()).unwrap();
}

#[test]
fn nothing_wanted_needs_no_connection() {
    let host = FakeHost::answering(vec![]).refusing(u32::MAX);
    let (sink, counters) = (Memory::default(), Counters::default());
    let summary = transfer(
        &host,
        &[listing(&FILES)],
        &|_, _| false,
        &options(),
        &sink,
        &counters,
    );
    assert_eq!(summary.unwrap(), Transferred::default());
}

#[test]
fn streams_that_are_not_the_batch_are_refused() {
    let mut extra = members();
    extra.insert(1, member(b"./passwd", b"x"));
    let mut twice = members();
    twice.push(member(b"./b", &[2; 5000]));
    let mut absolute = members();
    absolute[0] = member(b"/a", b"one");
    let mut bare = members();
    bare[0] = member(b"a", b"one");
    let mut swapped = members();
    swapped.swap(0, 2);
    let mut fewer = members();
    fewer.remove(1);
    let mut fifo = members();
    fifo[1] = header(b"./empty", tar::EntryType::Fifo, 0).as_bytes().to_vec();
    let followed = [b"none\n".to_vec(), archive(&members()), b"more".to_vec()].concat();
    let corrupt = [&b"zstd\n"[..], b"not zstd at all"].concat();
    for (name, bad) in [
        ("extra", reply(&extra)),
        ("twice", reply(&twice)),
        ("absolute", reply(&absolute)),
        ("bare", reply(&bare)),
        ("swapped", reply(&swapped)),
        ("fewer", reply(&fewer)),
        ("fifo", reply(&fifo)),
        ("none", reply(&[])),
        ("followed", Reply::output(&followed)),
        ("corrupt", Reply::output(&corrupt)),
        ("greeting", Reply::output(b"Welcome!\n")),
        ("endless", Reply::output(&[b'x'; 1000])),
        ("nothing", Reply::output(b"")),
    ] {
        let error = error_of(bad);
        assert!(
            matches!(error, TransferError::Malformed { .. }),
            "{name}: {error}"
        );
        assert!(!error.is_transient());
    }
}

#[test]
fn programs_that_are_killed_and_streams_that_are_cut_are_tried_again() {
    let cut = [&b"none\n"[..], &archive(&members())[..1500]].concat();
    let killed = Reply::output(&cut).exit(137, "sh: line 1: 4711 Killed\n");
    let ended = Reply::output(b"").exit(143, "");
    for (bad, said) in [
        (Reply::output(&cut), "their output breaks off"),
        (killed, "Killed"),
        (ended, "exit code 143"),
    ] {
        let calls = AtomicUsize::new(0);
        let again = bad.clone();
        let host = FakeHost::new(move |_, input| match calls.fetch_add(1, Ordering::Relaxed) {
            0 => again.clone(),
            _ => answer(input, usize::MAX),
        });
        let sink = Memory::default();
        let summary = run(&host, &sink).unwrap();
        assert_eq!((summary.files, summary.retries), (3, 1), "{said}");
        let error = run(&FakeHost::new(move |_, _| bad.clone()), &Memory::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("(attempts: 4)") && text.contains(said), "{text}");
        assert!(error.is_transient() && error.hint().is_some());
    }
    // What they say of a file counts more.
    let reply = Reply::output(&cut).exit(141, "tar: ./a: Cannot open: Permission denied\n");
    assert!(matches!(error_of(reply), TransferError::Unreadable { .. }));
}

#[test]
fn a_file_that_is_not_as_listed_has_changed() {
    let mut longer = members();
    longer[0] = member(b"./a", b"longer");
    let mut written = members();
    let mut header = header(b"./a", tar::EntryType::Regular, 3);
    header.set_mtime(1_700_000_001);
    header.set_cksum();
    written[0][..512].copy_from_slice(header.as_bytes());
    let mut directory = members();
    directory[1] = crate::archive::tests::header(b"./empty", tar::EntryType::Directory, 0)
        .as_bytes()
        .to_vec();
    for (bad, text) in [
        (
            longer,
            "\"/d/a\" on \"fake\" has changed: it has 6 bytes now and had 3 in the listing",
        ),
        (
            written,
            "\"/d/a\" on \"fake\" has changed: it was written after the listing was made",
        ),
        (
            directory,
            "\"/d/empty\" on \"fake\" has changed: it is no regular file any more",
        ),
    ] {
        assert_eq!(error_of(reply(&bad)).to_string(), text);
    }
}

#[test]
fn what_tar_complains_of_is_an_error_even_if_all_files_came() {
    let all = |stderr: &str, code| reply(&members()).exit(code, stderr);
    let padded = "tar: ./b: Read error at byte 0, while reading 5000 bytes: Input/output error\n\
        tar: Exiting with failure status due to previous errors\n";
    let error = error_of(all(padded, 2));
    assert_eq!(
        error.to_string(),
        "cannot read \"/d/b\" on \"fake\": Read error at byte 0, while reading 5000 bytes: Input/output error"
    );
    let error = error_of(all("tar: ./b: File shrank by 9 bytes; padding with zeros\n", 1));
    assert!(
        matches!(&error, TransferError::Changed { file, .. } if file.path == b"b"),
        "{error}"
    );
    let error = error_of(all("tar: Child returned status 1\n", 2));
    assert!(matches!(error, TransferError::Failed { .. }), "{error}");
    let error = error_of(all("tar: ./b: file changed as we read it\n", 2));
    assert!(matches!(error, TransferError::Failed { .. }), "{error}");
}

#[test]
fn a_file_that_is_left_out_is_named_with_its_reason() {
    let mut fewer = members();
    fewer.remove(0);
    let error = error_of(reply(&fewer).exit(2, "tar: ./a: Cannot open: Permission denied\n"));
    assert_eq!(
        error.to_string(),
        "cannot read \"/d/a\" on \"fake\": Cannot open: Permission denied"
    );
    let error = error_of(reply(&fewer).exit(2, "tar: ./a: Cannot stat: No such file or directory\n"));
    assert!(matches!(error, TransferError::Changed { .. }), "{error}");
}

#[test]
fn a_new_hard_link_is_no_change_and_a_new_content_is() {
    let touched = || reply(&members()).exit(1, "tar: ./b: file changed as we read it\n");
    let now = |text: &str| Reply::output(text.as_bytes());
    let same = now("f r 5000 600 1700000000.0000000000 ./b\0");
    let sink = Memory::default();
    run(&FakeHost::answering(vec![touched(), same]), &sink).unwrap();
    assert_eq!(sink.confirmed.lock().unwrap().len(), 3);
    for (bad, changed) in [
        ("f r 5000 600 1700000000.0000000010 ./b\0", true),
        ("f r 5001 600 1700000000.0000000000 ./b\0", true),
        ("l r 5000 600 1700000000.0000000000 ./b\0", true),
        ("f r 5000 600 1700000000.0000000000 ./a\0", false),
        ("", false),
    ] {
        let sink = Memory::default();
        let error = run(&FakeHost::answering(vec![touched(), now(bad)]), &sink).unwrap_err();
        assert_eq!(
            matches!(error, TransferError::Changed { .. }),
            changed,
            "{bad}: {error}"
        );
        assert!(sink.confirmed.lock().unwrap().is_empty());
    }
}

#[test]
fn programs_that_are_missing_are_named() {
    for (program, line) in [("GNU tar", "missing GNU tar\n"), ("lz4", "missing lz4\n")] {
        let error = error_of(Reply::output(line.as_bytes()));
        assert_eq!(error.to_string(), format!("there is no {program} on \"fake\""));
        assert!(error.hint().unwrap().contains(program));
    }
}

#[test]
fn a_sink_that_refuses_ends_it_with_the_file() {
    let sink = Memory {
        refuse: true,
        ..Memory::default()
    };
    let error = run(&FakeHost::answering(vec![reply(&members())]), &sink).unwrap_err();
    assert_eq!(error.to_string(), "cannot store the copy of \"/d/a\" on \"fake\"");
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "disk full"
    );
}

/// Sends an archive of the names it is asked for, cut after `cut` bytes.
fn answer(input: &[u8], cut: usize) -> Reply {
    let names: Vec<_> = input.split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
    let member = |name: &&[u8]| {
        let (path, content) = FILES.iter().find(|(p, _)| p.as_bytes() == &name[2..]).unwrap();
        member(format!("./{path}").as_bytes(), content)
    };
    let mut stream = [
        b"none\n".to_vec(),
        archive(&names.iter().map(member).collect::<Vec<_>>()),
    ]
    .concat();
    if cut < stream.len() {
        stream.truncate(cut);
        return Reply::output(&stream).then_lost();
    }
    Reply::output(&stream)
}

#[test]
fn a_connection_lost_anywhere_is_made_good() {
    let whole = 5 + archive(&members()).len();
    for cut in (0..whole).step_by(97) {
        let calls = AtomicU32::new(0);
        let host = FakeHost::new(move |_, input| {
            let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
            answer(input, if first { cut } else { usize::MAX })
        });
        let sink = Memory::default();
        let summary = run(&host, &sink).unwrap();
        assert_eq!(
            (summary.files, summary.bytes, summary.retries),
            (3, 5003, 1),
            "{cut}"
        );
        let finished = sink.finished.lock().unwrap();
        for (index, (_, content)) in FILES.iter().enumerate() {
            assert_eq!(finished[&(0, index)], *content, "{cut}");
        }
    }
}

#[test]
fn a_way_that_breaks_again_and_again_still_gets_there_as_long_as_files_do() {
    // Each stream breaks after about one small file.
    let host = FakeHost::new(|_, input| {
        let names = input.iter().filter(|b| **b == 0).count();
        answer(input, if names > 1 { 1200 } else { usize::MAX })
    });
    let summary = run(&host, &Memory::default()).unwrap();
    assert_eq!(summary.files, 3);
}

#[test]
fn a_way_that_never_works_is_given_up_with_the_number_of_attempts() {
    let sink = Memory::default();
    let error = run(&FakeHost::new(|_, input| answer(input, 600)), &sink).unwrap_err();
    assert_eq!(error.to_string(), "the transfer of \"/d\" failed (attempts: 4)");
    assert!(error.is_transient());
    let error = run(&FakeHost::answering(vec![]).refusing(u32::MAX), &sink).unwrap_err();
    assert_eq!(error.to_string(), "no connection for the transfer (attempts: 4)");
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.to_string().contains("cannot connect to \"fake\""));
}

#[test]
fn connections_that_are_refused_at_first_are_tried_again() {
    let host = FakeHost::new(|_, input| answer(input, usize::MAX)).refusing(3);
    let summary = run(&host, &Memory::default()).unwrap();
    assert_eq!((summary.files, summary.retries), (3, 3));
}

/// 40 files of 1 MiB, which is work for several connections.
fn forty() -> (Listing, impl Fn(&[u8]) -> Reply + Send + Sync + Clone) {
    let content = vec![7; 1 << 20];
    let names: Vec<_> = (0..40).map(|n| format!("f{n}")).collect();
    let files: Vec<_> = names.iter().map(|n| (n.as_str(), &content[..])).collect();
    let sent = content.clone();
    let answer = move |input: &[u8]| {
        let names = input.split(|b| *b == 0).filter(|n| !n.is_empty());
        let members: Vec<_> = names.map(|name| member(name, &sent)).collect();
        reply(&members)
    };
    (listing(&files), answer)
}

fn four_jobs() -> Options {
    Options {
        jobs: NonZero::new(4).unwrap(),
        ..options()
    }
}

#[test]
fn some_connections_that_cannot_be_made_do_not_matter() {
    let (listing, answer) = forty();
    let host = FakeHost::new(move |_, input| answer(input)).refusing(9);
    let sink = Memory::default();
    let summary = transfer(
        &host,
        &[listing],
        &|_, _| true,
        &four_jobs(),
        &sink,
        &Counters::default(),
    );
    assert_eq!(summary.unwrap().files, 40);
}

#[test]
fn the_first_error_stops_all_workers() {
    let (listing, answer) = forty();
    let calls = AtomicU32::new(0);
    let host = FakeHost::new(move |_, input| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => answer(input).exit(2, "tar: ./f0: Cannot open: Permission denied\n"),
        _ => answer(input),
    });
    let sink = Memory::default();
    let result = transfer(
        &host,
        &[listing],
        &|_, _| true,
        &four_jobs(),
        &sink,
        &Counters::default(),
    );
    let error = result.unwrap_err();
    assert!(matches!(error, TransferError::Unreadable { .. }), "{error}");
}

#[test]
fn a_sink_that_panics_does_not_leave_the_others_waiting() {
    struct Panics(AtomicUsize);
    impl Sink for Panics {
        fn create(&self, _: usize, _: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
            panic!("on purpose")
        }
        fn confirm(&self, _: usize, _: &[usize]) -> Result<(), SinkError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }
    let (listing, answer) = forty();
    let host = FakeHost::new(move |_, input| answer(input));
    let sink = Panics(AtomicUsize::new(0));
    let run = || {
        transfer(
            &host,
            &[listing],
            &|_, _| true,
            &four_jobs(),
            &sink,
            &Counters::default(),
        )
    };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    assert!(result.is_err() && sink.0.load(Ordering::SeqCst) == 0);
}

#[test]
fn cancelling_ends_a_pause_at_once() {
    let cancel = CancelToken::new();
    let options = Options {
        cancel: cancel.clone(),
        retry_pause: Duration::from_secs(60),
        ..options()
    };
    let host = FakeHost::answering(vec![]).refusing(u32::MAX);
    let started = Instant::now();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        cancel.cancel();
    });
    let (sink, counters) = (Memory::default(), Counters::default());
    let error = transfer(
        &host,
        &[listing(&FILES)],
        &|_, _| true,
        &options,
        &sink,
        &counters,
    )
    .unwrap_err();
    assert!(matches!(error, TransferError::Cancelled(_)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    stopper.join().unwrap();
}

#[test]
fn automatic_compression_looks_at_a_part_of_the_largest_file() {
    let mut listing = Listing::new("/d");
    for (name, size) in [("a", 5), ("b c", 4_000_000), ("d", 3_000_000)] {
        listing
            .push(&crate::listing::tests::file(name.as_bytes(), size))
            .unwrap();
    }
    let ends = |compression, end: &'static str| {
        let host = FakeHost::new(move |line, _| {
            assert!(line.ends_with(end), "{line}");
            Reply::default().exit(1, "that was all")
        });
        let options = Options {
            compression,
            ..options()
        };
        let (sink, counters) = (Memory::default(), Counters::default());
        let sources = std::slice::from_ref(&listing);
        transfer(&host, sources, &|_, _| true, &options, &sink, &counters).unwrap_err();
    };
    // In the blocks 7, 15 and 22 of 30.
    ends(Compression::Auto, " sh /d 'lz4 zstd none' './b c' 373540 7 15 22");
    ends(Compression::Zstd, " sh /d zstd");
}

#[test]
fn a_rate_holds_the_transfer_back() {
    let rate: repmgr_types::Rate = "32k".parse().unwrap();
    let (sink, counters) = (Memory::default(), Counters::with_max_rate(Some(rate)));
    let begun = std::time::Instant::now();
    let moved = transfer(
        &FakeHost::answering(vec![reply(&members())]),
        &[listing(&FILES)],
        &|_, _| true,
        &options(),
        &sink,
        &counters,
    )
    .unwrap();
    assert!(moved.wire_bytes > 3000, "{}", moved.wire_bytes);
    let least = std::time::Duration::from_secs_f64(moved.wire_bytes as f64 / rate.bytes() as f64);
    assert!(begun.elapsed() >= least);
}
