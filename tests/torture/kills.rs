//! Signals for our program, and for what works for it on the other side.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use repmgr_lab::tool;

use crate::random::Random;
use crate::stage::Stage;

const FAR: [&str; 9] = [
    "sshd",
    "tar",
    "find",
    "gzip",
    "zstd",
    "lz4",
    "python3",
    "flock",
    "pg_basebackup",
];

pub(crate) fn attempt(stage: &Stage, random: &mut Random, what: &mut String) -> Result<String> {
    let kind = stage.any(random);
    let far = random.below(3) == 0;
    let signal = match far {
        true => random.of(&["KILL", "KILL", "TERM"]),
        false => random.of(&["KILL", "KILL", "TERM", "INT", "STOP"]),
    };
    *what = match far {
        true => format!("{} killed on the other side, {}", signal, kind.name),
        false => format!("{signal}, {}", kind.name),
    };
    stage.prepare(kind)?;
    let usual = kind.usual.get().as_millis() as u64;
    let (copying, moment) = (random.below(2) == 0, random.below(usual + 50));
    let mut running = stage.run(kind)?;
    let begun = Instant::now();
    // Most of a short run is planning; the moments that matter come when the directory is taken.
    let late = copying && running.wait_for_words("retrieving backup").is_ok();
    sleep(Duration::from_millis(if late { moment / 4 } else { moment }));
    if far {
        kill_far(stage, &running, signal, random, begun)?;
    } else if signal == "STOP" {
        // It may have been faster, with these as with all others.
        let _ = running.signal("STOP");
        sleep(Duration::from_millis(random.below(1500)));
        let _ = running.signal("CONT");
    } else {
        let _ = running.signal(signal);
    }
    let status = running.wait()?;
    let said = running.said()?;
    if said.contains("panicked at") {
        bail!("it panicked:\n{said}");
    }
    stage.judge(kind, status, &said, far || signal != "KILL")
}

/// Kills one of the programs that work for the clone, as soon as there is one.
fn kill_far(
    stage: &Stage,
    running: &repmgr_tests::Running,
    signal: &str,
    random: &mut Random,
    begun: Instant,
) -> Result<()> {
    let listener = fs::read_to_string(stage.lab.scratch().join("ssh/sshd.pid"))?;
    let roots = [listener.trim().parse::<u32>()?, running.pid()];
    while begun.elapsed() < Duration::from_secs(3) {
        let found: Vec<u32> = descendants(&roots)
            .into_iter()
            .filter(|(_, name)| FAR.contains(&name.as_str()))
            .map(|(pid, _)| pid)
            .collect();
        if !found.is_empty() {
            let pid = random.of(&found).to_string();
            // It may have ended.
            let _ = tool("kill").args(["-s", signal, &pid]).output()?;
            return Ok(());
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Processes below these, with their names.
pub(crate) fn descendants(roots: &[u32]) -> Vec<(u32, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // It may end meanwhile.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parts = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
        if let Some((name, rest)) = parts
            && let Some(parent) = rest.split_whitespace().nth(1).and_then(|n| n.parse::<u32>().ok())
        {
            all.push((pid, parent, name.to_owned()));
        }
    }
    let mut family = roots.to_vec();
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(&of) = family.get(next) {
        for (pid, _, name) in all.iter().filter(|(_, parent, _)| *parent == of) {
            family.push(*pid);
            found.push((*pid, name.clone()));
        }
        next += 1;
    }
    found
}
