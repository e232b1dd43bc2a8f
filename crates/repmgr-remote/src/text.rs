//! Text from a far side, for people: it must not drive their terminal.

use repmgr_types::text::escape;
pub use repmgr_types::text::{one_line, shorten};

/// Trimmed, and no control or format character but the line feed survives.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    escape(text.trim(), |c| c == '\n').into_owned()
}

/// The beginning of what a far side said, as part of a sentence: a few lines in one.
pub(crate) fn gist(bytes: &[u8]) -> String {
    const LINES: usize = 3;
    const LONGEST: usize = 200;
    let text = printable(bytes);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut said = lines.by_ref().take(LINES).collect::<Vec<_>>().join("; ");
    let left = lines.count();
    if said.chars().count() > LONGEST {
        said = shorten(&said, LONGEST);
    }
    match left {
        0 => said,
        1 => said + " (and 1 more line)",
        left => format!("{said} (and {left} more lines)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_text_cannot_drive_the_terminal() {
        assert_eq!(
            printable(b"  a\x1b[31mb\r\n\xffc\xe2\x80\xae\n"),
            "a\\u{1b}[31mb\n\u{fffd}c\\u{202e}"
        );
        assert_eq!(printable(b"a\rb\r\n"), "a\\rb");
    }

    #[test]
    fn the_gist_is_one_line() {
        assert_eq!(gist(b""), "");
        assert_eq!(gist(b"\r\nDenied.\r\n\r\n  Ask Bob\r\n"), "Denied.; Ask Bob");
        assert_eq!(gist(b"a\nb\nc\nd"), "a; b; c (and 1 more line)");
        let usage = gist(&b"usage: barman [--help] COMMAND\n".repeat(30));
        assert!(usage.ends_with("COMMAND (and 27 more lines)"), "{usage}");
        assert_eq!(gist("ü".repeat(300).as_bytes()), "ü".repeat(200) + "...");
    }
}
