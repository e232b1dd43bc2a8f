//! Relative paths from a far side that is not trusted, as bytes.

use repmgr_remote::one_line;

/// As long as Linux takes, with the NUL at its end.
pub(crate) const MAX_PATH: usize = 4096;

/// Whether `path` stays below any directory it is opened from, by its spelling: no empty part,
/// no `.`, no `..`, not absolute, no NUL. Every other byte is allowed.
pub(crate) fn is_sound(path: &[u8]) -> bool {
    let sound = |part: &[u8]| !part.is_empty() && part != b"." && part != b"..";
    path.len() < MAX_PATH && !path.contains(&0) && path.split(|b| *b == b'/').all(sound)
}

/// `path` for people: printable, one line.
pub(crate) fn shown(path: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for bad in [
            "", "/", "/etc", "..", "../x", "a/../x", "a/..", ".", "./a", "a//b", "a/", "a\0b",
        ] {
            assert!(!is_sound(bad.as_bytes()), "{bad:?}");
        }
        assert!(!is_sound(&[b'x'; MAX_PATH]));
    }

    #[test]
    fn odd_names_are_taken() {
        for good in [
            &b"PG_VERSION"[..],
            b"a b/..c",
            b"line\nbreak",
            b"-rf",
            b"\xff\xfe",
            &[b'x'; 4095],
        ] {
            assert!(is_sound(good), "{good:?}");
        }
    }

    #[test]
    fn shown_paths_cannot_drive_the_terminal() {
        assert_eq!(shown(b"a\x1b[1m\nb\xff"), "a\\u{1b}[1m\\nb\u{fffd}");
    }
}
