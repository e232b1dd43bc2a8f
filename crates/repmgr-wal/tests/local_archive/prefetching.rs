use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use repmgr_types::{CancelToken, Timeline, WalSegmentName};
use repmgr_wal::{Archive, FetchError, PrefetchEnd, PrefetchOptions, Spool, prefetch};

use rustix::fs::{FlockOperation, flock};

use crate::bench::{Bench, ID, segment, segment_with, size};

fn name(timeline: u32, number: u64) -> String {
    let timeline = Timeline::new(timeline).unwrap();
    WalSegmentName::containing(timeline, repmgr_types::Lsn(number << 20), size()).to_string()
}

fn options(delivered: &str) -> PrefetchOptions {
    PrefetchOptions {
        delivered: delivered.parse().unwrap(),
        segment_size: size(),
        system_id: ID,
        max_segments: 4,
        max_bytes: 1 << 30,
        idle: Duration::from_secs(60),
    }
}

/// A prefetcher in a thread; ends with the test.
struct Ahead {
    cancel: CancelToken,
    thread: Option<JoinHandle<PrefetchEnd>>,
}

impl Ahead {
    fn start(bench: &Bench, options: PrefetchOptions) -> Self {
        Self::on(bench, options, bench.opener())
    }

    fn on(
        bench: &Bench,
        options: PrefetchOptions,
        open: impl Fn(&CancelToken) -> Result<Archive, FetchError> + Send + 'static,
    ) -> Self {
        let cancel = CancelToken::new();
        let (spool, cluster, token) = (bench.spool(), bench.cluster(), cancel.clone());
        let thread = thread::spawn(move || prefetch(open, spool, &cluster, options, &token).unwrap());
        Self {
            cancel,
            thread: Some(thread),
        }
    }

    fn end(&mut self) -> PrefetchEnd {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn ready(spool: &Spool) -> Vec<String> {
    let entries = fs::read_dir(spool.dir()).into_iter().flatten().flatten();
    let names = entries.map(|e| e.file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|n| n.parse::<WalSegmentName>().is_ok()).collect();
    names.sort();
    names
}

#[track_caller]
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5));
    }
}

fn names(timeline: u32, numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|n| name(timeline, n)).collect()
}

fn archive_of(bench: &Bench, timeline: u32, numbers: impl IntoIterator<Item = u64>) {
    for name in names(timeline, numbers) {
        bench.archive(&name, &segment(&name));
    }
}

#[test]
fn it_runs_ahead_as_far_as_allowed_and_follows() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..20);
    let spool = bench.spool();
    let _ahead = Ahead::start(&bench, options(&name(1, 3)));
    eventually("four ahead", || ready(&spool) == names(1, 4..8));
    sleep(Duration::from_millis(100));
    assert_eq!(ready(&spool), names(1, 4..8));
    for n in 4..20 {
        bench.call(&name(1, n), Some(&spool)).unwrap();
        assert!(
            fs::read(bench.destination()).unwrap() == segment(&name(1, n)),
            "{n}"
        );
    }
    eventually("nothing left", || ready(&spool).is_empty());
    assert_eq!(bench.barman_calls(), 0);
}

#[test]
fn bytes_are_a_bound_as_well() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..20);
    let spool = bench.spool();
    let few = PrefetchOptions {
        max_bytes: 2 << 20,
        ..options(&name(1, 3))
    };
    let _ahead = Ahead::start(&bench, few);
    eventually("two ahead", || ready(&spool) == names(1, 4..6));
    sleep(Duration::from_millis(100));
    assert_eq!(ready(&spool), names(1, 4..6));
}

#[test]
fn it_answers_what_is_asked_out_of_turn() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..8);
    bench.archive("00000002.history", b"1\t0/800100\tx\n");
    let spool = bench.spool();
    let _ahead = Ahead::start(&bench, options(&name(1, 3)));
    eventually("at work", || !ready(&spool).is_empty());
    // The archive is read by the prefetcher alone: opening it would fail.
    let call = |name: &str| {
        let _ = fs::remove_file(bench.destination());
        let open = || -> Result<_, FetchError> { panic!("opened for {name}") };
        repmgr_wal::restore(
            name.parse().unwrap(),
            &bench.destination(),
            Some(&spool),
            false,
            open,
        )
    };
    call("00000002.history").unwrap();
    assert_eq!(fs::read(bench.destination()).unwrap(), b"1\t0/800100\tx\n");
    for n in 4..8 {
        call(&name(1, n)).unwrap();
    }
    // Missing ones are told without delay, and once they are there they are found.
    let missing = || bench.call(&name(1, 8), Some(&spool));
    let started = Instant::now();
    for _ in 0..5 {
        assert!(matches!(missing(), Err(FetchError::NotInArchive { .. })));
    }
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    archive_of(&bench, 1, [8]);
    call(&name(1, 8)).unwrap();
}

#[test]
fn it_follows_to_another_timeline() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..9);
    bench.archive("00000002.history", b"1\t0/600100\tx\n");
    let branch = name(2, 6);
    bench.archive(&branch, &segment_with(branch.parse().unwrap(), 1, ID, size()));
    archive_of(&bench, 2, 7..12);
    let spool = bench.spool();
    let _ahead = Ahead::start(&bench, options(&name(1, 3)));
    eventually("ahead on 1", || ready(&spool) == names(1, 4..8));
    // As PostgreSQL asks: the newest timeline first.
    for (timeline, n) in [(1, 4), (2, 5), (1, 5), (2, 6), (2, 7)] {
        let result = bench.call(&name(timeline, n), Some(&spool));
        assert_eq!(
            result.is_ok(),
            (timeline, n) != (2, 5),
            "{timeline} {n}: {result:?}"
        );
    }
    eventually("ahead on 2", || ready(&spool) == names(2, 8..12));
}

#[test]
fn a_refused_segment_is_reported_by_whoever_needs_it() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..9);
    bench.archive(&name(1, 6), &segment(&name(1, 7)));
    let spool = bench.spool();
    let _ahead = Ahead::start(&bench, options(&name(1, 3)));
    eventually("up to the bad one", || ready(&spool) == names(1, 4..6));
    for n in 4..6 {
        bench.call(&name(1, n), Some(&spool)).unwrap();
    }
    assert!(matches!(
        bench.call(&name(1, 6), Some(&spool)),
        Err(FetchError::Refused { .. })
    ));
    archive_of(&bench, 1, [6]);
    for n in 6..9 {
        bench.call(&name(1, n), Some(&spool)).unwrap();
    }
}

#[test]
fn an_unfinished_segment_is_never_held_ready() {
    let mut bench = Bench::new();
    bench.partial = true;
    archive_of(&bench, 1, 3..5);
    bench.put(
        &format!("home/main/streaming/{}.partial", name(1, 5)),
        &segment(&name(1, 5)),
    );
    let spool = bench.spool();
    let _ahead = Ahead::start(&bench, options(&name(1, 3)));
    eventually("the whole one", || ready(&spool) == names(1, 4..5));
    sleep(Duration::from_millis(100));
    assert_eq!(ready(&spool), names(1, 4..5));
    bench.call(&name(1, 4), Some(&spool)).unwrap();
    // But it is delivered to who asks for it.
    bench.call(&name(1, 5), Some(&spool)).unwrap();
}

#[test]
fn a_second_one_leaves_at_once() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..9);
    let spool = bench.spool();
    let _first = Ahead::start(&bench, options(&name(1, 3)));
    eventually("the first works", || !ready(&spool).is_empty());
    assert_eq!(
        Ahead::start(&bench, options(&name(1, 3))).end(),
        PrefetchEnd::AlreadyServed
    );
}

#[test]
fn it_ends_when_nobody_calls_and_takes_its_files_with_it() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..9);
    let brief = PrefetchOptions {
        idle: Duration::from_millis(300),
        ..options(&name(1, 3))
    };
    assert_eq!(Ahead::start(&bench, brief).end(), PrefetchEnd::Idle);
    let left: Vec<_> = fs::read_dir(bench.spool().dir())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn it_ends_when_the_data_directory_or_the_server_or_the_spool_is_gone() {
    for gone in ["data/pg_wal", "data/postmaster.pid", "data/pg_wal/repmgr_spool"] {
        let bench = Bench::new();
        archive_of(&bench, 1, 3..9);
        bench.put(
            "data/postmaster.pid",
            format!("{}\n/data\n", std::process::id()).as_bytes(),
        );
        let spool = bench.spool();
        let mut ahead = Ahead::start(&bench, options(&name(1, 3)));
        eventually("at work", || ready(&spool).len() == 4);
        let path = bench.path(gone);
        let moved = bench.path("moved");
        fs::rename(path, moved).unwrap();
        assert_eq!(ahead.end(), PrefetchEnd::Deserted, "{gone}");
        // Other work may share it.
        assert!(!ahead.cancel.is_cancelled(), "{gone}");
    }
}

#[test]
fn what_pg_rewind_may_have_seen_stays_when_the_server_is_gone() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..9);
    let pid = format!("{}\n/data\n", std::process::id());
    bench.put("data/postmaster.pid", pid.as_bytes());
    let spool = bench.spool();
    let mut ahead = Ahead::start(&bench, options(&name(1, 3)));
    eventually("at work", || ready(&spool).len() == 4);
    fs::remove_file(bench.path("data/postmaster.pid")).unwrap();
    assert_eq!(ahead.end(), PrefetchEnd::Deserted);
    assert_eq!(ready(&spool), names(1, 4..8));
    // The next server uses it, or it goes when that can use none of it.
    bench.call(&name(1, 4), Some(&spool)).unwrap();
    assert_eq!(ready(&spool), names(1, 5..8));
    bench.call(&name(2, 5), Some(&spool)).unwrap_err();
    assert!(ready(&spool).is_empty());
}

#[test]
fn spools_of_other_servers_are_swept_and_nothing_else() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..4);
    let base = bench.path("data/pg_wal/repmgr_spool");
    let make = |spool: &str| {
        let dir = base.join(spool);
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        for file in ["lock", "system_id", "caller", &name(1, 7)] {
            fs::write(dir.join(file), "x").unwrap();
        }
        dir
    };
    let swept = [
        make(&format!("{ID}-0123456789abcdef")),
        make("any-00000000000000ff"),
    ];
    let served = make("any-00000000000000fe");
    let kept = [make("notes"), make("any-short"), make("x-0123456789abcdef")];
    let lock = fs::File::open(served.join("lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    bench.call(&name(1, 3), Some(&bench.spool())).unwrap();
    assert!(swept.iter().all(|dir| !dir.exists()));
    for dir in kept.iter().chain([&served]) {
        assert_eq!(fs::read_dir(dir).unwrap().count(), 4, "{dir:?}");
    }
}

/// What Barman still sends by then is wanted by nobody; the host may have a token of its own.
#[test]
fn a_transfer_ends_when_the_server_is_gone_or_the_caller_cancels() {
    for gone in [true, false] {
        let bench = Bench::new();
        bench.archive(&name(1, 4), b"only Barman can read it");
        bench.barman("exec sleep 100");
        let open = bench.opener();
        let mut ahead = Ahead::on(&bench, options(&name(1, 3)), move |_| open(&CancelToken::new()));
        eventually("a transfer", || bench.barman_calls() == 1);
        let expected = if gone {
            fs::rename(bench.path("data/pg_wal"), bench.path("moved")).unwrap();
            PrefetchEnd::Deserted
        } else {
            ahead.cancel.cancel();
            PrefetchEnd::Cancelled
        };
        let since = Instant::now();
        assert_eq!(ahead.end(), expected);
        assert!(since.elapsed() < Duration::from_secs(20), "{expected:?}");
    }
}

#[test]
fn rests_of_a_killed_one_are_used_if_they_are_right_and_else_removed() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..9);
    let spool = bench.spool();
    fs::create_dir_all(spool.dir()).unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(spool.dir().join(name), bytes).unwrap();
    let whole = segment(&name(1, 4));
    put(&name(1, 4), &whole);
    put(&name(1, 5), &whole);
    put(&name(1, 6), &segment(&name(1, 6))[..5000]);
    put(&name(7, 6), &segment(&name(7, 6)));
    put(".repmgr-wal.2147483646.000000010000000000000007", b"half");
    // Without a prefetcher: the whole one is delivered, the wrong ones come from the archive.
    for n in 4..7 {
        bench.call(&name(1, n), Some(&spool)).unwrap();
        assert!(
            fs::read(bench.destination()).unwrap() == segment(&name(1, n)),
            "{n}"
        );
    }
    let _ahead = Ahead::start(&bench, options(&name(1, 6)));
    eventually("only what is of use", || ready(&spool) == names(1, 7..9));
    assert!(
        !spool
            .dir()
            .join(".repmgr-wal.2147483646.000000010000000000000007")
            .exists()
    );
}

#[test]
fn a_killed_one_is_replaced_by_the_next_call() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..9);
    let spool = bench.spool();
    let first = bench.call(&name(1, 3), Some(&spool)).unwrap();
    assert_eq!(first.prefetch.unwrap().delivered.to_string(), name(1, 3));
    let ahead = Ahead::start(&bench, options(&name(1, 3)));
    eventually("at work", || !ready(&spool).is_empty());
    assert_eq!(bench.call(&name(1, 4), Some(&spool)).unwrap().prefetch, None);
    drop(ahead);
    assert!(bench.call(&name(1, 5), Some(&spool)).unwrap().prefetch.is_some());
}

#[test]
fn an_archive_that_fails_is_no_missing_file() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..5);
    let spool = bench.spool();
    let _ahead = Ahead::start(&bench, options(&name(1, 3)));
    eventually("at work", || ready(&spool) == names(1, 4..5));
    // The directories vanish, and Barman does not run: nobody can tell.
    fs::rename(bench.path("home"), bench.path("away")).unwrap();
    bench.barman("echo 'EXCEPTION: no home' >&2; exit 1");
    bench.call(&name(1, 4), Some(&spool)).unwrap();
    for _ in 0..3 {
        let result = bench.call(&name(1, 5), Some(&spool));
        assert!(matches!(result, Err(FetchError::Barman { .. })), "{result:?}");
    }
}

#[test]
fn without_a_control_file_only_the_cluster_seen_first_counts() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..9);
    fs::remove_file(bench.path("data/global/pg_control")).unwrap();
    let spool = bench.spool();
    // Nobody has said yet whose this is.
    fs::create_dir_all(spool.dir()).unwrap();
    fs::write(spool.dir().join(name(1, 3)), segment(&name(1, 3))).unwrap();
    let first = bench.call(&name(1, 3), Some(&spool)).unwrap().prefetch.unwrap();
    assert_eq!(first.header.system_id, ID);
    let _ahead = Ahead::start(&bench, options(&name(1, 3)));
    eventually("ahead", || ready(&spool) == names(1, 4..8));
    let foreign = segment_with(name(1, 5).parse().unwrap(), 1, repmgr_types::SystemId(9), size());
    fs::write(spool.dir().join(name(1, 5)), foreign).unwrap();
    for n in 4..8 {
        bench.call(&name(1, n), Some(&spool)).unwrap();
        assert!(
            fs::read(bench.destination()).unwrap() == segment(&name(1, n)),
            "{n}"
        );
    }
}

#[test]
fn an_archive_that_is_not_mounted_any_more_ends_nothing() {
    let bench = Bench::new();
    archive_of(&bench, 1, 3..5);
    let spool = bench.spool();
    let _ahead = Ahead::start(&bench, options(&name(1, 3)));
    eventually("at work", || ready(&spool) == names(1, 4..5));
    bench.call(&name(1, 4), Some(&spool)).unwrap();
    let missing = || bench.call(&name(1, 5), Some(&spool)).unwrap_err();
    assert!(matches!(missing(), FetchError::NotInArchive { .. }));
    fs::rename(bench.path("home/main/wals"), bench.path("away")).unwrap();
    fs::create_dir(bench.path("home/main/wals")).unwrap();
    for _ in 0..3 {
        assert!(matches!(missing(), FetchError::NothingThere { .. }));
    }
    fs::remove_dir(bench.path("home/main/wals")).unwrap();
    fs::rename(bench.path("away"), bench.path("home/main/wals")).unwrap();
    assert!(matches!(missing(), FetchError::NotInArchive { .. }));
}
