use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{Failover, LogLevel};

const PATH: &str = "/etc/repmgr.conf";

fn read(text: &str) -> Loaded {
    parse(text.as_bytes(), Path::new(PATH)).unwrap_or_else(|error| panic!("{text}: {:?}", error.errors()))
}

fn settings(text: &str) -> Settings {
    read(text).settings
}

/// All errors, one per line, without the name of the file.
fn errors(text: &str) -> String {
    let error = parse(text.as_bytes(), Path::new(PATH))
        .map(|_| ())
        .expect_err(text);
    lines(error.errors())
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    let prefix = format!("file \"{PATH}\"");
    let line = |d: &Diagnostic| {
        d.to_string()
            .replace(&prefix, "")
            .trim_start_matches([',', ' ', ':'])
            .to_owned()
    };
    diagnostics.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_configuration_of_a_barman_user_is_read_in_either_grammar() {
    let repmgr4 = "\
node_id=2
node_name=node2
conninfo='host=node2 user=repmgr dbname=repmgr connect_timeout=2'
data_directory='/var/lib/postgresql/data'
barman_host=barman@barmansrv   # Barman
barman_server=somedb
restore_command=/usr/bin/barman-wal-restore barmansrv somedb %f %p
";
    let repmgr5 = repmgr4.replace("barman@barmansrv", "'barman@barmansrv'").replace(
        "/usr/bin/barman-wal-restore barmansrv somedb %f %p",
        "'/usr/bin/barman-wal-restore barmansrv somedb %f %p'",
    );
    let (old, new) = (read(repmgr4), read(&repmgr5));
    assert_eq!(old.settings, new.settings);
    assert_eq!(
        lines(&old.warnings),
        "line 5: parameter \"barman_host\": value is not in single quotes, which repmgr 5 refuses; read as repmgr 4 reads it\n\
         line 7: parameter \"restore_command\": value is not in single quotes, which repmgr 5 refuses; read as repmgr 4 reads it"
    );
    assert!(new.warnings.is_empty());

    let node = new.node().unwrap();
    assert_eq!((node.id, node.name), (2, "node2"));
    assert_eq!(node.conninfo.get("host"), Some("node2"));
    assert_eq!(node.data_directory, Path::new("/var/lib/postgresql/data"));
    let barman = new.settings.barman().unwrap();
    assert_eq!(
        (barman.host, barman.server, barman.config, barman.command),
        ("barman@barmansrv", "somedb", None, "barman")
    );
    assert_eq!(
        new.settings.restore_command.as_deref(),
        Some("/usr/bin/barman-wal-restore barmansrv somedb %f %p")
    );
}

#[test]
fn a_value_means_what_the_grammar_of_its_line_says() {
    for (line, expected) in [
        // repmgr 5
        (
            "restore_command = 'cp \"/wal/%f\" %p # all'",
            "cp \"/wal/%f\" %p # all",
        ),
        ("restore_command 'it''s'", "it's"),
        (r"restore_command='a\\b\'c'", r"a\b'c"),
        ("restore_command=plain # comment", "plain"),
        ("restore_command='one'\r", "one"),
        // repmgr 4
        ("restore_command=/bin/cp %f %p", "/bin/cp %f %p"),
        ("\trestore_command\t =\t /bin/cp %f %p \t\r", "/bin/cp %f %p"),
        ("restore_command=/bin/cp %f %p # comment 'x'", "/bin/cp %f %p"),
        ("restore_command = cp \"%f\" C:\\x", "cp \"%f\" C:\\x"),
        ("restore_command=a=b c", "a=b c"),
        ("restore_command=naïve %f", "naïve %f"),
    ] {
        assert_eq!(
            settings(line).restore_command.as_deref(),
            Some(expected),
            "{line:?}"
        );
    }
    let long = "x ".repeat(50_000) + "%f";
    assert_eq!(
        settings(&format!("restore_command={long}")).restore_command,
        Some(long)
    );
}

#[test]
fn a_line_that_could_mean_two_things_or_nothing_is_an_error_at_its_line() {
    for (line, problem) in [
        (
            "restore_command='a' 'b'",
            "column 21: unexpected text after the value",
        ),
        (
            "restore_command='/bin/my cp' %f %p",
            "column 30: unexpected text after the value",
        ),
        (
            "restore_command=/bin/cp '%f' %p",
            "column 17: value must be in single quotes",
        ),
        ("restore_command='cp %f", "column 17: unterminated quoted string"),
        ("restore_command=", "column 17: missing value"),
        ("restore_command= # later", "column 25: missing value"),
        ("restore_command", "column 16: missing value"),
        (
            "restore_command cp %f %p",
            "column 20: unexpected text after the value",
        ),
        (
            "restore command = cp %f",
            "column 17: unexpected text after the value",
        ),
        (
            "restore_command = /bin/cp \0",
            "column 19: value must be in single quotes",
        ),
        ("restore_command = 'a\0b'", "column 19: NUL byte in the value"),
        (
            "include = /etc/other.conf",
            "column 11: value must be in single quotes",
        ),
        ("[section]", "column 1: expected a parameter name"),
    ] {
        let text = format!("node_id=1\n{line}\n");
        assert_eq!(
            errors(&text),
            format!("line 2: syntax error at {problem}"),
            "{line:?}"
        );
    }
    let latin1 = parse(b"\nnode_name='caf\xe9'", Path::new(PATH)).unwrap_err();
    assert_eq!(
        lines(latin1.errors()),
        "line 2: parameter \"node_name\": value is not valid UTF-8"
    );
    assert_eq!(
        parse(b"# caf\xe9\nnode_id=1", Path::new(PATH))
            .unwrap()
            .settings
            .node_id,
        Some(1)
    );
}

#[test]
fn a_byte_order_mark_does_not_hide_the_first_parameter() {
    let loaded = read("\u{feff}node_id=7");
    assert_eq!(loaded.settings.node_id, Some(7));
    assert_eq!(lines(&loaded.warnings), "line 1: byte order mark ignored");
}

#[test]
fn all_errors_of_a_file_are_reported_at_once() {
    let text = "node_id=0\nconninfo='host=x hostx=y password=s3cret'\npriority=-1\nuse_replication_slots=t\n\
                bad line 'here\ntablespace_mapping='/a'\nnode_name=ok\n";
    assert_eq!(
        errors(text),
        "line 5: syntax error at column 10: unterminated quoted string\n\
         line 6: parameter \"tablespace_mapping\": value must be OLDDIR=NEWDIR; write \\= for an equals sign in a path\n\
         line 1: parameter \"node_id\": value must be a number from 1 to 2147483647\n\
         line 2: parameter \"conninfo\": invalid connection string: invalid connection option \"hostx\"\n\
         line 3: parameter \"priority\": value must be a number from 0 to 2147483647\n\
         line 4: parameter \"use_replication_slots\": value must be one of true, false, on, off, yes, no, 1, 0"
    );
}

#[test]
fn the_last_of_several_values_counts_but_lists_add_up() {
    let loaded = read(
        "node_id=1\nnode_id='bad'\nnode_id=3\n\
         event_notifications=standby_clone\nevent_notifications='a, b,,c '\n\
         tablespace_mapping='/a=/b'\ntablespace_mapping=/c\\=d=/e/./f/\n",
    );
    let settings = loaded.settings;
    assert_eq!(settings.node_id, Some(3));
    assert_eq!(settings.event_notifications, ["standby_clone", "a", "b", "c"]);
    let mapped: Vec<String> = settings
        .tablespace_mapping
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(mapped, ["/a=/b", "/c\\=d=/e/f"]);
}

#[test]
fn numbers_read_as_strtol_reads_them_and_odd_ones_are_warned_of() {
    for (text, expected, is_odd) in [
        ("5", 5, false),
        ("' +7'", 7, false),
        ("5abc", 5, true),
        ("0x10", 0, true),
        ("''", 0, false),
    ] {
        let loaded = read(&format!("priority = {text}"));
        assert_eq!(
            (loaded.settings.priority, loaded.warnings.len() == 1),
            (expected, is_odd),
            "{text}"
        );
    }
    for text in ["-1", "2147483648", "99999999999999999999999", "high", "'-x'"] {
        assert!(
            errors(&format!("priority = {text}")).contains("from 0 to 2147483647"),
            "{text}"
        );
    }
    assert!(errors("monitor_interval_secs=0").contains("from 1 to"));
    assert_eq!(settings("reconnect_attempts=0").reconnect_attempts, 0);
    assert_eq!(
        settings("degraded_monitoring_timeout=-1").degraded_monitoring_timeout,
        -1
    );
}

#[test]
fn booleans_are_full_words_in_any_case() {
    for (text, expected) in [
        ("1", true),
        ("TRUE", true),
        ("On", true),
        ("yes", true),
        ("off", false),
        ("'NO'", false),
    ] {
        assert_eq!(
            settings(&format!("use_replication_slots={text}")).use_replication_slots,
            expected,
            "{text}"
        );
    }
    for text in ["t", "2", "''", "y"] {
        assert!(
            errors(&format!("use_replication_slots={text}")).contains("must be one of"),
            "{text}"
        );
    }
}

#[test]
fn the_apply_delay_keeps_its_words_and_knows_its_length() {
    for (text, expected) in [
        ("5min", 300_000),
        ("'5 min'", 300_000),
        ("0", 0),
        ("250ms", 250),
        ("2h", 7_200_000),
        ("24d", 2_073_600_000),
        ("5 s", 5_000),
    ] {
        let delay = settings(&format!("recovery_min_apply_delay={text}"))
            .recovery_min_apply_delay
            .unwrap();
        assert_eq!(delay.duration(), Duration::from_millis(expected), "{text}");
        assert_eq!(delay.as_str(), text.trim_matches('\''));
    }
    for text in [
        "-5s",
        "5MIN",
        "5 weeks",
        "min",
        "25d",
        "18446744073709551615d",
        "1.5h",
    ] {
        assert!(
            errors(&format!("recovery_min_apply_delay='{text}'")).contains("value "),
            "{text}"
        );
    }
    assert_eq!(
        settings("recovery_min_apply_delay=''").recovery_min_apply_delay,
        None
    );
}

#[test]
fn paths_lose_what_does_not_matter() {
    for (text, expected) in [
        ("/a//b/./c/", "/a/b/c"),
        ("/a/../b", "/b"),
        ("/../a", "/a"),
        ("a/..", "."),
        ("../a", "../a"),
    ] {
        let path = settings(&format!("config_directory='{text}'"))
            .config_directory
            .unwrap();
        assert_eq!(path.to_str(), Some(expected), "{text}");
    }
    assert_eq!(settings("config_directory=''").config_directory, None);
}

#[test]
fn tablespace_mappings_are_two_absolute_paths() {
    assert_eq!(
        settings(r"tablespace_mapping='/a\\=b=/c'").tablespace_mapping[0].old,
        Path::new("/a=b")
    );
    for text in ["/a", "/a=", "=/b", "/a=/b=/c", "a=/b", "/a=b", ""] {
        let error = errors(&format!("\ntablespace_mapping='{text}'"));
        assert!(
            error.starts_with("line 2: parameter \"tablespace_mapping\": "),
            "{text}: {error}"
        );
    }
}

#[test]
fn names_postgresql_would_cut_are_refused() {
    let (long, longer) = ("n".repeat(63), "n".repeat(64));
    assert_eq!(settings(&format!("node_name={long}")).node_name, Some(long));
    assert!(errors(&format!("node_name={longer}")).contains("value has 64 bytes, at most 63 are allowed"));
    assert!(errors(&format!("replication_user={longer}")).contains("64 bytes"));
}

#[test]
fn words_with_a_meaning_are_known_and_a_bad_log_level_is_no_error() {
    let loaded = read("failover=Automatic\nlog_level=debug");
    assert_eq!(
        (loaded.settings.failover, loaded.settings.log_level),
        (Failover::Automatic, LogLevel::Debug)
    );
    assert!(errors("failover=perhaps").contains("must be one of manual, automatic"));
    assert!(errors("replication_type=bdr").contains("must be one of physical"));
    let loaded = read("log_level=chatty\nnode_id=4");
    assert_eq!(
        (loaded.settings.log_level, loaded.settings.node_id),
        (LogLevel::Info, Some(4))
    );
    assert!(
        lines(&loaded.warnings).starts_with("line 1: parameter \"log_level\": value must be one of DEBUG")
    );
}

#[test]
fn parameters_that_contradict_each_other_are_refused() {
    let wrong = [
        (
            "barman_host=h",
            "line 1: parameter \"barman_host\": \"barman_server\" must be set too",
        ),
        (
            "barman_server=s\nbarman_host=''",
            "line 1: parameter \"barman_server\": \"barman_host\" must be set too",
        ),
        (
            "archive_ready_critical=16",
            "line 1: parameter \"archive_ready_critical\": value must be greater than that of \"archive_ready_warning\"",
        ),
        (
            "replication_lag_warning=700",
            "parameter \"replication_lag_critical\": value must be greater than that of \"replication_lag_warning\"",
        ),
        (
            "standby_reconnect_timeout=59",
            "line 1: parameter \"standby_reconnect_timeout\": value must be not less than that of \"node_rejoin_timeout\"",
        ),
        (
            "pg_basebackup_options='--waldir=wal'",
            "line 1: parameter \"pg_basebackup_options\": the directory given with \"--waldir\" must be absolute",
        ),
    ];
    for (text, expected) in wrong {
        assert_eq!(errors(text), expected);
    }
}

#[test]
fn what_a_node_must_have_is_asked_for_by_name() {
    let error = read("node_id=1\nconninfo=''").node().map(|_| ()).unwrap_err();
    assert_eq!(
        lines(error.errors()),
        "parameter \"node_name\": required but not set\n\
         parameter \"conninfo\": required but not set\n\
         parameter \"data_directory\": required but not set"
    );
    assert_eq!(
        error.to_string(),
        "configuration file \"/etc/repmgr.conf\" has 3 errors"
    );
}

#[test]
fn unknown_and_obsolete_parameters_are_warned_of_and_ignored() {
    let loaded = read(
        "cluster=test\nnode=1\nNode_Id=2\nbarman_hots=x\ncompletely_else='1'\nsome.thing=1\nmonitor_interval_secs=2\n",
    );
    assert_eq!(loaded.settings, Settings::default());
    let hints: Vec<_> = loaded
        .warnings
        .iter()
        .map(|w| w.hint.as_deref().unwrap_or(""))
        .collect();
    assert_eq!(
        hints,
        [
            "",
            "",
            "did you mean \"node_id\"?",
            "did you mean \"barman_host\"?",
            "",
            ""
        ]
    );
    assert!(lines(&loaded.warnings).starts_with("line 1: parameter \"cluster\": no longer used; "));
    assert!(lines(&loaded.warnings).ends_with("line 6: parameter \"some.thing\": unknown, ignored"));
}

#[test]
fn a_dump_names_every_parameter_once_and_hides_passwords() {
    let settings = settings("conninfo='host=a password=s3cret'\nnode_id=5\ntablespace_mapping='/a=/b'");
    let dump: BTreeMap<_, _> = settings.dump().collect();
    assert_eq!(dump.len(), PARAMETERS.len());
    assert_eq!(
        (dump["node_id"].as_str(), dump["priority"].as_str()),
        ("5", "100")
    );
    assert_eq!(
        (dump["conninfo"].as_str(), dump["log_file"].as_str()),
        ("host=a password=********", "")
    );
    assert_eq!(dump["tablespace_mapping"], "/a=/b");
    assert!(!format!("{settings:?}").contains("s3cret"));
}

/// A dump read back says the same: no parameter is shown in a way it cannot be read.
#[test]
fn a_dump_can_be_read_back() {
    let before = settings(
        "node_id=5\nnode_name='n 1'\nconninfo='host=a'\nfailover=automatic\nlog_level=error\n\
                           recovery_min_apply_delay='5 min'\npg_basebackup_options='-X stream'\nevent_notifications='a,b'\n",
    );
    let text: String = before
        .dump()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name} = {}\n", repmgr_guc::quote_value(&value)))
        .collect();
    let after = read(&text);
    assert_eq!((after.settings, after.warnings.len()), (before, 0));
}

struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(directory)
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        load(&self.0.path().join("repmgr.conf"))
    }

    /// The only error: its file, line and message.
    fn error(&self) -> (String, Option<usize>, String) {
        let error = self.load().unwrap_err();
        let [only] = error.errors() else {
            panic!("{:?}", error.errors())
        };
        let file = only
            .file
            .strip_prefix(self.0.path())
            .unwrap()
            .display()
            .to_string();
        (file, only.line, only.message.clone())
    }
}

#[test]
fn included_files_are_read_where_they_are_included() {
    let files = Files::new(&[
        (
            "repmgr.conf",
            "node_id=1\nINCLUDE 'sub/a.conf'\ninclude_if_exists='missing.conf'\ninclude_dir='conf.d'\nlocation=end",
        ),
        ("sub/a.conf", "node_id=2\nlocation=a\ninclude b.conf"),
        ("sub/b.conf", "node_name=b\npriority=1"),
        ("conf.d/20.conf", "priority=20"),
        ("conf.d/10.conf", "priority=10\nlog_level=ERROR"),
        ("conf.d/.hidden.conf", "priority=30"),
        ("conf.d/90.conf.bak", "priority=40"),
        ("conf.d/directory.conf/x", ""),
    ]);
    // `b.conf` is read as PostgreSQL's scanner reads it: `a.b` is not a value without quotes.
    assert_eq!(
        files.error(),
        (
            "sub/a.conf".into(),
            Some(3),
            "syntax error at column 9: value must be in single quotes".into()
        )
    );
    fs::write(
        files.0.path().join("sub/a.conf"),
        "node_id=2\nlocation=a\ninclude 'b.conf'",
    )
    .unwrap();
    let settings = files.load().unwrap().settings;
    assert_eq!(
        (settings.node_id, settings.node_name.as_deref()),
        (Some(2), Some("b"))
    );
    assert_eq!((settings.priority, settings.location.as_str()), (20, "end"));
    assert_eq!(settings.log_level, LogLevel::Error);
}

#[test]
fn an_error_names_the_included_file() {
    let files = Files::new(&[
        ("repmgr.conf", "include 'sub/a.conf'"),
        ("sub/a.conf", "\nnode_id=0"),
    ]);
    let message = "value must be a number from 1 to 2147483647";
    assert_eq!(files.error(), ("sub/a.conf".into(), Some(2), message.into()));
}

#[test]
fn a_missing_include_is_an_error_unless_it_may_be_missing() {
    let files = Files::new(&[("repmgr.conf", "\ninclude 'missing.conf'")]);
    let (file, line, message) = files.error();
    assert_eq!((file.as_str(), line), ("repmgr.conf", Some(2)));
    assert!(message.contains("missing.conf\": No such file"), "{message}");
    let files = Files::new(&[("repmgr.conf", "include_dir 'missing'")]);
    assert!(files.error().2.contains("cannot read directory"));
    let files = Files::new(&[("repmgr.conf", "include_if_exists '.'")]);
    assert!(
        files.error().2.contains("cannot read file"),
        "a directory is not a missing file"
    );
    let files = Files::new(&[("repmgr.conf", "include ''")]);
    assert_eq!(files.error().2, "empty file name");
}

#[test]
fn files_that_include_themselves_are_refused() {
    let files = Files::new(&[("repmgr.conf", "include './repmgr.conf'")]);
    assert!(files.error().2.ends_with("includes itself"));
    let files = Files::new(&[
        ("repmgr.conf", "include 'a.conf'"),
        ("a.conf", "include_dir '.'"),
        ("b.conf", ""),
    ]);
    let (file, line, message) = files.error();
    assert_eq!((file.as_str(), line), ("a.conf", Some(1)));
    assert!(message.ends_with("a.conf\" includes itself"), "{message}");
}

#[test]
fn ten_levels_of_included_files_are_enough() {
    let chain = |depth: usize| {
        let name = |level: usize| {
            if level == 0 {
                "repmgr.conf".to_owned()
            } else {
                format!("{level}.conf")
            }
        };
        let mut files: Vec<_> = (0..depth)
            .map(|n| (name(n), format!("include '{}'", name(n + 1))))
            .collect();
        files.push((name(depth), "node_id=9".to_owned()));
        Files::new(
            &files
                .iter()
                .map(|(name, text)| (name.as_str(), text.as_str()))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(chain(10).load().unwrap().settings.node_id, Some(9));
    assert!(chain(11).error().2.contains("more than 10 levels"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load(Path::new("/nonexistent/repmgr.conf")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read configuration file \"/nonexistent/repmgr.conf\""
    );
    assert!(std::error::Error::source(&error).is_some());
}

proptest! {
    #[test]
    fn parsing_never_panics(text: Vec<u8>) {
        let _ = parse(&text, Path::new(PATH));
    }

    #[test]
    fn parsing_what_looks_like_settings_never_panics_and_errors_have_a_place(
        text in "((node_id|conninfo|tablespace_mapping|event_notifications|pg_basebackup_options|recovery_min_apply_delay|log_level|data_directory)[ =]{0,2}[-a0 =/'\\\\#,.\t]{0,12}\n){0,8}"
    ) {
        if let Err(error) = parse(text.as_bytes(), Path::new(PATH)) {
            prop_assert!(!error.errors().is_empty());
            prop_assert!(error.errors().iter().all(|error| error.line.is_some()));
        }
    }

    #[test]
    fn any_quoted_value_arrives_unchanged(value in "[^\0]+") {
        prop_assume!(super::typographic_quote(&value).is_none());
        let text = format!("restore_command = {}", repmgr_guc::quote_value(&value));
        prop_assert_eq!(settings(&text).restore_command, Some(value));
    }
}

#[test]
fn a_parameter_set_twice_is_warned_of_and_the_last_counts() {
    let text = b"node_name='a'\nnode_name='b'\ntablespace_mapping='/a=/b'\ntablespace_mapping='/c=/d'\n";
    let loaded = super::parse(text, "/r.conf".as_ref()).unwrap();
    let [warning] = loaded.warnings.as_slice() else {
        panic!("{:?}", loaded.warnings);
    };
    assert_eq!(
        warning.to_string(),
        "file \"/r.conf\", line 2: parameter \"node_name\": set again; this value replaces the one of file \"/r.conf\" line 1"
    );
}

#[test]
fn a_typographic_quote_inside_a_value_or_at_one_end_is_a_character_like_others() {
    for value in ["node’2", "»node2", "node2′", "‘", "“a” or “b” or c"] {
        let text = format!("node_name={}", repmgr_guc::quote_value(value));
        assert_eq!(settings(&text).node_name.as_deref(), Some(value));
    }
}

#[test]
fn typographic_quotes_and_relative_data_directories_are_refused() {
    for (line, message) in [
        ("data_directory=“/srv/data”", "value is in typographic quotes (“)"),
        ("node_name='‘node2’'", "value is in typographic quotes (‘)"),
        ("node_name='\"node2”'", "value is in typographic quotes (”)"),
        ("data_directory='data'", "value must be an absolute path"),
        ("data_directory='./data'", "value must be an absolute path"),
    ] {
        let error = parse(line.as_bytes(), Path::new("/r.conf")).unwrap_err();
        let found: Vec<&str> = error
            .errors()
            .iter()
            .map(|error| error.message.as_str())
            .collect();
        assert_eq!(found, [message], "{line}");
    }
    assert!(parse("location='l’Aquila'".as_bytes(), Path::new("/r.conf")).is_ok());
}
