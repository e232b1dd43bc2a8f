//! How Barman is called: the one place that says what such a text of a user's means.

use std::fmt;
use std::str::FromStr;

use repmgr_remote::quote;
use repmgr_types::Hint;

/// The words that call Barman on its host: `barman`, a path, or a program that calls it
/// (`sudo -n -u barman barman`).
///
/// Of a setting or an option it is made by [`FromStr`], which splits the text into words as a POSIX shell
/// does and expands nothing: a path with blanks needs quotes. [`Display`](fmt::Display) gives a text that
/// means the same words.
///
/// ```
/// use repmgr_barman::BarmanCommand;
/// let command: BarmanCommand = "sudo -n '/opt/my barman/bin/barman'".parse()?;
/// assert_eq!(command.words(), ["sudo", "-n", "/opt/my barman/bin/barman"]);
/// # Ok::<(), repmgr_barman::BadCommand>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BarmanCommand(
    // Never empty, nor is the first word.
    Vec<String>,
);

/// A text that calls no program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadCommand {
    /// A quote is opened and not closed, or a backslash has nothing behind it.
    #[error("a quote is not closed in: {0}")]
    Unclosed(String),
    /// There is no word in it, or the first is empty.
    #[error("it names no program")]
    NoProgram,
}

impl BadCommand {
    /// What to do about it.
    pub fn hint(&self) -> Hint {
        match self {
            Self::Unclosed(_) => {
                "it is split into words as by a shell: put double quotes around a word with blanks or single quotes in it"
            }
            Self::NoProgram => "give the name or the path of Barman's program, or leave it out for \"barman\"",
        }
        .into()
    }
}

impl BarmanCommand {
    /// The words; one at least.
    pub fn words(&self) -> &[String] {
        &self.0
    }

    /// The same through sudo with a variable for the program, by way of `env`; `None` if sudo is not what comes first,
    /// or its options are not understood here. Other programs that change the user, and wrappers, may take their
    /// words as they like.
    pub(crate) fn through_sudo(&self, variable: &str) -> Option<Self> {
        let (sudo, rest) = self.0.split_first()?;
        if sudo.rsplit('/').next() != Some("sudo") {
            return None;
        }
        let mut at = 0;
        while let Some(more) = sudo_option(rest.get(at)?)? {
            at += more;
        }
        // After "--" comes the program, and words with "=" are variables.
        at += usize::from(rest.get(at)? == "--");
        rest.get(at)?;
        let (options, program) = rest.split_at(at);
        let env = ["env".to_owned(), variable.to_owned()];
        Some(Self(
            [std::slice::from_ref(sudo), options, &env, program].concat(),
        ))
    }
}

/// How many words an option or a variable takes: none if the word is neither. `None` if what follows is not run as it
/// stands.
fn sudo_option(word: &str) -> Option<Option<usize>> {
    const LONG_WITH_VALUE: [&str; 5] = ["--user", "--group", "--chdir", "--role", "--type"];
    if word == "--" {
        return Some(None);
    }
    if word.starts_with("--") {
        let shell = matches!(word, "--login" | "--shell");
        let value = LONG_WITH_VALUE.contains(&word);
        return (!shell).then_some(Some(1 + usize::from(value)));
    }
    let Some(flags) = word.strip_prefix('-') else {
        return Some(word.contains('=').then_some(1));
    };
    for (index, flag) in flags.char_indices() {
        match flag {
            'i' | 's' => return None,
            'u' | 'g' | 'p' | 'C' | 'r' | 't' | 'T' | 'D' | 'R' => {
                return Some(Some(1 + usize::from(index + 1 == flags.len())));
            }
            _ => {}
        }
    }
    Some(Some(1))
}

impl Default for BarmanCommand {
    /// `barman` on the PATH.
    fn default() -> Self {
        Self(vec!["barman".to_owned()])
    }
}

impl FromStr for BarmanCommand {
    type Err = BadCommand;

    fn from_str(text: &str) -> Result<Self, BadCommand> {
        let words = shlex::split(text).ok_or_else(|| BadCommand::Unclosed(text.to_owned()))?;
        match words.first() {
            Some(program) if !program.is_empty() => Ok(Self(words)),
            _ => Err(BadCommand::NoProgram),
        }
    }
}

impl fmt::Display for BarmanCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|word| quote(word)).collect();
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_split_into_words_as_by_a_shell() {
        for (text, words) in [
            ("barman", &["barman"][..]),
            (
                " sudo  -n -u barman barman ",
                &["sudo", "-n", "-u", "barman", "barman"],
            ),
            (r#""/opt/my barman/bin/barman""#, &["/opt/my barman/bin/barman"]),
            (
                r"/opt/my\ barman 'it''s' $HOME",
                &["/opt/my barman", "its", "$HOME"],
            ),
        ] {
            let command: BarmanCommand = text.parse().unwrap();
            assert_eq!(command.words(), words, "{text}");
        }
        assert_eq!(BarmanCommand::default(), "barman".parse().unwrap());
    }

    #[test]
    fn a_text_that_calls_nothing_is_refused() {
        for text in ["'/opt/my barman", "\"barman", "barman\\"] {
            let error = text.parse::<BarmanCommand>().unwrap_err();
            assert_eq!(error, BadCommand::Unclosed(text.to_owned()));
            assert!(error.to_string().contains(text) && !error.hint().to_string().is_empty());
        }
        for text in ["", "  ", "''", "\"\" barman", "# barman"] {
            assert_eq!(
                text.parse::<BarmanCommand>(),
                Err(BadCommand::NoProgram),
                "{text}"
            );
        }
    }

    #[test]
    fn a_variable_passes_sudo_in_front_of_the_program() {
        let through = |text: &str| {
            let command: BarmanCommand = text.parse().unwrap();
            command
                .through_sudo("A=3")
                .map(|command| command.words().join(" "))
        };
        for (text, expected) in [
            ("sudo barman", "sudo env A=3 barman"),
            ("sudo -n -u barman barman", "sudo -n -u barman env A=3 barman"),
            (
                "/usr/bin/sudo -nu barman -- /x/barman -q",
                "/usr/bin/sudo -nu barman -- env A=3 /x/barman -q",
            ),
            ("sudo -nubarman B=1 barman", "sudo -nubarman B=1 env A=3 barman"),
        ] {
            assert_eq!(through(text).as_deref(), Some(expected), "{text}");
        }
        for other in [
            "barman",
            "my-sudo barman",
            "doas -u barman barman",
            "sudo",
            "sudo -u barman",
            "sudo -i barman",
        ] {
            assert_eq!(through(other), None, "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_text_made_of_the_words_means_them(first in "[^\0]{1,8}", rest in proptest::collection::vec("[^\0]{0,8}", 0..4)) {
            let command = BarmanCommand([vec![first], rest].concat());
            proptest::prop_assert_eq!(command.to_string().parse(), Ok(command));
        }
    }
}
