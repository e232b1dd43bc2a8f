//! Fetches a directory from a host, as fast as it can, and tells how fast that was:
//! `fetch HOST DIRECTORY TARGET [JOBS [auto|zstd|lz4|gzip|none]]`; "-" as HOST is this one.
#![allow(clippy::print_stdout, reason = "a program")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use repmgr_remote::{Host, LocalHost, SshHost, SshOptions};
use repmgr_transfer::{
    Compression, Counters, EntryKind, FileSink, Listing, Options, Sink, SinkError, list, transfer,
};

struct Directory<'a> {
    root: &'a Path,
    listing: &'a Listing,
}

impl Directory<'_> {
    fn path(&self, index: usize) -> PathBuf {
        self.root.join(OsStr::from_bytes(self.listing.get(index).path))
    }
}

impl Sink for Directory<'_> {
    fn create(&self, _: usize, index: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
        Ok(Box::new(Open(File::create(self.path(index))?)))
    }

    fn confirm(&self, _: usize, _: &[usize]) -> Result<(), SinkError> {
        Ok(())
    }
}

struct Open(File);

impl FileSink for Open {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        Ok(self.0.write_all(bytes)?)
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [host, directory, root, rest @ ..] = words.as_slice() else {
        return Err("fetch HOST DIRECTORY TARGET [JOBS [COMPRESSION]]".into());
    };
    let mut options = Options::default();
    if let Some(jobs) = rest.first() {
        options.jobs = jobs.parse()?;
    }
    options.compression = match rest.get(1).map_or("auto", String::as_str) {
        "auto" => Compression::Auto,
        "zstd" => Compression::Zstd,
        "lz4" => Compression::Lz4,
        "gzip" => Compression::Gzip,
        "none" => Compression::None,
        other => return Err(format!("no compression \"{other}\"").into()),
    };
    let ssh = SshOptions {
        ssh_options: std::env::var("FETCH_SSH_OPTIONS").unwrap_or_default(),
        ..Default::default()
    };
    let host: Box<dyn Host> = match host.as_str() {
        "-" => Box::new(LocalHost::default()),
        name => Box::new(SshHost::new(name, ssh)?),
    };
    let started = Instant::now();
    let listing = list(&mut *host.connect()?, directory, &mut |_| true, &options.cancel)?;
    println!("{} entries listed after {:.2?}", listing.len(), started.elapsed());
    let sink = Directory {
        root: Path::new(root),
        listing: &listing,
    };
    for (index, entry) in listing.iter().enumerate() {
        if entry.kind == EntryKind::Directory {
            fs::create_dir_all(sink.path(index))?;
        }
    }
    let (sources, counters) = (std::slice::from_ref(&listing), Counters::default());
    let summary = transfer(host.as_ref(), sources, &|_, _| true, &options, &sink, &counters)?;
    println!("{summary:?} after {:.2?}", started.elapsed());
    Ok(())
}
