//! Text from a far side, for people: it must not drive their terminal.

/// `text` as one line: control characters are escaped.
pub fn one_line(text: &str) -> String {
    escape(text, |_| false)
}

/// [`one_line`] of at most about `max` characters.
pub fn shorten(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => one_line(&text[..end]) + "...",
        None => one_line(text),
    }
}

/// Trimmed, and no control character but the line feed survives.
pub(crate) fn printable(bytes: &[u8]) -> String {
    escape(String::from_utf8_lossy(bytes).trim(), |c| c == '\n')
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() && !keep(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_text_cannot_drive_the_terminal() {
        assert_eq!(
            printable(b"  a\x1b[31mb\r\n\xffc\n"),
            "a\\u{1b}[31mb\\r\n\u{fffd}c"
        );
        assert_eq!(shorten("one\ntwo three", 7), "one\\ntwo...");
        assert_eq!(shorten("short", 7), "short");
    }
}
