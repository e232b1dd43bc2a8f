//! Two outcomes beside each other, and the one table of what may differ.

use std::fmt::Write as _;

use assert_cmd::assert::Assert;
use repmgr_lab::Lab;
use repmgr_tests::node;

use crate::differences;
use crate::trial::{Files, Outcome, Program, Trial};

/// What both programs do, and where.
pub(crate) struct Scenario<'s> {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// Names for several scenarios that differ in the same things.
    pub(crate) groups: &'static [&'static str],
    /// Where.
    pub(crate) lab: &'static Lab,
    /// Lines of repmgr.conf.
    pub(crate) settings: &'s [(&'s str, &'s str)],
    /// What of the files is compared.
    pub(crate) files: Files,
}

/// Lets both programs do `what`, and fails if they differ otherwise than the table says.
#[track_caller]
pub(crate) fn compare(scenario: &Scenario<'_>, what: impl Fn(&Trial<'_>) -> Assert) {
    let target = node(scenario.lab, scenario.settings);
    let conf = std::fs::read_to_string(&target.conf).unwrap();
    let turn = |program| {
        let trial = Trial::new(scenario.lab, &target, &conf, program);
        let done = what(&trial);
        trial.observe(&done, scenario.files)
    };
    let (mut theirs, mut ours) = (turn(Program::Original), turn(Program::Ours));
    match (theirs.is_whole(), ours.is_whole()) {
        (true, false) => theirs.summarize(),
        (false, true) => ours.summarize(),
        _ => {}
    }
    let mut seen = diff(&theirs.found, &ours.found);
    seen.extend(diff(&theirs.said, &ours.said));
    let expected = differences::all().filter(|difference| {
        difference
            .on
            .iter()
            .any(|on| *on == scenario.name || scenario.groups.contains(on))
    });
    let mut report = String::new();
    let mut explained = vec![false; seen.len()];
    for difference in expected {
        for line in difference.lines {
            let mut found = false;
            for (seen, explained) in seen.iter().zip(&mut explained) {
                if matches(line, seen) {
                    (found, *explained) = (true, true);
                }
            }
            if !found {
                writeln!(report, "is no more: {line}    ({})", difference.why).unwrap();
            }
        }
    }
    for (seen, _) in seen.iter().zip(explained).filter(|(_, explained)| !explained) {
        writeln!(report, "unexpected:  {seen}").unwrap();
    }
    assert!(
        report.is_empty(),
        "scenario \"{}\" of {:?}:\n{report}\n{}{}",
        scenario.name,
        scenario.groups,
        shown("the original", &theirs),
        shown("ours", &ours)
    );
}

fn shown(who: &str, outcome: &Outcome) -> String {
    let mut text = format!("--- {who} said\n");
    for line in &outcome.said {
        text += &format!("{line}\n");
    }
    text
}

/// Lines of only one side, in an order in which they can be read, by a longest common subsequence.
fn diff(theirs: &[String], ours: &[String]) -> Vec<String> {
    // Most of it is equal, and the table is as large as the product of both.
    let start = theirs.iter().zip(ours).take_while(|(a, b)| a == b).count();
    let (theirs, ours) = (&theirs[start..], &ours[start..]);
    let end = theirs
        .iter()
        .rev()
        .zip(ours.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (theirs, ours) = (&theirs[..theirs.len() - end], &ours[..ours.len() - end]);
    let mut longest = vec![vec![0_u32; ours.len() + 1]; theirs.len() + 1];
    for (i, a) in theirs.iter().enumerate().rev() {
        for (j, b) in ours.iter().enumerate().rev() {
            longest[i][j] = match a == b {
                true => longest[i + 1][j + 1] + 1,
                false => longest[i + 1][j].max(longest[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < theirs.len() || j < ours.len() {
        if i < theirs.len() && j < ours.len() && theirs[i] == ours[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == ours.len() || (i < theirs.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            lines.push(format!("- {}", theirs[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", ours[j]));
            j += 1;
        }
    }
    lines
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_difference_is_what_only_one_side_has() {
        let (theirs, ours) = (strings(&["a", "b", "c", "e"]), strings(&["a", "c", "d", "e"]));
        assert_eq!(diff(&theirs, &ours), ["- b", "+ d"]);
        assert!(diff(&ours, &ours).is_empty());
        assert_eq!(diff(&[], &ours).len(), 4);
        assert_eq!(diff(&strings(&["a", "b"]), &strings(&["b", "a"])).len(), 2);
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("ab", "ab", true),
            ("ab", "abc", false),
            ("a*", "abc", true),
            ("a*c", "abc", true),
            ("a*c", "abd", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c", false),
            ("*", "", true),
            ("ab*b", "ab", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
