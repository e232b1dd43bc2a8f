//! Looking backups up, and every way that can fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use repmgr_barman::{
    BackupMode, BackupStatus, Barman, BarmanError as E, Form, Keep, ServerAddress, TarCodec,
    UnreadableReason, WalPath,
};
use repmgr_lab::{BackupMethod, BarmanVersion, ServerOptions};
use repmgr_remote::LocalHost;
use repmgr_types::BackupId;

use crate::bench::{Bench, Edited, text};

pub(crate) fn a_backup_is_found_by_shortcut_and_id_and_is_what_the_primary_says(bench: &Bench) {
    let (lab, mut barman) = (&bench.lab, bench.barman());
    assert_eq!(barman.host(), "barmansrv");
    let number = lab.barman().install().version().number();
    assert_eq!(
        number.strip_suffix(".0").unwrap_or(number),
        barman.version().unwrap().to_string()
    );

    let id = lab.backup_id().unwrap();
    let backup = barman.find_backup("oldest").unwrap();
    assert_eq!(backup.id.as_str(), id);
    for word in ["first", id] {
        assert_eq!(barman.find_backup(word).unwrap(), backup);
    }
    let latest = barman.find_backup("latest").unwrap();
    assert_eq!(barman.find_backup("last").unwrap(), latest);
    assert!(latest.id >= backup.id);
    barman.recheck(&backup).unwrap();

    let ask = |sql: &str| lab.primary().sql(sql).unwrap();
    assert_eq!(backup.status, BackupStatus::Done);
    assert_eq!(backup.form(), Ok(Form::Plain));
    assert_eq!(backup.version.num().to_string(), ask("show server_version_num"));
    assert_eq!(
        backup.system_id.unwrap().to_string(),
        ask("select system_identifier from pg_control_system()")
    );
    assert_eq!(backup.pgdata.to_str().unwrap(), ask("show data_directory"));
    assert_eq!(
        backup.config_file.clone().unwrap().to_str().unwrap(),
        ask("show config_file")
    );
    let mut tablespaces: Vec<String> = (backup.tablespaces.iter())
        .map(|t| format!("{}|{}|{}", t.oid, t.name, t.location.display()))
        .collect();
    tablespaces.sort();
    let listed = ask(
        "select oid || '|' || spcname || '|' || pg_tablespace_location(oid) from pg_tablespace where oid > 16383 order by 1",
    );
    assert_eq!(tablespaces.join("\n"), listed);
    let dir = lab.barman().backup_dir(lab.server(), id);
    assert_eq!(backup.directory, text(&dir));
    for t in &backup.tablespaces {
        assert!(fs::metadata(backup.tablespace_directory(t.oid)).unwrap().is_dir());
    }
    assert_eq!(
        backup.mode == BackupMode::Postgres,
        fs::exists(dir.join("data/backup_manifest")).unwrap()
    );
}

pub(crate) fn a_barman_on_this_host_needs_no_ssh(bench: &Bench) {
    let mut barman = Barman::connect(&LocalHost::default(), bench.address()).unwrap();
    assert_eq!(
        barman.find_backup(bench.lab.backup_id().unwrap()).unwrap(),
        bench.first()
    );
}

pub(crate) fn words_that_are_no_backup_are_told_apart(bench: &Bench) {
    let mut barman = bench.barman();
    for wanted in ["20010101T000000", "a name; touch x", "auto"] {
        match barman.find_backup(wanted) {
            Err(E::UnknownBackup { wanted: w, known, .. }) => {
                assert_eq!(w, wanted);
                assert!(
                    known
                        .iter()
                        .any(|id| id.as_str() == bench.lab.backup_id().unwrap())
                );
            }
            other => panic!("{wanted}: {other:?}"),
        }
    }
    for wanted in ["", " ", "last-failed", "failed", "a", "-", "-f", "x\ny"] {
        assert!(
            matches!(barman.find_backup(wanted), Err(E::BadWord { .. })),
            "{wanted:?}"
        );
    }
}

pub(crate) fn a_server_without_backups_says_so(bench: &Bench) {
    let options = ServerOptions::new("it's empty", BackupMethod::Postgres);
    bench
        .lab
        .barman()
        .add_server(bench.lab.primary(), bench.lab.sshd(), &options)
        .unwrap();
    for wanted in ["latest", "oldest", "20260101T000000"] {
        let error = bench
            .find(|a| a.server = "it's empty".into(), wanted)
            .unwrap_err();
        assert!(
            matches!(error, E::NoBackup { incomplete: 0, .. }),
            "{wanted}: {error:?}"
        );
    }
}

pub(crate) fn settings_that_are_wrong_are_told_apart(bench: &Bench) {
    let fails = |change: fn(&mut ServerAddress)| {
        let error = bench.find(change, "latest").unwrap_err();
        assert!(
            error.hint().is_some_and(|hint| !hint.to_string().is_empty()),
            "{error}"
        );
        error
    };
    match fails(|a| a.server = "it's not there".into()) {
        E::UnknownServer { server, known, .. } => {
            assert_eq!(server, "it's not there");
            assert!(known.contains(&"main".to_owned()), "{known:?}");
        }
        other => panic!("{other:?}"),
    }
    match fails(|a| a.config = Some("/no/such/file".into())) {
        E::Configuration { file, message, .. } => {
            assert_eq!(file.as_deref(), Some("/no/such/file"));
            assert!(message.contains("does not exist"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    for command in ["no-such-barman", "/no/such/barman", "/etc/passwd"] {
        let error = bench
            .find(|a| a.command = command.parse().unwrap(), "latest")
            .unwrap_err();
        assert!(matches!(error, E::CommandNotFound { .. }), "{error:?}");
        assert!(error.detail().is_some());
    }
    assert!(matches!(fails(|a| a.server = "-x".into()), E::BadWord { .. }));
    let error = bench
        .find(|a| a.command = "echo".parse().unwrap(), "latest")
        .unwrap_err();
    assert!(matches!(error, E::Unexpected { .. }), "{error:?}");
    let mut no_barman = Barman::connect(
        &bench.host(),
        ServerAddress {
            command: "echo".parse().unwrap(),
            ..bench.address()
        },
    )
    .unwrap();
    assert!(matches!(no_barman.version(), Err(E::Unexpected { .. })));

    let config = bench.lab.barman().config_file();
    let user = format!("barman_user = {}", bench.lab.scratch().account().name);
    {
        let _edited = Edited::replace(&config, &user, "barman_user = daemon");
        assert!(matches!(fails(|_| ()), E::WrongUser { .. }));
    }
    for text in ["", "no section\n", "[barman]\n]\n"] {
        let _edited = Edited::write(&config, text);
        let error = fails(|_| ());
        assert!(
            matches!(error, E::Configuration { .. }),
            "{text}: {error:?} {:?}",
            error.detail()
        );
    }
}

pub(crate) fn backups_that_are_not_complete_are_refused_with_their_status(bench: &Bench) {
    let (lab, mut barman) = (&bench.lab, bench.barman());
    for (id, status, expected) in [
        ("20260101T000001", "FAILED", BackupStatus::Failed),
        ("20260101T000002", "STARTED", BackupStatus::Started),
        ("20260101T000003", "EMPTY", BackupStatus::Empty),
        ("20260101T000004", "SYNCING", BackupStatus::Syncing),
    ] {
        let dir = lab.barman().backup_dir(lab.server(), id);
        fs::create_dir(&dir).unwrap();
        fs::write(
            dir.join("backup.info"),
            format!("status={status}\nmode=rsync-concurrent\nversion=150001\nbegin_wal=000000010000000000000003\nerror=disk on fire\n"),
        )
        .unwrap();
        let found = barman.find_backup(id);
        fs::remove_dir_all(&dir).unwrap();
        match found {
            Err(error @ E::NotDone { status, .. }) => {
                assert_eq!(status, expected);
                assert_eq!(error.detail(), Some("disk on fire"));
            }
            other => panic!("{status}: {other:?}"),
        }
    }
    // Nothing of it but a note: the list of files is empty.
    let main = lab.barman().server_dir(lab.server());
    if main.join("meta").exists() {
        let note = main.join("meta/20260101T000005-backup.info");
        let _edited = Edited::write(
            &note,
            "status=FAILED\nmode=postgres\nversion=150001\nerror=never began\n",
        );
        match barman.find_backup("20260101T000005") {
            Err(
                error @ E::NotDone {
                    status: BackupStatus::Failed,
                    ..
                },
            ) => {
                assert_eq!(error.detail(), Some("never began"));
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn damaged_metadata_and_files_we_may_not_read_are_refused(bench: &Bench) {
    let id = bench.lab.backup_id().unwrap();
    let mut barman = bench.barman();
    let known = barman.find_backup(id).unwrap();
    let info = bench.info_file(id);
    {
        // Barman itself reads this, so it is asked before the damage is done.
        let _edited = Edited::replace(&info, "\ntimeline=", "\ntimeline=x");
        match barman.recheck(&known) {
            Err(E::Metadata { source, .. }) => {
                assert!(
                    source.to_string().contains("timeline is not a number"),
                    "{source}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&info, 0);
    let denied = barman.recheck(&known);
    mode(&info, 0o644);
    match denied {
        Err(error @ E::MetadataDenied { .. }) => {
            assert!(error.detail().unwrap().contains("Permission denied"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    let data = known.data_directory();
    mode(data.as_ref(), 0);
    let form = barman.find_backup(id).map(|backup| backup.form());
    mode(data.as_ref(), 0o700);
    assert_eq!(
        form.unwrap().unwrap_err().reason,
        UnreadableReason::Denied { path: data }
    );
}

pub(crate) fn keep_marks_and_deletion_marks_are_seen(bench: &Bench) {
    let id = bench.lab.backup_id().unwrap();
    let known = bench.first();
    assert_eq!(known.keep, None);
    for (target, keep) in [("full", Keep::Full), ("standalone", Keep::Standalone)] {
        bench
            .lab
            .barman()
            .run(&["keep", "--target", target, "main", id])
            .unwrap();
        assert_eq!(bench.first().keep, Some(keep));
        bench.barman().recheck(&known).unwrap();
        bench
            .lab
            .barman()
            .run(&["keep", "--release", "main", id])
            .unwrap();
    }
    let _mark = Edited::write(&bench.mark_file(id, "delete_this"), "");
    for result in [
        bench.barman().find_backup(id).map(drop),
        bench.barman().recheck(&known),
    ] {
        assert!(matches!(result, Err(E::BeingDeleted { .. })), "{result:?}");
    }
}

pub(crate) fn changes_of_a_known_backup_are_seen(bench: &Bench) {
    let id = bench.lab.backup_id().unwrap();
    let (mut barman, known) = (bench.barman(), bench.first());
    let info = bench.info_file(id);
    {
        let _edited = Edited::replace(&info, "status=DONE", "status=WAITING_FOR_WALS");
        barman.recheck(&known).unwrap();
        assert_eq!(
            barman.find_backup(id).unwrap().status,
            BackupStatus::WaitingForWals
        );
    }
    {
        let _edited = Edited::replace(&info, "status=DONE", "status=FAILED");
        assert!(matches!(barman.recheck(&known), Err(E::NotDone { .. })));
    }
    {
        let _edited = Edited::replace(&info, "begin_time=2", "begin_time=3");
        match barman.recheck(&known) {
            Err(E::Changed { what, .. }) => assert_eq!(what, "begin_time is not what it was"),
            other => panic!("{other:?}"),
        }
    }
    let away = info.with_extension("away");
    fs::rename(&info, &away).unwrap();
    let gone = barman.recheck(&known);
    fs::rename(&away, &info).unwrap();
    assert!(matches!(gone, Err(E::Changed { .. })), "{gone:?}");
    barman.recheck(&known).unwrap();
}

pub(crate) fn wal_is_in_the_archive_or_not(bench: &Bench) {
    let (mut barman, backup) = (bench.barman(), bench.first());
    assert!(barman.has_wal(&backup, backup.begin_wal).unwrap());
    assert!(barman.has_wal(&backup, backup.end_wal).unwrap());
    assert!(
        !barman
            .has_wal(&backup, "00000001000000AA00000001".parse().unwrap())
            .unwrap()
    );
    assert_eq!(barman.timeline_history(backup.timeline).unwrap(), None);
}

pub(crate) fn all_backups_are_listed(bench: &Bench) {
    let (mut barman, first) = (bench.barman(), bench.first());
    let listed = barman.backups().unwrap();
    assert!(listed.is_sorted_by(|a, b| a.id > b.id));
    let one = listed.iter().find(|one| one.id == first.id).unwrap();
    let summary = one.summary.clone().unwrap();
    assert_eq!(
        (summary.status, summary.begin_wal),
        (first.status, Some(first.begin_wal))
    );
    assert!(summary.begin_time.unwrap().moment() < summary.end_time.unwrap().moment());
    let ids = bench
        .lab
        .barman()
        .run(&["list-backup", "--minimal", bench.lab.server()]);
    let known: Vec<String> = listed.iter().map(|one| one.id.to_string()).collect();
    let told = format!("{:?}", ids.unwrap());
    assert!(known.iter().all(|id| told.contains(id)), "{told} {known:?}");
    let _failed = Edited::replace(
        &bench.info_file(first.id.as_str()),
        "status=DONE",
        "status=FAILED",
    );
    let listed = barman.backups().unwrap();
    let one = listed.iter().find(|one| one.id == first.id).unwrap();
    assert_eq!(one.summary.clone().unwrap().status, BackupStatus::Failed);
}

pub(crate) fn a_hole_in_the_archive_is_found(bench: &Bench) {
    let (mut barman, backup) = (bench.barman(), bench.first());
    let (begin, path) = (backup.begin_wal, WalPath::on(backup.timeline));
    let wals = bench.lab.barman().server_dir(bench.lab.server()).join("wals");
    let segment = wals.join(&begin.to_string()[..16]).join(begin.to_string());
    let coverage = barman.wal_coverage(&backup).unwrap();
    assert!(coverage.contains(begin) && coverage.contains(backup.end_wal));
    assert_eq!(coverage.gap(&path, begin, Some(backup.end_wal)), None);
    let away = segment.with_extension("away");
    fs::rename(&segment, &away).unwrap();
    // Also where the session does not know the archive yet, and Barman has no path of that segment to tell it.
    let found = [barman, bench.barman()].map(|mut barman| barman.wal_coverage(&backup));
    fs::rename(&away, &segment).unwrap();
    for coverage in found {
        let gap = coverage.unwrap().gap(&path, begin, None).unwrap();
        assert_eq!((gap.missing, gap.before), (begin, None));
    }
}

pub(crate) fn an_archive_elsewhere_is_found(bench: &Bench) {
    let (main, backup) = (bench.lab.barman().server_dir(bench.lab.server()), bench.first());
    let elsewhere = bench.lab.scratch().dir("elsewhere").unwrap().join("archive");
    fs::rename(main.join("wals"), &elsewhere).unwrap();
    let section = bench.lab.scratch().join("barman/conf.d/main.conf");
    let edited = Edited::replace(
        &section,
        "[main]",
        &format!("[main]\nwals_directory = {}", elsewhere.display()),
    );
    fs::write(elsewhere.join("0000000A.history"), "").unwrap();
    let found = bench.barman().wal_coverage(&backup);
    fs::remove_file(elsewhere.join("0000000A.history")).unwrap();
    drop(edited);
    let lost = bench.barman().wal_coverage(&backup);
    // Barman may have made an empty one where it looks for it.
    let _ = fs::remove_dir_all(main.join("wals"));
    fs::rename(&elsewhere, main.join("wals")).unwrap();
    let found = found.unwrap();
    assert!(found.contains(backup.begin_wal));
    assert_eq!(found.timelines().last().map(|timeline| timeline.id()), Some(10));
    match lost {
        Ok(empty) => assert!(!empty.contains(backup.begin_wal)),
        Err(error) => assert!(matches!(error, E::NoArchive { .. }), "{error:?}"),
    }
}

pub(crate) fn backups_may_be_kept_away_from_their_notes(bench: &Bench) {
    let elsewhere = bench.lab.scratch().dir("elsewhere/backups").unwrap();
    let mut options = ServerOptions::new("apart", BackupMethod::Postgres);
    options
        .conf
        .push(format!("basebackups_directory = {}", elsewhere.display()));
    let id = bench.lab.add_server(&options).unwrap();
    let mut address = bench.address();
    address.server = "apart".into();
    let mut barman = Barman::connect(&bench.host(), address.clone()).unwrap();
    let backup = barman.find_backup("latest").unwrap();
    assert_eq!(backup.directory, text(&elsewhere.join(&id)));
    assert_eq!(backup.form(), Ok(Form::Plain));
    barman.recheck(&backup).unwrap();
    repmgr_barman::Hold::take(&bench.host(), &address, &backup)
        .unwrap()
        .release()
        .unwrap();
}

pub(crate) fn tar_files_and_names(bench: &Bench) {
    let mut options = ServerOptions::new("tars", BackupMethod::Postgres);
    options.conf.push("backup_compression = gzip".to_owned());
    let id: BackupId = bench.lab.add_server(&options).unwrap().parse().unwrap();
    let backup = bench.find(|a| a.server = "tars".into(), "latest-full").unwrap();
    assert_eq!(
        backup.form(),
        Ok(Form::Tar {
            codec: TarCodec::Gzip
        })
    );
    assert_eq!(backup.id, id);
    bench
        .lab
        .barman()
        .run(&["backup", "--wait", "--name", "my 'own' name", "tars"])
        .unwrap();
    let named = bench.find(|a| a.server = "tars".into(), "my 'own' name").unwrap();
    assert!(named.id > id);
    let base = format!("{}/base.tar.gz", named.data_directory());
    fs::remove_file(&base).unwrap();
    let error = bench
        .find(|a| a.server = "tars".into(), named.id.as_str())
        .unwrap()
        .form()
        .unwrap_err();
    assert!(error.to_string().contains(&base), "{error}");
}

pub(crate) fn inactive_servers(bench: &Bench) {
    assert!(bench.lab.barman().install().version() == BarmanVersion::V3_4);
    let (mut barman, backup) = (bench.barman(), bench.first());
    let section = bench.lab.scratch().join("barman/conf.d/main.conf");
    let _edited = Edited::replace(&section, "[main]", "[main]\nactive = false");
    assert!(matches!(barman.find_backup("latest"), Err(E::Inactive { .. })));
    let wal = "00000001000000AA00000001".parse().unwrap();
    assert!(matches!(barman.has_wal(&backup, wal), Err(E::Inactive { .. })));
}
