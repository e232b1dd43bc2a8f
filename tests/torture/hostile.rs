//! A Barman host that lies: what its programs print is spoilt on its way, by what they print.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use repmgr_lab::Lab;

use crate::random::Random;
use crate::sizes;
use crate::stage::Stage;

/// The argument with which this program is the one that spoils.
pub(crate) const WORD: &str = "spoil-standard-input";
const TOOLS: [&str; 4] = ["find", "tar", "sed", "cat"];
pub(crate) const DIRECTORY: &str = "hostile";
/// Of a debug build.
const MEMORY_KB: u64 = 100 << 10;
const TIME: Duration = Duration::from_secs(90);

/// Puts programs of these names first on the PATH of sessions. They do as those they stand for, but for the one call
/// that the file `next` names, or for all where the number is 0.
pub(crate) fn install(lab: &Lab) -> Result<()> {
    let dir = lab.scratch().dir(DIRECTORY)?;
    let spoiler = dir.join("spoiler");
    fs::copy(std::env::current_exe()?, &spoiler)?;
    fs::set_permissions(&spoiler, fs::Permissions::from_mode(0o755))?;
    for tool in TOOLS {
        let script = format!(
            "#!/bin/sh\nreal=/usr/bin/{tool}\n[ -x $real ] || real=/bin/{tool}\ncd_={dir}\n\
             if [ -f $cd_/next ] && read tool number seed <$cd_/next && [ \"$tool\" = {tool} ]; then\n\
             printf x >>$cd_/calls\n\
             if [ \"$number\" = 0 ] || [ \"$(wc -c <$cd_/calls)\" = \"$number\" ]; then\n\
             $real \"$@\" | $cd_/spoiler {WORD} {tool} $seed\nexit 0\nfi\nfi\nexec $real \"$@\"\n",
            dir = dir.display()
        );
        lab.scratch().write(dir.join(tool), &script, 0o755)?;
    }
    let config = fs::read_to_string(lab.sshd().server_config())?;
    let first = format!("PATH={}:", dir.display());
    fs::write(lab.sshd().server_config(), config.replacen("PATH=", &first, 1))?;
    lab.sshd().restart()
}

pub(crate) fn attempt(stage: &Stage, random: &mut Random, what: &mut String) -> Result<String> {
    let kind = &stage.kinds[random.of(&[0, 1, 3, 4])];
    let tool = random.of(&["find", "find", "tar", "tar", "tar", "tar", "sed", "cat"]);
    *what = format!("{tool} lies, {}", kind.name);
    stage.prepare(kind)?;
    let scratch = stage.lab.scratch();
    let number = 1 + random.below(if tool == "tar" { 4 } else { 2 });
    // As those who log in there may write.
    scratch.write(format!("{DIRECTORY}/calls"), "", 0o666)?;
    scratch.write(
        format!("{DIRECTORY}/next"),
        &format!("{tool} {number} {}\n", random.next()),
        0o644,
    )?;
    let mut running = match random.below(2) {
        0 => stage.run(kind)?,
        _ => stage.run_plain(kind)?,
    };
    let begun = Instant::now();
    let mut memory = 0;
    while running_still(running.pid()) && begun.elapsed() < TIME {
        memory = memory.max(peak(running.pid()).unwrap_or(0));
        sleep(Duration::from_millis(10));
    }
    let status = running.wait()?;
    fs::remove_file(scratch.join(DIRECTORY).join("next"))?;
    let said = running.said()?;
    ensure!(
        begun.elapsed() < TIME,
        "it took {} s:\n{said}",
        begun.elapsed().as_secs()
    );
    ensure!(memory < MEMORY_KB, "it took {memory} kB:\n{said}");
    ensure!(!said.contains("panicked at"), "it panicked:\n{said}");
    if let Some(c) = said
        .chars()
        .find(|c| *c != '\n' && *c != '\t' && repmgr_types::text::is_unsafe(*c))
    {
        bail!("it printed {c:?}:\n{said}");
    }
    for outside in ["escaped", "node_escaped"] {
        ensure!(
            !scratch.join(outside).exists(),
            "\"{outside}\" is outside of the target:\n{said}"
        );
    }
    stage.judge(kind, status, &said, true)
}

fn running_still(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What the spoiling program does: all that comes in goes out, not quite as it was.
pub(crate) fn spoil(tool: &str, seed: &str) -> ExitCode {
    let mut bytes = Vec::new();
    if std::io::stdin().lock().read_to_end(&mut bytes).is_err() {
        return ExitCode::FAILURE;
    }
    if let Some((lie, path)) = seed.split_once(':') {
        return match sizes::tell(lie, path, &mut bytes) {
            Ok(()) => put(&bytes),
            Err(_) => ExitCode::FAILURE,
        };
    }
    let mut random = Random::new(seed.parse().unwrap_or(0));
    // Half of the archives are as tar makes them, but for what is in them.
    if tool == "tar" && random.below(2) == 0 && sizes::shorten_any(&mut bytes, &mut random) {
        return put(&bytes);
    }
    for _ in 0..1 + random.below(3) {
        change(tool, &mut bytes, &mut random);
    }
    put(&bytes)
}

/// Whoever reads may have had enough.
fn put(bytes: &[u8]) -> ExitCode {
    match std::io::stdout().lock().write_all(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

const WORDS: [&[u8]; 10] = [
    b"18446744073709551615",
    b"-1",
    b"../../../escaped",
    b"/tmp/x",
    "\u{202e}\u{2066}".as_bytes(),
    b"\x1b]0;owned\x07",
    b"",
    b"0",
    b"\0",
    b"4294967296",
];

fn change(tool: &str, bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len() as u64) as usize;
    let length = (random.below(600) as usize).min(bytes.len() - at);
    match random.below(9) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes.truncate(at),
        2 => drop(bytes.drain(at..at + length)),
        3 => {
            let twice = bytes[at..at + length].to_vec();
            bytes.splice(at..at, twice);
        }
        4 => bytes.extend(vec![b'A'; 1 << random.below(22)]),
        // Another record of its own, where it does not belong.
        5 => {
            let size = if tool == "tar" { 512 } else { 64 };
            let (from, to) = (
                at / size * size,
                random.below(bytes.len() as u64) as usize / size * size,
            );
            let record = bytes[from..(from + size).min(bytes.len())].to_vec();
            bytes.splice(to..to, record);
        }
        _ => number(bytes, at, random),
    }
}

/// A word for one that is there.
fn number(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let is_end = |b: &u8| b" \0\n/='\"".contains(b);
    let start = bytes[..at].iter().rposition(is_end).map_or(0, |end| end + 1);
    let end = bytes[at..]
        .iter()
        .position(is_end)
        .map_or(bytes.len(), |end| at + end);
    bytes.splice(start..end.max(start), random.of(&WORDS).iter().copied());
}
