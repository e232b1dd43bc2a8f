use std::path::{Component, Path, PathBuf};

/// The path without doubled and final slashes, `.` and `..`, without looking at the disk, as
/// PostgreSQL's `canonicalize_path` does.
///
/// ```
/// use std::path::Path;
///
/// use repmgr_types::canonical_path;
///
/// assert_eq!(canonical_path(Path::new("/a//b/./../c/")), Path::new("/a/c"));
/// assert_eq!(canonical_path(Path::new("/../a")), Path::new("/a"));
/// assert_eq!(canonical_path(Path::new("../a/..")), Path::new(".."));
/// assert_eq!(canonical_path(Path::new("a/..")), Path::new("."));
/// ```
pub fn canonical_path(path: &Path) -> PathBuf {
    let mut canonical = PathBuf::new();
    for component in path.components() {
        match (component, canonical.components().next_back()) {
            (Component::CurDir, _) | (Component::ParentDir, Some(Component::RootDir)) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                canonical.pop();
            }
            (component, _) => canonical.push(component),
        }
    }
    match canonical.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => canonical,
    }
}
