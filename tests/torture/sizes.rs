//! A Barman host of which everything is right but one size: a relation is a page shorter or longer in the archive
//! that tar makes of the backup, header and all, or the listing gives it another size.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};

use anyhow::{Result, ensure};

use crate::hostile::DIRECTORY;
use crate::random::Random;
use crate::stage::Stage;

const BLOCK: usize = 512;
const PAGE: usize = 8192;
/// Whose output says so, and how.
const LIES: [(&str, &str); 4] = [
    ("tar", "shorter"),
    ("tar", "longer"),
    ("find", "shorter"),
    ("find", "longer"),
];

/// Each lie is told about one file in turn, wherever it comes along, so that no chance is needed.
pub(crate) fn attempt(stage: &Stage, what: &mut String) -> Result<String> {
    // Of a backup by rsync, all of which is fetched.
    let kind = &stage.kinds[0];
    *what = format!("one size lies, {}", kind.name);
    let path = stage
        .lab
        .primary()
        .sql("select pg_relation_filepath('pg_proc')")?;
    let scratch = stage.lab.scratch();
    let mut outcome = String::new();
    for (tool, lie) in LIES {
        // What an earlier one left may make tar unnecessary.
        stage.prepare(kind)?;
        // As those who log in there may write.
        for file in ["calls", "hit"] {
            scratch.write(format!("{DIRECTORY}/{file}"), "", 0o666)?;
        }
        let next = format!("{tool} 0 {lie}:{path}\n");
        scratch.write(format!("{DIRECTORY}/next"), &next, 0o644)?;
        let mut running = stage.run_plain(kind)?;
        let status = running.wait()?;
        let directory = scratch.join(DIRECTORY);
        fs::remove_file(directory.join("next"))?;
        let said = running.said()?;
        let hit = fs::metadata(directory.join("hit"))?.len();
        ensure!(
            hit > 0,
            "{path} did not come along, so {tool} could not lie:\n{said}"
        );
        ensure!(
            !status.success(),
            "{path} is {lie} by what {tool} says, and nobody noticed:\n{said}"
        );
        // Of a listing the sum may be wrong already, before any file is fetched.
        ensure!(
            tool == "find" || said.contains(&path),
            "{path} is {lie} by what {tool} says, and that is not said:\n{said}"
        );
        if (tool, lie) == LIES[LIES.len() - 1] {
            outcome = stage.judge(kind, status, &said, true)?;
        }
    }
    Ok(outcome)
}

/// The spoiling program's part: one size is another in what `find` or tar printed, if the file is in it.
pub(crate) fn tell(lie: &str, path: &str, bytes: &mut Vec<u8>) -> io::Result<()> {
    let longer = lie == "longer";
    let found = members(bytes).into_iter().find(|member| member.is(bytes, path));
    let has_lied = match found {
        Some(member) => {
            member.resize(bytes, longer);
            true
        }
        None => relist(bytes, path, longer),
    };
    if has_lied {
        let hit = std::env::current_exe()?.with_file_name("hit");
        OpenOptions::new().append(true).open(hit)?.write_all(b"x")?;
    }
    Ok(())
}

/// Takes the last page of some relation out of an archive; `false` if there is none.
pub(crate) fn shorten_any(bytes: &mut Vec<u8>, random: &mut Random) -> bool {
    let mut found = members(bytes);
    found.retain(|member| member.size >= 2 * PAGE && bytes[member.at..].starts_with(b"base/"));
    if found.is_empty() {
        return false;
    }
    random.of(&found).resize(bytes, false);
    true
}

/// A file of whole pages in an archive.
#[derive(Clone, Copy)]
struct Member {
    at: usize,
    size: usize,
}

fn members(bytes: &[u8]) -> Vec<Member> {
    let octal = |field: &[u8]| {
        let text = String::from_utf8_lossy(field);
        usize::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
    };
    let (mut at, mut found) = (0, Vec::new());
    while let Some(header) = bytes.get(at..at + BLOCK) {
        let Some(size) = octal(&header[124..136]).filter(|size| *size <= bytes.len()) else {
            break;
        };
        if header[156] == b'0' && size >= PAGE && size % PAGE == 0 && at + BLOCK + size <= bytes.len() {
            found.push(Member { at, size });
        }
        at += BLOCK + size.div_ceil(BLOCK) * BLOCK;
    }
    found
}

impl Member {
    fn is(self, bytes: &[u8], path: &str) -> bool {
        let name = &bytes[self.at..self.at + 100];
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        name.strip_prefix(b"./").unwrap_or(name) == path.as_bytes()
    }

    /// A page less, or one that PostgreSQL takes for a new one. The header is right all the same.
    fn resize(self, bytes: &mut Vec<u8>, longer: bool) {
        let content = self.at + BLOCK;
        let end = content + self.size;
        let size = if longer {
            bytes.splice(end..end, [0; PAGE]);
            self.size + PAGE
        } else {
            bytes.drain(end - PAGE..end);
            self.size - PAGE
        };
        let header = &mut bytes[self.at..content];
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Changes the size in a file's entry of a listing: `f r SIZE MODE TIME PATH`.
fn relist(bytes: &mut Vec<u8>, path: &str, longer: bool) -> bool {
    let mut has_lied = false;
    let entries: Vec<Vec<u8>> = bytes
        .split(|byte| *byte == 0)
        .map(|entry| {
            let text = String::from_utf8_lossy(entry);
            let fields: Vec<&str> = text.splitn(6, ' ').collect();
            let [kind, readable, size, mode, time, name] = fields[..] else {
                return entry.to_vec();
            };
            match size.parse::<usize>() {
                Ok(size) if name == path && size > PAGE => {
                    has_lied = true;
                    let size = if longer { size + PAGE } else { size - PAGE };
                    format!("{kind} {readable} {size} {mode} {time} {name}").into_bytes()
                }
                _ => entry.to_vec(),
            }
        })
        .collect();
    if has_lied {
        *bytes = entries.join(&0);
    }
    has_lied
}
