//! Text from elsewhere, for people: it must neither drive their terminal nor show itself as something else.

use std::borrow::Cow;

/// `text` with every character escaped that is [unsafe to show](is_unsafe), but for those that `keep` wants.
pub fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let bad = |c: char| is_unsafe(c) && !keep(c);
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match bad(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// `text` as one line: see [`escape`].
pub fn one_line(text: &str) -> String {
    escape(text, |_| false).into_owned()
}

/// [`one_line`] of at most about `max` characters.
pub fn shorten(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => one_line(&text[..end]) + "...",
        None => one_line(text),
    }
}

/// Whether a character is a command to what shows it: control characters, separators of lines, and the
/// format characters of Unicode, which turn the direction of what follows, hide, or join.
///
/// The joiners U+200C and U+200D are letters' own in some scripts and change nothing beside them.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_drive_the_terminal() {
        assert_eq!(one_line("a\x1b[31mb\u{9b}\r\n"), "a\\u{1b}[31mb\\u{9b}\\r\\n");
        assert_eq!(shorten("one\ntwo three", 7), "one\\ntwo...");
        assert_eq!(shorten("short", 7), "short");
        assert_eq!(escape("a\tb\nc\x07", |c| c == '\n'), "a\\tb\nc\\u{7}");
    }

    #[test]
    fn what_turns_or_hides_text_is_shown_and_letters_are_left() {
        assert_eq!(one_line("x\u{202e}gpj.sql\u{2066}"), "x\\u{202e}gpj.sql\\u{2066}");
        assert_eq!(
            one_line("a\u{feff}b\u{2028}c\u{e0041}"),
            "a\\u{feff}b\\u{2028}c\\u{e0041}"
        );
        let letters = "näme Ω 表 \u{200d} e\u{301} \u{a0}";
        assert!(matches!(escape(letters, |_| false), Cow::Borrowed(same) if same == letters));
    }
}
