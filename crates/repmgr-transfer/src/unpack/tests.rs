use std::fs;
use std::process::Command;

use repmgr_remote::{Host, LocalHost};
use tar::EntryType;

use super::*;
use crate::Compression;
use crate::archive::tests::{archive, file as member, header};
use crate::compression::ON_THE_WIRE;
use crate::fake::compress;
use crate::fake::{FakeHost, Reply};

/// Keeps what it is given; takes all files but those named "skip".
#[derive(Default)]
struct Seen {
    members: Vec<(String, EntryKind)>,
    finished: Vec<Vec<u8>>,
}

struct Open<'s> {
    seen: &'s mut Seen,
    bytes: Vec<u8>,
}

impl MemberSink for Seen {
    fn member(&mut self, member: &ArchiveMember<'_>) -> Result<Option<Box<dyn FileSink + '_>>, SinkError> {
        let path = String::from_utf8(member.path.to_vec())?;
        let wanted = member.kind == EntryKind::File && path != "skip";
        self.members.push((path, member.kind));
        let open = Open {
            seen: self,
            bytes: Vec::new(),
        };
        Ok(wanted.then(|| Box::new(open) as _))
    }
}

impl FileSink for Open<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        self.seen.finished.push(self.bytes);
        Ok(())
    }
}

fn run(reply: Reply, codec: Codec) -> Result<(Seen, (u64, u64)), TransferError> {
    let mut connection = FakeHost::answering(vec![reply]).connect().unwrap();
    let (mut seen, counters, options) = (Seen::default(), Counters::default(), Options::default());
    let result = unpack(
        &mut *connection,
        "/d",
        "base.tar",
        codec,
        &options,
        &mut seen,
        &counters,
    );
    let counted = (counters.files(), counters.bytes());
    assert_eq!(counted, *result.as_ref().unwrap_or(&(0, 0)));
    Ok((seen, result?))
}

fn error(reply: Reply) -> TransferError {
    run(reply, Codec::None).err().expect("it was taken")
}

/// As pg_basebackup writes it.
fn base() -> Vec<u8> {
    archive(&[
        member(b"backup_label", b"START"),
        header(b"pg_wal/", EntryType::Directory, 0).as_bytes().to_vec(),
        header(b"./pg_wal/archive_status/", EntryType::Directory, 0)
            .as_bytes()
            .to_vec(),
        header(b"./", EntryType::Directory, 0).as_bytes().to_vec(),
        header(b"pg_tblspc/16384", EntryType::Symlink, 0)
            .as_bytes()
            .to_vec(),
        member(b"skip", &[3; 2000]),
        member(b"base/1/1", &[1; 8192]),
        member(b"global/pg_control", &[2; 600]),
    ])
}

#[test]
fn members_of_every_compression_are_offered_and_taken() {
    for codec in ON_THE_WIRE {
        let stream = [b"none\n".to_vec(), compress(codec, &base())].concat();
        let (seen, counted) = run(Reply::output(&stream), codec).unwrap();
        assert_eq!(counted, (3, 8192 + 600 + 5));
        let paths: Vec<_> = seen.members.iter().map(|(p, _)| p.as_str()).collect();
        let expected = [
            "backup_label",
            "pg_wal",
            "pg_wal/archive_status",
            "pg_tblspc/16384",
            "skip",
            "base/1/1",
            "global/pg_control",
        ];
        assert_eq!(paths, expected);
        assert_eq!(seen.members[3].1, EntryKind::Symlink);
        assert_eq!(seen.finished, [b"START".to_vec(), vec![1; 8192], vec![2; 600]]);
    }
    // A plain one that was compressed on the way.
    let stream = [b"lz4\n".to_vec(), compress(Codec::Lz4, &base())].concat();
    assert_eq!(run(Reply::output(&stream), Codec::None).unwrap().1.0, 3);
}

#[test]
fn members_that_lead_elsewhere_are_refused() {
    for path in [
        &b"../x"[..],
        b"/etc/passwd",
        b"a/../../x",
        b"./../x",
        b"",
        b"a//b",
        b"x/",
    ] {
        let stream = [b"none\n".to_vec(), archive(&[member(path, b"x")])].concat();
        let error = error(Reply::output(&stream));
        assert!(error.to_string().contains("leads elsewhere"), "{path:?}: {error}");
    }
}

#[test]
fn an_archive_that_is_cut_or_followed_by_something_is_refused() {
    for codec in ON_THE_WIRE {
        let whole = compress(codec, &base());
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            // Two blocks of zeros are enough, whatever fills the last record.
            let cut = if codec == Codec::None {
                cut.min(base().len() - 9000)
            } else {
                cut
            };
            let stream = [b"none\n", &whole[..cut]].concat();
            let error = run(Reply::output(&stream), codec).err().expect("it was taken");
            let text = error.to_string();
            assert!(
                text.starts_with("the stream of \"/d/base.tar\" from"),
                "{codec} {cut}: {text}"
            );
        }
        let stream = [b"none\n", &whole[..], b"something else"].concat();
        assert!(run(Reply::output(&stream), codec).is_err(), "{codec}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_by_the_far_side() {
    let reply = Reply::output(b"none\n").exit(1, "cat: ./base.tar: Permission denied\n");
    assert_eq!(
        error(reply).to_string(),
        "cannot read \"/d/base.tar\" on \"fake\": cat: ./base.tar: Permission denied"
    );
    let whole = [b"none\n".to_vec(), base()].concat();
    let late = Reply::output(&whole).exit(1, "cat: ./base.tar: Input/output error\n");
    assert!(matches!(error(late), TransferError::Unreadable { .. }));
    assert!(error(Reply::output(&whole[..3000]).then_lost()).is_transient());
    assert!(error(Reply::output(&whole[..3000]).exit(137, "")).is_transient());
}

#[test]
fn real_archives_in_every_compression_and_way() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().to_str().unwrap();
    let noise: Vec<u8> = (0..2_000_000u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect();
    fs::create_dir_all(dir.path().join("in/base/1")).unwrap();
    fs::write(dir.path().join("in/base/1/1259"), &noise).unwrap();
    for (codec, program) in [
        (Codec::Zstd, "zstd -19 -T2"),
        (Codec::Lz4, "lz4 -9"),
        (Codec::Gzip, "gzip"),
        (Codec::None, "cat"),
    ] {
        let script = format!("cd {directory} && tar -C in -cf - . | {program} -c >-base.tar");
        let script = script.replace("cat -c", "cat");
        assert!(
            Command::new("sh")
                .arg("-c")
                .arg(script)
                .status()
                .unwrap()
                .success()
        );
        for compression in [
            Compression::Auto,
            Compression::Lz4,
            Compression::Gzip,
            Compression::None,
        ] {
            let options = Options {
                compression,
                ..Options::default()
            };
            let mut connection = LocalHost::default().connect().unwrap();
            let (mut seen, counters) = (Seen::default(), Counters::default());
            let sink = &mut seen;
            let counted = unpack(
                &mut *connection,
                directory,
                "-base.tar",
                codec,
                &options,
                sink,
                &counters,
            );
            assert_eq!(counted.unwrap(), (1, 2_000_000), "{codec} {compression:?}");
            assert!(seen.finished == [noise.clone()]);
            let paths: Vec<_> = seen.members.iter().map(|(p, _)| p.as_str()).collect();
            assert_eq!(paths, ["base", "base/1", "base/1/1259"]);
        }
    }
    let mut connection = LocalHost::default().connect().unwrap();
    for (name, text) in [("missing.tar", "No such file"), ("../x", "not a plain path")] {
        let (mut seen, counters, options) = (Seen::default(), Counters::default(), Options::default());
        for codec in [Codec::None, Codec::Gzip] {
            let result = unpack(
                &mut *connection,
                directory,
                name,
                codec,
                &options,
                &mut seen,
                &counters,
            );
            let error = result.unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
