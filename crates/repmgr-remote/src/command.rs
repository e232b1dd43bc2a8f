use std::borrow::Cow;
use std::fmt::Write as _;

use crate::text::shorten;

/// Quotes one word for a POSIX shell; the only place in the workspace that does.
///
/// Total: a NUL stays as it is, and [`Connection::start`](crate::Connection::start) refuses the
/// command line that holds it, for no shell can carry one.
pub fn quote(word: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(&b);
    // `a=b` in front of a command is an assignment, so a word with `=` must not lead; quoted it is safe.
    if !word.is_empty() && word.bytes().all(plain) && !word.contains('=') {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

/// A command line built from words. Raw shell syntax gets in only as a literal of the program's
/// own source, through [`raw`](Self::raw) and [`script`](Self::script).
///
/// Errors show the line, so a word must not be a secret; secrets go through standard input.
///
/// ```
/// use repmgr_remote::ShellCommand;
/// let c = ShellCommand::new("barman").env("LC_ALL", "C").args(["show-backup", "my server"]).raw("2>&1");
/// assert_eq!(c.line(), "export LC_ALL=C; barman show-backup 'my server' 2>&1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellCommand {
    exports: String,
    line: String,
}

impl ShellCommand {
    /// Runs `program`, found on the PATH or given as a path.
    pub fn new(program: &str) -> Self {
        Self {
            exports: String::new(),
            line: quote(program).into_owned(),
        }
    }

    /// Runs a shell script; what [`arg`](Self::arg) adds arrives there as `"$1"`, `"$2"`, ...,
    /// so that data is never part of the script's text.
    pub fn script(script: &'static str) -> Self {
        Self {
            exports: String::new(),
            line: format!("sh -c {} sh", quote(script)),
        }
    }

    /// Adds one word, quoted.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<str>) -> Self {
        self.line.push(' ');
        self.line.push_str(&quote(word.as_ref()));
        self
    }

    /// Adds words, each quoted.
    #[must_use]
    pub fn args<W: AsRef<str>>(self, words: impl IntoIterator<Item = W>) -> Self {
        words.into_iter().fold(self, Self::arg)
    }

    /// Sets an environment variable for the whole line, also after a pipe.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        // Writing to a String cannot fail.
        let _ = write!(self.exports, "export {name}={}; ", quote(value.as_ref()));
        self
    }

    /// Adds shell syntax as it stands: `|`, `&&`, `2>&1`.
    #[must_use]
    pub fn raw(mut self, syntax: &'static str) -> Self {
        self.line.push(' ');
        self.line.push_str(syntax);
        self
    }

    /// The whole line, for a POSIX shell.
    pub fn line(&self) -> String {
        format!("{}{}", self.exports, self.line)
    }

    /// The line as messages show it: without the environment, printable, not too long.
    pub fn shown(&self) -> String {
        shorten(&self.line, 300)
    }

    pub(crate) fn has_nul(&self) -> bool {
        self.exports.contains('\0') || self.line.contains('\0')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What `sh` makes of a line that prints its words, each ended by NUL.
    fn words(line: &str) -> Vec<String> {
        let out = Command::new("sh").arg("-c").arg(line).output().unwrap();
        assert!(out.status.success(), "{line}: {out:?}");
        let text = String::from_utf8(out.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn plain_words_stay_readable_and_others_are_quoted() {
        assert_eq!(quote("/var/lib/barman/pg-15_%p:x"), "/var/lib/barman/pg-15_%p:x");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("A=b"), "'A=b'");
        assert_eq!(quote("~root"), "'~root'");
    }

    proptest::proptest! {
        #[test]
        fn every_word_reaches_the_program_unchanged(list in proptest::collection::vec("[^\0]{0,12}", 1..5)) {
            let direct = ShellCommand::new("printf").arg("%s\\0").args(&list);
            proptest::prop_assert_eq!(&words(&direct.line()), &list);
            let script = ShellCommand::script(r#"for w in "$@"; do printf '%s\0' "$w"; done"#).args(&list);
            proptest::prop_assert_eq!(&words(&script.line()), &list);
        }
    }

    #[test]
    fn the_environment_holds_for_the_whole_line() {
        let c = ShellCommand::new("true")
            .raw("|")
            .raw(r#"printf '%s\0' "$X""#)
            .env("X", "a b");
        assert_eq!(words(&c.line()), ["a b"]);
        assert!(!c.shown().contains("a b"));
    }

    #[test]
    fn a_nul_is_noticed() {
        assert!(ShellCommand::new("echo").arg("a\0b").has_nul());
        assert!(!ShellCommand::new("echo").arg("ab").has_nul());
    }
}
