//! Where the original repmgr is.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::app::find_configuration;
use crate::failure::Failure;

use super::scan::Scan;

/// Names the original, or says `none`. An environment variable, as the original would warn of a parameter of
/// `repmgr.conf` that it does not know each time it is called.
pub(super) const SETTING: &str = "REPMGR_ORIGINAL";
const NAME: &str = "repmgr";
/// Debian's places and those of the PGDG packages for Red Hat: parent, what stands before the major version,
/// and what comes behind it.
const PLACES: &[(&str, &str)] = &[("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];
/// Debian's script that starts the program of the cluster at hand.
const WRAPPER: &str = "pg_wrapper";
/// Stands in each copy of this program, and therefore tells them.
const OURS: &[u8] = b"this is repmgr-rs, which hands other commands over";
/// No repmgr is larger.
const MOST_BYTES: u64 = 1 << 30;

/// The original, ready to be started.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Original {
    pub(super) path: PathBuf,
    /// It may start anything.
    pub(super) is_script: bool,
}

/// Where to look, in this order.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// Named by the user: this one or none.
    named: Option<PathBuf>,
    /// Where the configuration, the PATH and packages have it.
    candidates: Vec<PathBuf>,
    /// Switched off.
    off: bool,
    us: Option<(u64, u64)>,
}

/// What a file turns out to be.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Original(Original),
    /// This program, or another copy of it.
    Ours,
    /// Nothing that can be started.
    Missing,
}

impl Lookup {
    pub(super) fn new(scan: &Scan) -> Result<Self, Failure> {
        let us = fs::metadata("/proc/self/exe").ok().map(|us| (us.dev(), us.ino()));
        let named = env::var_os(SETTING).filter(|value| !value.is_empty());
        let mut lookup = Self {
            us,
            ..Self::default()
        };
        match named {
            Some(none) if none == "none" => lookup.off = true,
            Some(path) => lookup.named = Some(path.into()),
            None => lookup.candidates = candidates(scan, env::var_os("PATH").as_deref()),
        }
        Ok(lookup)
    }

    /// # Errors
    /// The user names one that is not there, or is ours.
    pub(super) fn find(&self) -> Result<Option<Original>, Failure> {
        if let Some(named) = &self.named {
            return match self.kind(named) {
                Kind::Original(original) => Ok(Some(original)),
                Kind::Ours => Err(wrong_name(
                    named,
                    "it is this program itself, or another copy of it",
                )),
                Kind::Missing => Err(wrong_name(named, "there is no program of that name")),
            };
        }
        let found = self.candidates.iter().find_map(|path| match self.kind(path) {
            Kind::Original(original) => Some(original),
            Kind::Ours | Kind::Missing => None,
        });
        Ok(found)
    }

    fn kind(&self, path: &Path) -> Kind {
        let Ok(file) = open_program(path) else {
            return Kind::Missing;
        };
        let Ok(meta) = file.metadata() else {
            return Kind::Missing;
        };
        if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
            return Kind::Missing;
        }
        if self.us == Some((meta.dev(), meta.ino())) {
            return Kind::Ours;
        }
        let mut head = [0; 2];
        let is_script = (&file).read_exact(&mut head).is_ok() && &head == b"#!";
        // The wrapper's own programs are looked at where it finds them.
        if is_script && is_wrapper(path) {
            return self.behind_the_wrapper(path);
        }
        match !is_script && contains(file, OURS) {
            true => Kind::Ours,
            false => Kind::Original(Original {
                path: path.to_owned(),
                is_script,
            }),
        }
    }

    /// Debian's wrapper leads to the original if none of the programs it may choose is ours.
    fn behind_the_wrapper(&self, path: &Path) -> Kind {
        let kinds: Vec<Kind> = by_version(PLACES[0]).iter().map(|path| self.kind(path)).collect();
        if kinds.contains(&Kind::Ours) {
            return Kind::Ours;
        }
        match kinds.iter().any(|kind| matches!(kind, Kind::Original(_))) {
            true => Kind::Original(Original {
                path: path.to_owned(),
                is_script: false,
            }),
            false => Kind::Missing,
        }
    }

    /// That there is none, and where it would come from.
    pub(super) fn missing(&self, command: &str) -> Failure {
        let text =
            format!("\"repmgr {command}\" is done by the original repmgr, which was not found on this host");
        if self.off {
            let hint = format!("unset the environment variable {SETTING}, which says that there is none");
            return Failure::NoOriginal {
                text,
                detail: None,
                hint,
            };
        }
        let looked = self
            .candidates
            .iter()
            .map(|path| format!("\"{}\"", path.display()));
        let detail = format!("looked for {}", looked.collect::<Vec<_>>().join(", "));
        let hint = format!("{}; or name it in the environment variable {SETTING}", package());
        Failure::NoOriginal {
            text,
            detail: Some(detail),
            hint,
        }
    }
}

fn wrong_name(path: &Path, why: &str) -> Failure {
    Failure::NoOriginal {
        text: format!(
            "{SETTING}=\"{}\" does not name the original repmgr",
            path.display()
        ),
        detail: Some(why.to_owned()),
        hint: format!("set the environment variable {SETTING} to the original repmgr, or unset it"),
    }
}

/// What the configuration names, then what would run if we were not there, then where packages put it.
fn candidates(scan: &Scan, path: Option<&OsStr>) -> Vec<PathBuf> {
    let (repmgr_bindir, pg_bindir) = configured(scan.config_file.as_deref());
    let configured = [repmgr_bindir, scan.pg_bindir.clone().or(pg_bindir)];
    let mut all: Vec<PathBuf> = configured.into_iter().flatten().collect();
    // As a shell: an empty entry is the working directory, from where we start nothing.
    let path = path.map_or_else(Vec::new, |path| env::split_paths(path).collect());
    all.extend(path.into_iter().filter(|dir| dir.is_absolute()));
    all = all.into_iter().map(|dir| dir.join(NAME)).collect();
    all.extend(PLACES.iter().flat_map(|place| by_version(*place)));
    let mut seen = Vec::new();
    all.retain(|path| {
        !seen.contains(path) && {
            seen.push(path.clone());
            true
        }
    });
    all
}

/// `repmgr_bindir` and `pg_bindir`. A file that cannot be read is for the original to complain of.
fn configured(explicit: Option<&Path>) -> (Option<PathBuf>, Option<PathBuf>) {
    let loaded = find_configuration(explicit)
        .ok()
        .flatten()
        .and_then(|path| repmgr_config::load(&path).ok());
    let settings = loaded.map(|loaded| loaded.settings).unwrap_or_default();
    (settings.repmgr_bindir, settings.pg_bindir)
}

/// The programs of every installed PostgreSQL, the newest first.
fn by_version((parent, before): (&str, &str)) -> Vec<PathBuf> {
    let names = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    let mut versions: Vec<u32> = names.filter_map(|name| version(&name, before)).collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    let path = |version| Path::new(parent).join(format!("{before}{version}/bin/{NAME}"));
    versions.into_iter().map(path).collect()
}

fn version(name: &OsString, before: &str) -> Option<u32> {
    name.to_str()?.strip_prefix(before)?.parse().ok()
}

/// Never blocks, whatever the file is.
fn open_program(path: &Path) -> std::io::Result<File> {
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(nonblock)
        .open(path)
}

fn is_wrapper(path: &Path) -> bool {
    path.canonicalize()
        .is_ok_and(|real| real.file_name() == Some(OsStr::new(WRAPPER)))
}

/// Whether `needle` is in the file.
fn contains(file: File, needle: &[u8]) -> bool {
    let mut reader = file.take(MOST_BYTES);
    let mut buffer = vec![0; 1 << 18];
    let mut kept = 0;
    loop {
        let Ok(read) = reader.read(&mut buffer[kept..]) else {
            return false;
        };
        if read == 0 {
            return false;
        }
        let end = kept + read;
        if position(&buffer[..end], needle) {
            return true;
        }
        kept = end.min(needle.len() - 1);
        buffer.copy_within(end - kept..end, 0);
    }
}

fn position(haystack: &[u8], needle: &[u8]) -> bool {
    let first = needle[0];
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// Which package has it, by what is installed here.
fn package() -> String {
    let newest = |place: (&str, &str)| {
        by_version(place).first().and_then(|path| {
            let version = path.ancestors().nth(2)?.file_name()?.to_str()?;
            Some(version.strip_prefix(place.1)?.to_owned())
        })
    };
    match (newest(PLACES[1]), newest(PLACES[0])) {
        (Some(version), _) => format!("install it with \"dnf install repmgr_{version}\""),
        (None, Some(version)) => format!("install it with \"apt-get install postgresql-{version}-repmgr\""),
        (None, None) => {
            "install the package postgresql-VERSION-repmgr (Debian, Ubuntu) or repmgr_VERSION (PGDG, for Red \
                         Hat), with PostgreSQL's major version for VERSION"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_across_the_edges_of_what_is_read() {
        for before in [0, (1 << 18) - 10, 1 << 18, 300_000] {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(
                &mut file,
                &[vec![b't'; before], OURS.to_vec(), vec![0; 5]].concat(),
            )
            .unwrap();
            std::io::Seek::rewind(&mut file).unwrap();
            assert!(contains(file, OURS), "{before}");
        }
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &vec![b't'; 600_000]).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        assert!(!contains(file, OURS));
    }

    #[test]
    fn the_newest_version_is_first_and_other_names_are_none() {
        let root = tempfile::TempDir::new().unwrap();
        for name in ["pgsql-9", "pgsql-15", "pgsql-x", "lib"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let found = by_version((root.path().to_str().unwrap(), "pgsql-"));
        assert_eq!(
            found,
            ["pgsql-15", "pgsql-9"].map(|name| root.path().join(name).join("bin/repmgr"))
        );
    }

    #[test]
    fn the_working_directory_is_no_place_to_look_in() {
        let scan = Scan {
            config_file: Some("/nonexistent/repmgr.conf".into()),
            pg_bindir: Some("/b".into()),
            ..Scan::default()
        };
        let found = candidates(&scan, Some(OsStr::new("relative::/p:/b")));
        assert_eq!(
            found[..2],
            [PathBuf::from("/b/repmgr"), PathBuf::from("/p/repmgr")]
        );
    }
}
