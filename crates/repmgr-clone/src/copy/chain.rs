//! An incremental backup: all backups of its chain are fetched, and PostgreSQL makes a whole one of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use repmgr_barman::Barman;
use repmgr_datadir::{Building, Kind, PG_CONTROL, Tree, TreeError};
use repmgr_upstream::Combination;

use crate::copy::one_backup::Fetch;
use crate::copy::reuse::Rule;
use crate::copy::tell_of_pages;
use crate::place::{Places, lasting};
use crate::request::BarmanSource;
use crate::source::backup::{Chain, Content, ServerParameters, Stored, with_session};
use crate::source::hold::Holds;
use crate::source::server::shown;
use crate::standby::configure::link_tablespace;
use crate::trees::{Trees, create_directories};
use crate::{
    BackupError, CloneError, Context, CopyEvent, CopySummary, PageChecks, Progress, Remark, RemarkCode,
};

/// Files of the backups; nobody but us looks at them.
const PRIVATE_MODE: u32 = 0o600;

/// The backups of a chain, and where the one that is made of them goes.
pub(crate) struct Combine<'a> {
    pub(crate) barman: &'a BarmanSource,
    pub(crate) chain: &'a Chain,
    pub(crate) wanted: &'a Stored,
    /// Those of the wanted backup.
    pub(crate) parameters: &'a ServerParameters,
    pub(crate) places: &'a Places,
    pub(crate) building: &'a Building,
    /// By which files of the backups that are here count as whole.
    pub(crate) rule: Rule,
}

impl Combine<'_> {
    /// Fetches each backup into a directory of its own, below the clone's state, has them combined and
    /// takes the result over; its control file, which is kept back, and the figures.
    pub(crate) fn run(
        &self,
        session: &mut Barman,
        mut holds: Holds,
        context: &Context<'_>,
    ) -> Result<(Vec<u8>, CopySummary), CloneError> {
        if self.rule != Rule::Nothing {
            let path = self.building.tree().path().to_owned();
            lasting::erasing(&path, context, |erasing| self.building.keep_only_parts(erasing))?;
        }
        let below = self.chain.below.iter().map(|below| below.load);
        let mut copied = Copied::of(below.chain([self.wanted.load(self.parameters)]));
        let mut parts = Vec::new();
        for below in &self.chain.below {
            let (stored, mut parameters) = with_session(session, &*self.barman.host, |session| {
                let stored = Stored::list(session, below.backup.clone(), context)?;
                let parameters = stored.parameters(session, &self.barman.transfer, context)?;
                Ok((stored, parameters))
            })?;
            // Archives do not say it before they are unpacked.
            parameters.pages.learn(self.parameters.pages.checksums());
            parts.push(self.fetch(&stored, &parameters, session, &mut holds, &mut copied, context)?);
        }
        let wanted = self.fetch(
            self.wanted,
            self.parameters,
            session,
            &mut holds,
            &mut copied,
            context,
        )?;
        drop(holds);
        let summary = copied.summary(self.parameters);
        tell_of_pages(&self.parameters.pages, &summary, context);
        context.tell(CopyEvent::CopyFinished {
            summary: summary.clone(),
        });
        let control = self.combine(&parts, &wanted, context)?;
        Ok((control, summary))
    }

    /// One backup, complete as it was when it was made.
    fn fetch(
        &self,
        stored: &Stored,
        parameters: &ServerParameters,
        session: &mut Barman,
        holds: &mut Holds,
        copied: &mut Copied,
        context: &Context<'_>,
    ) -> Result<Part, CloneError> {
        let part = |name: &str| self.building.part(&format!("{}/{name}", stored.backup.id));
        let tablespaces = &stored.backup.tablespaces;
        let part = Part {
            data: part("data")?,
            tablespaces: tablespaces
                .iter()
                .map(|tablespace| part(&tablespace.oid.to_string()))
                .collect::<Result<_, _>>()?,
        };
        let trees = Trees {
            data: &part.data,
            tablespaces: &part.tablespaces,
            wal: None,
        };
        if let Content::Files(files) = &stored.content {
            create_directories(files, &trees)?;
        }
        part.data.create_dir("pg_tblspc")?;
        for (tablespace, tree) in tablespaces.iter().zip(&part.tablespaces) {
            link_tablespace(&part.data, tablespace.oid, tree.path())?;
        }
        let fetch = Fetch {
            barman: self.barman,
            stored,
            parameters,
            trees: Some(&trees),
            rule: self.rule,
            base: copied.progress,
        };
        let (control, summary) = fetch.run(session, holds, context)?;
        copied.add(&summary, stored.load(parameters));
        let manifest = with_session(session, &*self.barman.host, |session| {
            stored.manifest_file(session, context)
        })?;
        stored.parse_manifest(&manifest)?;
        part.data
            .write_durable("backup_manifest", &manifest, PRIVATE_MODE)?;
        part.data.write_durable(PG_CONTROL, &control, PRIVATE_MODE)?;
        Ok(part)
    }

    fn combine(&self, below: &[Part], newest: &Part, context: &Context<'_>) -> Result<Vec<u8>, CloneError> {
        let building = self.building;
        let full = below.first().unwrap_or(newest);
        let backups = below.iter().chain([newest]);
        let places: Vec<&Path> = self
            .places
            .tablespaces
            .iter()
            .map(|place| place.dir.path())
            .collect();
        let combination = Combination {
            backups: backups.clone().map(|part| part.data.path().to_owned()).collect(),
            output: building.staging(),
            tablespace_mapping: newest
                .tablespaces
                .iter()
                .zip(&places)
                .map(|(tree, place)| (tree.path().to_owned(), (*place).to_owned()))
                .collect(),
            link: self.chain.can_link && can_link(&full.data, building.tree().path(), &places),
        };
        let program = &self.chain.program;
        context.tell(CopyEvent::Combining {
            backups: backups.count(),
            command: shown(&program.program, combination.arguments()),
        });
        let failed = |source| BackupError::combine(&self.wanted.backup, source);
        let said = program.run(&combination, context.cancel).map_err(failed)?;
        // That the backups are spoilt for a server by that matters to nobody: they are scratch files of ours.
        let said: Vec<String> = said
            .into_iter()
            .filter(|line| !(combination.link && line.contains("--link mode was used")))
            .collect();
        if !said.is_empty() {
            context.tell(
                Remark::warning(RemarkCode::CombineWarnings, "pg_combinebackup gave warnings")
                    .detail(said.join("\n")),
            );
        }
        let control = building.adopt_staged()?;
        self.wanted.check_control(&control)?;
        let data = building.tree();
        if building.permissions().group_access {
            restore_modes(&newest.data, &data)?;
        }
        for place in &self.places.tablespaces {
            // It leads there, but the program spells paths in its own way.
            data.remove(format!("pg_tblspc/{}", place.origin.oid))?;
            link_tablespace(&data, place.origin.oid, place.dir.path())?;
        }
        if self.places.wal.is_some() {
            // A link comes in its place.
            data.remove_all("pg_wal", context.cancel)?;
        }
        lasting::erasing(data.path(), context, |erasing| building.remove_parts(erasing))?;
        Ok(control)
    }
}

/// A backup of the chain here.
struct Part {
    data: Tree,
    /// In the order of the backup.
    tablespaces: Vec<Tree>,
}

/// Whether files of the backups can be linked into the data directory and all tablespaces. A device number
/// would not tell: one file system can be mounted twice.
fn can_link(full: &Tree, data: &Path, tablespaces: &[&Path]) -> bool {
    let file = full.path().join("PG_VERSION");
    let tried = |dir: &Path| {
        let probe = dir.join(".repmgr-link");
        // Left over by a run that was killed, perhaps.
        let _ = fs::remove_file(&probe);
        fs::hard_link(&file, &probe).and_then(|()| fs::remove_file(&probe))
    };
    [data].iter().chain(tablespaces).all(|dir| match tried(dir) {
        Ok(()) => true,
        Err(error) => {
            log::debug!("files are not linked: \"{}\": {error}", dir.display());
            false
        }
    })
}

/// The program lets the group read every file it copies where the cluster allows that, also a private key,
/// which PostgreSQL would refuse then.
fn restore_modes(newest: &Tree, data: &Tree) -> Result<(), TreeError> {
    newest.walk(|path, meta| {
        if meta.kind != Kind::File || meta.mode & 0o040 != 0 {
            return Ok(());
        }
        let Some(file) = data.open_file(path)? else {
            return Ok(());
        };
        file.set_permissions(fs::Permissions::from_mode(meta.mode))
            .map_err(|source| TreeError::Io {
                action: "set the mode of",
                path: data.path().join(path),
                source,
            })
    })
}

/// What was copied so far, of all.
pub(crate) struct Copied {
    pub(crate) progress: Progress,
    summary: CopySummary,
}

impl Copied {
    /// Of backups with so many files and bytes.
    pub(crate) fn of(all: impl Iterator<Item = (u64, u64)>) -> Self {
        let (files, bytes) = all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        Self {
            progress: Progress::to_do(files, bytes),
            summary: CopySummary::empty(),
        }
    }

    pub(crate) fn add(&mut self, one: &CopySummary, load: (u64, u64)) {
        let (progress, sum) = (&mut self.progress, &mut self.summary);
        progress.files_done += load.0;
        progress.bytes_done += load.1;
        progress.bytes_reused += one.reused_bytes;
        progress.wire_bytes += one.wire_bytes;
        progress.elapsed += one.elapsed;
        sum.files += one.files;
        sum.bytes += one.bytes;
        sum.reused_files += one.reused_files;
        sum.reused_bytes += one.reused_bytes;
        sum.wire_bytes += one.wire_bytes;
        sum.elapsed += one.elapsed;
        sum.jobs = sum.jobs.max(one.jobs);
        sum.retries += one.retries;
        // What is said of one backup holds for all: they are of one cluster.
        if !matches!(sum.pages, PageChecks::NotVerified { .. }) {
            sum.pages.clone_from(&one.pages);
        }
        if !one.compression.is_empty() {
            sum.compression.clone_from(&one.compression);
        }
    }

    pub(crate) fn summary(self, parameters: &ServerParameters) -> CopySummary {
        CopySummary {
            verified: parameters.verified_by(&self.summary.pages),
            ..self.summary
        }
    }
}
