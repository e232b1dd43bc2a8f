use super::*;
use repmgr_remote::LocalHost;

const CONF: &str = "node_id=2\nnode_name='node2'\nconninfo='host=n2'\ndata_directory='/data'\n\
                    barman_host='barmansrv'\nbarman_server='main'\n";

struct Here;

impl Hosts for Here {
    fn barman(&self, _: &Settings, _: &str) -> Result<Arc<dyn Host>, Failure> {
        Ok(Arc::new(LocalHost::default()))
    }
    fn source(&self, _: &Settings, _: &str, _: Option<&str>) -> Result<Arc<dyn Host>, Failure> {
        Ok(Arc::new(LocalHost::default()))
    }
}

fn resolve(conf: Option<&str>, line: &[&str]) -> (Vec<String>, Result<CloneRequest, String>) {
    given(conf, line, |given| given.request(&Here))
}

/// What `ask` makes of all that is given, with the warnings about it.
fn given<T>(
    conf: Option<&str>,
    line: &[&str],
    ask: impl Fn(Given<'_>) -> Result<T, Failure>,
) -> (Vec<String>, Result<T, String>) {
    let words = ["repmgr"].into_iter().chain(line.iter().copied());
    let line = CommandLine::parse(words.map(Into::into)).unwrap();
    let (values, errors) = Values::read(&line);
    assert!(errors.is_empty(), "{errors:?}");
    let loaded = conf.map(|text| repmgr_config::parse(text.as_bytes(), Path::new("/r.conf")).unwrap());
    let given = Given {
        line: &line,
        values: &values,
        host: line.args.words.get(2).map(String::as_str),
        loaded: loaded.as_ref(),
        password: Some("from PGPASSWORD".to_owned()),
        wal_restore: Some("/opt/my repmgr/repmgr-wal-restore".into()),
        unnamed_user: |host| (host == "nobody").then(|| "o'hara".to_owned()),
    };
    let warnings = given.warnings();
    let told = |failure: Failure| {
        let lines = failure
            .told()
            .into_iter()
            .map(|told| format!("{}|{}", told.text, told.detail.unwrap_or_default()));
        lines.collect::<Vec<_>>().join("\n")
    };
    (warnings, ask(given).map_err(told))
}

fn request(conf: &str, line: &[&str]) -> CloneRequest {
    resolve(Some(conf), line)
        .1
        .unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

fn refusal(conf: Option<&str>, line: &[&str]) -> String {
    resolve(conf, line)
        .1
        .err()
        .unwrap_or_else(|| panic!("{line:?} was accepted"))
}

#[test]
fn the_file_says_what_and_the_options_say_how() {
    let conf = format!(
        "{CONF}restore_command='get %f %p'\ntablespace_mapping='/a=/b'\nuse_replication_slots=yes\n\
         pg_bindir='/pg'\npg_basebackup_options='--waldir=/wal'\nrecovery_min_apply_delay='1h'\npassfile='/p'\n\
         service_start_command='systemctl start pg'\nbarman_command='/opt/barman'\nbarman_config='/etc/b.conf'\n\
         max_rate='10M'\n"
    );
    let request = request(
        &conf,
        &[
            "standby",
            "clone",
            "-F",
            "-b",
            "/mine",
            "--recovery-min-apply-delay=2h",
            "--backup-id",
            "oldest",
            "--jobs=3",
            "--upstream-node-id=4",
            "--replication-user=rep",
        ],
    );
    let node = request.node.as_ref().unwrap();
    assert_eq!((node.id, node.name.as_str()), (2, "node2"));
    assert_eq!(request.data_directory, Path::new("/data"));
    assert_eq!(request.tablespace_mapping, [("/a".into(), "/b".into())]);
    assert_eq!(request.wal_directory.as_deref(), Some(Path::new("/wal")));
    assert_eq!(request.bin_dir.as_deref(), Some(Path::new("/mine")));
    assert!(request.force && request.replication.slot_name.as_deref() == Some("repmgr_slot_2"));
    assert_eq!(
        request.replication.recovery_min_apply_delay.as_deref(),
        Some("2h")
    );
    assert_eq!(request.replication.restore_command.as_deref(), Some("get %f %p"));
    assert_eq!(request.replication.passfile.as_deref(), Some("/p"));
    assert_eq!(request.replication.password, None);
    assert_eq!(request.start_command.as_deref(), Some("systemctl start pg"));
    assert_eq!(request.upstream.node_id, Some(4));
    assert_eq!(request.upstream.replication_user.as_deref(), Some("rep"));
    let Source::Barman(barman) = request.source else {
        panic!("not from Barman");
    };
    let address = ServerAddress {
        server: "main".to_owned(),
        command: "/opt/barman".parse().unwrap(),
        config: Some("/etc/b.conf".to_owned()),
    };
    assert_eq!(
        (barman.address, barman.backup.as_deref()),
        (address, Some("oldest"))
    );
    assert_eq!(barman.transfer.jobs.map(usize::from), Some(3));
    assert_eq!(barman.transfer.max_rate, "10240".parse().ok());
}

#[test]
fn the_password_of_the_environment_is_written_only_if_the_file_asks_for_it() {
    let conf = format!("{CONF}use_primary_conninfo_password=true\n");
    let password = request(&conf, &["standby", "clone"]).replication.password;
    assert_eq!(password.as_deref(), Some("from PGPASSWORD"));
}

#[test]
fn a_connection_string_counts_before_single_options() {
    let shown = |line: &[&str]| request(CONF, line).connection.to_string();
    assert_eq!(
        shown(&["-h", "a", "-p", "1", "-U", "u", "-d", "db", "standby", "clone"]),
        "host=a port=1 user=u dbname=db"
    );
    assert_eq!(
        shown(&[
            "-h",
            "a",
            "-p",
            "1",
            "-d",
            "postgresql://x@b/d",
            "standby",
            "clone"
        ]),
        "host=b port=1 user=x dbname=d"
    );
    assert_eq!(shown(&["-U", "u", "standby", "clone", "b"]), "user=u host=b");
    assert_eq!(shown(&["-h", "", "standby", "clone"]), "");
}

#[test]
fn a_host_given_twice_is_an_error() {
    for (line, option) in [
        (&["-h", "a", "standby", "clone", "b"][..], "-h/--host"),
        (&["-d", "host=a", "standby", "clone", "b"], "host="),
        (&["-d", "hostaddr=::1", "standby", "clone", "b"], "host="),
    ] {
        let expected = format!("host name provided both with {option} and as an extra parameter");
        assert_eq!(refusal(Some(CONF), line), format!("{expected}|"), "{line:?}");
    }
}

#[test]
fn without_barman_repmgr_wants_a_host_and_a_parameter() {
    let conf = CONF.replace("barman", "#");
    let host = "host name for the source node must be provided with -h/--host when executing STANDBY CLONE";
    let parameters =
        "database connection parameters for the source node must be provided when executing STANDBY CLONE";
    let clone = ["standby", "clone"];
    assert_eq!(refusal(Some(&conf), &clone), format!("{host}|\n{parameters}|"));
    assert_eq!(
        refusal(Some(&conf), &["standby", "clone", "a"]),
        format!("{parameters}|")
    );
    assert_eq!(
        refusal(Some(&conf), &["-p", "1", "standby", "clone"]),
        format!("{host}|")
    );
    assert!(refusal(None, &["-h", "a", "standby", "clone"]).starts_with("no data directory provided"));
}

fn server(conf: Option<&str>, line: &[&str]) -> (CloneRequest, ServerSource) {
    let request = resolve(conf, line).1.unwrap_or_else(|error| panic!("{error}"));
    let Source::Server(server) = request.source.clone() else {
        panic!("not from the server");
    };
    (request, server)
}

#[test]
fn without_barman_the_source_node_itself_is_copied() {
    let conf = format!("{CONF}pg_basebackup_options='-Xfetch --no-slot --waldir=/wal --max-rate=10M'\n");
    let line = [
        "--without-barman",
        "-c",
        "--verify-backup",
        "-h",
        "a",
        "standby",
        "clone",
    ];
    let (request, source) = server(Some(&conf), &line);
    assert!(source.fast_checkpoint && source.verify && source.chooses_slot && !source.streams_wal());
    assert_eq!(source.options.len(), 4);
    assert_eq!(request.wal_directory.as_deref(), Some(Path::new("/wal")));
    let (_, source) = server(
        Some(&CONF.replace("barman", "#")),
        &["-h", "a", "standby", "clone"],
    );
    assert!(source.streams_wal() && !source.fast_checkpoint && !source.chooses_slot);
    let (request, _) = server(None, &["-h", "a", "-D", "/d", "standby", "clone"]);
    let node = request.node.as_ref().unwrap();
    assert_eq!((node.id, node.name.as_str()), (-1, "repmgr"));
    assert_eq!(request.data_directory, Path::new("/d"));
}

#[test]
fn external_files_come_from_the_source_nodes_host() {
    let line = [
        "--copy-external-config-files=pgdata",
        "-h",
        "a",
        "standby",
        "clone",
    ];
    let files = request(CONF, &line).external_files.expect("asked for");
    assert_eq!(files.placement, repmgr_clone::Placement::DataDirectory);
    let refused = refusal(Some(CONF), &["--copy-external-config-files", "standby", "clone"]);
    assert!(
        refused.contains("needs to know the source node's host"),
        "{refused}"
    );
}

#[test]
fn notifications_and_the_lack_of_a_connection_are_passed_on() {
    let conf = format!(
        "{CONF}event_notification_command='tell %e'\nevent_notifications='standby_clone,standby_follow'\n"
    );
    let request = request(&conf, &["--no-upstream-connection", "standby", "clone"]);
    let notification = request.notification.expect("configured");
    assert_eq!(notification.command, "tell %e");
    assert!(notification.wants("standby_clone") && !notification.wants("standby_promote"));
    assert!(request.upstream.no_connection);
}

#[test]
fn the_configuration_alone_needs_no_backup() {
    let ask = |conf: &str, line: &[&str]| given(Some(conf), line, |given| given.reconfiguration()).1;
    let line = [
        "--recovery-conf-only",
        "-F",
        "--upstream-node-id=4",
        "--replication-user=r",
        "standby",
        "clone",
        "a",
    ];
    let conf = format!("{CONF}use_replication_slots=yes\nrecovery_min_apply_delay='1h'\n");
    let request = ask(&conf, &line).unwrap();
    assert_eq!(
        (request.node.id, request.data_directory.as_path()),
        (2, Path::new("/data"))
    );
    assert_eq!(request.connection.to_string(), "host=a");
    assert_eq!(request.upstream.node_id, Some(4));
    assert_eq!(request.upstream.replication_user.as_deref(), Some("r"));
    assert!(
        request.force && request.replication.slot_name.is_some() && request.replication.password.is_none()
    );
    assert_eq!(
        request.replication.recovery_min_apply_delay.as_deref(),
        Some("1h")
    );
    // As in repmgr, the host may be left out only where Barman is configured.
    let line = ["--replication-conf-only", "standby", "clone"];
    assert!(ask(&conf, &line).is_ok());
    let refused = ask(&conf.replace("barman", "#"), &line);
    assert!(refused.unwrap_err().contains("must be provided with -h/--host"));
}

#[test]
fn required_parameters_are_reported_by_name_and_file() {
    let conf = CONF.replace("node_id", "#").replace("conninfo", "#");
    let refused = refusal(Some(&conf), &["standby", "clone"]);
    let missing = |name: &str| format!("file \"/r.conf\": parameter \"{name}\": required but not set|");
    assert_eq!(refused, [missing("node_id"), missing("conninfo")].join("\n"));
}

#[test]
fn options_without_effect_are_warned_of_in_the_order_of_repmgr() {
    let line = [
        "-D",
        "/x",
        "-c",
        "-R",
        "u",
        "-S",
        "s",
        "--replication-user=r",
        "--upstream-conninfo=host=a",
        "--siblings-follow",
        "--wait",
        "--node-id",
        "3",
        "--csv",
        "-C",
        "f",
        "standby",
        "clone",
    ];
    let conf = format!("{CONF}config_directory='/etc/pg'\n");
    assert_eq!(
        resolve(Some(&conf), &line).0,
        [
            "-D/--pgdata will be ignored if a repmgr configuration file is provided",
            "-c/--fast-checkpoint has no effect in Barman mode",
            "-R/--remote-user has no effect in Barman mode",
            "--replication-user ineffective when specifying --upstream-conninfo",
            "\"config_directory\" set in repmgr.conf, but --copy-external-config-files not provided",
            "--remote-config-file is no longer required",
            "--node-id not required when executing STANDBY CLONE",
            "--wait will be ignored when executing STANDBY CLONE",
            "--siblings-follow is not effective when executing STANDBY CLONE",
        ]
    );
    assert!(resolve(Some(CONF), &["standby", "clone"]).0.is_empty());
}

#[test]
fn wal_comes_from_barman_where_the_file_says_nothing() {
    let command = |conf: &str, line: &[&str]| request(conf, line).replication.restore_command;
    let clone = ["standby", "clone"];
    assert_eq!(
        command(CONF, &clone).as_deref(),
        Some("'/opt/my repmgr/repmgr-wal-restore' -- barmansrv main %f %p")
    );
    let conf = format!("{CONF}barman_config='/etc/100%.conf'\nbarman_command='/opt/barman'\n");
    assert_eq!(
        command(&conf, &clone).as_deref(),
        Some(
            "'/opt/my repmgr/repmgr-wal-restore' --config /etc/100%%.conf --barman-command /opt/barman -- barmansrv \
             main %f %p"
        )
    );
    let conf = CONF.replace("barmansrv", "nobody");
    assert_eq!(
        command(&conf, &clone).as_deref(),
        Some(r"'/opt/my repmgr/repmgr-wal-restore' --user 'o'\''hara' -- nobody main %f %p")
    );
    let conf = format!("{CONF}restore_command='mine %f %p'\n");
    assert_eq!(command(&conf, &clone).as_deref(), Some("mine %f %p"));
    let conf = format!("{CONF}ssh_options='-F /my/config'\n");
    assert_eq!(
        command(&conf, &clone).as_deref(),
        Some("'/opt/my repmgr/repmgr-wal-restore' '--ssh-options=-F /my/config' -- barmansrv main %f %p")
    );
    assert_eq!(
        command(CONF, &["--without-barman", "-h", "a", "standby", "clone"]),
        None
    );
}

#[test]
fn the_clone_and_what_fetches_wal_call_barman_by_the_same_words() {
    for (setting, words) in [
        (
            "sudo -n -u barman barman",
            &["sudo", "-n", "-u", "barman", "barman"][..],
        ),
        (
            "\"/opt/my 100% barman/bin/barman\"",
            &["/opt/my 100% barman/bin/barman"],
        ),
    ] {
        let conf = format!("{CONF}barman_command='{setting}'\n");
        let request = request(&conf, &["standby", "clone"]);
        let Source::Barman(barman) = request.source else {
            panic!("not from Barman");
        };
        assert_eq!(barman.address.command.words(), words);
        // As PostgreSQL and its shell read it.
        let command = request.replication.restore_command.unwrap();
        let command = command.replace("%f", "f").replace("%p", "p").replace("%%", "%");
        let script = format!("set -- {command}; printf '%s\\n' \"$@\"");
        let told = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let mut told = told.lines().skip_while(|word| *word != "--barman-command");
        assert_eq!(told.nth(1).unwrap().parse(), Ok(barman.address.command));
    }
}

#[test]
fn a_barman_command_that_is_none_is_refused_by_name_and_file() {
    let conf = format!("{CONF}barman_command='\"/opt/my barman'\n");
    let expected =
        "file \"/r.conf\": parameter \"barman_command\": a quote is not closed in: \"/opt/my barman|";
    assert_eq!(refusal(Some(&conf), &["standby", "clone"]), expected);
    let line = ["--replication-conf-only", "standby", "clone"];
    let refused = given(Some(&conf), &line, |given| given.reconfiguration()).1;
    assert_eq!(refused.unwrap_err(), expected);
}

/// repmgr 5.4 and later would clone through it.
#[test]
fn a_way_to_barman_that_is_not_ours_is_refused() {
    let conf = format!("{CONF}pg_backupapi_host='api'\n");
    assert!(resolve(Some(&conf), &["standby", "clone"]).0.is_empty());
    let conf =
        "node_id=2\nnode_name='node2'\nconninfo='host=n2'\ndata_directory='/data'\npg_backupapi_host='api'\n";
    let refused = refusal(Some(conf), &["-h", "n1", "standby", "clone"]);
    assert!(
        refused.contains("pg_backup_api (\"pg_backupapi_host\")"),
        "{refused}"
    );
    let conf = format!("{conf}pg_backupapi_node_name='main'\npg_backupapi_backup_id='latest'\n");
    let mut settings = Settings::default();
    settings.pg_backupapi_host = Some("api".to_owned());
    settings.pg_backupapi_node_name = Some("main".to_owned());
    settings.pg_backupapi_backup_id = Some("latest".to_owned());
    let Err(Failure::Refused { hint: Some(hint), .. }) = refuse_backupapi(&settings) else {
        panic!("it is not refused");
    };
    let told = "\"barman_server\" to \"main\", and add --backup-id=latest;";
    assert!(hint.to_string().contains(told), "{hint}");
    let line = ["-h", "n1", "--without-barman", "standby", "clone"];
    assert!(resolve(Some(&conf), &line).0.is_empty());
}
