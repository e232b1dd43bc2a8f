//! `cargo xtask bench rebuild`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use repmgr_lab::{Lab, StopMode, check, packages};

use super::clone::{NEAR, build, put_away};
use super::contender::{Contender, Contenders};
use super::data::{self, Scale};
use super::measure::measure;
use super::report::{self, Row};
use super::{choose, in_turn};
use crate::prepare::{self, Steps};

const LIMIT: Duration = Duration::from_secs(300);
const PAGE: usize = 8192;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How often each way is measured, in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// What differs
    #[arg(long, value_enum, default_value = "pages")]
    differ: Differ,
    /// So many times the data of 1.1 GB
    #[arg(long, default_value_t = 1)]
    times: u32,
    /// Only ways with this in their name
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
}

/// One percent of the bytes of a standby that is not as the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Differ {
    /// All bytes of some files; the others have the time that they have in the backup
    Files,
    /// Every hundredth page of every file
    Pages,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let steps = Steps::new();
    prepare::install(
        &steps,
        &[packages::BUILD, packages::LAB, packages::TESTS, packages::BENCH],
    )?;
    let repmgr = build(&steps)?;
    let machine = report::machine()?;
    let on_step = move |what: &str| Steps::new().begin(what);
    let lab = data::fill(
        Lab::builder().on_step(on_step),
        Scale::Normal,
        false,
        arguments.times,
    )
    .build()?;

    steps.begin("Those who take part");
    let all = contenders(Contenders::new(&lab, &repmgr)?)?;
    let contenders = choose(all, |contender| &contender.name, &arguments.only)?;
    for contender in &contenders {
        println!("{}", contender.name);
    }

    steps.begin("The standby of each: it runs, and is stopped");
    let olds: Vec<Old> = contenders
        .iter()
        .map(|contender| Old::make(&lab, contender))
        .collect::<Result<_>>()?;
    let size = data::size_of(&lab.barman().backup_dir(lab.server(), lab.backup_id()?), true)?;
    let what = format!("{} files, {} MB", size.files, size.bytes / 1_000_000);

    let mut rows: Vec<Row> = contenders
        .iter()
        .map(|contender| Row::new(&contender.name))
        .collect();
    in_turn(&steps, arguments.rounds, contenders.len(), |at, _| {
        let (contender, old) = (&contenders[at], &olds[at]);
        old.put_back(&lab, arguments.differ)?;
        let run = measure(&lab, &contender.command).with_context(|| contender.name.clone())?;
        println!("{run}  {}", contender.name);
        old.check(&contender.name)?;
        put_away(&lab, &contender.dir)?;
        rows[at].runs.push(run);
        Ok(())
    })?;
    println!(
        "\n{what}, 1 percent differs ({:?}), medians of {} rounds; {machine}.\n\n{}",
        arguments.differ,
        arguments.rounds,
        report::table(&rows)
    );
    Ok(())
}

fn contenders(mut make: Contenders<'_>) -> Result<Vec<Contender>> {
    Ok(vec![
        make.ours("repmgr-rs -F --delta", NEAR, &["-F", "--delta"])?,
        make.ours("repmgr-rs -F --delta=checksum", NEAR, &["-F", "--delta=checksum"])?,
        make.ours("repmgr-rs -F", NEAR, &["-F"])?,
        make.original(&["-F"])?,
        make.pgbackrest(&["--delta"])?,
        make.rsync(&[])?,
        make.rsync(&["--checksum"])?,
    ])
}

/// The standby before it is rebuilt, and what it has to be again.
struct Old {
    dir: PathBuf,
    /// As it was cloned.
    pristine: PathBuf,
    /// After it ran and was stopped, where it can run.
    used: PathBuf,
}

impl Old {
    fn make(lab: &Lab, contender: &Contender) -> Result<Self> {
        let dir = contender.dir.clone();
        let old = Self {
            pristine: dir.with_extension("pristine"),
            used: dir.with_extension("used"),
            dir,
        };
        lab.scratch().dir(old.dir.join("data"))?;
        lab.scratch().dir(old.dir.join("tablespaces"))?;
        let mut command = lab.scratch().command(&contender.command[0]);
        check(command.args(&contender.command[1..]), LIMIT).with_context(|| contender.name.clone())?;
        copy(lab, &old.dir, &old.pristine)?;
        if let Some(target) = &contender.target {
            lab.start_standby(target)?.stop(StopMode::Fast)?;
        }
        fs::rename(&old.dir, &old.used)?;
        Ok(old)
    }

    /// A copy with something different in it, on a file system that has nothing to write.
    fn put_back(&self, lab: &Lab, differ: Differ) -> Result<()> {
        copy(lab, &self.used, &self.dir)?;
        let files = self.relations()?;
        let all: u64 = files.iter().map(|(_, size)| size).sum();
        let mut left = all / 100;
        for (path, size) in &files {
            let pages = match differ {
                Differ::Pages => (0..size / PAGE as u64).step_by(100),
                Differ::Files if left >= *size => (0..size / PAGE as u64).step_by(1),
                Differ::Files => continue,
            };
            left = left.saturating_sub(*size);
            let file = File::options().read(true).write(true).open(self.dir.join(path))?;
            let mut page = [0; PAGE];
            for number in pages {
                file.read_exact_at(&mut page, number * PAGE as u64)?;
                page.iter_mut().for_each(|byte| *byte = !*byte);
                file.write_all_at(&page, number * PAGE as u64)?;
            }
        }
        check(std::process::Command::new("sync").arg("-f").arg(&self.dir), LIMIT).map(drop)
    }

    /// Paths and sizes of files with more than a page, in a mixed order that is always the same.
    fn relations(&self) -> Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        data::walk(&self.pristine, &mut |path, size| {
            let below = path.strip_prefix(&self.pristine)?;
            let text = below.to_string_lossy();
            if ["/base/", "/PG_"].iter().any(|dir| text.contains(dir)) && size > PAGE as u64 {
                files.push((below.to_owned(), size));
            }
            Ok(())
        })?;
        files.sort_by_key(|(path, size)| (size % 1009, path.clone()));
        Ok(files)
    }

    /// That all is again as it was.
    fn check(&self, name: &str) -> Result<()> {
        for (path, _) in self.relations()? {
            if fs::read(self.pristine.join(&path))? != fs::read(self.dir.join(&path))? {
                bail!("{name}: \"{}\" differs", path.display());
            }
        }
        Ok(())
    }
}

fn copy(lab: &Lab, from: &Path, to: &Path) -> Result<()> {
    check(lab.scratch().command("cp").arg("-a").arg(from).arg(to), LIMIT).map(drop)
}
