use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path below a root that cannot leave it by its spelling: no empty component, no `.`, no `..`,
/// not absolute, no NUL. Any other byte is allowed; PostgreSQL's users name files as they like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RelPath<'a> {
    parent: Option<&'a [u8]>,
    name: &'a [u8],
}

impl<'a> RelPath<'a> {
    pub(crate) fn new(path: &'a Path) -> Option<Self> {
        let bytes = path.as_os_str().as_bytes();
        let sound = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
        if !bytes.split(|b| *b == b'/').all(sound) {
            return None;
        }
        let slash = bytes.iter().rposition(|b| *b == b'/');
        Some(match slash {
            Some(at) => Self {
                parent: Some(&bytes[..at]),
                name: &bytes[at + 1..],
            },
            None => Self {
                parent: None,
                name: bytes,
            },
        })
    }

    /// Everything before the last component; `None` right below the root.
    pub(crate) fn parent(self) -> Option<&'a [u8]> {
        self.parent
    }

    pub(crate) fn name(self) -> &'a [u8] {
        self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsStr;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../../x",
            "a/..",
            ".",
            "./a",
            "a//b",
            "a/",
            "a/.",
            "a\0b",
        ] {
            assert!(RelPath::new(Path::new(bad)).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn ordinary_and_odd_names_are_taken_apart() {
        for (good, parent, name) in [
            ("PG_VERSION", None, "PG_VERSION"),
            ("base/5/1249", Some("base/5"), "1249"),
            ("a b/..c", Some("a b"), "..c"),
            ("line\nbreak", None, "line\nbreak"),
        ] {
            let path = RelPath::new(Path::new(good)).unwrap();
            assert_eq!(
                (path.parent(), path.name()),
                (parent.map(str::as_bytes), name.as_bytes())
            );
        }
    }

    proptest! {
        #[test]
        fn what_passes_stays_below_the_root(bytes in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..12)) {
            let path = Path::new(OsStr::from_bytes(&bytes));
            if RelPath::new(path).is_some() {
                prop_assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))));
                prop_assert_eq!(path.components().count(), bytes.split(|b| *b == b'/').count());
            }
        }
    }
}
