//! Connections that break, and transfers that are stopped.

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Bench, Disk, Watch, content, options};
use repmgr_transfer::{Compression, FileSink, Options, Sink, SinkError, TransferError};

/// 300 files, 60 MB.
fn bench() -> Bench {
    let bench = Bench::new();
    for n in 0..300u64 {
        bench.file(format!("{}/{n}", n % 7), &content(n, 200_000));
    }
    bench
}

/// Calls a function once, when `after` bytes have come, and hands all on.
struct Once<'s, S> {
    sink: &'s S,
    watch: &'s (dyn Sink + 's),
}

struct Both<'s>(Box<dyn FileSink + 's>, Box<dyn FileSink + 's>);

impl<S: Sink> Sink for Once<'_, S> {
    fn create(&self, source: usize, index: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
        let both = Both(
            self.watch.create(source, index)?,
            self.sink.create(source, index)?,
        );
        Ok(Box::new(both))
    }

    fn confirm(&self, source: usize, indexes: &[usize]) -> Result<(), SinkError> {
        self.sink.confirm(source, indexes)
    }
}

impl FileSink for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.0.write(bytes)?;
        self.1.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        self.1.finish()
    }
}

#[test]
fn a_server_that_is_killed_in_the_middle_and_comes_back_costs_only_time() {
    let bench = bench();
    let listing = bench.list();
    for jobs in [1, 3] {
        let disk = Disk::new(&listing);
        let killed = AtomicBool::new(false);
        let watch = Watch::new(|bytes| {
            if bytes > 25_000_000 && !killed.swap(true, Ordering::SeqCst) {
                bench.sshd.kill().unwrap();
                bench.sshd.restart().unwrap();
            }
        });
        let sink = Once {
            sink: &disk,
            watch: &watch,
        };
        let summary = bench.fetch(&listing, &sink, &options(jobs)).unwrap();
        assert!(summary.retries > 0 && summary.files == 300, "{summary:?}");
        disk.assert_whole(&bench.source);
    }
}

#[test]
fn a_server_that_is_gone_for_good_is_given_up_with_the_reason() {
    let bench = bench();
    let listing = bench.list();
    let disk = Disk::new(&listing);
    let killed = AtomicBool::new(false);
    let watch = Watch::new(|bytes| {
        if bytes > 25_000_000 && !killed.swap(true, Ordering::SeqCst) {
            bench.sshd.kill().unwrap();
        }
    });
    let sink = Once {
        sink: &disk,
        watch: &watch,
    };
    let options = Options {
        retries: 2,
        ..options(3)
    };
    let error = bench.fetch(&listing, &sink, &options).unwrap_err();
    assert!(
        matches!(error, TransferError::Connect { attempts: 3, .. }),
        "{error}"
    );
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("cannot connect to \"barmansrv\""), "{cause}");
    assert!(error.is_transient() && error.hint().is_some());
    assert!(disk.confirmed.lock().unwrap().len() < 300);
}

#[test]
fn cancelling_in_the_middle_ends_it_soon() {
    let bench = bench();
    let listing = bench.list();
    let options = options(3);
    let watch = Watch::new(|bytes| {
        if bytes > 10_000_000 {
            options.cancel.cancel();
        }
    });
    let error = bench.fetch(&listing, &watch, &options).unwrap_err();
    assert!(matches!(error, TransferError::Cancelled(_)), "{error}");
    let error = bench.fetch(&listing, &watch, &options).unwrap_err();
    assert!(matches!(error, TransferError::Cancelled(_)), "{error}");
}

/// Fails for the first file after 2 s; by then the others wait.
struct Fails(Mutex<Option<Instant>>);

struct Nothing;

impl Sink for Fails {
    fn create(&self, _: usize, index: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
        if index == 0 {
            std::thread::sleep(Duration::from_secs(2));
            *self.0.lock().unwrap() = Some(Instant::now());
            return Err("disk full".into());
        }
        Ok(Box::new(Nothing))
    }

    fn confirm(&self, _: usize, _: &[usize]) -> Result<(), SinkError> {
        panic!("nothing can be whole")
    }
}

impl FileSink for Nothing {
    fn write(&mut self, _: &[u8]) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

#[test]
fn an_error_ends_workers_that_wait_for_a_silent_far_side() {
    let bench = Bench::new();
    // A compressor that passes its first bytes on and then sleeps.
    let script = "#!/bin/sh\n/usr/bin/zstd -1 -q -c | head -c 100000\nexec sleep 100\n";
    bench.scratch.write("bin/zstd", script, 0o755).unwrap();
    bench.sshd.set_env("PATH", &bench.scratch.search_path()).unwrap();
    for n in 0..3u64 {
        bench.file(n.to_string(), &content(n, 20_000_000));
    }
    let mut listing = repmgr_transfer::Listing::new(bench.directory());
    // `find` may give them in any order.
    for path in [b"0", b"1", b"2"] {
        listing
            .push(&bench.list().iter().find(|e| e.path == path).unwrap())
            .unwrap();
    }
    let sink = Fails(Mutex::default());
    let options = Options {
        compression: Compression::Zstd,
        ..options(3)
    };
    let error = bench.fetch(&listing, &sink, &options).unwrap_err();
    let failed = sink.0.lock().unwrap().unwrap();
    assert!(
        failed.elapsed() < Duration::from_secs(2),
        "{:?}",
        failed.elapsed()
    );
    assert!(error.to_string().starts_with("cannot store"), "{error}");
}
