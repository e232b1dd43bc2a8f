use std::time::Duration;

use super::*;
use crate::fake::{FakeHost, Reply};
use repmgr_remote::{Host, LocalHost};

fn listed(reply: Reply) -> Result<Listing, ListError> {
    let host = FakeHost::answering(vec![reply]);
    let mut connection = host.connect().unwrap();
    list(&mut *connection, "/d", &mut |_| true, &CancelToken::new())
}

#[test]
fn entries_of_every_kind_are_read() {
    let text = b"find\0d r 4096 700 1700000000.5000000000 base\0f - 12 640 -2.5000000000 base/ 1\n\0\
        l r 3 777 0.0000000000 \xff\0p r 0 4644 1.25 fifo\0";
    let listing = listed(Reply::output(text)).unwrap();
    let seen: Vec<_> = listing
        .iter()
        .map(|e| (e.path, e.kind, e.readable, e.size, e.mode))
        .collect();
    use EntryKind as K;
    assert_eq!(
        seen,
        [
            (&b"base"[..], K::Directory, true, 4096, 0o700),
            (b"base/ 1\n", K::File, false, 12, 0o640),
            (b"\xff", K::Symlink, true, 3, 0o777),
            (b"fifo", K::Other, true, 0, 0o4644),
        ]
    );
    let epoch = SystemTime::UNIX_EPOCH;
    let times: Vec<_> = listing.iter().map(|e| e.modified).collect();
    assert_eq!(times[0], epoch + Duration::from_millis(1_700_000_000_500));
    assert_eq!(times[1], epoch - Duration::from_millis(1500));
    assert_eq!(listing.total_size(), 12);
}

#[test]
fn what_is_not_wanted_is_not_kept() {
    let host = FakeHost::answering(vec![Reply::output(b"find\0f r 1 600 0.0 a\0f r 2 600 0.0 b\0")]);
    let mut connection = host.connect().unwrap();
    let mut keep = |e: &Entry<'_>| e.path == b"b";
    let listing = list(&mut *connection, "/d", &mut keep, &CancelToken::new()).unwrap();
    assert_eq!((listing.len(), listing.get(0).path), (1, &b"b"[..]));
    assert_eq!(listing.directory(), "/d");
}

#[test]
fn an_empty_directory_has_no_entries() {
    assert!(listed(Reply::output(b"find\0")).unwrap().is_empty());
}

#[test]
fn output_that_find_does_not_print_is_refused() {
    for bad in [
        &b"find\0f r 1 600 0.0 ../../etc/passwd\0"[..],
        b"find\0f r 1 600 0.0 /etc/passwd\0",
        b"find\0f r 1 600 0.0 \0",
        b"find\0f r 1 600 0.0\0",
        b"find\0ff r 1 600 0.0 a\0",
        b"find\0f x 1 600 0.0 a\0",
        b"find\0f r -1 600 0.0 a\0",
        b"find\0f r 1 99999 0.0 a\0",
        b"find\0f r 1 600 nan a\0",
        b"find\0f r 1 600 0.0 a",
        b"f r 1 600 0.0 a\0",
        b"find",
        b"",
    ] {
        let error = listed(Reply::output(bad)).unwrap_err();
        assert!(matches!(error, ListError::Malformed { .. }), "{bad:?}: {error}");
    }
    let endless = [&b"find\0f r 1 600 0.0 "[..], &[b'x'; 10_000]].concat();
    assert!(matches!(
        listed(Reply::output(&endless)),
        Err(ListError::Malformed { .. })
    ));
}

#[test]
fn a_failed_find_is_told_by_what_it_said() {
    let failed = Reply::output(b"find\0f r 1 600 0.0 a\0f r 1 60")
        .exit(1, "motd\nfind: './b': No such file or directory\n");
    let error = listed(failed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot list \"/d\" on \"fake\": find: './b': No such file or directory"
    );
    let no_directory = Reply::output(b"").exit(1, "sh: 1: cd: can't cd to /d\n");
    assert!(
        listed(no_directory)
            .unwrap_err()
            .to_string()
            .ends_with("can't cd to /d")
    );
}

#[test]
fn missing_gnu_find_and_relative_directories_are_told() {
    let error = listed(Reply::output(b"missing\0")).unwrap_err();
    assert!(error.hint().unwrap().contains("findutils"), "{error}");
    let mut connection = FakeHost::answering(vec![]).connect().unwrap();
    let error = list(&mut *connection, "d", &mut |_| true, &CancelToken::new()).unwrap_err();
    assert!(matches!(error, ListError::NotAbsolute { .. }));
}

#[test]
fn a_lost_connection_is_transient() {
    let error = listed(Reply::output(b"find\0f r 1 600 0.0 a\0").then_lost()).unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[test]
fn several_directories_are_listed_in_one_command() {
    let directories = ["/d".to_owned(), "/e e".to_owned(), "/f".to_owned()];
    let host = FakeHost::new(|line, _| {
        assert!(line.ends_with(" sh /d '/e e' /f"), "{line}");
        Reply::output(b"find\0f r 1 600 0.0 a\0find\0find\0f r 2 600 0.0 b\0f r 3 600 0.0 find\0")
    });
    let mut connection = host.connect().unwrap();
    let mut keep = |number: usize, entry: &Entry<'_>| (number, entry.path) != (2, b"b");
    let all = list_all(&mut *connection, &directories, &mut keep, &CancelToken::new()).unwrap();
    let seen: Vec<_> = all
        .iter()
        .map(|listing| {
            (
                listing.directory(),
                listing.iter().map(|e| e.size).collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_eq!(seen, [("/d", vec![1]), ("/e e", vec![]), ("/f", vec![3])]);
    for (output, code, expected) in [
        (
            &b"find\0find\0"[..],
            0,
            "\"/e e\" on \"fake\" is not valid: it ends too early",
        ),
        (
            b"find\0find\0",
            1,
            "cannot list \"/e e\" on \"fake\": exit code 1",
        ),
        (
            b"find\0find\0find\0find\0",
            0,
            "\"/f\" on \"fake\" is not valid: \"find\" is no entry",
        ),
    ] {
        let mut connection = FakeHost::answering(vec![Reply::output(output).exit(code, "")])
            .connect()
            .unwrap();
        let error = list_all(
            &mut *connection,
            &directories,
            &mut |_, _| true,
            &CancelToken::new(),
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn directories_that_do_not_fit_on_one_line_are_all_listed() {
    let top = tempfile::tempdir().unwrap();
    let long = "x".repeat(200);
    // Three times as long as what Linux takes for one argument.
    let directories: Vec<_> = (0..800)
        .map(|number| format!("{}/{long}/{long}/{number} 'é'", top.path().display()))
        .collect();
    for (number, directory) in directories.iter().enumerate() {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(format!("{directory}/{number}"), "").unwrap();
    }
    let mut connection = LocalHost::default().connect().unwrap();
    let mut keep = |number: usize, entry: &Entry<'_>| entry.path == number.to_string().as_bytes();
    let all = list_all(&mut *connection, &directories, &mut keep, &CancelToken::new()).unwrap();
    let seen: Vec<_> = all
        .iter()
        .map(|listing| (listing.directory(), listing.len()))
        .collect();
    let expected: Vec<_> = directories.iter().map(|directory| (&**directory, 1)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn as_many_directories_as_fit_share_a_line() {
    let usual = vec!["/var/lib/barman/main/base/20261126T010513/16400".to_owned(); 400];
    assert_eq!(on_one_line(&usual), 400);
    // What is quoted most.
    for byte in ["'", "\\", "!", "\n", "é"] {
        let odd = vec![format!("/{}", byte.repeat(100)); 1000];
        let fit = on_one_line(&odd);
        assert!((10..500).contains(&fit), "{byte:?}: {fit}");
    }
    assert_eq!(on_one_line(&["'".repeat(4000), "/d".to_owned()]), 1);
    assert_eq!(on_one_line(&["/d".to_owned(), "'".repeat(4000)]), 1);
    assert!(length_on_line(SCRIPT) < 3000);
}

#[test]
fn a_failure_of_a_later_group_names_its_directory() {
    let directories = ["/d".to_owned(), format!("/{}", "'".repeat(4000))];
    let replies = [
        Reply::output(b"find\0f r 1 600 0.0 a\0"),
        Reply::output(b"find\0").exit(1, "find: no\n"),
    ];
    let mut connection = FakeHost::answering(replies.into()).connect().unwrap();
    let keep = &mut |_, _: &Entry<'_>| true;
    match list_all(&mut *connection, &directories, keep, &CancelToken::new()) {
        Err(ListError::Failed { directory, .. }) => assert_eq!(directory, directories[1]),
        other => panic!("{other:?}"),
    }
}
