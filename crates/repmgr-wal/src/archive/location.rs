//! Where a Barman server keeps its WAL, by its configuration files.
//!
//! Asking Barman itself costs a Python start, and `show-server` waits for a primary that hangs
//! (10 s and more). Reading the files is quick; where they leave a doubt there is no location, and
//! `barman get-wal` does the work.

use std::collections::HashMap;

use repmgr_types::SystemId;

/// Directories of one server on the Barman host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) backup_directory: String,
    pub(crate) wals: String,
    pub(crate) incoming: String,
    pub(crate) streaming: String,
    /// Whether new WAL is stored compressed.
    pub(crate) compressed: bool,
}

impl Location {
    /// Whether WAL lies where Barman puts it unless it is told otherwise.
    pub(crate) fn is_default(&self) -> bool {
        let below = |dir: &str, name: &str| {
            let rest = dir.strip_prefix(&self.backup_directory);
            rest.is_some_and(|rest| rest.strip_prefix('/') == Some(name))
        };
        below(&self.wals, "wals") && below(&self.incoming, "incoming") && below(&self.streaming, "streaming")
    }
}

/// The sections of Barman's configuration, later files over earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    sections: HashMap<String, HashMap<String, String>>,
}

/// The section for Barman itself.
const GLOBAL: &str = "barman";

impl Configuration {
    /// Adds a file, as Python's `configparser` reads it.
    pub(crate) fn add(&mut self, text: &str) {
        let mut section = String::new();
        let mut last: Option<(String, usize)> = None;
        for line in text.lines() {
            let content = line.trim();
            if content.is_empty() || content.starts_with(['#', ';']) {
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            let options = self.sections.entry(section.clone()).or_default();
            if let Some((key, own)) = &last
                && indent > *own
                && let Some(value) = options.get_mut(key)
            {
                // A value on several lines; never a directory, which then does not fit anything.
                value.push('\n');
                value.push_str(content);
                continue;
            }
            if let Some((name, _)) = content.strip_prefix('[').and_then(|c| c.rsplit_once(']')) {
                (section, last) = (name.to_owned(), None);
                self.sections.entry(section.clone()).or_default();
            } else if let Some((key, value)) = content.split_once(['=', ':']) {
                let key = key.trim().to_lowercase();
                options.insert(key.clone(), value.trim().to_owned());
                last = Some((key, indent));
            }
        }
    }

    /// A value of the global section.
    pub(crate) fn global(&self, key: &str) -> Option<String> {
        self.value(GLOBAL, key, 0)
    }

    /// Where `server` keeps its WAL; `None` when that is not sure, or not on a file system.
    pub(crate) fn location(&self, server: &str) -> Option<Location> {
        if server == GLOBAL || !self.sections.contains_key(server) {
            return None;
        }
        let get = |key| self.value(server, key, 0);
        if get("model").is_some_and(|m| truth(&m)) {
            return None;
        }
        let path = |key| get(key).filter(|p| p.starts_with('/') && !p.contains(['\n', '\0']));
        let compression = get("compression").or_else(|| self.global("compression"));
        Some(Location {
            backup_directory: path("backup_directory")?,
            wals: path("wals_directory")?,
            incoming: path("incoming_wals_directory")?,
            streaming: path("streaming_wals_directory")?,
            compressed: compression.is_some_and(|c| c != "none"),
        })
    }

    /// A value with Barman's defaults, `%(name)s` filled in, quotes off; `None` for nothing.
    fn value(&self, section: &str, key: &str, depth: u8) -> Option<String> {
        const DEEP_ENOUGH: u8 = 10;
        if depth > DEEP_ENOUGH {
            return None;
        }
        let given = self.sections.get(section).and_then(|s| s.get(key));
        let given = given
            .map(String::as_str)
            .filter(|v| !v.is_empty() && *v != "None");
        let text = match (given, key) {
            (Some(text), _) => text,
            (None, "name") if section != GLOBAL => return Some(section.to_owned()),
            (None, "barman_home") if section != GLOBAL => return self.value(GLOBAL, key, depth + 1),
            (None, "backup_directory") => "%(barman_home)s/%(name)s",
            (None, "wals_directory") => "%(backup_directory)s/wals",
            (None, "incoming_wals_directory") => "%(backup_directory)s/incoming",
            (None, "streaming_wals_directory") => "%(backup_directory)s/streaming",
            _ => return None,
        };
        let filled = self.fill(section, text, depth)?;
        let unquoted = ['"', '\'']
            .iter()
            .find_map(|q| filled.strip_prefix(*q)?.strip_suffix(*q).map(str::to_owned));
        Some(unquoted.unwrap_or(filled)).filter(|v| !v.is_empty())
    }

    fn fill(&self, section: &str, text: &str, depth: u8) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            rest = if let Some(after) = after.strip_prefix('%') {
                out.push('%');
                after
            } else {
                let (name, after) = after.strip_prefix('(')?.split_once(")s")?;
                out.push_str(&self.value(section, &name.to_lowercase(), depth + 1)?);
                after
            };
        }
        out.push_str(rest);
        Some(out)
    }
}

fn truth(text: &str) -> bool {
    matches!(text.to_lowercase().as_str(), "true" | "t" | "yes" | "1" | "on")
}

/// The system identifier in a server's `identity.json` (Barman 2.10 and later).
pub(crate) fn identity(bytes: &[u8]) -> Option<SystemId> {
    #[derive(serde::Deserialize)]
    struct Identity {
        systemid: String,
    }
    let identity: Identity = serde_json::from_slice(bytes).ok()?;
    identity.systemid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(texts: &[&str]) -> Configuration {
        let mut all = Configuration::default();
        texts.iter().for_each(|text| all.add(text));
        all
    }

    const MAIN: &str = "; comment\n[barman]\nbarman_home = /var/lib/barman\nbarman_user=barman\n\
                        configuration_files_directory = /etc/barman.d\n";

    #[test]
    fn defaults_lie_below_barman_home() {
        let all = config(&[MAIN, "[main]\ndescription = \"x\"\nconninfo = host=a dbname=b\n"]);
        assert_eq!(
            all.global("configuration_files_directory").unwrap(),
            "/etc/barman.d"
        );
        let found = all.location("main").unwrap();
        assert_eq!(found.backup_directory, "/var/lib/barman/main");
        assert_eq!(found.wals, "/var/lib/barman/main/wals");
        assert_eq!(found.incoming, "/var/lib/barman/main/incoming");
        assert_eq!(found.streaming, "/var/lib/barman/main/streaming");
        assert!(!found.compressed);
        assert_eq!(all.location("other"), None);
        assert_eq!(all.location("barman"), None);
    }

    #[test]
    fn own_directories_quotes_and_substitutions_count() {
        let all = config(&[
            MAIN,
            "[barman]\ncompression = gzip\n",
            "[m]\nBackup_Directory: '/srv/b a/%(name)s'\nwals_directory = \"%(backup_directory)s/w%%l\"\n\
             incoming_wals_directory=/in\n# streaming_wals_directory=/no\n",
        ]);
        let found = all.location("m").unwrap();
        assert_eq!(found.backup_directory, "/srv/b a/m");
        assert_eq!(
            (found.wals.as_str(), found.incoming.as_str()),
            ("/srv/b a/m/w%l", "/in")
        );
        assert_eq!(found.streaming, "/srv/b a/m/streaming");
        assert!(found.compressed);
    }

    #[test]
    fn a_later_file_wins() {
        let all = config(&[MAIN, "[m]\nwals_directory=/one\n", "[m]\nwals_directory = /two\n"]);
        assert_eq!(all.location("m").unwrap().wals, "/two");
    }

    #[test]
    fn where_there_is_a_doubt_there_is_no_location() {
        for section in [
            "wals_directory = s3://bucket/wals",
            "wals_directory = relative/wals",
            "wals_directory = /a\n   /b",
            "wals_directory = %(unknown)s/wals",
            "wals_directory = %(wals_directory)s/x",
            "wals_directory = /a%b",
            "model = true",
        ] {
            let all = config(&[MAIN, &format!("[m]\n{section}\n")]);
            assert_eq!(all.location("m"), None, "{section}");
        }
    }

    #[test]
    fn an_identity_is_a_decimal_in_quotes() {
        assert_eq!(
            identity(br#"{"systemid": "7412345678901234567", "version": "15"}"#),
            Some(SystemId(7_412_345_678_901_234_567))
        );
        assert_eq!(identity(b"{}"), None);
        assert_eq!(identity(b""), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "([\\[\\]a-z%()=: \n\t;#_]|wals_directory|backup_directory){0,60}") {
            let all = config(&[&text, "[m]\n", &text]);
            let _ = all.location("m");
        }
    }
}
