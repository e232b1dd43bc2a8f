//! What `ssh -G` prints, and what it leaves to its reader: `%` tokens, `~` and `${NAME}`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Lines of `ssh -G`: lower-case keyword and value.
pub(super) struct Settings(pub(super) HashMap<String, Vec<String>>);

impl Settings {
    pub(super) fn parse(text: &str) -> Self {
        let mut map: HashMap<String, Vec<String>> = HashMap::new();
        for line in text.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            map.entry(key.to_ascii_lowercase())
                .or_default()
                .push(value.trim().to_owned());
        }
        Self(map)
    }

    pub(super) fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// The value, unless it is missing, empty or "none".
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.all(key)
            .first()
            .map(String::as_str)
            .filter(|v| !v.is_empty() && *v != "none")
    }

    /// Yes or no, as old and new versions of OpenSSH write it.
    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).map_or(default, |v| matches!(v, "yes" | "true"))
    }

    /// A number; `None` for what is none.
    pub(super) fn number<T: FromStr>(&self, key: &str) -> Option<T> {
        self.get(key)?.parse().ok()
    }

    pub(super) fn seconds(&self, key: &str) -> Option<Duration> {
        self.number(key).filter(|s| *s > 0).map(Duration::from_secs)
    }
}

/// The `%` tokens of ssh_config(5), and home for `~`.
pub(super) struct Tokens {
    pub(super) home: String,
    pub(super) tokens: Vec<(char, String)>,
}

impl Tokens {
    /// Expands `%` tokens only; `Err` names the one that is not known.
    pub(super) fn percent(&self, text: &str) -> Result<String, char> {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match (c, c == '%') {
                (_, true) => {
                    let token = chars.next().unwrap_or('%');
                    let found = self.tokens.iter().find(|(t, _)| *t == token);
                    out.push_str(&found.ok_or(token)?.1);
                }
                (c, false) => out.push(c),
            }
        }
        Ok(out)
    }

    /// A path with `~`, `~account`, `${NAME}` and `%` expanded; `None` (and a message in the log) for
    /// what cannot be.
    pub(super) fn path(&self, text: &str) -> Option<PathBuf> {
        let expanded = self
            .percent(text)
            .ok()
            .and_then(|t| expand_environment(&t))
            .and_then(|t| match t.strip_prefix('~') {
                Some(rest) => {
                    let (account, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                    let home = match account {
                        "" => Some(self.home.clone()),
                        account => home_of(account),
                    };
                    home.map(|home| home + below)
                }
                None => Some(t),
            });
        if expanded.is_none() {
            log::warn!("cannot expand \"{text}\" of the SSH configuration; it is left out");
        }
        expanded.map(PathBuf::from)
    }

    /// `ssh -G` joins files by blanks and does not quote: one existing path with a blank is one path.
    pub(super) fn paths(&self, value: Option<&str>) -> Vec<PathBuf> {
        let Some(value) = value else { return Vec::new() };
        match self.path(value) {
            Some(whole) if whole.exists() => vec![whole],
            _ => value
                .split_whitespace()
                .filter_map(|part| self.path(part))
                .collect(),
        }
    }
}

/// The home of an account of this machine.
pub(super) fn home_of(account: &str) -> Option<String> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut lines = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.find(|fields| fields.first() == Some(&account))?;
    found.get(5).map(|home| (*home).to_owned())
}

fn expand_environment(text: &str) -> Option<String> {
    let Some((before, rest)) = text.split_once("${") else {
        return Some(text.to_owned());
    };
    let (name, after) = rest.split_once('}')?;
    Some(format!(
        "{before}{}{}",
        std::env::var(name).ok()?,
        expand_environment(after)?
    ))
}
