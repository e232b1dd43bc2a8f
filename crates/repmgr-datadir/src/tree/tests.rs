use std::ffi::OsString;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use super::flush::kernel_version;
use super::*;

const OPEN: Permissions = Permissions { group_access: true };

fn tree() -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path(), Permissions::default()).unwrap();
    (dir, tree)
}

fn put(tree: &Tree, rel: impl AsRef<Path>, bytes: &[u8], spec: FileSpec) -> Result<(), TreeError> {
    let mut file = tree.create_file(rel, spec)?;
    file.write_all(bytes)?;
    file.finish()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_finished_file_has_its_size_time_and_mode() {
    let (dir, tree) = tree();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    let spec = FileSpec {
        size: Some(3),
        modified: Some(time),
        mode: 0o666,
        ..FileSpec::default()
    };
    put(&tree, "base/5/1249", b"abc", spec).unwrap();
    let got = tree.metadata("base/5/1249").unwrap().unwrap();
    assert_eq!(
        got,
        Metadata {
            kind: Kind::File,
            size: 3,
            mode: 0o600,
            modified: time,
        }
    );
    assert_eq!(
        [mode(&dir.path().join("base")), mode(&dir.path().join("base/5"))],
        [0o700, 0o700]
    );
    assert_eq!(tree.read("base/5/1249", 3).unwrap().unwrap(), b"abc");
}

#[test]
fn the_kernel_copies_or_says_that_it_cannot() {
    let (_dir, tree) = tree();
    let content: Vec<u8> = (0..20_000_000u32).map(|n| (n / 7) as u8).collect();
    let near = tempfile::NamedTempFile::new_in(_dir.path()).unwrap();
    fs::write(near.path(), &content).unwrap();
    let spec = FileSpec {
        size: Some(content.len() as u64),
        ..FileSpec::default()
    };
    let mut buffer = vec![0; 100_000];
    let mut from = fs::File::open(near.path()).unwrap();
    let mut file = tree.create_file("copy", spec).unwrap();
    let mut seen = Vec::new();
    while let Some(length) = file.copy_from(&from, &mut buffer).unwrap() {
        seen.extend_from_slice(&buffer[..length]);
    }
    assert!(seen == content);
    file.finish().unwrap();
    assert!(fs::read(tree.path().join("copy")).unwrap() == content);

    // More than was announced.
    from.rewind().unwrap();
    let short = FileSpec {
        size: Some(150_000),
        ..FileSpec::default()
    };
    let mut file = tree.create_file("short", short).unwrap();
    assert_eq!(file.copy_from(&from, &mut buffer).unwrap(), Some(100_000));
    let error = file.copy_from(&from, &mut buffer).unwrap_err();
    assert!(
        matches!(
            error,
            TreeError::LongFile {
                expected: 150_000,
                ..
            }
        ),
        "{error}"
    );

    // From the kernel's own file system nothing can be copied so, and nothing is lost.
    let mut from = fs::File::open("/proc/self/status").unwrap();
    let mut file = tree.create_file("status", FileSpec::default()).unwrap();
    assert_eq!(file.copy_from(&from, &mut buffer).unwrap(), None);
    let length = from.read(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"Name:"));
    file.write_all(&buffer[..length]).unwrap();
    file.finish().unwrap();
}

#[test]
fn group_access_reaches_new_entries_whatever_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path(), OPEN).unwrap();
    // Directories made under another mode are corrected, too.
    fs::create_dir(dir.path().join("old")).unwrap();
    tree.create_dir("old").unwrap();
    put(
        &tree,
        "old/f",
        b"",
        FileSpec {
            mode: 0o640,
            ..FileSpec::default()
        },
    )
    .unwrap();
    put(
        &tree,
        "new/server.key",
        b"",
        FileSpec {
            mode: 0o600,
            ..FileSpec::default()
        },
    )
    .unwrap();
    let modes = ["old", "old/f", "new", "new/server.key"].map(|name| mode(&dir.path().join(name)));
    assert_eq!(modes, [0o750, 0o640, 0o750, 0o600]);
}

#[test]
fn sizes_that_differ_from_the_announced_ones_are_errors_naming_the_file() {
    let (dir, tree) = tree();
    let spec = FileSpec {
        size: Some(4),
        modified: Some(SystemTime::UNIX_EPOCH),
        ..FileSpec::default()
    };
    let short = put(&tree, "short", b"abc", spec).unwrap_err();
    assert_eq!(
        short.to_string(),
        format!("{:?} is incomplete: 3 of 4 bytes", dir.path().join("short"))
    );
    assert_ne!(
        tree.metadata("short").unwrap().unwrap().modified,
        SystemTime::UNIX_EPOCH
    );
    let long = put(&tree, "long", b"abcde", spec).unwrap_err();
    assert!(matches!(&long, TreeError::LongFile { path, expected: 4 } if path.ends_with("long")));
    assert_eq!(
        tree.metadata("long").unwrap().unwrap().size,
        0,
        "nothing beyond the size is written"
    );
}

#[test]
fn hostile_paths_never_leave_the_tree() {
    let (dir, tree) = tree();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), "precious").unwrap();
    symlink(outside.path(), dir.path().join("way-out")).unwrap();
    symlink(outside.path().join("victim"), dir.path().join("file-link")).unwrap();
    fs::write(dir.path().join("plain"), "x").unwrap();

    for bad in ["../x", "/tmp/x", "", "a/../../x", "a//b", "./x"] {
        assert!(
            matches!(
                tree.create_file(bad, FileSpec::default()),
                Err(TreeError::BadPath { .. })
            ),
            "{bad}"
        );
        assert!(
            matches!(tree.create_dir(bad), Err(TreeError::BadPath { .. })),
            "{bad}"
        );
        assert!(
            matches!(tree.read(bad, 9), Err(TreeError::BadPath { .. })),
            "{bad}"
        );
        assert!(
            matches!(tree.remove(bad), Err(TreeError::BadPath { .. })),
            "{bad}"
        );
        assert!(
            matches!(tree.symlink(bad, Path::new("t")), Err(TreeError::BadPath { .. })),
            "{bad}"
        );
        assert!(
            matches!(tree.write_durable(bad, b"", 0), Err(TreeError::BadPath { .. })),
            "{bad}"
        );
    }
    for through in ["way-out/victim", "way-out/deep/er", "plain/x"] {
        let error = tree.create_file(through, FileSpec::default()).unwrap_err();
        let at = dir.path().join(through.split('/').next().unwrap());
        assert!(
            matches!(&error, TreeError::NotADirectory { at: got, .. } if *got == at),
            "{error}"
        );
        assert!(tree.remove(through).is_err() && tree.read(through, 99).is_err());
    }
    assert!(matches!(
        tree.create_dir("way-out"),
        Err(TreeError::NotADirectory { .. })
    ));
    assert!(
        tree.read("file-link", 99).is_err(),
        "a link to a file is not read through"
    );
    put(
        &tree,
        "file-link",
        b"new",
        FileSpec {
            existing: Existing::Replace,
            ..FileSpec::default()
        },
    )
    .unwrap();
    tree.write_durable("file-link", b"newer", 0o600).unwrap();
    assert_eq!(fs::read(outside.path().join("victim")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn odd_names_are_just_names() {
    let (_dir, tree) = tree();
    let odd = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    for name in [
        &b"with blank/and\nnewline"[..],
        b"\xff\xfe/not utf-8",
        b"quote'\"\\/x",
        b"-rf/*",
        "ü/…".as_bytes(),
    ] {
        put(&tree, odd(name), name, FileSpec::default()).unwrap();
        assert_eq!(tree.read(odd(name), 99).unwrap().unwrap(), name);
    }
    let error = tree
        .create_file(odd(b"with blank/and\nnewline"), FileSpec::default())
        .unwrap_err();
    assert!(matches!(error, TreeError::Exists { .. }));
    assert!(
        !error.to_string().contains('\n'),
        "one line whatever the name: {error}"
    );
}

#[test]
fn existing_files_are_refused_or_replaced_by_new_ones() {
    let (dir, tree) = tree();
    fs::write(dir.path().join("f"), "old content").unwrap();
    fs::hard_link(dir.path().join("f"), dir.path().join("other name")).unwrap();
    assert!(matches!(
        put(&tree, "f", b"", FileSpec::default()),
        Err(TreeError::Exists { .. })
    ));
    let replace = FileSpec {
        existing: Existing::Replace,
        ..FileSpec::default()
    };
    put(&tree, "f", b"new", replace).unwrap();
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"new");
    assert_eq!(fs::read(dir.path().join("other name")).unwrap(), b"old content");
    tree.create_dir("d").unwrap();
    assert!(
        tree.create_file("d", replace).is_err(),
        "directories are not replaced"
    );
}

#[test]
fn a_pipe_in_place_of_a_file_does_not_block() {
    let (dir, tree) = tree();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(tree.read("pipe", 10).is_err());
    put(
        &tree,
        "pipe",
        b"x",
        FileSpec {
            existing: Existing::Replace,
            ..FileSpec::default()
        },
    )
    .unwrap();
    assert_eq!(tree.metadata("pipe").unwrap().unwrap().kind, Kind::File);
}

#[test]
fn links_are_made_once_and_never_redirected() {
    let (dir, tree) = tree();
    let target = Path::new("/srv/ts one");
    tree.symlink("pg_tblspc/16400", target).unwrap();
    tree.symlink("pg_tblspc/16400", target).unwrap();
    assert!(matches!(
        tree.symlink("pg_tblspc/16400", Path::new("/srv")),
        Err(TreeError::Exists { .. })
    ));
    assert_eq!(fs::read_link(dir.path().join("pg_tblspc/16400")).unwrap(), target);
    assert!(tree.remove("pg_tblspc/16400").unwrap() && !tree.remove("pg_tblspc/16400").unwrap());
}

#[test]
fn durable_writes_replace_whole_files_and_leave_nothing_behind() {
    let (dir, tree) = tree();
    fs::write(dir.path().join(".a.conf.repmgr-new"), "left over from a crash").unwrap();
    tree.write_durable("a.conf", b"one", 0o640).unwrap();
    tree.write_durable("a.conf", b"two", 0o640).unwrap();
    assert_eq!(fs::read(dir.path().join("a.conf")).unwrap(), b"two");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    tree.create_dir("d").unwrap();
    assert!(tree.write_durable("d", b"x", 0o600).is_err());
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "the temporary file is gone"
    );
}

#[test]
fn reading_is_bounded_and_absence_is_not_an_error() {
    let (_dir, tree) = tree();
    put(&tree, "f", b"12345", FileSpec::default()).unwrap();
    assert!(matches!(
        tree.read("f", 4),
        Err(TreeError::TooLarge { max: 4, .. })
    ));
    assert_eq!(tree.read("nowhere/f", 4).unwrap(), None);
    assert_eq!(tree.metadata("nowhere/f").unwrap(), None);
    assert!(!tree.remove("nowhere/f").unwrap());
}

#[test]
fn a_full_disk_is_recognised_and_named() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut file = TreeFile::new(full, "/data/base/5/1249".into(), FileSpec::default());
    let error = file.write_all(b"x").unwrap_err();
    assert!(error.is_no_space() && error.to_string().contains("base/5/1249"));
    assert!(error.hint().unwrap().to_string().contains("space"));
}

#[test]
fn many_threads_write_one_tree_and_a_walk_finds_it_all() {
    let (_dir, tree) = tree();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let tree = &tree;
            scope.spawn(move || {
                for n in 0..300 {
                    // More directories than handles are kept, shared by all workers.
                    put(
                        tree,
                        format!("base/{}/{worker}-{n}", n % 50),
                        b"x",
                        FileSpec::default(),
                    )
                    .unwrap();
                }
            });
        }
    });
    let (mut files, mut dirs) = (0, 0);
    tree.walk(|path, entry| -> Result<(), TreeError> {
        match entry.kind {
            Kind::Directory => dirs += 1,
            _ => files += 1,
        }
        assert!(path.starts_with("base"));
        Ok(())
    })
    .unwrap();
    assert_eq!((files, dirs), (1200, 51));
    tree.sync().unwrap();
    tree.sync_each().unwrap();
}

#[test]
fn flushing_one_by_one_passes_over_links_and_pipes() {
    let (dir, tree) = tree();
    symlink("/nonexistent", dir.path().join("dangling")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(dir.path().join("pipe"))
            .status()
            .unwrap()
            .success()
    );
    tree.sync_each().unwrap();
}

#[test]
fn old_kernels_are_told_from_new_ones() {
    for (release, version) in [
        ("4.18.0-553.el8.x86_64", (4, 18)),
        ("5.8.0", (5, 8)),
        ("6.1.0-44-amd64\n", (6, 1)),
    ] {
        assert_eq!(kernel_version(release), Some(version));
    }
    assert_eq!(kernel_version("unknown"), None);
}

#[test]
fn file_systems_mounted_inside_are_flushed_as_well() {
    // Another file system that every Linux has.
    let tree = Tree::open(Path::new("/"), Permissions::default()).unwrap();
    tree.metadata("proc/self/status").unwrap_err();
    tree.metadata("proc/sys/kernel").unwrap().unwrap();
    assert_eq!(lock(&tree.mounts).len(), 1, "one handle on /proc");
}

#[test]
fn a_directory_goes_with_all_that_is_in_it_and_links_are_not_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("precious"), "").unwrap();
    fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("a/b/link")).unwrap();
    fs::write(dir.path().join("a/keep"), "").unwrap();
    let tree = Tree::open(dir.path(), Permissions::default()).unwrap();
    let cancel = repmgr_types::CancelToken::new();
    assert!(tree.remove_all("a/b", &cancel).unwrap() && !tree.remove_all("a/b", &cancel).unwrap());
    assert!(!tree.remove_all("x/y", &cancel).unwrap());
    assert!(tree.remove_all("../x", &cancel).is_err());
    assert!(dir.path().join("a/keep").exists() && outside.path().join("precious").exists());
    // The handle of a directory that is gone must not be used for what comes after.
    tree.create_file("a/b/new", FileSpec::default())
        .unwrap()
        .finish()
        .unwrap();
    assert!(dir.path().join("a/b/new").exists());
}

#[test]
fn a_time_set_later_is_exact_and_links_keep_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path(), Permissions::default()).unwrap();
    tree.create_file("a/f", FileSpec::default())
        .unwrap()
        .finish()
        .unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    tree.set_modified("a/f", time).unwrap();
    assert_eq!(tree.metadata("a/f").unwrap().unwrap().modified, time);
    assert!(tree.set_modified("a/none", time).is_err() && tree.set_modified("../x", time).is_err());
}

fn revise(
    tree: &Tree,
    rel: &str,
    spec: FileSpec,
    steps: &mut dyn FnMut(&mut TreeFile) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    let mut file = tree.revise_file(rel, spec)?;
    steps(&mut file)?;
    file.finish()
}

#[test]
fn a_file_is_brought_up_to_date_in_its_place() {
    let (dir, tree) = tree();
    let path = dir.path().join("base/1");
    put(&tree, "base/1", b"0123456789", FileSpec::default()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let spec = FileSpec {
        size: Some(8),
        ..FileSpec::default()
    };
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    tree.set_modified("base/1", old).unwrap();
    // That it was not brought to its end shows.
    drop(tree.revise_file("base/1", spec).unwrap());
    assert!(tree.metadata("base/1").unwrap().unwrap().modified > old);
    let mut seen = Vec::new();
    revise(&tree, "base/1", spec, &mut |file| {
        file.keep(2, &mut |bytes| seen.extend_from_slice(bytes))?;
        file.write_all(b"xy")?;
        file.skip(3)?;
        file.write_all(b"z")
    })
    .unwrap();
    assert_eq!(seen, b"01");
    assert_eq!(fs::read(&path).unwrap(), b"01xy456z");
    assert_eq!((fs::metadata(&path).unwrap().ino(), mode(&path)), (inode, 0o600));

    // Neither more than it has nor more than it is to have can be kept.
    let longer = FileSpec {
        size: Some(20),
        ..FileSpec::default()
    };
    for keep in [
        &mut |file: &mut TreeFile| file.keep(9, &mut |_| ()),
        &mut |file: &mut TreeFile| file.skip(9),
    ] as [&mut dyn FnMut(&mut TreeFile) -> Result<(), TreeError>; 2]
    {
        let error = revise(&tree, "base/1", spec, keep).unwrap_err();
        assert!(matches!(error, TreeError::LongFile { .. }), "{error}");
        let error = revise(&tree, "base/1", longer, keep).unwrap_err();
        assert!(matches!(error, TreeError::Io { action: "read", .. }), "{error}");
    }
    let error = revise(&tree, "base/1", spec, &mut |file| file.keep(7, &mut |_| ())).unwrap_err();
    assert!(matches!(error, TreeError::ShortFile { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"01xy456z");
}

#[test]
fn what_shares_a_file_does_not_change_with_it() {
    let (dir, tree) = tree();
    let spec = FileSpec {
        size: Some(3),
        ..FileSpec::default()
    };
    let other = dir.path().join("other");
    fs::write(&other, "abc").unwrap();
    fs::hard_link(&other, dir.path().join("hard")).unwrap();
    symlink(&other, dir.path().join("soft")).unwrap();
    for name in ["hard", "soft", "new", "base/5/new"] {
        revise(&tree, name, spec, &mut |file| file.write_all(b"xyz")).unwrap();
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"xyz");
        assert_eq!(tree.metadata(name).unwrap().unwrap().kind, Kind::File);
    }
    assert_eq!(fs::read(&other).unwrap(), b"abc");
    assert!(tree.revise_file("base", spec).is_err());
    assert!(tree.revise_file("../other", spec).is_err());
}
