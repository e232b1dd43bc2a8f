//! A program of its own: it measures its memory.

mod common;

use std::fs::{self, File};

use common::{Bench, Watch, options};
use repmgr_transfer::{Compression, Options};

/// The most memory this process ever had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

#[test]
fn large_files_and_many_files_need_little_memory() {
    let bench = Bench::new();
    let watch = Watch::new(|_| ());
    for (compression, size) in [(Compression::Zstd, 1 << 30), (Compression::None, 128 << 20)] {
        for name in ["segment", "segment.1"] {
            // Sparse, so that only its bytes on the way are many.
            let file = File::create(bench.source.join(name)).unwrap();
            file.set_len(size).unwrap();
        }
        let options = Options {
            compression,
            ..options(2)
        };
        let summary = bench.fetch(&bench.list(), &watch, &options).unwrap();
        assert_eq!(summary.bytes, 2 * size);
    }
    assert!(peak() < 50 << 20, "{} MiB", peak() >> 20);
    for dir in 0..50 {
        let dir = bench.source.join(format!("base/{dir}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..1000 {
            File::create(dir.join(file.to_string())).unwrap();
        }
    }
    let summary = bench.fetch(&bench.list(), &watch, &options(2)).unwrap();
    assert_eq!(summary.files, 50_002);
    assert!(peak() < 64 << 20, "{} MiB", peak() >> 20);
}
