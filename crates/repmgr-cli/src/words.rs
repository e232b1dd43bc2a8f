//! The command words: `standby clone [HOST]`.

/// repmgr's commands and their actions.
const COMMANDS: &[(&str, &[&str])] = &[
    ("primary", &["register", "unregister"]),
    ("master", &["register", "unregister"]),
    (
        "standby",
        &[
            "register",
            "unregister",
            "clone",
            "promote",
            "follow",
            "switchover",
        ],
    ),
    ("node", &["status", "check", "rejoin", "service"]),
    ("cluster", &["show", "event", "matrix", "crosscheck", "cleanup"]),
    ("witness", &["register", "unregister"]),
    ("service", &["status", "pause", "unpause"]),
    ("daemon", &["start", "stop"]),
];

/// What the words ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action<'a> {
    /// `standby clone`, with the host that may stand behind it.
    StandbyClone { host: Option<&'a str> },
    /// Something only the original does: "standby register".
    Elsewhere(String),
}

/// Reads the command words, in upper or lower case.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn read(words: &[String]) -> Result<Action<'_>, String> {
    let (command, action, rest) = match words {
        [] => return Err("no repmgr command provided".to_owned()),
        [word] if is_command(word) => return Err(format!("no action provided for command '{word}'")),
        [word] => return Err(format!("unknown repmgr command '{word}'")),
        [command, action, rest @ ..] => (command, action, rest),
    };
    let known = COMMANDS
        .iter()
        .find(|(name, _)| command.eq_ignore_ascii_case(name))
        .and_then(|(name, actions)| {
            let action = actions.iter().find(|known| action.eq_ignore_ascii_case(known))?;
            Some((*name, *action))
        });
    match (known, rest) {
        (None, _) => Err(format!("unknown repmgr action '{command} {action}'")),
        (Some(("standby", "clone")), []) => Ok(Action::StandbyClone { host: None }),
        (Some(("standby", "clone")), [host]) => Ok(Action::StandbyClone { host: Some(host) }),
        (Some(("standby", "clone")), [_, extra, ..]) => Err(format!(
            "too many command-line arguments (first extra is \"{extra}\")"
        )),
        (Some((command, action)), _) => Ok(Action::Elsewhere(format!("{command} {action}"))),
    }
}

/// Whether repmgr has a command of this name.
pub(crate) fn is_command(word: &str) -> bool {
    COMMANDS.iter().any(|(name, _)| word.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_clone_is_asked_for_in_any_case_with_or_without_a_host() {
        for line in ["standby clone", "STANDBY CLONE", "Standby clonE"] {
            assert_eq!(
                read(&words(line)),
                Ok(Action::StandbyClone { host: None }),
                "{line}"
            );
        }
        assert_eq!(
            read(&words("standby clone node1")),
            Ok(Action::StandbyClone { host: Some("node1") })
        );
    }

    #[test]
    fn other_commands_are_known_but_not_ours() {
        for line in ["standby register", "master register now", "CLUSTER show"] {
            assert!(matches!(read(&words(line)), Ok(Action::Elsewhere(_))), "{line}");
        }
    }

    #[test]
    fn wrong_words_are_refused_in_the_words_of_repmgr() {
        for (line, message) in [
            ("", "no repmgr command provided"),
            ("standby", "no action provided for command 'standby'"),
            ("clone", "unknown repmgr command 'clone'"),
            ("clone standby", "unknown repmgr action 'clone standby'"),
            ("standby foo", "unknown repmgr action 'standby foo'"),
            (
                "standby clone h1 h2 h3",
                "too many command-line arguments (first extra is \"h2\")",
            ),
        ] {
            assert_eq!(read(&words(line)), Err(message.to_owned()), "{line}");
        }
    }
}
