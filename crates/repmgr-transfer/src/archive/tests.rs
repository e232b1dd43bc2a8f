use super::*;

/// A header block as GNU tar writes it.
pub(crate) fn header(path: &[u8], kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    header
}

pub(crate) fn file(path: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = header(path, EntryType::Regular, content.len() as u64)
        .as_bytes()
        .to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

pub(crate) fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut all = members.concat();
    all.resize((all.len() + 2 * BLOCK).next_multiple_of(10_240), 0);
    all
}

type NameAndContent = (Vec<u8>, Vec<u8>);

/// All members, or what is wrong.
fn read(bytes: &[u8]) -> Result<Vec<NameAndContent>, String> {
    let mut archive = Archive::new(io::BufReader::with_capacity(700, bytes));
    let mut seen = Vec::new();
    let told = |e: StreamError| match e {
        StreamError::Malformed(reason) => reason,
        other => format!("{other:?}"),
    };
    while let Some(member) = archive.next().map_err(told)? {
        let mut content = Vec::new();
        loop {
            let bytes = archive.fill().map_err(|e| told(e.into()))?;
            if bytes.is_empty() {
                break;
            }
            let n = bytes.len();
            content.extend_from_slice(bytes);
            archive.consume(n);
        }
        assert_eq!(content.len() as u64, member.size);
        seen.push((member.path, content));
    }
    Ok(seen)
}

#[test]
fn what_the_tar_crate_writes_is_read() {
    let mut builder = tar::Builder::new(Vec::new());
    let long = "n".repeat(300);
    let contents: [(&str, &[u8]); 4] = [("a", b""), ("b", &[7; 512]), (&long, &[8; 5000]), ("c", b"x")];
    for (path, content) in contents {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        builder.append_data(&mut header, path, content).unwrap();
    }
    let seen = read(&builder.into_inner().unwrap()).unwrap();
    let expected: Vec<_> = contents.map(|(p, c)| (p.as_bytes().to_vec(), c.to_vec())).into();
    assert_eq!(seen, expected);
}

#[test]
fn members_that_nobody_reads_are_skipped() {
    let bytes = archive(&[file(b"a", &[1; 3000]), file(b"b", b"2")]);
    let mut archive = Archive::new(&bytes[..]);
    assert_eq!(archive.next().unwrap().unwrap().path, b"a");
    let member = archive.next().unwrap().unwrap();
    let expected = Member {
        path: b"b".to_vec(),
        kind: MemberKind::File,
        size: 1,
        mode: 0o600,
        modified: Some(1_700_000_000),
    };
    assert_eq!(member, expected);
    assert!(archive.next().unwrap().is_none());
}

#[test]
fn an_archive_cut_anywhere_is_an_error() {
    let whole = [file(b"a", &[1; 700]), file(b"b", b"")].concat();
    for cut in 0..whole.len() + 2 * BLOCK {
        let mut bytes = whole.clone();
        bytes.resize(whole.len() + 2 * BLOCK, 0);
        bytes.truncate(cut);
        assert_eq!(read(&bytes), Err("Short".to_owned()), "{cut}");
    }
}

#[test]
fn things_that_are_no_plain_files_are_refused() {
    for kind in [
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Continuous,
        EntryType::GNUSparse,
        EntryType::GNULongLink,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::new(b'A'),
    ] {
        let bytes = archive(&[header(b"x", kind, 0).as_bytes().to_vec()]);
        assert!(read(&bytes).unwrap_err().contains("has the type"), "{kind:?}");
    }
    let bytes = archive(&[
        header(b"x", EntryType::Directory, 512).as_bytes().to_vec(),
        vec![1; 512],
    ]);
    assert!(read(&bytes).unwrap_err().contains("is no file"));
}

#[test]
fn damaged_headers_are_refused() {
    let whole = archive(&[file(b"abc", b"content")]);
    for at in 0..BLOCK {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        // In the checksum's own field a blank may become a NUL, which means the same.
        if let Ok(seen) = read(&bytes) {
            assert!((148..156).contains(&at), "{at}");
            assert_eq!(seen, read(&whole).unwrap());
        }
    }
}

#[test]
fn nothing_may_follow_the_end() {
    let whole = archive(&[file(b"a", b"1")]);
    let appended = [whole.clone(), file(b"b", b"2")].concat();
    assert_eq!(read(&appended), Err("something follows its end".to_owned()));
    let bomb = [whole.clone(), vec![0; 2 << 20]].concat();
    assert_eq!(read(&bomb), Err("something follows its end".to_owned()));
    let mut single = file(b"a", b"1");
    single.extend_from_slice(&[0; BLOCK]);
    single.extend_from_slice(&file(b"b", b"2"));
    assert!(read(&archive(&[single])).unwrap_err().contains("only one block"));
}

#[test]
fn long_names_must_be_sound_and_followed_by_their_member() {
    let long = |content: &[u8]| {
        let mut bytes = file(b"././@LongLink", content);
        bytes[..BLOCK].copy_from_slice(
            header(b"././@LongLink", EntryType::GNULongName, content.len() as u64).as_bytes(),
        );
        bytes
    };
    let name = [vec![b'n'; 200], vec![0]].concat();
    let good = archive(&[long(&name), file(b"nnn", b"x")]);
    assert_eq!(read(&good).unwrap(), [(vec![b'n'; 200], b"x".to_vec())]);
    for bad in [
        archive(&[long(&name)]),
        archive(&[long(&name), long(&name), file(b"nnn", b"x")]),
        archive(&[long(b"no NUL"), file(b"n", b"x")]),
        archive(&[long(b"a\0b\0"), file(b"n", b"x")]),
        archive(&[long(&[b'n'; 5000]), file(b"n", b"x")]),
        archive(&[long(b""), file(b"n", b"x")]),
    ] {
        read(&bad).unwrap_err();
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000)) {
        let _ = read(&bytes);
    }
}
