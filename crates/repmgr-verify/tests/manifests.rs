//! Manifests that `pg_basebackup` and Barman wrote, against the files they list.

mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use repmgr_lab::{BarmanVersion, Lab, PgInstall, Primary, PrimaryOptions, Scratch, Tablespace};
use repmgr_types::Lsn;
use repmgr_verify::{ClusterPages, FileFault, Manifest, ManifestEntry, ManifestError, PageCheck, PageRules};

use common::{files, shown, stream};

/// A name that is not UTF-8.
const LATIN1: &[u8] = b"gr\xfc\xdfe";

fn verdict(entry: &ManifestEntry<'_>, file: &Path) -> Result<(), FileFault> {
    let mut check = entry.check();
    stream(file, |bytes| check.update(bytes)).unwrap();
    check.finish()
}

/// All files of a backup are listed, and all that is listed is there and right.
fn assert_whole(manifest: &Manifest, backup: &Path, not_listed: impl Fn(&[u8]) -> bool) {
    let mut seen = BTreeSet::new();
    for (path, file) in files(backup).unwrap() {
        if not_listed(&path) {
            continue;
        }
        let entry = manifest
            .get(&path)
            .unwrap_or_else(|| panic!("{} is not listed", shown(&path)));
        assert_eq!(verdict(&entry, &file), Ok(()), "{}", shown(&path));
        seen.insert(path);
    }
    let listed: BTreeSet<_> = manifest.iter().map(|entry| entry.path.to_vec()).collect();
    assert_eq!(listed, seen);
}

fn pg_basebackup(major: u32) {
    let scratch = Scratch::new().unwrap();
    let install = PgInstall::get(major).unwrap();
    let options = PrimaryOptions {
        checksums: true,
        tablespaces: vec![Tablespace::from("fast")],
        ..Default::default()
    };
    let primary = Primary::create(&scratch, &install, "primary", &options).unwrap();
    let odd = primary.data_dir().join(OsStr::from_bytes(LATIN1));
    fs::write(&odd, "odd").unwrap();
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o644)).unwrap();

    for algorithm in ["NONE", "CRC32C", "SHA224", "SHA256", "SHA384", "SHA512"] {
        let backup = scratch.path().join(algorithm);
        let mapped = scratch.path().join(format!("{algorithm}-fast"));
        let mapping = format!("-T{}={}", primary.tablespaces()[0].display(), mapped.display());
        let checksums = format!("--manifest-checksums={algorithm}");
        primary
            .base_backup(&backup, &["-X", "none", "--no-sync", &mapping, &checksums])
            .unwrap();

        let bytes = fs::read(backup.join("backup_manifest")).unwrap();
        let manifest = Manifest::parse(&bytes).unwrap();
        assert_whole(&manifest, &backup, |path| path == b"backup_manifest");
        for entry in manifest.iter() {
            let name = entry
                .checksum
                .map_or("NONE", |checksum| checksum.algorithm().name());
            assert_eq!(name, algorithm);
        }
        assert_eq!(manifest.get(LATIN1).unwrap().size, 3);
        assert!(manifest.iter().any(|entry| entry.path.starts_with(b"pg_tblspc/")));
        let system_identifier = primary
            .sql("select system_identifier from pg_control_system()")
            .unwrap();
        assert_eq!(
            manifest.system_identifier().map(|id| id.to_string()),
            (major >= 17).then_some(system_identifier)
        );
        let [range] = manifest.wal_ranges() else {
            panic!("{:?}", manifest.wal_ranges())
        };
        let label = fs::read_to_string(backup.join("backup_label")).unwrap();
        assert!(
            label.starts_with(&format!("START WAL LOCATION: {} ", range.start)),
            "{label}"
        );
        assert!(range.timeline.id() == 1 && range.end > range.start);

        assert_damage_is_noticed(&manifest, &backup, algorithm != "NONE");
        assert_changed_manifests_are_refused(&bytes);
        assert_pages_are_right(&backup, range.start, range.end);
    }
}

fn assert_damage_is_noticed(manifest: &Manifest, backup: &Path, has_checksums: bool) {
    let entry = manifest.get(b"global/pg_control").unwrap();
    let mut content = fs::read(backup.join("global/pg_control")).unwrap();
    let judge = |content: &[u8]| {
        let mut check = entry.check();
        check.update(content);
        check.finish()
    };
    assert_eq!(judge(&content), Ok(()));
    content[8191] ^= 1;
    assert_eq!(
        matches!(judge(&content), Err(FileFault::Checksum { .. })),
        has_checksums
    );
    assert_eq!(
        judge(&content[1..]),
        Err(FileFault::Size {
            expected: 8192,
            found: 8191
        })
    );
}

fn assert_changed_manifests_are_refused(bytes: &[u8]) {
    let cut = Manifest::parse(&bytes[..bytes.len() / 2]);
    assert!(matches!(cut, Err(ManifestError::Cut)), "{cut:?}");
    let mut changed = bytes.to_vec();
    let at = bytes.len() / 3;
    changed[at] ^= 1;
    let changed = Manifest::parse(&changed);
    assert!(matches!(changed, Err(ManifestError::Damaged)), "{changed:?}");
}

fn assert_pages_are_right(backup: &Path, start: Lsn, end: Lsn) {
    let control = fs::read(backup.join("global/pg_control")).unwrap();
    let rules = PageRules {
        layout: ClusterPages::from_pg_control(&control).unwrap().layout,
        backup_start: start,
        backup_end: Some(end),
    };
    let mut pages = 0;
    for (path, file) in files(backup).unwrap() {
        if let Some(mut check) = PageCheck::for_file(&path, &rules) {
            stream(&file, |bytes| check.update(bytes)).unwrap();
            let report = check.finish();
            assert_eq!(report.bad, [], "{}", shown(&path));
            pages += report.pages;
        }
    }
    assert!(pages > 1000, "{pages}");
}

#[test]
fn manifests_of_pg_basebackup_15_match_their_files() {
    pg_basebackup(15);
}

#[test]
fn manifests_of_pg_basebackup_17_match_their_files() {
    pg_basebackup(17);
}

#[test]
fn manifests_of_pg_basebackup_18_match_their_files() {
    pg_basebackup(18);
}

#[test]
fn a_manifest_that_barman_makes_matches_its_files() {
    let lab = Lab::builder()
        .barman(BarmanVersion::V3_19)
        .barman_conf("autogenerate_manifest = true")
        .tablespaces(["fast"])
        .build()
        .unwrap();
    let backup = lab
        .barman()
        .backup_dir(lab.server(), lab.backup_id().unwrap())
        .join("data");
    let bytes = fs::read(backup.join("backup_manifest")).unwrap();
    let manifest = Manifest::parse(&bytes).unwrap();
    assert_whole(&manifest, &backup, |path| path == b"backup_manifest");
    assert!(manifest.wal_ranges().is_empty());
    assert_damage_is_noticed(&manifest, &backup, true);
    assert_changed_manifests_are_refused(&bytes);
}
