use super::*;

fn pairs(text: &str) -> Vec<(String, String)> {
    let conninfo = Conninfo::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    conninfo.params
}

fn assert_reads(text: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    assert_eq!(pairs(text), expected, "{text}");
}

// Expectations of the two tables were taken from PQconninfoParse of libpq 15.18.
#[test]
fn keyword_strings_read_as_libpq_reads_them() {
    assert_reads("", &[]);
    assert_reads("  host = a\tport= 5433 ", &[("host", "a"), ("port", "5433")]);
    assert_reads(r"host='a b'port=1", &[("host", "a b"), ("port", "1")]);
    assert_reads(
        r"password='it\'s \\ x' user=a\ b",
        &[("password", r"it's \ x"), ("user", "a b")],
    );
    assert_reads(r"user=x'y\", &[("user", "x'y")]);
    assert_reads("user=a host=h user=b", &[("user", "b"), ("host", "h")]);
    assert_reads("requiressl=1 host=", &[("sslmode", "require"), ("host", "")]);
    assert_reads("requiressl=0", &[("sslmode", "prefer")]);
}

#[test]
fn uris_read_as_libpq_reads_them() {
    assert_reads("postgresql://", &[]);
    assert_reads("postgres://h?", &[("host", "h")]);
    assert_reads(
        "postgresql://us%20er:p%40ss@[::1]:5433,h2/db?ssl=true&application_name=x",
        &[
            ("user", "us er"),
            ("password", "p@ss"),
            ("host", "::1,h2"),
            ("port", "5433,"),
            ("dbname", "db"),
            ("sslmode", "require"),
            ("application_name", "x"),
        ],
    );
    assert_reads(
        "postgresql://%2Fvar%2Frun/db",
        &[("host", "/var/run"), ("dbname", "db")],
    );
    assert_reads(
        "postgresql:///db?host=/tmp&port=1&",
        &[("dbname", "db"), ("host", "/tmp"), ("port", "1")],
    );
    assert_reads("postgresql://u:@h/", &[("user", "u"), ("host", "h")]);
    assert_reads("postgresql://h/a@b", &[("host", "h"), ("dbname", "a@b")]);
    assert_reads("postgresql://h? user = a ", &[("host", "h"), ("user", "a")]);
}

#[test]
fn what_libpq_refuses_is_an_error() {
    for bad in [
        "host",
        "host x=y",
        "= 3",
        "nokey=1",
        "HOST=a",
        "host='a",
        "host='a\\'",
        "postgresql://[::1",
        "postgresql://[]",
        "postgresql://[::1]x",
        "postgresql://h?user",
        "postgresql://h?user=a=b",
        "postgresql://h?nokey=1",
        "postgresql://h?&user=a",
        "postgresql://h?&",
        "postgresql://%zz",
        "postgresql://%",
        "postgresql://a%00",
        "postgresql://h?user=a b",
        "host=a\0",
    ] {
        assert!(Conninfo::parse(bad).is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn errors_name_a_mistyped_keyword_but_never_a_piece_of_a_password() {
    let reason = |text| Conninfo::parse(text).unwrap_err().reason;
    assert_eq!(reason("hostadr=1.2.3.4"), "invalid connection option \"hostadr\"");
    for text in [
        "host=a password=two s3cret",
        "password=two s3cret=x",
        "password='s3cret",
        "s3cret",
    ] {
        assert!(!reason(text).contains("s3cret"), "{text}");
    }
}

#[test]
fn secrets_show_as_asterisks_and_leave_only_on_request() {
    let text = "host=h password=s3cret sslpassword=s3cret oauth_client_secret=s3cret";
    let conninfo = Conninfo::parse(text).unwrap();
    let shown = "host=h password=******** sslpassword=******** oauth_client_secret=********";
    assert_eq!(conninfo.to_string(), shown);
    assert_eq!(format!("{conninfo:?}"), format!("Conninfo({shown})"));
    assert_eq!(conninfo.to_libpq_string(), text);
    assert!(conninfo.has_password() && !Conninfo::parse("password=''").unwrap().has_password());
}

#[test]
fn values_are_quoted_where_libpq_needs_it_and_read_back_the_same() {
    let mut conninfo = Conninfo::new();
    assert!(conninfo.is_empty());
    for (keyword, value) in [
        ("host", "127.0.0.1"),
        ("port", ""),
        ("user", "a b"),
        ("password", r"it's \"),
        ("dbname", "größe-1"),
    ] {
        conninfo.set(keyword, value);
    }
    let text = conninfo.to_libpq_string();
    assert_eq!(
        text,
        r"host=127.0.0.1 port='' user='a b' password='it\'s \\' dbname='größe-1'"
    );
    assert_eq!(Conninfo::parse(&text).unwrap(), conninfo);
}

#[test]
fn setting_keeps_the_place_and_removing_gives_the_value() {
    let mut conninfo = Conninfo::parse("host=a port=1").unwrap();
    conninfo.set("host", "b");
    conninfo.set("user", "u");
    assert_eq!(conninfo.remove("port").as_deref(), Some("1"));
    assert_eq!(conninfo.remove("port"), None);
    assert_eq!(conninfo.to_libpq_string(), "host=b user=u");
}

#[test]
fn a_keyword_is_known_from_its_version_on() {
    let known = |keyword, num| Conninfo::keyword_known_to(keyword, PgVersion::from_num(num).unwrap());
    assert!(known("host", 90_400) && !known("nokey", 180_000));
    assert!(!known("passfile", 90_624) && known("passfile", 100_000));
    assert!(!known("channel_binding", 120_022) && known("channel_binding", 130_000));
    assert!(!known("sslnegotiation", 160_009) && known("sslnegotiation", 170_000));
}

#[test]
fn a_database_name_and_a_connection_string_can_be_told_apart() {
    assert!(Conninfo::looks_like_conninfo("host=a") && Conninfo::looks_like_conninfo("postgres://a"));
    assert!(!Conninfo::looks_like_conninfo("repmgr") && !Conninfo::looks_like_conninfo("Postgres://a"));
}
