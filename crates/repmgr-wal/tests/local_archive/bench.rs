//! A directory as Barman keeps it, a `barman` that notes how it is called, and a data directory.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use repmgr_barman::ServerAddress;
use repmgr_codec::Codec;
use repmgr_remote::{LocalHost, quote};
use repmgr_types::{CancelToken, SystemId, WalSegmentName, WalSegmentSize};
use repmgr_wal::{
    Archive, ArchiveOptions, Cluster, FetchError, Restored, Spool, Transport, WalFileName, restore,
};
use tempfile::TempDir;

/// As small as PostgreSQL allows.
pub(crate) fn size() -> WalSegmentSize {
    WalSegmentSize::from_bytes(1 << 20).unwrap()
}

pub(crate) const ID: SystemId = SystemId(7_412_345_678_901_234_567);

pub(crate) struct Bench {
    dir: TempDir,
    pub(crate) partial: bool,
    /// How Barman is called.
    pub(crate) command: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bench = Self {
            command: quote(&dir.path().join("barman").to_string_lossy()).into_owned(),
            dir,
            partial: false,
        };
        for dir in [
            "home/main/wals",
            "home/main/incoming",
            "home/main/streaming",
            "data/global",
            "data/pg_wal",
        ] {
            fs::create_dir_all(bench.path(dir)).unwrap();
        }
        let mut control = ID.0.to_ne_bytes().to_vec();
        control.extend(1300_u32.to_ne_bytes());
        control.resize(8192, 0);
        bench.put("data/global/pg_control", &control);
        let home = bench.path("home");
        bench.put(
            "barman.conf",
            format!("[barman]\nbarman_home = {}\n[main]\n", home.display()).as_bytes(),
        );
        let identity = format!("{{\"systemid\": \"{ID}\", \"version\": \"15\"}}");
        bench.put("home/main/identity.json", identity.as_bytes());
        bench.barman("echo \"ERROR: WAL file '$5' not found in server '$4'\" >&2; exit 1");
        // What proves that it is an archive.
        bench.archive("000000010000000000000001", b"long ago");
        bench
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub(crate) fn put(&self, relative: &str, bytes: &[u8]) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Puts a file into `wals`, where Barman would.
    pub(crate) fn archive(&self, name: &str, bytes: &[u8]) {
        let name: WalFileName = name.parse().unwrap();
        self.put(&format!("home/main/wals/{}", name.archive_path()), bytes);
    }

    /// What `barman -c CONFIG get-wal SERVER NAME` does.
    pub(crate) fn barman(&self, script: &str) {
        let log = self.path("barman.log");
        // With --peek it tells whether it has the file.
        let peek = format!(
            "if [ \"$4\" = --peek ]; then\n  [ -e '{}'/*/\"$7\" ] && echo \"$7\"\n  exit 0\nfi",
            self.path("home/main/wals").display()
        );
        let text = format!("#!/bin/sh\necho \"$*\" >>'{}'\n{peek}\n{script}\n", log.display());
        repmgr_lab::write_program(&self.path("barman"), &text).unwrap();
    }

    /// How often it was called.
    pub(crate) fn barman_calls(&self) -> usize {
        fs::read_to_string(self.path("barman.log"))
            .unwrap_or_default()
            .lines()
            .count()
    }

    pub(crate) fn destination(&self) -> PathBuf {
        self.path("data/pg_wal/RECOVERYXLOG")
    }

    pub(crate) fn cluster(&self) -> Cluster {
        Cluster::of_destination(&self.destination())
    }

    fn open(&self, cancel: &CancelToken) -> Result<Archive, FetchError> {
        self.opener()(cancel)
    }

    /// Opens the archive on a host with a token.
    pub(crate) fn opener(&self) -> impl Fn(&CancelToken) -> Result<Archive, FetchError> + Send + use<> {
        let options = ArchiveOptions {
            address: ServerAddress {
                server: "main".into(),
                command: self.command.parse().unwrap(),
                config: Some(self.path("barman.conf").display().to_string()),
            },
            plain_host: None,
            system_id: self.cluster().system_id(),
            partial: self.partial,
            transport: Transport::Fast,
            local_wal: Some(self.path("data/pg_wal")),
        };
        move |cancel| Archive::new(Arc::new(LocalHost::new(cancel.clone())), options.clone())
    }

    pub(crate) fn spool(&self) -> Spool {
        Spool::new(
            None,
            &self.cluster(),
            self.cluster().system_id(),
            &["host", "main"],
        )
    }

    /// One call without a spool.
    pub(crate) fn fetch(&self, name: &str) -> Result<Vec<u8>, FetchError> {
        self.call(name, None)?;
        Ok(fs::read(self.destination()).unwrap())
    }

    /// One call.
    pub(crate) fn call(&self, name: &str, spool: Option<&Spool>) -> Result<Restored, FetchError> {
        let _ = fs::remove_file(self.destination());
        let open = || self.open(&CancelToken::new());
        let result = restore(
            name.parse().unwrap(),
            &self.destination(),
            spool,
            self.partial,
            open,
        );
        assert_eq!(result.is_ok(), self.destination().exists(), "{name}");
        let temporary = |path: &Path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(".repmgr-wal")
        };
        let left = fs::read_dir(self.path("data/pg_wal")).unwrap();
        assert!(
            !left.flatten().any(|e| temporary(&e.path())),
            "something is left behind"
        );
        result
    }
}

/// A segment whose first page says what its name demands.
pub(crate) fn segment(name: &str) -> Vec<u8> {
    let name: WalSegmentName = name.parse().unwrap();
    segment_with(name, name.timeline().id(), ID, size())
}

pub(crate) fn segment_with(
    name: WalSegmentName,
    timeline: u32,
    id: SystemId,
    size: WalSegmentSize,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(0xD110_u16.to_ne_bytes());
    bytes.extend(2_u16.to_ne_bytes());
    bytes.extend(timeline.to_ne_bytes());
    bytes.extend(name.start(size).0.to_ne_bytes());
    bytes.resize(20_usize.next_multiple_of(align_of::<u64>()), 0);
    bytes.extend(id.0.to_ne_bytes());
    bytes.extend(u32::try_from(size.bytes()).unwrap().to_ne_bytes());
    bytes.extend(8192_u32.to_ne_bytes());
    let seed = name.to_string().into_bytes();
    bytes.extend(seed.iter().cycle().take(size.bytes() as usize - bytes.len()));
    bytes
}

pub(crate) fn compressed(with: Codec, data: &[u8]) -> Vec<u8> {
    match with {
        Codec::None => data.to_vec(),
        Codec::Gzip => {
            let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            w.write_all(data).unwrap();
            w.finish().unwrap()
        }
        Codec::Bzip2 => {
            let mut w = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            w.write_all(data).unwrap();
            w.finish().unwrap()
        }
        Codec::Xz => {
            let mut w = liblzma::write::XzEncoder::new(Vec::new(), 1);
            w.write_all(data).unwrap();
            w.finish().unwrap()
        }
        Codec::Zstd => zstd::encode_all(data, 1).unwrap(),
        Codec::Lz4 => {
            let mut w = lz4_flex::frame::FrameEncoder::new(Vec::new());
            w.write_all(data).unwrap();
            w.finish().unwrap()
        }
    }
}
