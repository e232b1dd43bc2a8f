//! The same words in every run: names and numbers without what depends on the moment.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;

/// Lines that come every few seconds, and so may or may not.
pub(crate) fn is_progress(line: &str) -> bool {
    line.strip_prefix("INFO: ")
        .and_then(|text| text.split_once("% ("))
        .is_some_and(|(percent, _)| percent.parse::<u8>().is_ok())
}

/// Files that the programs write themselves.
pub(crate) fn is_written(rel: &Path) -> bool {
    [
        "postgresql.auto.conf",
        "recovery.conf",
        "standby.signal",
        "tablespace_map",
        "notes.txt",
        "notified",
    ]
    .iter()
    .any(|name| rel == Path::new(name))
}

/// The name of a file without what depends on the moment; `None` for one that comes and goes.
pub(crate) fn stable(name: &str) -> Option<String> {
    let (dir, base) = name.rsplit_once('/').unwrap_or(("", name));
    let is_segment = base.len() >= 24 && base.bytes().take(24).all(|byte| byte.is_ascii_hexdigit());
    if (dir.ends_with("pg_wal") || dir == "outside/wal") && is_segment {
        return Some(format!("{dir}/SEGMENT{}", &base[24..]));
    }
    if dir.ends_with("archive_status")
        || base == "pg_internal.init"
        || base.starts_with("pgstat")
        || dir.ends_with("pg_xact")
    {
        return None;
    }
    // The cause of a random suffix: mkstemp.
    if let Some(start) = base
        .strip_prefix("repmgr_command.")
        .map(|_| "repmgr_command.XXXXXX")
    {
        return Some(format!("{dir}/{start}"));
    }
    Some(name.to_owned())
}

pub(crate) fn digest(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    format!("{} {:016x}", bytes.len(), hasher.finish())
}

/// Replaces `word` where no letter, digit or underscore touches it.
pub(crate) fn replace_word(text: &str, word: &str, by: &str) -> String {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let touched = before
            .chars()
            .next_back()
            .or(out.chars().next_back().filter(|_| before.is_empty()));
        out += before;
        let alone = !touched.is_some_and(part_of_word) && !after.starts_with(part_of_word);
        out += if alone { by } else { word };
        rest = after;
    }
    out + rest
}

/// Barman's ids are times: 20261126T010513.
pub(crate) fn without_backup_id(line: &str) -> String {
    let is_id = |word: &str| {
        word.len() == 15
            && word.bytes().enumerate().all(|(n, byte)| {
                if n == 8 {
                    byte == b'T'
                } else {
                    byte.is_ascii_digit()
                }
            })
    };
    let words = line.split(' ').map(|word| {
        let id = word.trim_end_matches([':', ',']);
        match is_id(id) {
            true => word.replace(id, "BACKUP"),
            false => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Numbers before these words depend on how much the primary holds, and on the clock.
pub(crate) fn in_units(line: &str) -> String {
    const UNITS: [&str; 11] = [
        "bytes", "kB", "MB", "GB", "kB/s", "MB/s", "GB/s", "s", "files", "sessions", "session",
    ];
    let words: Vec<&str> = line.split(' ').collect();
    let mut out: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    for (n, pair) in words.windows(2).enumerate() {
        let unit = pair[1].trim_end_matches([',', ';', ')', ':']);
        let number = pair[0].trim_start_matches('(');
        if UNITS.contains(&unit) && number.parse::<f64>().is_ok() {
            out[n] = pair[0].replace(number, "#");
        }
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_are_replaced() {
        assert_eq!(
            replace_word("node1 node12 xnode1 node1", "node1", "N"),
            "N node12 xnode1 N"
        );
        assert_eq!(replace_word("11", "1", "N"), "11");
    }

    #[test]
    fn sizes_and_times_are_made_equal() {
        assert_eq!(
            in_units("1281 files, 30 MB in 0.8 s (37 MB/s), 4 errors"),
            "# files, # MB in # s (# MB/s), 4 errors"
        );
    }

    #[test]
    fn backups_have_one_name() {
        assert_eq!(
            without_backup_id("DETAIL: backup 20261126T010513: 3 files, 2026112XT010513"),
            "DETAIL: backup BACKUP: 3 files, 2026112XT010513"
        );
    }

    #[test]
    fn names_lose_what_the_moment_gave_them() {
        assert_eq!(
            stable("data/pg_wal/000000010000000000000003.partial").unwrap(),
            "data/pg_wal/SEGMENT.partial"
        );
        assert_eq!(
            stable("tmp/repmgr_command.a1B2c3").unwrap(),
            "tmp/repmgr_command.XXXXXX"
        );
        assert_eq!(stable("data/base/1/pg_internal.init"), None);
        assert_eq!(stable("data/base/1/112").unwrap(), "data/base/1/112");
    }
}
