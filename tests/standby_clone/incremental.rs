//! Block-incremental backups (PostgreSQL 17 and later, Barman 3.11 and later): the chain is fetched and
//! combined.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use repmgr_lab::{
    BackupMethod, BarmanVersion, Lab, PgInstall, PrimaryOptions, ServerOptions, Tablespace, Target,
};
use repmgr_tests::{Relay, Running, Snapshot, assert_cannot_start, assert_standby, clone, node, output};

fn build(major: u32) -> Lab {
    Lab::builder()
        .pg(major)
        .barman(BarmanVersion::V3_19)
        .method(BackupMethod::Postgres)
        .primary(PrimaryOptions {
            checksums: true,
            group_access: true,
            conf: vec!["summarize_wal = on".to_owned()],
            ..PrimaryOptions::default()
        })
        .tablespaces([Tablespace::from("fast"), Tablespace::empty("void")])
        .without_backup()
        .build()
        .unwrap()
}

/// PostgreSQL 17, with Barman servers that have a chain each.
fn lab() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| build(17))
}

/// Server "seventeen", whose chain nobody changes.
fn shared() -> &'static [String] {
    static CHAIN: OnceLock<Vec<String>> = OnceLock::new();
    CHAIN.get_or_init(|| chain(lab(), "seventeen", &[]))
}

/// Server "faulty", whose chain is broken by one test after the other, and put together again.
fn faulty() -> MutexGuard<'static, Vec<String>> {
    static CHAIN: OnceLock<Mutex<Vec<String>>> = OnceLock::new();
    let chain = CHAIN.get_or_init(|| Mutex::new(chain(lab(), "faulty", &[])));
    chain.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server with a full backup and two increments; their ids. What the primary does in between is of every
/// kind: rows changed, added and deleted, tables new, gone, moved, cut and rewritten.
fn chain(lab: &Lab, server: &str, conf: &[&str]) -> Vec<String> {
    let run = |sql: String| lab.primary().sql(&sql).unwrap();
    let table = |name: &str| format!("{server}_{name}");
    let fill = "select n as id, repeat(md5(n::text), 5) as note from generate_series(1, 2000) n";
    for name in ["touched", "still", "grown", "cut", "moved", "rewritten", "gone"] {
        run(format!("create table {} as {fill}", table(name)));
    }
    // No configuration names it, but a server that did would refuse it if the group could read it.
    let key = lab.primary().data_dir().join("server.key");
    lab.scratch().write(key, "secret", 0o600).unwrap();
    let options = ServerOptions {
        name: server.to_owned(),
        method: BackupMethod::Postgres,
        conf: conf.iter().map(|line| (*line).to_owned()).collect(),
    };
    let mut ids = vec![lab.add_server(&options).unwrap()];
    for round in ["one", "two"] {
        run(format!(
            "update {} set note = '{round}' where id % 500 = 1",
            table("touched")
        ));
        run(format!("insert into {} {fill}", table("grown")));
        run(format!("delete from {} where id > 100", table("cut")));
        run(format!("vacuum {}", table("cut")));
        run(format!(
            "alter table {} set tablespace {}",
            table("moved"),
            if round == "one" { "fast" } else { "void" }
        ));
        run(format!("vacuum full {}", table("rewritten")));
        run(format!("create table {} tablespace fast as {fill}", table(round)));
        run(format!("drop table if exists {}", table("gone")));
        // Two backups cannot begin in one second.
        lab.barman()
            .run(&[
                "backup",
                "--incremental",
                ids.last().unwrap(),
                "--wait",
                "--wait-timeout",
                "60",
                server,
            ])
            .unwrap();
        let listed = lab.barman().run(&["list-backup", "--minimal", server]).unwrap();
        ids.push(listed.lines().next().unwrap().to_owned());
    }
    let newest = lab.barman().run(&["show-backup", server, &ids[2]]).unwrap();
    assert!(
        newest.contains("incremental") && newest.contains(&ids[1]),
        "{newest}"
    );
    ids
}

fn backup_dir(lab: &Lab, server: &str, id: &str) -> PathBuf {
    lab.barman().backup_dir(server, id)
}

fn any_file(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let found = match entry.file_type().unwrap() {
            kind if kind.is_dir() => any_file(&path, wanted),
            kind if kind.is_file() && wanted(&entry.file_name().to_string_lossy()) => Some(path),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Complete, whole, and nothing of the chain left.
fn assert_cloned(lab: &Lab, target: &Target) {
    let increment = any_file(&target.data_dir, &|name| name.starts_with("INCREMENTAL."));
    assert_eq!(increment, None);
    for gone in ["repmgr", "backup_manifest", "tablespace_map"] {
        assert!(!target.data_dir.join(gone).exists(), "{gone}");
    }
    let key = fs::metadata(target.data_dir.join("server.key")).unwrap();
    assert_eq!(key.mode() & 0o777, 0o600);
    let label = fs::read_to_string(target.data_dir.join("backup_label")).unwrap();
    assert!(!label.contains("INCREMENTAL"), "{label}");
    // Not promoted: it would archive its timeline where the others look for theirs. An empty tablespace
    // must be fit for tables all the same.
    let links: Vec<_> = fs::read_dir(target.data_dir.join("pg_tblspc"))
        .unwrap()
        .map(|link| fs::read_link(link.unwrap().path()).unwrap())
        .collect();
    assert_eq!(links.len(), 2);
    for place in links {
        assert!(
            place.starts_with(lab.scratch().join(format!("node{}", target.node_id))),
            "{place:?}"
        );
        let all: Vec<_> = fs::read_dir(&place)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(
            all.len() == 1 && all[0].to_string_lossy().starts_with("PG_1"),
            "{all:?}"
        );
    }
    drop(assert_standby(lab, target));
}

#[test]
fn a_chain_of_postgresql_17_becomes_a_standby() {
    let (lab, ids) = (lab(), shared());
    let target = node(lab, &[("barman_server", "seventeen")]);
    let catalogue = lab.barman().server_dir("seventeen").join("base");
    let before = Snapshot::of([&catalogue]);
    clone(lab, &target, &["--dry-run"])
        .success()
        .stderr(contains("combined from 3 backups").and(contains(ids.join(", "))));
    assert!(!target.data_dir.exists());
    clone(lab, &target, &[]).success().stderr(
        contains("combining 3 backups").and(contains("backup_manifest checksums, data page checksums")),
    );
    assert_cloned(lab, &target);
    before.assert_unchanged();
    // One in the middle will do as well, and WAL may lie elsewhere.
    let wal = lab.scratch().join("wal_of_an_increment");
    let option = format!("--waldir={}", wal.display());
    let middle = node(
        lab,
        &[("barman_server", "seventeen"), ("pg_basebackup_options", &option)],
    );
    clone(lab, &middle, &["--backup-id", &ids[1]])
        .success()
        .stderr(contains("combining 2 backups"));
    assert_eq!(fs::read_link(middle.data_dir.join("pg_wal")).unwrap(), wal);
    assert_cloned(lab, &middle);
}

/// From 18 on what did not change is linked, not copied; nothing may be linked to anything in the end.
#[test]
fn a_chain_of_postgresql_18_becomes_a_standby() {
    let lab = build(18);
    chain(&lab, "eighteen", &[]);
    let target = node(&lab, &[("barman_server", "eighteen")]);
    clone(&lab, &target, &[])
        .success()
        .stderr(contains("combining 3 backups").and(contains("--link")));
    let version = fs::metadata(target.data_dir.join("PG_VERSION")).unwrap();
    assert_eq!(version.nlink(), 1);
    assert_cloned(&lab, &target);
    // Over the stopped instance: nothing can be reused, and that is said.
    clone(&lab, &target, &["-F", "--delta"])
        .success()
        .stderr(contains("nothing of the existing data directory can be reused"));
    assert_cloned(&lab, &target);
}

#[test]
fn a_chain_of_archives_becomes_a_standby() {
    let lab = lab();
    let ids = chain(lab, "archives", &["backup_compression = gzip"]);
    assert!(
        backup_dir(lab, "archives", &ids[1])
            .join("data/base.tar.gz")
            .exists()
    );
    let target = node(lab, &[("barman_server", "archives")]);
    clone(lab, &target, &[]).success();
    assert_cloned(lab, &target);
}

/// Refused with nothing on disk, also in a dry run.
#[track_caller]
fn refused(target: &Target, words: &[&str]) {
    for more in [&["--dry-run"][..], &[]] {
        let said = output(&clone(lab(), target, more).code(19));
        for word in words {
            assert!(said.contains(word), "no \"{word}\" in\n{said}");
        }
        assert!(!target.data_dir.exists(), "{said}");
    }
}

#[test]
fn without_the_program_of_the_same_major_it_is_refused() {
    let lab = lab();
    let ids = shared();
    let empty = lab.scratch().dir("no_programs").unwrap();
    let other = PgInstall::get(18).unwrap();
    for (dir, words) in [
        (empty.as_path(), ["pg_combinebackup\" not found", "pg_bindir"]),
        (
            other.bin_dir(),
            ["is of PostgreSQL 18", "programs of PostgreSQL 17"],
        ),
    ] {
        let dir = dir.display().to_string();
        let target = node(lab, &[("barman_server", "seventeen"), ("pg_bindir", &dir)]);
        refused(
            &target,
            &[words[0], words[1], &ids[2], "barman recover --remote-ssh-command"],
        );
    }
    // A full backup needs no program.
    let dir = empty.display().to_string();
    let target = node(lab, &[("barman_server", "seventeen"), ("pg_bindir", &dir)]);
    clone(lab, &target, &["--backup-id", &ids[0]]).success();
    assert!(target.data_dir.join("global/pg_control").exists());
}

#[test]
fn a_chain_with_a_gap_is_refused() {
    let (lab, ids) = (lab(), faulty());
    let target = node(lab, &[("barman_server", "faulty")]);
    let manifest = backup_dir(lab, "faulty", &ids[1]).join("data/backup_manifest");
    fs::rename(&manifest, manifest.with_extension("away")).unwrap();
    refused(&target, &[&ids[1], "backup_manifest"]);
    fs::rename(manifest.with_extension("away"), &manifest).unwrap();
    let marker = lab
        .barman()
        .server_dir("faulty")
        .join("meta")
        .join(format!("{}-delete_this", ids[0]));
    fs::write(&marker, "").unwrap();
    refused(&target, &[&ids[0], "is being deleted"]);
    fs::remove_file(&marker).unwrap();
    let info = lab
        .barman()
        .server_dir("faulty")
        .join("meta")
        .join(format!("{}-backup.info", ids[0]));
    fs::rename(&info, info.with_extension("away")).unwrap();
    refused(&target, &[&ids[0], &ids[1], "is not there"]);
    fs::rename(info.with_extension("away"), &info).unwrap();
}

#[test]
fn damage_in_any_backup_of_the_chain_is_noticed() {
    let (lab, ids) = (lab(), faulty());
    for id in ids.iter() {
        // More than its header, so that it matters.
        let file = any_file(&backup_dir(lab, "faulty", id).join("data/base"), &|name| {
            name.ends_with("1249") || name.ends_with("2619")
        });
        let file = file.unwrap();
        let good = fs::read(&file).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&file, bad).unwrap();
        let target = node(lab, &[("barman_server", "faulty")]);
        clone(lab, &target, &[])
            .code(14)
            .stderr(contains(format!("backup {id} failed verification")).and(contains("base/")));
        assert_cannot_start(lab, &target);
        fs::write(&file, good).unwrap();
        // The same command goes on where it was.
        clone(lab, &target, &[])
            .success()
            .stderr(contains("continuing").and(contains("are here already")));
        if id == &ids[2] {
            assert_cloned(lab, &target);
        }
    }
}

#[test]
fn what_the_program_left_when_it_failed_is_made_anew() {
    let lab = lab();
    shared();
    let bin = lab.scratch().dir("failing_programs").unwrap();
    let real = lab.primary().install().bin_dir().join("pg_combinebackup");
    let script = format!(
        "#!/bin/sh\ncase $1 in --version) exec '{real}' --version ;; esac\n'{real}' \"$@\" || exit\n\
         echo 'pg_combinebackup: error: struck by lightning' >&2\nexit 1\n",
        real = real.display()
    );
    let program = lab
        .scratch()
        .write("failing_programs/pg_combinebackup", &script, 0o755)
        .unwrap();
    let setting = bin.display().to_string();
    let target = node(lab, &[("barman_server", "seventeen"), ("pg_bindir", &setting)]);
    clone(lab, &target, &[])
        .code(14)
        .stderr(contains("struck by lightning").and(contains("HINT: ")));
    assert_cannot_start(lab, &target);
    fs::remove_file(&program).unwrap();
    symlink(real, &program).unwrap();
    clone(lab, &target, &[])
        .success()
        .stderr(contains("continuing").and(contains("are here already")));
    assert_cloned(lab, &target);
}

/// Retention removes a full backup that is obsolete although its increments are held.
#[test]
fn every_backup_of_the_chain_is_held_and_an_interrupted_clone_goes_on() {
    let lab = lab();
    let ids = shared();
    Relay::start(lab.sshd(), "slow_chain", 2_000_000).unwrap();
    let target = node(
        lab,
        &[("barman_server", "seventeen"), ("barman_host", "slow_chain")],
    );
    for (signal, bytes) in [("KILL", 3_000_000), ("INT", 6_000_000)] {
        let mut running = Running::clone(lab, &target, &["--retries", "0"]).unwrap();
        running.wait_for_files(&target.data_dir, bytes).unwrap();
        for id in ids {
            let lock = lab.scratch().join(format!("barman/home/.seventeen-{id}.lock"));
            let free = Command::new("flock")
                .arg("-n")
                .arg(&lock)
                .arg("true")
                .status()
                .unwrap();
            assert!(lock.exists() && !free.success(), "{lock:?}");
        }
        running.signal(signal).unwrap();
        assert!(!running.wait().unwrap().success());
        assert_cannot_start(lab, &target);
    }
    clone(lab, &target, &[])
        .success()
        .stderr(contains("continuing").and(contains("are here already")));
    assert_cloned(lab, &target);
}
