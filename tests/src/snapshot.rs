//! Proves that nothing was written.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Every entry below some directories: kind, mode, owner, size, inode, and the times of its last change.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// All that is in here is meant, also what comes later.
    dir: Option<PathBuf>,
    roots: Vec<PathBuf>,
    entries: BTreeMap<PathBuf, String>,
}

impl Snapshot {
    /// Looks at `roots`; one that is not there is remembered as such.
    pub fn of<P: AsRef<Path>>(roots: impl IntoIterator<Item = P>) -> Self {
        let roots: Vec<PathBuf> = roots.into_iter().map(|root| root.as_ref().to_owned()).collect();
        let mut entries = BTreeMap::new();
        for root in &roots {
            look(root, &mut entries);
        }
        Self {
            dir: None,
            roots,
            entries,
        }
    }

    /// Looks at what is in `dir`, and not at when entries were last added to or removed from `dir` itself:
    /// a clone puts a lock there, and takes it away.
    pub fn inside(dir: impl AsRef<Path>) -> Self {
        let listed = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.as_ref().display()));
        let mut whole = Self::of(listed.map(|entry| entry.unwrap().path()));
        whole.dir = Some(dir.as_ref().to_owned());
        whole
    }

    /// Fails if anything was changed, added or removed since.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        let now = match &self.dir {
            Some(dir) => Self::inside(dir),
            None => Self::of(&self.roots),
        };
        let gone = self
            .entries
            .iter()
            .filter(|(path, was)| now.entries.get(*path) != Some(was));
        let new = now
            .entries
            .iter()
            .filter(|(path, is)| self.entries.get(*path) != Some(is));
        let lines: Vec<String> = gone
            .map(|(path, was)| format!("- {} {was}", path.display()))
            .chain(new.map(|(path, is)| format!("+ {} {is}", path.display())))
            .collect();
        assert!(lines.is_empty(), "something was written:\n{}", lines.join("\n"));
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn look(path: &Path, entries: &mut BTreeMap<PathBuf, String>) {
    let Ok(meta) = fs::symlink_metadata(path) else {
        entries.insert(path.to_owned(), "(not there)".to_owned());
        return;
    };
    entries.insert(
        path.to_owned(),
        format!(
            "mode {:o} owner {} inode {} size {} modified {}.{:09} changed {}.{:09}",
            meta.mode(),
            meta.uid(),
            meta.ino(),
            if meta.is_dir() { 0 } else { meta.size() },
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec()
        ),
    );
    if meta.is_dir() {
        let listed = fs::read_dir(path).unwrap_or_else(|e| panic!("cannot list \"{}\": {e}", path.display()));
        for entry in listed {
            look(&entry.unwrap().path(), entries);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_change_shows() {
        let dir = std::env::temp_dir().join(format!("repmgr-snapshot-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/file"), "1").unwrap();
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(dir.join("sub/file"), "2").unwrap(),
            &|| fs::write(dir.join("new"), "").unwrap(),
            &|| fs::rename(dir.join("new"), dir.join("other")).unwrap(),
            &|| fs::remove_file(dir.join("other")).unwrap(),
        ];
        for change in changes {
            let before = Snapshot::of([&dir]);
            before.assert_unchanged();
            std::thread::sleep(std::time::Duration::from_millis(20));
            change();
            assert!(std::panic::catch_unwind(|| before.assert_unchanged()).is_err());
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
