use std::sync::Mutex;

use super::*;
use crate::fake::{FakeHost, Reply};
use crate::listing::tests::file;
use crate::{
    Counters, FileSink, Listing, OldFiles, Options, Revision, Sink, SinkError, TransferError, Transferred,
    transfer,
};

/// Three blocks and a bit.
const SIZE: usize = 3 * BLOCK + 10;

/// One old file in memory, all its bytes 1, and what became of it.
struct Memory {
    old: Vec<u8>,
    new: Mutex<Option<Vec<u8>>>,
    confirmed: Mutex<bool>,
}

impl Memory {
    fn new(length: usize) -> Self {
        Self {
            old: vec![1; length],
            new: Mutex::default(),
            confirmed: Mutex::default(),
        }
    }
}

impl Sink for Memory {
    fn create(&self, _: usize, _: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
        Err("it is to be revised".into())
    }

    fn confirm(&self, _: usize, _: &[usize]) -> Result<(), SinkError> {
        *self.confirmed.lock().unwrap() = true;
        Ok(())
    }

    fn old_files(&self) -> Option<&dyn OldFiles> {
        Some(self)
    }
}

impl OldFiles for Memory {
    fn has(&self, _: usize, _: usize) -> bool {
        true
    }

    fn open(&self, _: usize, _: usize) -> Result<Option<Box<dyn Read + '_>>, SinkError> {
        Ok(Some(Box::new(self.old.as_slice())))
    }

    fn revise(&self, _: usize, _: usize) -> Result<Box<dyn Revision + '_>, SinkError> {
        Ok(Box::new(Revised(self, Vec::new())))
    }
}

struct Revised<'m>(&'m Memory, Vec<u8>);

impl FileSink for Revised<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.1.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        *self.0.new.lock().unwrap() = Some(self.1);
        Ok(())
    }
}

impl Revision for Revised<'_> {
    fn keep(&mut self, length: u64) -> Result<(), SinkError> {
        let begin = self.1.len();
        let end = begin + usize::try_from(length)?;
        let kept = self.0.old.get(begin..end).expect("only what is there is kept");
        self.1.extend_from_slice(kept);
        Ok(())
    }
}

fn run_of(same: u32, blocks: u16, bytes: &[u8]) -> Vec<u8> {
    [&same.to_be_bytes()[..], &blocks.to_be_bytes(), bytes].concat()
}

fn end(size: usize, seconds: u64) -> Vec<u8> {
    let time = seconds * 1_000_000_000;
    [
        run_of(0, END, &[]),
        size.to_be_bytes().to_vec(),
        time.to_be_bytes().to_vec(),
    ]
    .concat()
}

/// The far side says this, without compression, of a file that is old to us in `old` bytes.
fn answer(old: usize, parts: &[Vec<u8>]) -> (Memory, Result<Transferred, TransferError>) {
    let mut listing = Listing::new("/d");
    listing.push(&file(b"f", SIZE as u64)).unwrap();
    let stream = [b"none\n".to_vec(), parts.concat()].concat();
    let host = FakeHost::new(move |line, _| {
        assert!(line.contains("python3 -I -S"), "{line}");
        Reply::output(&stream)
    });
    let memory = Memory::new(old);
    let options = Options::default();
    let counters = Counters::default();
    let result = transfer(&host, &[listing], &|_, _| true, &options, &memory, &counters);
    assert_eq!(result.is_ok(), *memory.confirmed.lock().unwrap());
    assert_eq!(counters.bytes(), if result.is_ok() { SIZE as u64 } else { 0 });
    (memory, result)
}

fn time() -> u64 {
    let since = file(b"f", 1).modified.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

#[test]
fn the_far_side_is_told_path_size_and_digests() {
    let mut listing = Listing::new("/d");
    listing.push(&file(b"f", SIZE as u64)).unwrap();
    let host = FakeHost::new(|_, input| {
        let block = &sha256(&[1; BLOCK])[..DIGEST];
        let rest = &sha256(&[1; 5])[..DIGEST];
        let head = [
            &1u16.to_be_bytes()[..],
            &SIZE.to_be_bytes(),
            &3u32.to_be_bytes(),
            b"f",
        ]
        .concat();
        assert_eq!(input, [&head[..], block, block, rest].concat());
        Reply::output(
            &[
                b"none\n".to_vec(),
                run_of(2, 2, &[2; BLOCK + 10]),
                end(SIZE, time()),
            ]
            .concat(),
        )
    });
    let memory = Memory::new(2 * BLOCK + 5);
    let summary = transfer(
        &host,
        &[listing],
        &|_, _| true,
        &Options::default(),
        &memory,
        &Counters::default(),
    );
    assert_eq!(summary.unwrap().kept_bytes, 2 * BLOCK as u64);
}

#[test]
fn kept_and_new_blocks_make_the_file() {
    let (memory, result) = answer(SIZE, &[run_of(1, 1, &[2; BLOCK]), end(SIZE, time())]);
    let summary = result.unwrap();
    assert_eq!(
        (summary.kept_files, summary.kept_bytes),
        (0, (2 * BLOCK + 10) as u64)
    );
    let expected = [&[1; BLOCK][..], &[2; BLOCK], &[1; BLOCK + 10]].concat();
    assert_eq!(memory.new.into_inner().unwrap().unwrap(), expected);

    let (memory, result) = answer(SIZE, &[end(SIZE, time())]);
    assert_eq!(result.unwrap().kept_files, 1);
    assert_eq!(memory.new.into_inner().unwrap().unwrap(), vec![1; SIZE]);
}

#[test]
fn a_far_side_that_says_what_cannot_be_is_not_believed() {
    let good = end(SIZE, time());
    let cases: [(usize, Vec<Vec<u8>>, &str); 9] = [
        // Blocks beyond the end of the file, or behind blocks that it was not told of.
        (SIZE, vec![run_of(4, 1, &[2; BLOCK]), good.clone()], "cannot be"),
        (
            SIZE,
            vec![run_of(u32::MAX, 1, &[2; BLOCK]), good.clone()],
            "cannot be",
        ),
        (BLOCK, vec![run_of(2, 1, &[2; BLOCK]), good.clone()], "cannot be"),
        (BLOCK, vec![good.clone()], "cannot be"),
        (0, vec![good.clone()], "cannot be"),
        (SIZE, vec![good.clone(), good.clone()], "more than was asked for"),
        (SIZE, vec![run_of(1, 1, &[2; BLOCK])], "ends too early"),
        (SIZE, vec![run_of(1, 1, &[2; 100])], "ends too early"),
        (SIZE, vec![], "ends too early"),
    ];
    for (old, parts, expected) in cases {
        let (memory, result) = answer(old, &parts);
        let error = result.unwrap_err();
        assert!(
            matches!(&error, TransferError::Malformed { reason, .. } if reason.contains(expected)),
            "{error} instead of {expected}"
        );
        assert!(!*memory.confirmed.lock().unwrap());
    }
}

#[test]
fn a_file_of_another_size_or_time_has_changed_and_one_with_a_message_is_unreadable() {
    for parts in [end(SIZE + 1, time()), end(SIZE, time() + 1)] {
        let error = answer(SIZE, &[parts]).1.unwrap_err();
        assert!(matches!(error, TransferError::Changed { .. }), "{error}");
    }
    let message = [run_of(0, ERROR, &[0, 6]), b"Is\x1bbad".to_vec()].concat();
    let error = answer(SIZE, &[message]).1.unwrap_err().to_string();
    assert!(
        error.contains("cannot read \"/d/f\"") && !error.contains('\x1b'),
        "{error}"
    );
}

#[test]
fn times_before_1970_are_times() {
    assert_eq!(time_of(-1) + Duration::from_nanos(1), SystemTime::UNIX_EPOCH);
    assert_eq!(time_of(1) - Duration::from_nanos(1), SystemTime::UNIX_EPOCH);
}
