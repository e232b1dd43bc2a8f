//! The one table of differences, in parts.
//!
//! `why` stands as the first column of a row in `crates/repmgr-cli/COMPATIBILITY.md`; a test holds the two
//! together. `on` names scenarios, or groups of them: "configured" (there is a configuration file), "barman"
//! (Barman is asked), "source" (the source node is connected to), "checked" (and found fit), "slot" and "no
//! slot", "dry" and "copied" (how it ends); "direct" and so on are the same without Barman.

mod behaviour;
mod command_line;
mod refusals;
mod words;

use std::collections::BTreeSet;

/// An expected difference.
pub(crate) struct Difference {
    /// Why, in the words of COMPATIBILITY.md.
    pub(crate) why: &'static str,
    /// Scenarios and groups in each of which it must be seen.
    pub(crate) on: &'static [&'static str],
    /// Lines that only the original has (`- `) or only we have (`+ `); `*` stands for anything.
    pub(crate) lines: &'static [&'static str],
}

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Difference> {
    [
        words::WORDS,
        behaviour::BEHAVIOUR,
        refusals::REFUSALS,
        command_line::COMMAND_LINE,
    ]
    .into_iter()
    .flatten()
}

/// Every difference is told to users, and none that is not there.
#[test]
fn the_document_has_a_row_for_every_difference() {
    let document = include_str!("../../../crates/repmgr-cli/COMPATIBILITY.md");
    let (_, table) = document
        .split_once("## Differences\n")
        .expect("there is a part with that heading");
    let rows: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|first| !first.starts_with("---") && *first != "difference")
        .collect();
    let reasons: BTreeSet<&str> = all().map(|difference| difference.why).collect();
    assert_eq!(rows, reasons);
}
