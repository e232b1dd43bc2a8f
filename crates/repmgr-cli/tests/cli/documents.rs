//! What the documents say of messages, options and files is so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Options in the documents that are of other programs.
const OF_OTHERS: &[(&str, &str)] = &[
    ("--superuser", "createuser"),
    ("--pwprompt", "createuser"),
    ("--owner", "createdb"),
    ("--now", "systemctl"),
    ("--force-rewind", "the original's node rejoin"),
    ("--checksum", "rsync"),
    ("--waldir", "pg_basebackup"),
    ("--remote-ssh-command", "barman"),
    ("--release", "cargo"),
    ("--workspace", "cargo"),
    ("--all-targets", "cargo"),
    ("--bless", "cargo api"),
    ("--times", "cargo xtask bench"),
    ("--differ", "cargo xtask bench"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn markdown_in(dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(dir)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|it| it == "md"))
        .collect()
}

/// Those for users and contributors.
fn documents() -> Vec<(PathBuf, String)> {
    let all = [
        "",
        ".github",
        "crates",
        "crates/repmgr-cli",
        "crates/repmgr-cli/docs",
    ];
    let paths = all.iter().flat_map(|dir| markdown_in(dir));
    let all: Vec<_> = paths
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect();
    assert!(all.len() > 14, "{all:?}");
    all
}

fn sources_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources_below(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// Each literal on a line of its own, as it is printed.
fn without_breaks(source: &str) -> String {
    let source = source
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let mut text = String::new();
    let mut goes_on = false;
    for line in source.lines() {
        let line = if goes_on { line.trim_start() } else { line };
        goes_on = line.ends_with('\\');
        text += line.strip_suffix('\\').unwrap_or(line);
        if !goes_on {
            text.push('\n');
        }
    }
    text.replace("\\\"", "\"")
}

fn program_lines() -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let src = entry.unwrap().path().join("src");
        if src.is_dir() {
            sources_below(&src, &mut files);
        }
    }
    let texts = files
        .iter()
        .map(|path| without_breaks(&fs::read_to_string(path).unwrap()));
    let mut lines = Vec::new();
    for text in texts {
        let printed = text
            .lines()
            .filter(|line| line.contains('"') && !line.trim_start().starts_with("//"));
        lines.extend(printed.map(str::to_owned));
    }
    lines
}

/// Whether `line` has the fixed parts of `message` in their order, with a placeholder in each gap.
fn says(line: &str, message: &str) -> bool {
    let longest = message
        .split('…')
        .max_by_key(|part| part.len())
        .unwrap_or_default();
    if !line.contains(longest) {
        return false;
    }
    let mut parts = message.split('…');
    let first = parts.next().unwrap_or_default();
    let begins = line.match_indices(first).map(|(at, _)| &line[at + first.len()..]);
    let parts: Vec<&str> = parts.collect();
    begins.into_iter().any(|rest| goes_on(rest, &parts))
}

fn goes_on(rest: &str, parts: &[&str]) -> bool {
    let Some((part, others)) = parts.split_first() else {
        return true;
    };
    let mut ends = rest
        .match_indices('}')
        .map(|(at, _)| rest.split_at(at + 1))
        .take(3);
    rest.starts_with('{')
        && ends.any(|(_, after)| after.strip_prefix(part).is_some_and(|it| goes_on(it, others)))
}

#[test]
fn the_messages_that_are_explained_exist() {
    let lines = program_lines();
    let page = fs::read_to_string(root().join("crates/repmgr-cli/docs/troubleshooting.md")).unwrap();
    let headings: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### `"))
        .collect();
    assert!(headings.len() > 40, "{headings:?}");
    let gone: Vec<_> = headings
        .iter()
        .map(|heading| heading.rsplit_once('`').unwrap().0)
        .filter(|message| !lines.iter().any(|line| says(line, message)))
        .collect();
    assert!(gone.is_empty(), "no program says: {gone:#?}");
}

#[test]
fn a_message_in_other_words_is_not_found() {
    let line = r#"    #[error("no connection to {address} of {name:?}")]"#;
    assert!(says(line, "no connection to … of …"));
    for other in ["no connection to … or …", "connection to nobody", "no … to …"] {
        assert!(!says(line, other), "{other}");
    }
    let source = "x(\"one \\\n   two \\\"{}\\\" three\")\n#[cfg(test)]\nmod tests {}";
    assert_eq!(without_breaks(source), "x(\"one two \"{}\" three\")\n");
}

/// What stands in `](...)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
}

/// The name by which GitHub lets one link to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars();
    let kept = kept.filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn leads_nowhere(from: &Path, text: &str, link: &str) -> bool {
    if link.contains("://") || link.starts_with("mailto:") {
        return false;
    }
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    let target = from.parent().unwrap().join(path);
    let text = match path {
        "" => text.to_owned(),
        _ if !target.exists() => return true,
        _ if fragment.is_empty() => return false,
        _ => fs::read_to_string(&target).unwrap(),
    };
    let mut headings = text.lines().filter(|line| line.starts_with('#'));
    !headings.any(|heading| anchor(heading) == fragment)
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let mut broken = Vec::new();
    for (path, text) in &documents {
        let wrong = links(text).filter(|link| leads_nowhere(path, text, link));
        broken.extend(wrong.map(|link| (path, link)));
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(leads_nowhere(&root().join("README.md"), "# A b", "#b-a"));
    assert!(!leads_nowhere(&root().join("README.md"), "# A `b`", "#a-b"));
}

#[test]
fn the_readme_leads_to_every_document() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let plain = |path: &Path| {
        path.components()
            .filter(|it| *it != Component::CurDir)
            .collect::<PathBuf>()
    };
    let linked: BTreeSet<_> = links(&readme).map(|link| plain(&root().join(link))).collect();
    for dir in [".github", "crates/repmgr-cli/docs"] {
        for path in markdown_in(dir) {
            assert!(linked.contains(&plain(&path)), "{path:?}");
        }
    }
}

fn help(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// Words that begin with `--`, up to their value; an anchor of a link is none.
fn long_options(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_#".contains(c);
    let words = text.split(|c: char| !is_name(c));
    words
        .filter(|word| {
            word.strip_prefix("--")
                .is_some_and(|name| name.starts_with(char::is_alphabetic))
        })
        .collect()
}

#[test]
fn every_option_that_is_named_exists() {
    let ours = help(env!("CARGO_BIN_EXE_repmgr"), &["standby", "clone", "--help"]);
    let wal = help(env!("CARGO_BIN_EXE_repmgr-wal-restore"), &["--help"]);
    let known = long_options(&ours).into_iter().chain(long_options(&wal));
    let known: BTreeSet<_> = known.chain(OF_OTHERS.iter().map(|(option, _)| *option)).collect();
    let documents = documents();
    let named = documents
        .iter()
        .filter(|(path, _)| !path.ends_with("CHANGELOG.md"))
        .flat_map(|(path, text)| long_options(text).into_iter().map(move |option| (option, path)));
    let strange: Vec<_> = named.filter(|(option, _)| !known.contains(option)).collect();
    assert!(strange.is_empty(), "{strange:#?}");
    assert_eq!(
        long_options("a `--b-c=d`, ---- and --\ne--f #--g"),
        BTreeSet::from(["--b-c"])
    );
}
