//! `cargo xtask bench wal`: archived segments one call after another, and the replay of a real standby.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use repmgr_lab::{BackupMethod, BarmanVersion, Instance, Lab, Scratch, StopMode, check, packages};

use super::{choose, in_turn, report};
use crate::prepare::{self, Steps};

const LIMIT: Duration = Duration::from_secs(300);
/// A row of the lab's table with its index entry and its share of full pages.
const ROWS_A_SEGMENT: usize = 40_000;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How often each way is measured, in turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Segments restored in each round
    #[arg(long, default_value_t = 64)]
    segments: usize,
    /// A line of Barman's configuration for the server, "compression = gzip" for one
    #[arg(long, value_name = "LINE")]
    barman_conf: Vec<String>,
    /// Leave out the standbys
    #[arg(long)]
    no_replay: bool,
    /// Only ways with this in their name
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
}

/// One way to restore.
struct Contender {
    name: &'static str,
    /// `restore_command` without the file's name and destination.
    words: Vec<String>,
    /// Seconds for all segments, and those of each call in milliseconds.
    totals: Vec<f64>,
    calls: Vec<f64>,
    replays: Vec<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let steps = Steps::new();
    prepare::install(&steps, &[packages::BUILD, packages::LAB, packages::TESTS])?;
    let program = super::clone::build(&steps)?.with_file_name("repmgr-wal-restore");
    let machine = report::machine()?;
    let lab = lab(arguments)?;
    steps.begin(&format!("Writing {} segments of WAL", arguments.segments));
    let (standby, names) = write(&lab, arguments)?;
    let all = contenders(&lab, &program)?;
    let mut contenders = choose(all, |contender| contender.name, &arguments.only)?;
    in_turn(&steps, arguments.rounds, contenders.len(), |at, round| {
        let contender = &mut contenders[at];
        one_after_another(&lab, contender, &names)?;
        println!("{:7.2} s  {}", contender.totals[round], contender.name);
        if !arguments.no_replay {
            replay(&lab, contender, &standby)?;
            println!("{:7.0} MB/s replayed", rate(&names, contender.replays[round]));
        }
        Ok(())
    })?;
    println!(
        "\n{} segments of 16 MiB, Barman {}, medians of {} rounds; {machine}.\n\n{}",
        names.len(),
        lab.barman().install().version().number(),
        arguments.rounds,
        table(&contenders, &names)
    );
    Ok(())
}

fn lab(arguments: &Arguments) -> Result<Lab> {
    let steps = Steps::new();
    let mut builder = Lab::builder()
        .barman(BarmanVersion::V3_19)
        .method(BackupMethod::Postgres)
        .without_backup()
        .on_step(move |what| steps.begin(what));
    for line in &arguments.barman_conf {
        builder = builder.barman_conf(line);
    }
    builder.build()
}

/// What a standby begins with, and the position it must reach.
struct Standby {
    template: PathBuf,
    end: String,
}

/// Copies the primary, then writes and archives the segments; a copy needs all of them.
fn write(lab: &Lab, arguments: &Arguments) -> Result<(Standby, Vec<String>)> {
    let primary = lab.primary();
    let template = lab.scratch().join("template");
    primary.base_backup(&template, &["-X", "fetch"])?;
    lab.scratch().write(template.join("standby.signal"), "", 0o600)?;
    primary.sql("select pg_switch_wal()")?;
    let first = primary.sql("select pg_walfile_name(pg_current_wal_lsn())")?;
    let mut names = Vec::new();
    while names.len() < arguments.segments {
        // Updates, inserts and an index, with a checkpoint now and then: WAL as it usually is.
        primary.sql(&format!(
            "insert into lab_rows (note) select md5(random()::text) from generate_series(1, {ROWS_A_SEGMENT}) g; \
             update lab_rows set note = md5(note) where id % 50 = {}",
            names.len() % 50
        ))?;
        if names.len() % 16 == 0 {
            primary.sql("checkpoint")?;
        }
        names = archived(lab, &first)?;
    }
    names.truncate(arguments.segments);
    let last = names.last().context("at least one segment")?;
    let next = u64::from_str_radix(&last[16..], 16)? + 1;
    let end = format!("{:X}/{:X}", u64::from_str_radix(&last[8..16], 16)?, next << 24);
    Ok((Standby { template, end }, names))
}

/// Whole segments in the archive from `first` on.
fn archived(lab: &Lab, first: &str) -> Result<Vec<String>> {
    lab.barman().run(&["archive-wal", lab.server()])?;
    let dir = lab
        .barman()
        .server_dir(lab.server())
        .join("wals")
        .join(&first[..16]);
    let entries = fs::read_dir(&dir).with_context(|| format!("no \"{}\"", dir.display()))?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| name.len() == 24 && name.as_str() >= first)
        .collect();
    names.sort();
    Ok(names)
}

fn contenders(lab: &Lab, program: &Path) -> Result<Vec<Contender>> {
    let ours = lab.scratch().join("bin/repmgr-wal-restore");
    check(Command::new("cp").arg(program).arg(&ours), LIMIT)?;
    let theirs = lab
        .barman()
        .install()
        .program()
        .with_file_name("barman-wal-restore");
    let conf = lab.barman().config_file().display().to_string();
    let user = &lab.scratch().account().name;
    let command = lab.barman().command_name().display().to_string();
    let make = |name, program: &Path, options: &[&str]| {
        let mut words = vec![
            program.display().to_string(),
            "-U".to_owned(),
            user.clone(),
            "-c".to_owned(),
            conf.clone(),
        ];
        words.extend(options.iter().map(|word| (*word).to_owned()));
        words.extend(["barmansrv".to_owned(), lab.server().to_owned()]);
        Contender {
            name,
            words,
            totals: Vec::new(),
            calls: Vec::new(),
            replays: Vec::new(),
        }
    };
    let alone = ["--barman-command", &command, "--no-prefetch"];
    let spool = lab.scratch().join("walrestore").display().to_string();
    Ok(vec![
        make("repmgr-wal-restore", &ours, &alone[..2]),
        make("repmgr-wal-restore --no-prefetch", &ours, &alone),
        make("barman-wal-restore", &theirs, &[]),
        make(
            "barman-wal-restore -p 8",
            &theirs,
            &["-p", "8", "--spool-dir", &spool],
        ),
    ])
}

/// A file system that has nothing to write, and no rests of the last run.
fn clear(scratch: &Scratch, dir: &Path) -> Result<()> {
    for dir in [dir, &scratch.join("walrestore")] {
        let remove = || check(Command::new("rm").arg("-rf").arg(dir), LIMIT);
        // A process that runs ahead may put one more file there before it sees that all is gone.
        if remove().is_err() {
            sleep(Duration::from_secs(2));
            remove()?;
        }
    }
    check(Command::new("sync").arg("-f").arg(scratch.path()), LIMIT).map(drop)
}

/// Calls as PostgreSQL does, without the time it takes to replay, and looks at what came.
fn one_after_another(lab: &Lab, contender: &mut Contender, names: &[String]) -> Result<()> {
    let scratch = lab.scratch();
    let dir = scratch.join("node");
    clear(scratch, &dir)?;
    scratch.dir("node/global")?;
    scratch.dir("node/pg_wal")?;
    let control = lab.primary().data_dir().join("global/pg_control");
    check(scratch.command("cp").arg(control).arg(dir.join("global")), LIMIT)?;
    let destination = dir.join("pg_wal/RECOVERYXLOG");
    let wals = lab.barman().server_dir(lab.server()).join("wals");
    let plain = archive_is_plain(lab);
    let mut total = Duration::ZERO;
    for name in names {
        let mut call = scratch.command(&contender.words[0]);
        call.current_dir(&dir)
            .args(&contender.words[1..])
            .args([name.as_str(), "pg_wal/RECOVERYXLOG"]);
        let started = Instant::now();
        let status = call.status().with_context(|| contender.name)?;
        let took = started.elapsed();
        total += took;
        contender.calls.push(took.as_secs_f64() * 1e3);
        ensure!(
            status.success(),
            "{} ended with {status} for {name}",
            contender.name
        );
        let delivered = fs::read(&destination)?;
        let right = !plain || delivered == fs::read(wals.join(&name[..16]).join(name))?;
        ensure!(
            right && delivered.len() == 16 << 20,
            "{}: {name} is not what was archived",
            contender.name
        );
        fs::remove_file(&destination)?;
    }
    contender.totals.push(total.as_secs_f64());
    // Its background process ends with the directory.
    clear(scratch, &dir)
}

fn archive_is_plain(lab: &Lab) -> bool {
    let conf = lab
        .scratch()
        .join("barman/conf.d")
        .join(format!("{}.conf", lab.server()));
    !fs::read_to_string(conf)
        .unwrap_or_default()
        .contains("\ncompression")
}

/// Starts a standby that has only the archive, and measures until it has replayed all.
fn replay(lab: &Lab, contender: &mut Contender, standby: &Standby) -> Result<()> {
    let scratch = lab.scratch();
    let target = lab.target(2, &[])?;
    clear(scratch, &target.data_dir)?;
    check(
        scratch
            .command("cp")
            .arg("-a")
            .arg(&standby.template)
            .arg(&target.data_dir),
        LIMIT,
    )?;
    let node: Instance = lab.instance(&target);
    node.write_conf(&format!(
        "restore_command = '{} %f %p'\nwal_retrieve_retry_interval = 200ms\narchive_mode = off\nautovacuum = off",
        contender.words.join(" ")
    ))?;
    check(Command::new("sync").arg("-f").arg(scratch.path()), LIMIT)?;
    let started = Instant::now();
    node.start()?;
    let query = format!(
        "select coalesce(pg_last_wal_replay_lsn() >= '{}', false)",
        standby.end
    );
    while node.sql(&query)? != "t" {
        ensure!(
            started.elapsed() < LIMIT,
            "{}: not replayed\n{}",
            contender.name,
            node.log_tail()
        );
        sleep(Duration::from_millis(20));
    }
    contender.replays.push(started.elapsed().as_secs_f64());
    node.stop(StopMode::Immediate)?;
    clear(scratch, &target.data_dir)
}

/// MB a second.
fn rate(names: &[String], seconds: f64) -> f64 {
    (names.len() << 24) as f64 / 1e6 / seconds
}

fn median(values: &[f64]) -> f64 {
    let mut all = values.to_vec();
    all.sort_by(f64::total_cmp);
    let half = all.len() / 2;
    match all.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => all[half],
        _ => all[half - 1].midpoint(all[half]),
    }
}

/// The first row is what the others are compared to.
fn table(contenders: &[Contender], names: &[String]) -> String {
    let mut text = String::from(
        "| way | s for all | times ours | ms a call, median | MB/s | MB/s replayed by a standby |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let width = contenders.iter().map(|c| c.name.len()).max().unwrap_or_default();
    let first = contenders.first().map_or(f64::NAN, |c| median(&c.totals));
    for contender in contenders {
        let total = median(&contender.totals);
        let replayed = match rate(names, median(&contender.replays)) {
            rate if rate.is_nan() => "-".to_owned(),
            rate => format!("{rate:.0}"),
        };
        text += &format!(
            "| {:width$} | {total:6.2} | {:5.1} | {:6.1} | {:4.0} | {replayed:>4} |\n",
            contender.name,
            total / first,
            median(&contender.calls),
            rate(names, total),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_values_is_found() {
        assert_eq!([median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])], [2.0, 2.5]);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_row_compares_with_the_first() {
        let contender = |name, totals: &[f64], replays: &[f64]| Contender {
            name,
            words: Vec::new(),
            totals: totals.to_vec(),
            calls: vec![5.0],
            replays: replays.to_vec(),
        };
        let names = vec![String::new(); 64];
        let text = table(
            &[
                contender("ours", &[1.0], &[2.0]),
                contender("other", &[20.0], &[]),
            ],
            &names,
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "| ours  |   1.00 |   1.0 |    5.0 | 1074 |  537 |");
        assert_eq!(lines[3], "| other |  20.00 |  20.0 |    5.0 |   54 |    - |");
    }
}
