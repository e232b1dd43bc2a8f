//! From configuration files to those that they refer to.

use std::collections::{HashSet, VecDeque};
use std::path::{Component, Path, PathBuf};

use repmgr_recovery::{ConfKind, Reference, references};
use repmgr_types::canonical_path;
use repmgr_upstream::{ConfigFile, ConfigRole};

use super::{ExternalFileError, Fetch, Target};
use crate::request::Placement;
use crate::{CloneError, CopyError};

/// No server has more.
pub(super) const MAX_FILES: usize = 200;

/// The host that the files lie on.
pub(super) trait SourceFiles {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, ExternalFileError>;

    fn is_there(&mut self, path: &Path) -> Result<bool, ExternalFileError>;

    /// The names of the files in a directory that PostgreSQL reads, in its order.
    fn list(&mut self, dir: &Path) -> Result<Vec<String>, ExternalFileError>;
}

pub(super) struct Search<'a> {
    pub(super) files: &'a mut dyn SourceFiles,
    pub(super) placement: Placement,
    /// The source's.
    pub(super) data_dir: &'a Path,
    /// Whether the standby has its own under the same path.
    pub(super) same_data_dir: bool,
}

/// A file to be read.
#[derive(Debug)]
struct Wanted {
    path: PathBuf,
    kind: ConfKind,
    target: Target,
}

/// Which is not read, and why.
struct Refused {
    path: PathBuf,
    source: ExternalFileError,
}

impl From<Refused> for CloneError {
    fn from(Refused { path, source }: Refused) -> Self {
        CopyError::ExternalFile { path, source }.into()
    }
}

impl Search<'_> {
    /// All of these files that are outside the data directory, and what they refer to.
    pub(super) fn run(mut self, files: &[ConfigFile]) -> Result<Vec<Fetch>, CloneError> {
        let outside = || files.iter().filter(|file| !file.in_data_directory);
        let mut waiting = VecDeque::new();
        for file in outside().filter(|file| file.role != ConfigRole::Included) {
            waiting.push_back(self.root(file));
        }
        let mut found = self.follow(waiting, Vec::new())?;
        // What only files in the data directory include, which name it by this path.
        let by = |found: &[Fetch], file: &ConfigFile| found.iter().any(|known| known.path == file.path);
        let missed: Vec<_> = outside().filter(|file| !by(&found, file)).collect();
        if let (Placement::DataDirectory, Some(file)) = (self.placement, missed.first()) {
            return Err(self.elsewhere(file.path.clone(), self.data_dir).into());
        }
        let missed = missed.into_iter().map(|file| self.root(file)).collect();
        found = self.follow(missed, found)?;
        Ok(found)
    }

    fn root(&self, file: &ConfigFile) -> Wanted {
        Wanted {
            path: file.path.clone(),
            kind: match file.role {
                ConfigRole::Main | ConfigRole::Included => ConfKind::Settings,
                ConfigRole::Rules => ConfKind::Rules,
            },
            target: match self.placement {
                Placement::SamePath => Target::At(file.path.clone()),
                Placement::DataDirectory => Target::Within(file.name.clone().into()),
            },
        }
    }

    fn follow(
        &mut self,
        mut waiting: VecDeque<Wanted>,
        mut found: Vec<Fetch>,
    ) -> Result<Vec<Fetch>, Refused> {
        let mut seen: HashSet<PathBuf> = found.iter().map(|file| file.path.clone()).collect();
        while let Some(wanted) = waiting.pop_front() {
            if !seen.insert(wanted.path.clone()) {
                continue;
            }
            let file = self.fetch(&wanted, &found).map_err(|source| Refused {
                path: wanted.path.clone(),
                source,
            })?;
            for reference in references(wanted.kind, &file.content) {
                waiting.extend(self.referred(&wanted, reference)?);
            }
            found.push(file);
        }
        Ok(found)
    }

    fn fetch(&mut self, wanted: &Wanted, found: &[Fetch]) -> Result<Fetch, ExternalFileError> {
        if found.len() >= MAX_FILES {
            return Err(ExternalFileError::TooMany);
        }
        if found.iter().any(|other| other.target == wanted.target) {
            return Err(ExternalFileError::Twice);
        }
        Ok(Fetch {
            path: wanted.path.clone(),
            target: wanted.target.clone(),
            content: self.files.read(&wanted.path)?,
        })
    }

    /// The files to which a line of `by` refers, those outside the data directory.
    fn referred(&mut self, by: &Wanted, reference: Reference) -> Result<Vec<Wanted>, Refused> {
        let (name, kind) = match &reference {
            Reference::Names(name) => (name, ConfKind::Names),
            Reference::File { name, .. } | Reference::Directory(name) => (name, by.kind),
        };
        let path = beside(&by.path, Path::new(name));
        if path.starts_with(self.data_dir) {
            let stays = self.same_data_dir && self.placement == Placement::SamePath;
            return if stays {
                Ok(Vec::new())
            } else {
                Err(self.elsewhere(path, &by.path))
            };
        }
        let names = self.names(&path, &reference).map_err(|source| Refused {
            path: path.clone(),
            source,
        })?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let target = self.target(by, Path::new(name));
        let target = target.ok_or_else(|| self.elsewhere(path.clone(), &by.path))?;
        let wanted = |name: String| Wanted {
            path: joined(&path, &name),
            kind,
            target: match &target {
                Target::At(path) => Target::At(joined(path, &name)),
                Target::Within(rel) => Target::Within(joined(rel, &name)),
            },
        };
        Ok(names.into_iter().map(wanted).collect())
    }

    /// What is to be read there: names in a directory, or an empty one for the file itself.
    fn names(&mut self, path: &Path, reference: &Reference) -> Result<Vec<String>, ExternalFileError> {
        let itself = vec![String::new()];
        match reference {
            Reference::Directory(_) => self.files.list(path),
            Reference::File { optional: true, .. } if !self.files.is_there(path)? => Ok(Vec::new()),
            Reference::File { .. } | Reference::Names(_) => Ok(itself),
        }
    }

    /// Where a file must be here to be found by that name from the place of `by`.
    fn target(&self, by: &Wanted, name: &Path) -> Option<Target> {
        match &by.target {
            Target::At(path) => Some(Target::At(beside(path, name))),
            Target::Within(rel) => {
                let is_plain = name
                    .components()
                    .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
                let rel = beside(rel, name);
                (is_plain && !is_taken(&rel)).then_some(Target::Within(rel))
            }
        }
    }

    fn elsewhere(&self, path: PathBuf, by: &Path) -> Refused {
        let source = ExternalFileError::Elsewhere { by: by.to_owned() };
        Refused { path, source }
    }
}

fn joined(path: &Path, name: &str) -> PathBuf {
    if name.is_empty() {
        path.to_owned()
    } else {
        path.join(name)
    }
}

/// What `name` means in the file `from`.
fn beside(from: &Path, name: &Path) -> PathBuf {
    canonical_path(&from.with_file_name("").join(name))
}

/// Whether a path below the data directory is PostgreSQL's own, or ours.
fn is_taken(rel: &Path) -> bool {
    let first = rel
        .components()
        .next()
        .map(|part| part.as_os_str().to_string_lossy().into_owned());
    let first = first.unwrap_or_default();
    let is_directory = rel.components().count() > 1;
    match &*first {
        "base" | "global" | "repmgr" => is_directory,
        "PG_VERSION" | "postgresql.auto.conf" | "backup_label" | "tablespace_map" | "backup_manifest" => true,
        other => other.ends_with(".signal") || (is_directory && other.starts_with("pg_")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Default)]
    struct Fake(BTreeMap<&'static str, &'static str>);

    impl SourceFiles for Fake {
        fn read(&mut self, path: &Path) -> Result<Vec<u8>, ExternalFileError> {
            let content = self.0.get(path.to_str().unwrap());
            let missing = || ExternalFileError::Unreadable {
                host: "source".to_owned(),
                message: "No such file".to_owned(),
            };
            content.map(|text| text.as_bytes().to_vec()).ok_or_else(missing)
        }

        fn is_there(&mut self, path: &Path) -> Result<bool, ExternalFileError> {
            Ok(self.0.contains_key(path.to_str().unwrap()))
        }

        fn list(&mut self, dir: &Path) -> Result<Vec<String>, ExternalFileError> {
            let paths = self
                .0
                .keys()
                .map(Path::new)
                .filter(|path| path.parent() == Some(dir));
            Ok(paths
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
                .collect())
        }
    }

    fn file(path: &str, role: ConfigRole) -> ConfigFile {
        ConfigFile {
            name: path.rsplit('/').next().unwrap().to_owned(),
            in_data_directory: path.starts_with("/data/"),
            path: path.into(),
            role,
        }
    }

    /// What is copied, from where to where; or which file is refused, and why.
    fn search(
        placement: Placement,
        files: &[(&'static str, &'static str)],
    ) -> Result<Vec<(String, String)>, String> {
        let known = [
            file("/etc/pg/postgresql.conf", ConfigRole::Main),
            file("/etc/pg/pg_hba.conf", ConfigRole::Rules),
        ];
        search_from(&known, placement, files)
    }

    fn search_from(
        known: &[ConfigFile],
        placement: Placement,
        files: &[(&'static str, &'static str)],
    ) -> Result<Vec<(String, String)>, String> {
        let mut fake = Fake(BTreeMap::from([
            ("/etc/pg/postgresql.conf", ""),
            ("/etc/pg/pg_hba.conf", ""),
        ]));
        fake.0.extend(files.iter().copied());
        let search = Search {
            files: &mut fake,
            placement,
            data_dir: Path::new("/data"),
            same_data_dir: false,
        };
        let found = search
            .run(known)
            .map_err(|error| format!("{error}: {}", error.detail().unwrap_or_default()))?;
        let shown = |file: Fetch| {
            let (Target::At(target) | Target::Within(target)) = file.target;
            (file.path.display().to_string(), target.display().to_string())
        };
        Ok(found.into_iter().map(shown).collect())
    }

    fn targets(found: Result<Vec<(String, String)>, String>) -> Vec<String> {
        found.unwrap().into_iter().map(|(_, target)| target).collect()
    }

    const NESTED: [(&str, &str); 6] = [
        (
            "/etc/pg/postgresql.conf",
            "include_dir 'conf.d'\ninclude_if_exists 'none.conf'\n",
        ),
        ("/etc/pg/conf.d/10.conf", "include 'more/a.conf'\n"),
        ("/etc/pg/conf.d/20.conf", "work_mem = '1MB'\n"),
        ("/etc/pg/conf.d/more/a.conf", "include '../20.conf'\n"),
        ("/etc/pg/pg_hba.conf", "local @dbs all peer\n"),
        ("/etc/pg/dbs", "one two @dbs\n"),
    ];

    #[test]
    fn what_is_included_goes_to_its_own_path() {
        let mut found = targets(search(Placement::SamePath, &NESTED));
        found.sort();
        let mut expected: Vec<&str> = NESTED.iter().map(|(path, _)| *path).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_included_lies_in_the_data_directory_as_it_lay() {
        let mut plain = NESTED;
        plain[3].1 = "";
        let mut found = targets(search(Placement::DataDirectory, &plain));
        found.sort();
        let mut expected: Vec<&str> = NESTED.iter().map(|(path, _)| &path["/etc/pg/".len()..]).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[track_caller]
    fn is_refused(found: Result<Vec<(String, String)>, String>, path: &str) {
        let said = found.unwrap_err();
        assert!(said.contains(path) && said.contains("another place"), "{said}");
    }

    #[test]
    fn what_the_data_directory_has_no_place_for_is_named() {
        for line in [
            "include '/etc/other.conf'",
            "include '../other.conf'",
            "include 'base/other.conf'",
        ] {
            let files = [
                ("/etc/pg/postgresql.conf", line),
                ("/etc/other.conf", ""),
                ("/etc/pg/base/other.conf", ""),
            ];
            is_refused(search(Placement::DataDirectory, &files), "other.conf");
            assert_eq!(targets(search(Placement::SamePath, &files)).len(), 3, "{line}");
        }
        let hba = [("/etc/pg/pg_hba.conf", "local all @/etc/users peer")];
        is_refused(search(Placement::DataDirectory, &hba), "/etc/users");
    }

    #[test]
    fn what_files_in_the_data_directory_include_keeps_its_path_or_is_named() {
        let known = [
            file("/data/postgresql.conf", ConfigRole::Main),
            file("/etc/extra.conf", ConfigRole::Included),
        ];
        let files = [("/etc/extra.conf", "work_mem = '1MB'")];
        is_refused(
            search_from(&known, Placement::DataDirectory, &files),
            "/etc/extra.conf",
        );
        let found = targets(search_from(&known, Placement::SamePath, &files));
        assert_eq!(found, ["/etc/extra.conf"]);
    }

    #[test]
    fn what_leads_into_another_data_directory_is_named() {
        let files = [("/etc/pg/postgresql.conf", "include '/data/own.conf'")];
        is_refused(search(Placement::SamePath, &files), "/data/own.conf");
        is_refused(search(Placement::DataDirectory, &files), "/data/own.conf");
    }

    #[test]
    fn what_is_missing_and_what_meets_is_told() {
        let missing = [("/etc/pg/postgresql.conf", "include 'none.conf'")];
        assert!(
            search(Placement::SamePath, &missing)
                .unwrap_err()
                .contains("No such file")
        );
        let known = [
            file("/etc/pg/postgresql.conf", ConfigRole::Main),
            file("/elsewhere/pg_hba.conf", ConfigRole::Rules),
            file("/etc/pg/pg_hba.conf", ConfigRole::Rules),
        ];
        let both = [("/elsewhere/pg_hba.conf", "")];
        let said = search_from(&known, Placement::DataDirectory, &both).unwrap_err();
        assert!(said.contains("another file of that name"), "{said}");
    }
}
