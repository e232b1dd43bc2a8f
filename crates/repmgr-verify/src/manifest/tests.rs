use proptest::prelude::*;

use super::*;

/// A manifest of these lines, with its checksum.
fn manifest(lines: &str) -> Vec<u8> {
    let text = format!("{lines}\n");
    let sum = Checksum::new(ChecksumAlgorithm::Sha256, &sha256(text.as_bytes())).unwrap();
    format!("{text}\"Manifest-Checksum\": \"{sum}\"}}\n").into_bytes()
}

fn of_files(files: &str) -> Vec<u8> {
    manifest(&format!(
        "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{files}\n],"
    ))
}

fn problem(files: &str) -> String {
    Manifest::parse(&of_files(files)).unwrap_err().to_string()
}

/// As PostgreSQL 18 writes it, but for the checksum of the whole.
const VERSION_2: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 2,
"System-Identifier": 7576877345678901234,
"Files": [
{ "Path": "backup_label", "Size": 226, "Last-Modified": "2026-11-24 01:58:34 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "6b1d7f9c" },
{ "Encoded-Path": "626173652ff0ff", "Size": 0, "Last-Modified": "2026-11-24 01:58:34 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" },
{ "Path": "pg_tblspc/16390/PG_18_202506291/5/a \"quoted\" \u00fc", "Size": 18446744073709551615, "Last-Modified": "2026-11-24 01:58:34 GMT" }
],
"WAL-Ranges": [
{ "Timeline": 2, "Start-LSN": "1/2000028", "End-LSN": "1/2000120" },
{ "Timeline": 1, "Start-LSN": "0/FF000028", "End-LSN": "1/2000028" }
],"#;

#[test]
fn a_manifest_of_version_2_is_read_whole() {
    let manifest = Manifest::parse(&manifest(VERSION_2)).unwrap();
    assert_eq!(manifest.len(), 3);
    assert_eq!(
        manifest.system_identifier(),
        Some(SystemId(7_576_877_345_678_901_234))
    );
    let label = manifest.get(b"backup_label").unwrap();
    assert_eq!((label.path, label.size), (&b"backup_label"[..], 226));
    assert_eq!(label.checksum.unwrap().to_string(), "6b1d7f9c");
    assert_eq!(
        manifest
            .get(b"base/\xf0\xff")
            .unwrap()
            .checksum
            .unwrap()
            .as_bytes(),
        [0; 4]
    );
    let last = manifest
        .get("pg_tblspc/16390/PG_18_202506291/5/a \"quoted\" ü".as_bytes())
        .unwrap();
    assert_eq!((last.size, last.checksum), (u64::MAX, None));
    assert_eq!(manifest.get(b"backup_labe"), None);
    let first = manifest.wal_ranges()[0];
    assert_eq!(
        (first.timeline.id(), first.start, first.end),
        (2, Lsn(0x1_0200_0028), Lsn(0x1_0200_0120))
    );
    assert_eq!(manifest.wal_ranges().len(), 2);
}

#[test]
fn a_manifest_of_barman_is_read() {
    let lines = r#"{"PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{"Checksum": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "Checksum-Algorithm": "SHA256", "Last-Modified": "2026-11-24 01:58:34", "Path": "b", "Size": 0},
{"Checksum": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "Checksum-Algorithm": "SHA256", "Last-Modified": "2026-11-24 01:58:34", "Path": "a", "Size": 1}],"#;
    let manifest = Manifest::parse(&manifest(lines)).unwrap();
    assert_eq!(
        manifest.iter().map(|entry| entry.path).collect::<Vec<_>>(),
        [b"a", b"b"]
    );
    assert!(manifest.wal_ranges().is_empty() && manifest.system_identifier().is_none());
    let mut check = manifest.get(b"a").unwrap().check();
    check.update(b"a");
    assert_eq!(check.finish(), Ok(()));
}

#[test]
fn a_manifest_that_is_cut_or_changed_is_refused() {
    let good = manifest(VERSION_2);
    for len in [
        0,
        1,
        good.len() / 2,
        good.len() - 68,
        good.len() - 3,
        good.len() - 1,
    ] {
        assert!(
            matches!(Manifest::parse(&good[..len]), Err(ManifestError::Cut)),
            "{len}"
        );
    }
    let changed = String::from_utf8(good).unwrap().replace("226", "227");
    assert!(matches!(
        Manifest::parse(changed.as_bytes()),
        Err(ManifestError::Damaged)
    ));
}

#[test]
fn another_version_is_told_by_name() {
    let of_version = |version: &str| {
        manifest(&format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n\"Other\": [],"
        ))
    };
    let error = Manifest::parse(&of_version("3")).unwrap_err();
    assert!(matches!(error, ManifestError::Version(3)) && error.hint().is_some());
    for other in ["\"2\"", "-1", "null"] {
        assert!(matches!(
            Manifest::parse(&of_version(other)),
            Err(ManifestError::Json(_))
        ));
    }
}

#[test]
fn paths_that_leave_the_data_directory_are_refused() {
    for (path, expected) in [
        ("/etc/passwd", "is an absolute path"),
        ("../x", "is not a plain path"),
        ("base/../../x", "is not a plain path"),
        ("base/.", "is not a plain path"),
        ("base//1", "is not a plain path"),
        ("base/", "is not a plain path"),
        ("", "is not a plain path"),
        ("base/\\u0000", "has a NUL byte"),
    ] {
        let problem = problem(&format!("{{ \"Path\": \"{path}\", \"Size\": 1 }}"));
        assert!(problem.ends_with(expected), "{path}: {problem}");
    }
    let encoded = problem("{ \"Encoded-Path\": \"2e2e2f78\", \"Size\": 1 }");
    assert_eq!(
        encoded,
        "the backup manifest lists \"../x\", which is not a plain path"
    );
}

#[test]
fn entries_that_say_too_little_or_too_much_are_refused() {
    for (files, expected) in [
        (
            r#"{"Path": "a", "Size": 1}, {"Path": "b", "Size": 1}, {"Path": "a", "Size": 1}"#,
            "lists \"a\", which is listed twice",
        ),
        (
            r#"{"Path": "a", "Size": 1}, {"Encoded-Path": "61", "Size": 1}"#,
            "lists \"a\", which is listed twice",
        ),
        (
            r#"{"Path": "a", "Encoded-Path": "61", "Size": 1}"#,
            "which has no path, or two",
        ),
        (r#"{"Size": 1}"#, "which has no path, or two"),
        (
            r#"{"Encoded-Path": "6", "Size": 1}"#,
            "which is not in hexadecimal digits",
        ),
        (
            r#"{"Path": "a", "Size": 1, "Checksum": "00000000"}"#,
            "which has half a checksum",
        ),
        (
            r#"{"Path": "a", "Size": 1, "Checksum-Algorithm": "MD5", "Checksum": "00"}"#,
            "which has a checksum of an unknown kind",
        ),
        (
            r#"{"Path": "a", "Size": 1, "Checksum-Algorithm": "CRC32C", "Checksum": "00"}"#,
            "which has an impossible checksum",
        ),
        (r#"{"Path": "a"}"#, "is not understood"),
        (r#"{"Path": "a", "Size": -1}"#, "is not understood"),
        (r#"{"Path": "a", "Size": 1, "Mode": 1}"#, "is not understood"),
        (r#"{"Path": "a", "Size": 1},"#, "is not understood"),
    ] {
        let problem = problem(files);
        assert!(problem.ends_with(expected), "{files}: {problem}");
    }
    for lines in [
        "{ \"PostgreSQL-Backup-Manifest-Version\": 1,",
        "{ \"Files\": [],\n\"PostgreSQL-Backup-Manifest-Version\": 1,",
        "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [],\n\"Files\": [],",
        "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [],\n\"More\": [],",
        "[ { \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [],",
        "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [],\n\"WAL-Ranges\": [ { \"Timeline\": 0, \
         \"Start-LSN\": \"0/0\", \"End-LSN\": \"0/0\" } ],",
    ] {
        assert!(
            matches!(Manifest::parse(&manifest(lines)), Err(ManifestError::Json(_))),
            "{lines}"
        );
    }
}

#[test]
fn what_an_error_quotes_cannot_drive_the_terminal() {
    let hostile = "é\\u001b]0;owned\\u0007\\n\\u009b";
    let escaped = "é\\u{1b}]0;owned\\u{7}\\n\\u{9b}";
    let listed = format!("{{ \"Path\": \"/{hostile}\", \"Size\": 1 }}");
    assert!(problem(&listed).contains(&format!("lists \"/{escaped}\",")));
    for (files, more) in [
        (format!("{{ \"{hostile}\": 1 }}"), String::new()),
        (String::new(), format!("\n\"{hostile}\": 1,")),
    ] {
        let lines = format!("{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{files}\n],{more}");
        let Err(ManifestError::Json(source)) = Manifest::parse(&manifest(&lines)) else {
            panic!("{lines} was taken");
        };
        let text = source.to_string();
        assert!(
            text.contains(escaped) && !text.contains(char::is_control),
            "{text}"
        );
        assert!(text.contains(" at line ") && source.line() > 1, "{text}");
    }
}

#[test]
fn many_files_take_little_memory() {
    let files: Vec<_> = (0..200_000)
        .map(|n| {
            format!(
                "{{ \"Path\": \"base/16384/{}\", \"Size\": 8192, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{n:08x}\" }}",
                16_384 + n
            )
        })
        .collect();
    let manifest = Manifest::parse(&of_files(&files.join(",\n"))).unwrap();
    let bytes = manifest.files.capacity() * size_of::<File>() + manifest.text.capacity();
    assert!(bytes < 200_000 * 50, "{bytes}");
    for n in [0, 77_777, 199_999] {
        let entry = manifest
            .get(format!("base/16384/{}", 16_384 + n).as_bytes())
            .unwrap();
        assert_eq!(entry.checksum.unwrap().to_string(), format!("{n:08x}"));
    }
}

proptest! {
    #[test]
    fn any_change_is_noticed(at in 0..manifest(VERSION_2).len(), to in any::<u8>()) {
        let mut bytes = manifest(VERSION_2);
        // A digit of the checksum itself may be in upper case.
        prop_assume!(!bytes[at].eq_ignore_ascii_case(&to));
        bytes[at] = to;
        prop_assert!(Manifest::parse(&bytes).is_err());
    }

    #[test]
    fn garbage_with_a_right_checksum_does_no_harm(lines in "(\\{|\"|:|,|\\[|\\]|[ -~]|\n)*") {
        let _ = Manifest::parse(&manifest(&lines));
        let _ = Manifest::parse(&of_files(&lines));
    }

    #[test]
    fn paths_come_back_as_they_were(names in prop::collection::btree_set(prop::collection::vec(1..=255_u8, 1..9), 1..20)) {
        let names: Vec<_> = names
            .into_iter()
            .filter(|name| problem_free(name))
            .collect();
        let files: Vec<_> = names
            .iter()
            .map(|name| {
                let digits: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{{ \"Encoded-Path\": \"{digits}\", \"Size\": {} }}", name.len())
            })
            .collect();
        let manifest = Manifest::parse(&of_files(&files.join(",\n"))).unwrap();
        prop_assert_eq!(manifest.len(), names.len());
        for name in &names {
            prop_assert_eq!(manifest.get(name).map(|entry| entry.size), Some(name.len() as u64));
        }
    }
}

fn problem_free(name: &[u8]) -> bool {
    name != b"." && name != b".." && !name.contains(&b'/')
}
