use super::*;
use proptest::prelude::*;

fn value(text: &str) -> Result<Vec<u8>, Problem> {
    let mut lines = scan(text.as_bytes());
    let content = lines.next().unwrap().content;
    assert!(lines.next().is_none());
    content.map(|entry| entry.unwrap().value).map_err(|e| e.problem)
}

// Both tables agree with pg_file_settings of PostgreSQL 15.18.
#[test]
fn values_read_as_postgresql_reads_them() {
    for (text, expected) in [
        ("a=1", "1"),
        ("a 1", "1"),
        (" a\t=\r b # c", "b"),
        ("a=on#c", "on"),
        ("a'b'", "b"),
        ("a = 5min", "5min"),
        ("a = -0x1Fg", "-0x1Fg"),
        ("a = 0x", "0x"),
        ("a = +1.5e-3", "+1.5e-3"),
        ("a = .", "."),
        ("a = c:/dir-1/x_y", "c:/dir-1/x_y"),
        ("a = b.c.d", "b.c.d"),
        ("a = grün", "grün"),
        ("x.y = ''", ""),
        ("a = 'it''s # \"fine\"'", "it's # \"fine\""),
        (r"a = '\b\f\n\r\t\x\'\\'", "\x08\x0c\n\r\tx'\\"),
        (r"a = '\101\0628\52'", "A28*"),
        (r"a = '\501'", "A"),
    ] {
        assert_eq!(value(text), Ok(expected.as_bytes().to_vec()), "{text}");
    }
}

#[test]
fn what_postgresql_refuses_is_an_error_that_says_why() {
    use Problem::*;
    for (text, expected) in [
        ("=1", Name),
        ("'a' = 1", Name),
        ("a-b = 1", Name),
        ("a.b.c = 1", Name),
        ("1a = 1", Name),
        ("\u{b}a = 1", Name),
        ("a", MissingValue),
        ("a = # c", MissingValue),
        ("a == 1", UnquotedValue),
        ("a = /tmp", UnquotedValue),
        ("a = \"b\"", UnquotedValue),
        ("a = b.c", UnquotedValue),
        ("a = 'b", OpenQuote),
        ("a = 'b''", OpenQuote),
        (r"a = 'b\'", OpenQuote),
        ("a = b 'c", OpenQuote),
        ("a = b@c", AfterValue),
        ("a = b, c", AfterValue),
        ("a = 'b' 'c'", AfterValue),
        ("a = 5 min", AfterValue),
        ("a = 1e5", AfterValue),
        ("a = 1.5GB", AfterValue),
        ("a = 1.5e+", AfterValue),
        ("a = 'b\0'", Nul),
        (r"a = '\0'", Nul),
        (r"a = '\400'", Nul),
    ] {
        assert_eq!(value(text), Err(expected), "{text}");
    }
    let latin1 = scan(b"caf\xe9 = 1").next().unwrap().content;
    assert_eq!(latin1.unwrap_err().problem, NameNotUtf8);
}

#[test]
fn lines_are_counted_and_a_broken_one_does_not_hide_the_next() {
    let lines: Vec<_> = scan(b"# a 'b\r\n\n a = 'x\nb = 2").collect();
    assert_eq!(lines[0].content, Ok(None));
    assert_eq!(lines[1].content, Ok(None));
    let broken = lines[2].content.as_ref().unwrap_err();
    assert_eq!(
        (broken.line, broken.column, broken.problem),
        (3, 6, Problem::OpenQuote)
    );
    let entry = lines[3].content.as_ref().unwrap().as_ref().unwrap();
    assert_eq!(
        (entry.name.as_str(), entry.value_str(), entry.line),
        ("b", Some("2"), 4)
    );
}

#[test]
fn names_compare_as_postgresql_compares_them() {
    let line = scan(b"Primary_ConnInfo = ''").next().unwrap();
    assert!(line.content.unwrap().unwrap().is("primary_conninfo"));
}

#[test]
fn neither_errors_nor_debug_output_show_a_value() {
    for text in [
        "primary_conninfo = 'password=s3cret",
        "conninfo = password s3cret",
        "x = s3cret",
    ] {
        let line = scan(text.as_bytes()).next().unwrap();
        assert!(!format!("{:?}", line.content).contains("s3cret"), "{text}");
    }
}

proptest! {
    #[test]
    fn scanning_never_panics_and_loses_no_byte(file: Vec<u8>) {
        let joined: Vec<u8> = scan(&file).flat_map(|line| line.raw.to_vec()).collect();
        prop_assert_eq!(joined, file);
    }

    #[test]
    fn scanning_never_panics_on_what_looks_like_settings(file in "[ a.1x'\\\\=#\n\r\t+-]*") {
        for line in scan(file.as_bytes()) {
            if let Ok(Some(entry)) = line.content {
                prop_assert!(!entry.value.contains(&0));
            }
        }
    }

    #[test]
    fn a_quoted_value_is_one_line_and_reads_back(text in "[^\0]*") {
        let quoted = crate::quote_value(&text);
        prop_assert!(!quoted.contains('\n'));
        prop_assert_eq!(value(&format!("a = {quoted}")), Ok(text.into_bytes()));
    }
}
