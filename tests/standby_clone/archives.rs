//! Backups that `pg_basebackup` wrote as tar files (Barman 3.0 and later), unpacked on the way.

use std::fs;
use std::sync::OnceLock;

use predicates::str::contains;
use repmgr_lab::{BackupMethod, BarmanVersion, Lab, PrimaryOptions, ServerOptions, Tablespace};
use repmgr_tests::{assert_standby, clone, node};

/// Barman 3.19 with a server for each way of compressing; each backup has its own.
fn lab() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        Lab::builder()
            .barman(BarmanVersion::V3_19)
            .method(BackupMethod::Postgres)
            .primary(PrimaryOptions {
                checksums: true,
                ..PrimaryOptions::default()
            })
            .tablespaces([Tablespace::from("fast"), Tablespace::empty("void")])
            .without_backup()
            .build()
            .unwrap()
    })
}

fn backup(name: &str, compression: &str) -> String {
    let options = ServerOptions {
        name: name.to_owned(),
        method: BackupMethod::Postgres,
        conf: vec![format!("backup_compression = {compression}")],
    };
    lab().add_server(&options).unwrap()
}

/// (Defect 6) The original copies the archives into the data directory and says "complete".
fn clones(compression: &str, suffix: &str) {
    let id = backup(compression, compression);
    let archive = lab()
        .barman()
        .backup_dir(compression, &id)
        .join(format!("data/base.tar{suffix}"));
    assert!(archive.exists(), "{}", archive.display());
    let target = node(lab(), &[("barman_server", compression)]);
    clone(lab(), &target, &["--dry-run"]).success();
    assert!(!target.data_dir.exists());
    clone(lab(), &target, &[])
        .success()
        .stderr(contains("backup_manifest checksums, data page checksums"));
    for gone in ["backup_manifest", "tablespace_map", &format!("base.tar{suffix}")] {
        assert!(!target.data_dir.join(gone).exists(), "{gone}");
    }
    // Not promoted: it would archive its timeline where the others look for theirs.
    for link in fs::read_dir(target.data_dir.join("pg_tblspc")).unwrap() {
        let version = fs::read_dir(link.unwrap().path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        assert!(version.file_name().to_string_lossy().starts_with("PG_15_"));
    }
    drop(assert_standby(lab(), &target));
}

#[test]
fn clones_from_gzip_archives() {
    clones("gzip", ".gz");
}

#[test]
fn clones_from_lz4_archives() {
    clones("lz4", ".lz4");
}

#[test]
fn clones_from_zstd_archives() {
    clones("zstd", ".zst");
}

#[test]
fn clones_from_plain_archives() {
    clones("none", "");
}

#[test]
fn a_damaged_archive_is_noticed_and_leaves_nothing_that_starts() {
    let id = backup("damaged", "gzip");
    let archive = lab().barman().backup_dir("damaged", &id).join("data/base.tar.gz");
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(&archive, bytes).unwrap();
    let target = node(lab(), &[("barman_server", "damaged")]);
    clone(lab(), &target, &[])
        .code(19)
        .stderr(contains("base.tar.gz"));
    assert!(!target.data_dir.join("global/pg_control").exists());
}

#[test]
fn a_cut_archive_is_noticed() {
    let id = backup("cut", "none");
    let archive = lab().barman().backup_dir("cut", &id).join("data/base.tar");
    let file = fs::OpenOptions::new().write(true).open(&archive).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 2 / 512 * 512).unwrap();
    let target = node(lab(), &[("barman_server", "cut")]);
    clone(lab(), &target, &[]).code(19).stderr(contains("base.tar"));
    assert!(!target.data_dir.join("global/pg_control").exists());
}
