//! The lab of all trials, the kinds of clones, and what must be true after each.

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use repmgr_lab::{BackupMethod, Lab, PrimaryOptions, ServerOptions, StopMode, Tablespace, Target};
use repmgr_tests::{Running, assert_cannot_start, assert_standby, clone, node, output};

use crate::random::Random;

/// One way to clone, and the node that is cloned so.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) target: Target,
    pub(crate) more: Vec<String>,
    /// Whether an old instance is replaced.
    replaces: bool,
    has_slot: bool,
    /// How long a clone takes that nobody disturbs.
    pub(crate) usual: Cell<Duration>,
}

impl Kind {
    pub(crate) fn more(&self) -> Vec<&str> {
        self.more.iter().map(String::as_str).collect()
    }

    fn control(&self) -> bool {
        self.target.data_dir.join("global/pg_control").exists()
    }

    fn mark(&self) -> std::path::PathBuf {
        self.target.data_dir.join("base/1/torture_mark")
    }
}

pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) kinds: Vec<Kind>,
}

impl Stage {
    pub(crate) fn build() -> Result<Self> {
        let options = PrimaryOptions {
            rows: 20_000,
            checksums: true,
            ..PrimaryOptions::default()
        };
        let lab = Lab::builder()
            .primary(options)
            .tablespaces([Tablespace::from("fast"), Tablespace::empty("void")])
            .build()?;
        let mut packed = ServerOptions::new("packed", BackupMethod::Postgres);
        packed.conf.push("backup_compression = gzip".to_owned());
        lab.add_server(&packed)?;
        crate::hostile::install(&lab)?;
        let mut stage = Self {
            lab,
            kinds: Vec::new(),
        };
        let slots = ("use_replication_slots", "true");
        let wal = format!("'--waldir={}'", stage.lab.scratch().join("torture_wal").display());
        stage.add(
            "plain",
            &[slots, ("pg_basebackup_options", wal.trim_matches('\''))],
            &[],
            false,
        );
        stage.add("packed", &[("barman_server", "packed"), slots], &[], false);
        stage.add("local", &[("barman_host", "local:")], &[], false);
        stage.add("force", &[slots], &["-F"], true);
        stage.add("delta", &[], &["-F", "--delta"], true);
        stage.add(
            "basebackup",
            &[slots],
            &["--without-barman", "--fast-checkpoint"],
            false,
        );
        Ok(stage)
    }

    fn add(&mut self, name: &'static str, settings: &[(&str, &str)], more: &[&str], replaces: bool) {
        self.kinds.push(Kind {
            name,
            target: node(&self.lab, settings),
            more: more.iter().map(|word| (*word).to_owned()).collect(),
            replaces,
            has_slot: settings.iter().any(|(key, _)| *key == "use_replication_slots"),
            usual: Cell::default(),
        });
    }

    pub(crate) fn any(&self, random: &mut Random) -> &Kind {
        &self.kinds[random.below(self.kinds.len() as u64) as usize]
    }

    /// Nothing, or an old instance of which it can be seen whether it was touched.
    ///
    /// The first time it is cloned without a disturbance, to see how long that takes.
    pub(crate) fn prepare(&self, kind: &Kind) -> Result<()> {
        if kind.usual.get().is_zero() {
            let begun = Instant::now();
            clone(&self.lab, &kind.target, &kind.more()).success();
            kind.usual.set(begun.elapsed());
            self.assert_right(kind)?;
        }
        if kind.replaces {
            if !kind.control() {
                clone(&self.lab, &kind.target, &kind.more()).success();
            }
            fs::write(kind.mark(), "")?;
            // The old standby's would stay, for it was not this clone that made it.
            return self.drop_slot(kind);
        }
        self.remove(kind)
    }

    fn remove(&self, kind: &Kind) -> Result<()> {
        let parent = kind.target.data_dir.parent().context("a target has a parent")?;
        for dir in [
            kind.target.data_dir.clone(),
            parent.join("tablespaces"),
            self.lab.scratch().join("torture_wal"),
        ] {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        self.drop_slot(kind)
    }

    /// After a trial that failed: the next shall not fail for it.
    pub(crate) fn start_over(&self) {
        for kind in &self.kinds {
            if let Err(error) = self
                .lab
                .instance(&kind.target)
                .stop(StopMode::Immediate)
                .and_then(|()| self.remove(kind))
            {
                println!("cannot clear {}: {error:#}", kind.name);
            }
        }
    }

    fn slot(kind: &Kind) -> String {
        format!("repmgr_slot_{}", kind.target.node_id)
    }

    fn slots(&self, kind: &Kind) -> Result<String> {
        let slot = Self::slot(kind);
        self.lab.primary().sql(&format!(
            "select count(*) from pg_replication_slots where slot_name = '{slot}'"
        ))
    }

    fn drop_slot(&self, kind: &Kind) -> Result<()> {
        let slot = Self::slot(kind);
        let primary = self.lab.primary();
        let inactive =
            format!("select count(*) from pg_replication_slots where slot_name = '{slot}' and active");
        primary.wait_for(&inactive, "0", repmgr_tests::LIMIT)?;
        primary
            .sql(&format!(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{slot}'"
            ))
            .map(drop)
    }

    /// Judges what a run left, completes it, and judges again.
    ///
    /// `asked` says that the program could clean up after itself.
    pub(crate) fn judge(&self, kind: &Kind, ended: ExitStatus, said: &str, asked: bool) -> Result<String> {
        let outcome = if ended.success() {
            ensure!(kind.control(), "exit 0 and no pg_control:\n{said}");
            "complete"
        } else if !kind.control() {
            assert_cannot_start(&self.lab, &kind.target);
            if asked {
                let begun = Instant::now();
                while self.slots(kind)? != "0" {
                    ensure!(
                        begun.elapsed() < Duration::from_secs(5),
                        "a slot is left:\n{said}"
                    );
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            "unfinished, completed"
        } else if kind.replaces && kind.mark().exists() {
            "untouched, completed"
        } else {
            self.whole_but_not_told(kind, said, asked)?
        };
        if !ended.success() && !outcome.starts_with("whole") {
            let again = clone(&self.lab, &kind.target, &kind.more());
            ensure!(
                again.get_output().status.success(),
                "the same command does not complete.\nfirst:\n{said}\nthen:\n{}",
                output(&again)
            );
        }
        if said.contains("its working files could not be removed") {
            // Done as the hint says.
            let named = said.split_once("PostgreSQL does not need \"");
            let (left, _) = named
                .and_then(|(_, rest)| rest.split_once('"'))
                .with_context(|| format!("nothing says what to do with what is left:\n{said}"))?;
            let left = Path::new(left);
            ensure!(
                left.starts_with(&kind.target.data_dir),
                "that is not ours:\n{said}"
            );
            if left.exists() {
                fs::remove_dir_all(left)?;
            }
        }
        self.assert_right(kind).with_context(|| said.to_owned())?;
        Ok(outcome.to_owned())
    }

    /// Between the moment at which pg_control has its place and the end of the program there is time to be killed
    /// in, or to fail: then it must say that the directory is whole.
    fn whole_but_not_told(&self, kind: &Kind, said: &str, asked: bool) -> Result<&'static str> {
        ensure!(
            !asked || said.contains("HINT: ") || said.contains("complete"),
            "pg_control is there after an error that does not say what to do:\n{said}"
        );
        if kind.has_slot && self.slots(kind)? == "0" {
            bail!("the directory is whole and its slot is not there:\n{said}");
        }
        Ok("whole, killed before its end")
    }

    /// It streams, holds equal data, has its slot, and nothing of the clone is left.
    fn assert_right(&self, kind: &Kind) -> Result<()> {
        let standby = assert_standby(&self.lab, &kind.target);
        ensure!(
            self.slots(kind)? == if kind.has_slot { "1" } else { "0" },
            "{} slots of {}",
            self.slots(kind)?,
            kind.name
        );
        standby.stop(StopMode::Fast)?;
        let parent = kind.target.data_dir.parent().context("a target has a parent")?;
        let mut left = Vec::new();
        leftovers(parent, &mut left)?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }

    pub(crate) fn run(&self, kind: &Kind) -> Result<Running> {
        Running::clone(&self.lab, &kind.target, &kind.more())
    }

    /// Without compression: tar's output is an archive that can be changed within.
    pub(crate) fn run_plain(&self, kind: &Kind) -> Result<Running> {
        let mut words = kind.more();
        words.push("--compress=none");
        Running::clone(&self.lab, &kind.target, &words)
    }
}

/// Files that only a clone at work has.
fn leftovers(dir: &Path, left: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours =
            name.starts_with(".repmgr") || ["clone.lock", "clone.json", "memo.json"].contains(&name.as_str());
        if is_ours {
            left.push(entry.path().display().to_string());
        }
        if entry.file_type()?.is_dir() {
            leftovers(&entry.path(), left)?;
        }
    }
    Ok(())
}
