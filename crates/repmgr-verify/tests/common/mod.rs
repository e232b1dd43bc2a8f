//! What the tests against real clusters share.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Every file below `dir`, tablespaces included, by its path relative to it, in order.
pub(crate) fn files(dir: &Path) -> Result<Vec<(Vec<u8>, PathBuf)>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("no directory {}", next.display()))? {
            let path = entry?.path();
            // Follows the links of pg_tblspc.
            let metadata = fs::metadata(&path)?;
            if metadata.is_dir() {
                dirs.push(path);
            } else if metadata.is_file() {
                found.push((path.strip_prefix(dir)?.as_os_str().as_bytes().to_vec(), path));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Feeds a file to `hear` in chunks that end anywhere.
pub(crate) fn stream(path: &Path, mut hear: impl FnMut(&[u8])) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("no file {}", path.display()))?;
    let mut buffer = vec![0; 100_003];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => hear(&buffer[..n]),
        }
    }
}

pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
