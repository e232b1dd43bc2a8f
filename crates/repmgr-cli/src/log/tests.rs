use super::*;

const ENTRY: Entry<'_> = Entry {
    level: LogLevel::Notice,
    text: "first\nsecond",
    detail: Some("more\nand more"),
    hints: &["do this", "and that"],
};

#[test]
fn a_message_has_a_line_for_each_part_and_indents_what_goes_on() {
    let log = in_memory(LogLevel::Info);
    log.write(&ENTRY);
    let expected = "NOTICE: first\n  second\nDETAIL: more\n  and more\nHINT: do this\nHINT: and that\n";
    assert_eq!(log.written(), expected);
}

#[test]
fn terse_leaves_out_detail_and_hint() {
    let filter = Filter {
        level: LogLevel::Info,
        terse: true,
    };
    let log = Log::new(filter, false, Sink::Memory(Vec::new()));
    log.write(&ENTRY);
    assert_eq!(log.written(), "NOTICE: first\n  second\n");
}

#[test]
fn less_important_messages_are_left_out_with_all_their_lines() {
    let log = in_memory(LogLevel::Warning);
    log.write(&ENTRY);
    log.bare(LogLevel::Info, "receiving");
    log.list(LogLevel::Notice, "heading", &["item".to_owned()]);
    assert_eq!(log.written(), "");
    log.list(LogLevel::Warning, "heading", &["item".to_owned()]);
    log.bare(LogLevel::Error, "as it is");
    assert_eq!(log.written(), "WARNING: heading\n  item\nas it is\n");
}

#[test]
fn a_log_for_files_has_the_local_time_on_each_message() {
    let filter = Filter {
        level: LogLevel::Info,
        terse: false,
    };
    let log = Log::new(filter, true, Sink::Memory(Vec::new()));
    log.write(&ENTRY);
    log.bare(LogLevel::Info, "receiving file list ...");
    let written = log.written();
    let stamps: Vec<_> = written.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(stamps.len(), 5, "{written}");
    for line in stamps {
        let stamp = &line[1..20];
        let shape: String = stamp
            .chars()
            .map(|c| if c.is_ascii_digit() { '9' } else { c })
            .collect();
        assert_eq!(shape, "9999-99-99 99:99:99", "{line}");
        assert_eq!(&line[20..23], "] [", "{line}");
    }
    assert!(written.ends_with("[INFO] receiving file list ...\n"), "{written}");
}

#[test]
fn no_message_can_drive_the_terminal() {
    let log = in_memory(LogLevel::Info);
    log.write(&Entry {
        text: "é\tx\x1b]0;owned\x07\n\r\u{9b}2J",
        detail: Some("\x1b[1m"),
        hints: &["\x08"],
        ..ENTRY
    });
    log.list(LogLevel::Error, "\x7f", &["\x1b".to_owned()]);
    log.bare(LogLevel::Error, "\0");
    let expected = "NOTICE: é\tx\\u{1b}]0;owned\\u{7}\n  \\r\\u{9b}2J\nDETAIL: \\u{1b}[1m\nHINT: \\u{8}\n\
        ERROR: \\u{7f}\n  \\u{1b}\n\\u{0}\n";
    assert_eq!(log.written(), expected);
}

#[test]
fn quiet_wins_and_a_dry_run_shows_its_result() {
    let level = |option, quiet, info| Filter::new(option, LogLevel::Notice, quiet, info, false).level;
    assert_eq!(level(None, false, false), LogLevel::Notice);
    assert_eq!(level(Some(LogLevel::Alert), false, false), LogLevel::Alert);
    assert_eq!(level(Some(LogLevel::Alert), false, true), LogLevel::Info);
    assert_eq!(level(Some(LogLevel::Debug), false, true), LogLevel::Debug);
    assert_eq!(level(Some(LogLevel::Debug), true, true), LogLevel::Error);
}

#[test]
fn levels_are_ordered_as_in_syslog() {
    let filter = Filter {
        level: LogLevel::Crit,
        terse: false,
    };
    assert!(filter.shows(LogLevel::Emerg) && filter.shows(LogLevel::Crit));
    assert!(!filter.shows(LogLevel::Error) && !filter.shows(LogLevel::Debug));
}

#[test]
fn a_log_file_is_appended_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("repmgr.log");
    std::fs::write(&path, "before\n").unwrap();
    let filter = Filter {
        level: LogLevel::Info,
        terse: false,
    };
    let log = Log::open(filter, &Destination::File(&path)).unwrap();
    log.line(LogLevel::Info, "now");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("before\n[") && text.ends_with("[INFO] now\n"),
        "{text}"
    );
    let missing = directory.path().join("none/repmgr.log");
    assert!(Log::open(filter, &Destination::File(&missing)).is_err());
}
