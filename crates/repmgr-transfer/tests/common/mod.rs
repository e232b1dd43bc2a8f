//! An sshd with files behind it, and sinks.

// Each test file is a program of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use repmgr_lab::{Scratch, Sshd};
use repmgr_remote::{Host, SshHost, SshOptions};
use repmgr_transfer::{
    Counters, Entry, FileSink, Listing, Options, Sink, SinkError, TransferError, Transferred, list, transfer,
};
use repmgr_types::CancelToken;

pub struct Bench {
    pub sshd: Sshd,
    pub scratch: Arc<Scratch>,
    pub host: SshHost,
    /// What is fetched. Ours, and the account of the server may read it.
    pub source: PathBuf,
    _files: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let scratch = Scratch::new().unwrap();
        let sshd = Sshd::start(&scratch).unwrap();
        let options = SshOptions {
            ssh_options: format!("-F {}", sshd.client_config().display()),
            connect_timeout: Duration::from_secs(20),
            ..Default::default()
        };
        let host = SshHost::new("barmansrv", options).unwrap();
        let files = tempfile::tempdir().unwrap();
        fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let source = files.path().canonicalize().unwrap();
        Self {
            sshd,
            scratch,
            host,
            source,
            _files: files,
        }
    }

    /// Makes a file to fetch, with the directories above it.
    pub fn file(&self, path: impl AsRef<[u8]>, content: &[u8]) -> PathBuf {
        let path = self.source.join(OsStr::from_bytes(path.as_ref()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn list(&self) -> Listing {
        let mut connection = self.host.connect().unwrap();
        list(
            &mut *connection,
            self.directory(),
            &mut |_| true,
            &CancelToken::new(),
        )
        .unwrap()
    }

    pub fn directory(&self) -> &str {
        self.source.to_str().unwrap()
    }

    pub fn fetch(
        &self,
        listing: &Listing,
        sink: &dyn Sink,
        options: &Options,
    ) -> Result<Transferred, TransferError> {
        let sources = std::slice::from_ref(listing);
        transfer(
            &self.host,
            sources,
            &|_, _| true,
            options,
            sink,
            &Counters::default(),
        )
    }
}

pub fn options(jobs: usize) -> Options {
    Options {
        jobs: NonZero::new(jobs).unwrap(),
        retry_pause: Duration::from_millis(100),
        ..Options::default()
    }
}

/// Bytes that compress a little, different for each seed.
pub fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(1);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 40).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes into a directory; remembers what was confirmed.
pub struct Disk<'a> {
    root: tempfile::TempDir,
    listing: &'a Listing,
    pub confirmed: Mutex<BTreeSet<usize>>,
}

impl<'a> Disk<'a> {
    pub fn new(listing: &'a Listing) -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            listing,
            confirmed: Mutex::default(),
        }
    }

    pub fn path(&self, entry: &Entry<'_>) -> PathBuf {
        self.root.path().join(OsStr::from_bytes(entry.path))
    }

    /// Every file of the listing is confirmed and is here as it is in `source`.
    #[track_caller]
    pub fn assert_whole(&self, source: &Path) {
        let confirmed = self.confirmed.lock().unwrap();
        for (index, entry) in self.listing.iter().enumerate() {
            if entry.kind != repmgr_transfer::EntryKind::File {
                continue;
            }
            assert!(confirmed.contains(&index), "{entry:?}");
            let there = fs::read(source.join(OsStr::from_bytes(entry.path))).unwrap();
            assert!(fs::read(self.path(&entry)).unwrap() == there, "{entry:?}");
        }
    }
}

impl Sink for Disk<'_> {
    fn create(&self, _: usize, index: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
        let path = self.path(&self.listing.get(index));
        fs::create_dir_all(path.parent().unwrap())?;
        Ok(Box::new(DiskFile(File::create(path)?)))
    }

    fn confirm(&self, _: usize, indexes: &[usize]) -> Result<(), SinkError> {
        let mut confirmed = self.confirmed.lock().unwrap();
        for index in indexes {
            assert!(confirmed.insert(*index), "confirmed twice");
        }
        Ok(())
    }
}

struct DiskFile(File);

impl FileSink for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        Ok(self.0.write_all(bytes)?)
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Calls `each` with the bytes so far whenever some come, and keeps nothing.
pub struct Watch<F> {
    each: F,
    bytes: std::sync::atomic::AtomicU64,
}

impl<F: Fn(u64) + Sync> Watch<F> {
    pub fn new(each: F) -> Self {
        Self {
            each,
            bytes: Default::default(),
        }
    }
}

impl<F: Fn(u64) + Sync> Sink for Watch<F> {
    fn create(&self, _: usize, _: usize) -> Result<Box<dyn FileSink + '_>, SinkError> {
        Ok(Box::new(WatchFile(self)))
    }

    fn confirm(&self, _: usize, _: &[usize]) -> Result<(), SinkError> {
        Ok(())
    }
}

struct WatchFile<'s, F>(&'s Watch<F>);

impl<F: Fn(u64) + Sync> FileSink for WatchFile<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        let before = self
            .0
            .bytes
            .fetch_add(bytes.len() as u64, std::sync::atomic::Ordering::SeqCst);
        (self.0.each)(before);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}
