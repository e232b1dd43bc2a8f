//! One program's turn at a scenario, and all that can be seen of it afterwards.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use assert_cmd::assert::Assert;
use repmgr_lab::{Lab, Target, check, original_repmgr, tool};
use repmgr_tests::{run, said};

use crate::words::{digest, in_units, is_progress, is_written, replace_word, stable, without_backup_id};

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// Debian's repmgr 5.3.3.
    Original,
    /// The one under test.
    Ours,
}

/// The original, of the version that the tables of differences are about.
fn original() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let program = original_repmgr().expect("the package repmgr is installed");
        let said = check(tool(&program).arg("--version"), repmgr_tests::LIMIT).unwrap();
        assert_eq!(said.trim(), "repmgr 5.3.3", "{}", program.display());
        program
    })
}

/// What there is to compare of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// All of them come from one backup: list, modes, times and content.
    Content,
    /// Each program copies a server at work: list and modes.
    Names,
}

/// A program and the node it is to make.
pub(crate) struct Trial<'l> {
    /// Where.
    pub(crate) lab: &'l Lab,
    /// The same for both programs, and as new for each.
    pub(crate) target: Target,
    /// Which.
    pub(crate) program: Program,
    notes: RefCell<Vec<String>>,
}

impl<'l> Trial<'l> {
    /// Leaves `target` as it is.
    pub(crate) fn as_it_is(lab: &'l Lab, target: &Target, program: Program) -> Self {
        let trial = Self {
            lab,
            target: target.clone(),
            program,
            notes: RefCell::default(),
        };
        for dir in ["tmp", "cwd", "outside"] {
            lab.scratch().dir(trial.dir().join(dir)).unwrap();
        }
        trial
    }

    /// Makes `target` as new: no files but `conf`, no records, no slot.
    pub(crate) fn new(lab: &'l Lab, target: &Target, conf: &str, program: Program) -> Self {
        // For the first there is nothing to remove.
        let dir = lab.scratch().join(format!("node{}", target.node_id));
        let _ = fs::remove_dir_all(dir);
        lab.scratch().write(&target.conf, conf, 0o600).unwrap();
        let trial = Self::as_it_is(lab, target, program);
        let id = target.node_id;
        lab.primary()
            .sql(&format!(
                "delete from repmgr.events where node_id = {id}; delete from repmgr.nodes where node_id = {id}; \
                 select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = \
                 'repmgr_slot_{id}'"
            ))
            .unwrap();
        trial
    }

    /// The directory that holds everything of this node.
    pub(crate) fn dir(&self) -> PathBuf {
        self.lab.scratch().join(format!("node{}", self.target.node_id))
    }

    /// The program without an argument, in a working directory and with a TMPDIR of its own.
    pub(crate) fn repmgr(&self) -> Command {
        let mut command = match self.program {
            Program::Ours => {
                // What is handed over is the original's, and compared with itself.
                let mut ours = self.lab.repmgr().unwrap();
                ours.env("REPMGR_ORIGINAL", "none");
                ours
            }
            Program::Original => self.lab.scratch().command(original()),
        };
        let cwd = self.dir().join("cwd");
        command
            .current_dir(&cwd)
            .env("PWD", &cwd)
            .env("TMPDIR", self.dir().join("tmp"));
        command
    }

    /// `repmgr -f CONF …`.
    pub(crate) fn configured(&self, arguments: &[&str]) -> Assert {
        run(self.repmgr().arg("-f").arg(&self.target.conf).args(arguments))
    }

    /// `repmgr -f CONF -h HOST -p PORT -U repmgr -d repmgr standby clone MORE`.
    pub(crate) fn clone(&self, more: &[&str]) -> Assert {
        run(&mut self.clone_command(more))
    }

    /// The same, to be changed before it is run.
    pub(crate) fn clone_command(&self, more: &[&str]) -> Command {
        let mut command = self.repmgr();
        let port = self.lab.primary().port().to_string();
        command
            .arg("-f")
            .arg(&self.target.conf)
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "repmgr", "-d", "repmgr"])
            .args(["standby", "clone"])
            .args(more);
        command
    }

    /// Adds to repmgr.conf, for this turn.
    pub(crate) fn configure(&self, lines: &str) {
        let text = fs::read_to_string(&self.target.conf).unwrap();
        self.lab
            .scratch()
            .write(&self.target.conf, &(text + lines), 0o600)
            .unwrap();
    }

    /// Something else that is to be the same.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.notes.borrow_mut().push(text.into());
    }

    /// Everything there is to see.
    pub(crate) fn observe(&self, done: &Assert, files: Files) -> Outcome {
        let output = done.get_output();
        let mut found = vec![match output.status.code() {
            Some(code) => format!("exit {code}"),
            None => format!("ended by {}", output.status),
        }];
        found.extend(self.rows());
        found.extend(self.notes.borrow().iter().map(|note| format!("note {note}")));
        self.look("data", &self.target.data_dir, files, &mut found);
        for place in ["tablespaces", "outside", "tmp", "cwd"] {
            self.look(place, &self.dir().join(place), files, &mut found);
        }
        let set: BTreeSet<String> = found.iter().map(|line| self.plain(line)).collect();
        let said = said(done);
        Outcome {
            said: said
                .iter()
                .filter(|line| !is_progress(line) && !line.is_empty())
                .map(|line| self.plain(line))
                .collect(),
            found: set.into_iter().collect(),
        }
    }

    /// Metadata and slots, as the primary has them afterwards.
    fn rows(&self) -> Vec<String> {
        let id = self.target.node_id;
        let mut rows = Vec::new();
        for (what, query) in [
            (
                "event",
                format!(
                    "select event, successful, details from repmgr.events where node_id = {id} order by \
                     event_timestamp"
                ),
            ),
            (
                "node",
                format!(
                    "select type, node_name, upstream_node_id, active, conninfo, repluser, slot_name from \
                     repmgr.nodes where node_id = {id}"
                ),
            ),
            (
                "slot",
                format!(
                    "select slot_type, restart_lsn is not null from pg_replication_slots where slot_name = \
                     'repmgr_slot_{id}'"
                ),
            ),
        ] {
            let found = self.lab.primary().sql(&query).unwrap();
            rows.extend(found.lines().map(|row| format!("{what} {row}")));
        }
        rows
    }

    fn look(&self, place: &str, root: &Path, files: Files, found: &mut Vec<String>) {
        let mut pending = vec![root.to_owned()];
        while let Some(path) = pending.pop() {
            let Ok(meta) = path.symlink_metadata() else {
                continue;
            };
            let rel = path.strip_prefix(root).unwrap();
            let name = match rel == Path::new("") {
                true => place.to_owned(),
                false => format!("{place}/{}", rel.display()),
            };
            let mode = meta.mode() & 0o7777;
            if meta.is_symlink() {
                let to = fs::read_link(&path).unwrap();
                found.push(format!("link {name} -> {}", to.display()));
            } else if meta.is_dir() {
                found.push(format!("dir {name} {mode:o}"));
                for entry in fs::read_dir(&path).unwrap() {
                    pending.push(entry.unwrap().path());
                }
            } else if let Some(name) = stable(&name) {
                let written = is_written(rel);
                found.push(match files == Files::Content && !written {
                    true => format!("file {name} {mode:o} {} {}", meta.mtime(), digest(&path)),
                    false => format!("file {name} {mode:o}"),
                });
                if written {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    let lines = text
                        .lines()
                        .filter(|line| !line.starts_with('#') && !line.is_empty());
                    found.extend(lines.map(|line| format!("in {name}: {line}")));
                }
            }
        }
    }

    /// The same words in every run.
    fn plain(&self, line: &str) -> String {
        let (id, lab) = (self.target.node_id, self.lab);
        let mut line = line.replace(&self.target.conf.display().to_string(), "CONF");
        for (place, path) in [
            ("DATA", self.target.data_dir.clone()),
            ("TABLESPACES", self.dir().join("tablespaces")),
            ("OUTSIDE", self.dir().join("outside")),
            ("NODEDIR", self.dir()),
            ("LAB", lab.scratch().path().to_owned()),
        ] {
            line = line.replace(&path.display().to_string(), place);
        }
        let primary = lab.primary();
        let words = [
            (format!("repmgr_slot_{id}"), "SLOT"),
            (format!("node{id}"), "NODE"),
            (format!("node {id}"), "node N"),
            (format!("ID: {id}"), "ID: N"),
            (primary.port().to_string(), "PRIMARY"),
            (self.target.port.to_string(), "STANDBY"),
            (lab.sshd().port().to_string(), "SSH"),
        ];
        for (word, by) in &words {
            line = replace_word(&line, word, by);
        }
        in_units(&without_backup_id(&line))
    }
}

/// What was said, in order, and what was found, sorted.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) said: Vec<String>,
    pub(crate) found: Vec<String>,
}

impl Outcome {
    /// Whether there is a data directory with PostgreSQL's files.
    pub(crate) fn is_whole(&self) -> bool {
        self.found
            .iter()
            .any(|line| line.starts_with("file data/PG_VERSION "))
    }

    /// One line for all of them, where the other program has none; what is written in them stays.
    pub(crate) fn summarize(&mut self) {
        self.found.retain(|line| {
            !["dir data/", "file data/", "link data/"]
                .iter()
                .any(|start| line.starts_with(start))
        });
        self.found.push("PostgreSQL's files in data".to_owned());
    }
}
