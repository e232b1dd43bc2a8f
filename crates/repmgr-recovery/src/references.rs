//! What configuration files refer to.

use repmgr_guc::scan;

/// Another file that PostgreSQL reads because of a line in this one. Names are as they are written: relative ones
/// count from the directory of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A file. An optional one may be missing (`include_if_exists`).
    File {
        /// Its name.
        name: String,
        /// Whether it may be missing.
        optional: bool,
    },
    /// Names of users or databases, one file of them (`@file`).
    Names(String),
    /// The files of a directory that end with `.conf` (`include_dir`).
    Directory(String),
}

/// How a configuration file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfKind {
    /// `postgresql.conf` and what it includes.
    Settings,
    /// `pg_hba.conf` and `pg_ident.conf`, and what they include (PostgreSQL 16 and later).
    Rules,
    /// Names of users or databases for the former.
    Names,
}

impl Reference {
    /// As a line says it: an include of this name, if it is one.
    fn include(word: &str, name: &str) -> Option<Self> {
        let file = |optional| Self::File {
            name: name.to_owned(),
            optional,
        };
        Some(match word.to_ascii_lowercase().as_str() {
            "include" => file(false),
            "include_if_exists" => file(true),
            "include_dir" => Self::Directory(name.to_owned()),
            _ => return None,
        })
    }
}

/// What `text` refers to, in its order. Lines that PostgreSQL would not accept say nothing.
pub fn references(kind: ConfKind, text: &[u8]) -> Vec<Reference> {
    match kind {
        ConfKind::Settings => {
            let entries = scan(text).filter_map(|line| line.content.ok().flatten());
            entries
                .filter_map(|entry| Reference::include(&entry.name, entry.value_str()?))
                .collect()
        }
        ConfKind::Rules | ConfKind::Names => {
            let text = String::from_utf8_lossy(text);
            text.lines().flat_map(|line| of_rule(kind, line)).collect()
        }
    }
}

fn of_rule(kind: ConfKind, line: &str) -> Vec<Reference> {
    let words = words(line);
    if kind == ConfKind::Rules
        && let [first, second, ..] = words.as_slice()
        && !first.quoted
        && let Some(include) = Reference::include(&first.text, &second.text)
    {
        return vec![include];
    }
    let names = words.into_iter().filter(|word| !word.quoted);
    names
        .filter_map(|word| {
            word.text
                .strip_prefix('@')
                .map(|name| Reference::Names(name.to_owned()))
        })
        .collect()
}

/// A word of a rule.
#[derive(Debug, Default, PartialEq, Eq)]
struct Word {
    text: String,
    /// Its first character was within quotes, so that it means nothing special.
    quoted: bool,
}

/// Words as PostgreSQL takes them: separated by blanks and commas, with quotes anywhere, to a `#`.
fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut in_quotes = false;
    for character in line.chars() {
        match character {
            '"' => {
                in_quotes = !in_quotes;
                word.get_or_insert_with(|| Word {
                    quoted: true,
                    ..Word::default()
                });
            }
            '#' if !in_quotes => break,
            ' ' | '\t' | ',' | '\r' if !in_quotes => words.extend(word.take()),
            other => word.get_or_insert_default().text.push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, optional: bool) -> Reference {
        let name = name.to_owned();
        Reference::File { name, optional }
    }

    #[test]
    fn settings_include() {
        let text =
            b"work_mem = 1MB\ninclude 'a.conf'\nInclude_If_Exists = 'b.conf' # maybe\n#include 'c.conf'\n\
                     include_dir 'conf.d'\n";
        assert_eq!(
            references(ConfKind::Settings, text),
            [
                file("a.conf", false),
                file("b.conf", true),
                Reference::Directory("conf.d".to_owned())
            ]
        );
    }

    #[test]
    fn rules_include_and_take_names_from_files() {
        let text = br#"# host all @nobody all
local all,@dbs "@not a file" peer
host "all" +group,@"my users" 10.0.0.0/8 scram-sha-256 # @no
include "more rules.conf"
include_dir /etc/hba.d
"include" x
"#;
        assert_eq!(
            references(ConfKind::Rules, text),
            [
                Reference::Names("dbs".to_owned()),
                Reference::Names("my users".to_owned()),
                file("more rules.conf", false),
                Reference::Directory("/etc/hba.d".to_owned()),
            ]
        );
        let names = references(ConfKind::Names, b"alice, bob\n@others\ninclude x\n");
        assert_eq!(names, [Reference::Names("others".to_owned())]);
    }
}
