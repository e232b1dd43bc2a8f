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

/// Who does what the words ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing is asked for.
    Nothing,
    /// `standby clone`, which is ours.
    Clone,
    /// A command without an action: perhaps its help is wanted.
    Incomplete,
    /// Something that only the original does: "standby register".
    Elsewhere(String),
    /// A misspelling, which no version of repmgr would know.
    Similar,
    /// Nothing we know; a newer original may.
    Unknown,
}

/// Reads the command words, in upper or lower case.
pub(crate) fn asked(words: &[String]) -> Asked {
    let (command, action) = match words {
        [] => return Asked::Nothing,
        [word] if is_standby(word) => return Asked::Incomplete,
        [word] if is_command(word) => return Asked::Elsewhere(word.to_ascii_lowercase()),
        [word] => (word, None),
        [command, action, ..] => (command, Some(action)),
    };
    match action.and_then(|action| known(command, action)) {
        Some(("standby", "clone")) => Asked::Clone,
        Some((command, action)) => Asked::Elsewhere(format!("{command} {action}")),
        None => match suggestion(words) {
            Some(_) => Asked::Similar,
            None => Asked::Unknown,
        },
    }
}

/// The host that may stand behind `standby clone`.
///
/// # Errors
/// What is wrong with the words.
pub(crate) fn clone_host(words: &[String]) -> Result<Option<&str>, String> {
    let problem = match words {
        [] => "no repmgr command provided".to_owned(),
        [word] if is_command(word) => format!("no action provided for command '{word}'"),
        [word] => format!("unknown repmgr command '{word}'"),
        [command, action, rest @ ..] => match (known(command, action), rest) {
            (Some(("standby", "clone")), []) => return Ok(None),
            (Some(("standby", "clone")), [host]) => return Ok(Some(host)),
            (Some(("standby", "clone")), [_, extra, ..]) => {
                format!("too many command-line arguments (first extra is \"{extra}\")")
            }
            _ => format!("unknown repmgr action '{command} {action}'"),
        },
    };
    Err(match suggestion(words) {
        Some(meant) => format!("{problem}; did you mean \"{meant}\"?"),
        None => problem,
    })
}

fn known(command: &str, action: &str) -> Option<(&'static str, &'static str)> {
    let (command, actions) = COMMANDS
        .iter()
        .find(|(name, _)| command.eq_ignore_ascii_case(name))?;
    let action = actions.iter().find(|known| action.eq_ignore_ascii_case(known))?;
    Some((command, action))
}

/// What a user may have meant who typed what no repmgr knows.
fn suggestion(words: &[String]) -> Option<String> {
    let words: Vec<String> = words
        .iter()
        .take(2)
        .map(|word| word.to_ascii_lowercase())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let pairs = || {
        COMMANDS
            .iter()
            .flat_map(|(command, actions)| actions.iter().map(move |action| (*command, *action)))
    };
    match words.as_slice() {
        ["help", ..] => Some("repmgr --help".to_owned()),
        ["version"] => Some("repmgr --version".to_owned()),
        [command] if is_command(command) => None,
        // An action that only one command has: "repmgr clone".
        [action] => {
            let mut commands = pairs().filter(|(_, known)| known == action);
            let (command, action) = match (commands.next(), commands.next()) {
                (Some(only), None) => only,
                _ => return nearest(action, COMMANDS.iter().map(|(name, _)| *name)).map(str::to_owned),
            };
            Some(format!("{command} {action}"))
        }
        [command, action] if known(command, action).is_some() => None,
        [command, action] => {
            if let Some((command, action)) = known(action, command) {
                return Some(format!("{command} {action}"));
            }
            let command = nearest(command, COMMANDS.iter().map(|(name, _)| *name))?;
            let (_, actions) = COMMANDS.iter().find(|(name, _)| *name == command)?;
            let action = nearest(action, actions.iter().copied())?;
            Some(format!("{command} {action}"))
        }
        _ => None,
    }
}

/// The name that is hardly another.
fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let distances = names.map(|name| (distance(word, name), name));
    distances
        .min()
        .filter(|(distance, name)| *distance <= 2 && distance * 2 < name.len())
        .map(|(_, name)| name)
}

/// How many letters are to be put in, left out, changed, or swapped with the next.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let changed = rows[i][j] + usize::from(x != y);
            let mut best = changed.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

fn is_standby(word: &str) -> bool {
    word.eq_ignore_ascii_case("standby")
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
                (asked(&words(line)), clone_host(&words(line))),
                (Asked::Clone, Ok(None)),
                "{line}"
            );
        }
        assert_eq!(clone_host(&words("standby clone node1")), Ok(Some("node1")));
    }

    #[test]
    fn other_commands_are_known_but_not_ours() {
        for line in [
            "standby register",
            "master register now",
            "CLUSTER show",
            "witness",
        ] {
            assert!(matches!(asked(&words(line)), Asked::Elsewhere(_)), "{line}");
        }
        assert_eq!(asked(&words("standby")), Asked::Incomplete);
        assert_eq!(asked(&[]), Asked::Nothing);
        for line in ["standby frobnicate", "bdr register", "frobnicate"] {
            assert_eq!(asked(&words(line)), Asked::Unknown, "{line}");
        }
    }

    #[test]
    fn wrong_words_are_refused_in_the_words_of_repmgr_with_a_suggestion() {
        for (line, message) in [
            ("", "no repmgr command provided"),
            ("standby", "no action provided for command 'standby'"),
            (
                "clone",
                "unknown repmgr command 'clone'; did you mean \"standby clone\"?",
            ),
            (
                "stanbdy",
                "unknown repmgr command 'stanbdy'; did you mean \"standby\"?",
            ),
            (
                "help",
                "unknown repmgr command 'help'; did you mean \"repmgr --help\"?",
            ),
            ("frobnicate", "unknown repmgr command 'frobnicate'"),
            (
                "clone standby",
                "unknown repmgr action 'clone standby'; did you mean \"standby clone\"?",
            ),
            (
                "standby clome",
                "unknown repmgr action 'standby clome'; did you mean \"standby clone\"?",
            ),
            (
                "stanby clone",
                "unknown repmgr action 'stanby clone'; did you mean \"standby clone\"?",
            ),
            (
                "cluster shwo",
                "unknown repmgr action 'cluster shwo'; did you mean \"cluster show\"?",
            ),
            ("standby foo", "unknown repmgr action 'standby foo'"),
            (
                "standby clone h1 h2 h3",
                "too many command-line arguments (first extra is \"h2\")",
            ),
        ] {
            assert_eq!(clone_host(&words(line)), Err(message.to_owned()), "{line}");
        }
    }
}
