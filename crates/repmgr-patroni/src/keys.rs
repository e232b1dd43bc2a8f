//! What Patroni hands over: one `--key=value` for each key of the method's map, and its own.

use std::collections::BTreeMap;
use std::str::FromStr;

/// The keys that are left, with their values. What nobody takes is unknown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys(BTreeMap<String, String>);

impl Keys {
    /// Keys may be written with hyphens too, as people do in a command line. One without a value is on.
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut keys = BTreeMap::new();
        for word in words {
            let Some(pair) = word.strip_prefix("--") else {
                return Err(format!("\"{word}\" is no --key=value"));
            };
            let (key, value) = pair.split_once('=').unwrap_or((pair, "True"));
            keys.insert(key.replace('-', "_"), value.to_owned());
        }
        Ok(Self(keys))
    }

    /// The names of those that nobody has taken.
    pub(crate) fn rest(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// An empty value is none.
    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        self.0.remove(key).filter(|value| !value.is_empty())
    }

    pub(crate) fn needed(&mut self, key: &str) -> Result<String, String> {
        self.text(key).ok_or_else(|| format!("\"{key}\" is missing"))
    }

    pub(crate) fn value<T: FromStr>(&mut self, key: &str, what: &str) -> Result<Option<T>, String> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let value = text.parse();
        value
            .map(Some)
            .map_err(|_| format!("\"{key}\" must be {what}, and is \"{text}\""))
    }

    /// As YAML, Python and PostgreSQL write it.
    pub(crate) fn switch(&mut self, key: &str) -> Result<Option<bool>, String> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Some(true)),
            "false" | "0" | "no" | "off" | "none" => Ok(Some(false)),
            _ => Err(format!("\"{key}\" must be true or false, and is \"{text}\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(words: &[&str]) -> Keys {
        Keys::parse(words.iter().map(|word| (*word).to_owned())).unwrap()
    }

    #[test]
    fn what_patroni_hands_over_is_understood() {
        let mut keys = keys(&[
            "--keep_data=True",
            "--no_leader=1",
            "--connstring=",
            "--ssh-options=-o A=b",
            "--delta",
        ]);
        assert_eq!(keys.switch("keep_data"), Ok(Some(true)));
        assert_eq!(keys.switch("no_leader"), Ok(Some(true)));
        assert_eq!(keys.text("connstring"), None);
        assert_eq!(keys.text("ssh_options").as_deref(), Some("-o A=b"));
        assert_eq!(keys.rest().collect::<Vec<_>>(), ["delta"]);
        assert_eq!(keys.switch("delta"), Ok(Some(true)));
        assert_eq!(keys.switch("delta"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(Keys::parse(["replica".to_owned()]).is_err());
        let mut keys = keys(&["--jobs=many", "--keep_data=perhaps"]);
        assert_eq!(
            keys.value::<u32>("jobs", "a number").unwrap_err(),
            "\"jobs\" must be a number, and is \"many\""
        );
        assert!(keys.switch("keep_data").is_err());
        assert_eq!(keys.needed("datadir").unwrap_err(), "\"datadir\" is missing");
    }
}
