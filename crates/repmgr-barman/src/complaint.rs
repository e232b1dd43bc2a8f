//! What Barman's words on standard error mean.

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    NoCommand,
    WrongUser,
    Configuration,
    UnknownServer,
    Inactive,
    Other,
}

/// Barman's messages are not translated.
pub(crate) fn meaning(code: Option<i32>, message: &str) -> Meaning {
    let says = |text| message.contains(text);
    match code {
        Some(126 | 127) => Meaning::NoCommand,
        _ if says("please run barman as") => Meaning::WrongUser,
        _ if says("Configuration file '") && says("does not exist")
            || says("Could not find any configuration file")
            || says("No section: 'barman'")
            || says("contains parsing errors")
            || says("contains no section headers")
            // Python 2 and 3 do not agree on the name; neither says it elsewhere.
            || says("MissingSectionHeaderError")
            || says("the configured user '") =>
        {
            Meaning::Configuration
        }
        _ if says("Unknown server '") => Meaning::UnknownServer,
        _ if says("Inactive server: ") => Meaning::Inactive,
        _ => Meaning::Other,
    }
}

/// What Barman complains about: its ERROR and EXCEPTION lines, or else its last words. Warnings and
/// tracebacks about other things (an unwritable log file) are common and do not matter.
pub(crate) fn complaint(stderr: &str) -> String {
    let lines = || {
        stderr
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.trim().is_empty())
    };
    let marked: Vec<&str> = lines()
        .filter(|line| line.starts_with("ERROR: ") || line.starts_with("EXCEPTION: "))
        .collect();
    if !marked.is_empty() {
        return marked.join("\n");
    }
    let rest: Vec<&str> = lines()
        .filter(|line| !line.starts_with("WARNING: ") && *line != "See log file for more details.")
        .collect();
    rest[rest.len().saturating_sub(3)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_what_barman_says() {
        for (code, stderr, expected) in [
            (127, "sh: 1: barman: not found", Meaning::NoCommand),
            (126, "sh: 1: /x/barman: Permission denied", Meaning::NoCommand),
            (1, "ERROR: please run barman as 'barman' user", Meaning::WrongUser),
            (
                1,
                "Configuration file '/nope' does not exist",
                Meaning::Configuration,
            ),
            (
                1,
                "EXCEPTION: No section: 'barman'\nSee log file for more details.",
                Meaning::Configuration,
            ),
            (
                1,
                "EXCEPTION: Source contains parsing errors: 'x'\n\t[line  2]: 'y'",
                Meaning::Configuration,
            ),
            (
                1,
                "WARNING: No backup strategy set\nERROR: Unknown server 'nope'",
                Meaning::UnknownServer,
            ),
            (1, "ERROR: Inactive server: main", Meaning::Inactive),
            (1, "ERROR: Conflicting path: wals_directory=/x", Meaning::Other),
            (2, "usage: barman [-h]\nbarman: error: argument", Meaning::Other),
        ] {
            assert_eq!(meaning(Some(code), &complaint(stderr)), expected, "{stderr}");
        }
    }

    #[test]
    fn the_complaint_is_what_matters() {
        assert_eq!(
            complaint("WARNING: a\nERROR: b\nSee log file for more details.\n"),
            "ERROR: b"
        );
        let trace = "Traceback (most recent call last):\n  File \"x\"\n    import barman\nModuleNotFoundError: No module\n";
        assert!(complaint(trace).ends_with("ModuleNotFoundError: No module"));
        assert_eq!(complaint(""), "");
    }
}
