//! Archives as pg_basebackup writes them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use repmgr_lab::{PgInstall, Primary, PrimaryOptions, Scratch, check};
use repmgr_remote::{Host, LocalHost};
use repmgr_transfer::{
    ArchiveMember, Codec, Counters, EntryKind, FileSink, MemberSink, Options, SinkError, unpack,
};

const LIMIT: Duration = Duration::from_secs(120);

/// Path to content; directories have none.
type Tree = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

#[derive(Default)]
struct Memory(Tree);

struct Open<'m>(&'m mut Vec<u8>);

impl MemberSink for Memory {
    fn member(&mut self, member: &ArchiveMember<'_>) -> Result<Option<Box<dyn FileSink + '_>>, SinkError> {
        let content = self.0.entry(member.path.to_vec()).or_default();
        Ok(match member.kind {
            EntryKind::File => Some(Box::new(Open(content.insert(Vec::new())))),
            _ => None,
        })
    }
}

impl FileSink for Open<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

fn read_tree(dir: &Path, below: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = entry
            .path()
            .strip_prefix(below)
            .unwrap()
            .as_os_str()
            .as_bytes()
            .to_vec();
        if entry.file_type().unwrap().is_file() {
            tree.insert(path, Some(fs::read(entry.path()).unwrap()));
        } else {
            tree.insert(path, None);
            if entry.file_type().unwrap().is_dir() {
                read_tree(&entry.path(), below, tree);
            }
        }
    }
}

/// Takes a backup in tar format and compares what we unpack with what GNU tar unpacks.
fn check_backup(scratch: &Scratch, primary: &Primary, name: &str, compress: &[&str], codec: Codec) {
    let directory = scratch.join(name);
    let options = [&["-Ft", "-X", "none"], compress].concat();
    primary.base_backup(&directory, &options).unwrap();
    let mut archives = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let archive = entry.unwrap().file_name().into_string().unwrap();
        if !archive.contains(".tar") {
            continue;
        }
        archives += 1;
        let mut connection = LocalHost::default().connect().unwrap();
        let (mut memory, counters) = (Memory::default(), Counters::default());
        let shown = directory.to_str().unwrap();
        unpack(
            &mut *connection,
            shown,
            &archive,
            codec,
            &Options::default(),
            &mut memory,
            &counters,
        )
        .unwrap();
        let unpacked = scratch.dir(format!("{name}-{archive}")).unwrap();
        let mut tar = scratch.command("tar");
        if codec != Codec::None {
            tar.arg(format!("--use-compress-program={codec}"));
        }
        tar.arg("-xf")
            .arg(directory.join(&archive))
            .arg("-C")
            .arg(&unpacked);
        check(&mut tar, LIMIT).unwrap();
        let mut expected = Tree::new();
        read_tree(&unpacked, &unpacked, &mut expected);
        assert!(expected.len() > 3, "{archive}");
        assert!(memory.0 == expected, "{name} {archive}: {:?}", memory.0.keys());
    }
    assert_eq!(archives, 2, "base and a tablespace");
}

#[test]
fn archives_of_old_and_new_servers_are_unpacked_as_gnu_tar_does() {
    let scratch = Scratch::new().unwrap();
    for major in [10, 18] {
        let install = PgInstall::get(major).unwrap();
        let options = PrimaryOptions {
            tablespaces: vec!["t".into()],
            ..PrimaryOptions::default()
        };
        let primary = Primary::create(&scratch, &install, &format!("pg{major}"), &options).unwrap();
        let mut ways: Vec<(&[&str], Codec)> = vec![(&[], Codec::None)];
        if major == 10 {
            ways.push((&["-z"], Codec::Gzip));
        } else {
            ways.extend([
                (&["--compress=client-lz4"] as _, Codec::Lz4),
                (&["--compress=server-lz4"] as _, Codec::Lz4),
                (&["--compress=client-zstd:19"] as _, Codec::Zstd),
                (&["--compress=server-gzip"] as _, Codec::Gzip),
            ]);
        }
        for (number, (compress, codec)) in ways.into_iter().enumerate() {
            check_backup(&scratch, &primary, &format!("b{major}-{number}"), compress, codec);
        }
    }
}
