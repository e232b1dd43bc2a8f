use super::*;

fn localize(conf: &str, existing: &[&str]) -> LocalizedConf {
    let exists = |path: &Path| existing.iter().any(|known| Path::new(known) == path);
    LocalFiles {
        data_dir: Path::new("/clone"),
        exists: &exists,
        recovery: true,
    }
    .localize(Path::new("/clone/postgresql.conf"), conf.as_bytes())
}

fn text(conf: &LocalizedConf) -> &str {
    std::str::from_utf8(&conf.bytes).unwrap()
}

#[test]
fn a_debian_primarys_places_are_commented_out_and_all_else_stays() {
    let conf = "# PostgreSQL configuration file\r\n\
                data_directory = '/var/lib/postgresql/15/main'\t# use data in another directory\n\
                hba_file = '/etc/postgresql/15/main/pg_hba.conf'\n\
                ident_file = '/etc/postgresql/15/main/pg_ident.conf'\n\
                external_pid_file = '/var/run/postgresql/15-main.pid'\n\
                port = 5432\n\
                include_dir = 'conf.d'\n\
                include_if_exists = 'maybe.conf'";
    let result = localize(conf, &["/clone/pg_hba.conf", "/clone/pg_ident.conf"]);
    assert_eq!(
        text(&result),
        "# PostgreSQL configuration file\r\n\
         #repmgr: data_directory = '/var/lib/postgresql/15/main'\t# use data in another directory\n\
         #repmgr: hba_file = '/etc/postgresql/15/main/pg_hba.conf'\n\
         #repmgr: ident_file = '/etc/postgresql/15/main/pg_ident.conf'\n\
         #repmgr: external_pid_file = '/var/run/postgresql/15-main.pid'\n\
         port = 5432\n\
         #repmgr: include_dir = 'conf.d'\n\
         include_if_exists = 'maybe.conf'"
    );
    let changed: Vec<_> = result.changes.iter().map(|c| (c.line, c.name.as_str())).collect();
    let expected = [
        (2, "data_directory"),
        (3, "hba_file"),
        (4, "ident_file"),
        (5, "external_pid_file"),
        (7, "include_dir"),
    ];
    assert_eq!(changed, expected);
    assert_eq!(result.changes[0].value, "/var/lib/postgresql/15/main");
}

#[test]
fn what_already_fits_is_not_touched() {
    let conf = "data_directory = '/clone'\nhba_file = '/clone/pg_hba.conf'\ninclude 'extra.conf'\n\
                include_dir '/etc/shared'\nrecovery_target_timeline = 'latest'\nrecovery_target = ''\n\
                primary_slot_name = ''\nexternal_pid_file = ''\n";
    let result = localize(conf, &["/clone/pg_hba.conf", "/clone/extra.conf", "/etc/shared"]);
    assert_eq!(text(&result), conf);
    assert_eq!(result.changes, []);
    assert_eq!(
        result.includes,
        [Path::new("/clone/extra.conf"), Path::new("/etc/shared")]
    );
}

#[test]
fn an_included_file_includes_from_its_own_directory() {
    let exists = |path: &Path| path == Path::new("/clone/conf.d/more.conf");
    let files = LocalFiles {
        data_dir: Path::new("/clone"),
        exists: &exists,
        recovery: true,
    };
    let conf = b"include 'more.conf'\n";
    let nested = files.localize(Path::new("/clone/conf.d/a.conf"), conf);
    assert_eq!(nested.includes, [Path::new("/clone/conf.d/more.conf")]);
    assert_eq!(
        files
            .localize(Path::new("/clone/postgresql.conf"), conf)
            .changes
            .len(),
        1
    );
}

#[test]
fn a_host_file_stays_only_if_it_exists_and_the_copy_has_none() {
    let conf = "hba_file = '/etc/pg/pg_hba.conf'\n";
    assert_eq!(localize(conf, &["/etc/pg/pg_hba.conf"]).changes, []);
    assert_eq!(
        localize(conf, &["/etc/pg/pg_hba.conf", "/clone/pg_hba.conf"])
            .changes
            .len(),
        1
    );
    assert_eq!(localize(conf, &[]).changes[0].reason, "it does not exist here");
}

#[test]
fn another_servers_recovery_is_not_inherited() {
    let conf = "recovery_target_time = '2026-01-01'\nRecovery_Target_Timeline = 'current'\nprimary_slot_name = 'x'\n";
    let result = localize(conf, &[]);
    assert_eq!(result.changes.len(), 3);
    assert!(text(&result).lines().all(|line| line.starts_with("#repmgr: ")));
}

#[test]
fn paths_that_do_not_exist_here_are_told_but_not_changed() {
    let conf = "ssl_cert_file = '/etc/ssl/x.pem'\nssl_key_file = 'server.key'\n\
                unix_socket_directories = '/run/pg, /nowhere, @abstract'\n";
    let result = localize(conf, &["/run/pg"]);
    assert_eq!(text(&result), conf);
    let absent: Vec<_> = result
        .absent
        .iter()
        .map(|a| (a.line, a.path.to_str().unwrap()))
        .collect();
    assert_eq!(absent, [(1, "/etc/ssl/x.pem"), (3, "/nowhere")]);
}

#[test]
fn a_line_postgresql_would_refuse_is_kept_and_told() {
    let conf = "port = 'unterminated\ndata_directory = '/primary'\n";
    let result = localize(conf, &[]);
    assert_eq!(
        text(&result),
        "port = 'unterminated\n#repmgr: data_directory = '/primary'\n"
    );
    assert_eq!(result.broken[0].line, 1);
}

proptest::proptest! {
    #[test]
    fn taking_the_prefix_away_gives_the_file_back(conf in "([a-z_]{0,4}|data_directory|include_dir| |=|'/x'|#|\n|\r|\\PC){0,40}") {
        let result = localize(&conf, &[]);
        let text = text(&result);
        let restored: String =
            text.split_inclusive('\n').map(|line| line.strip_prefix(PREFIX).unwrap_or(line)).collect();
        proptest::prop_assert_eq!(restored, conf);
    }
}

#[test]
fn recovery_settings_are_left_to_whoever_edits_the_file() {
    let conf =
        b"primary_slot_name = 'theirs'\nrecovery_target = 'immediate'\nhba_file = '/their/pg_hba.conf'\n";
    let files = LocalFiles {
        data_dir: Path::new("/data"),
        exists: &|_| false,
        recovery: false,
    };
    let localized = files.localize(Path::new("/data/postgresql.auto.conf"), conf);
    let names: Vec<_> = localized
        .changes
        .iter()
        .map(|change| change.name.as_str())
        .collect();
    assert_eq!(names, ["hba_file"]);
}
