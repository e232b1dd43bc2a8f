//! The tokens of PostgreSQL's `guc-file.l`. No token spans lines.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Id,
    QualifiedId,
    /// Quotes included.
    String,
    Number,
    Unquoted,
    Equals,
    /// A quote that nothing closes on this line.
    OpenQuote,
    Other,
}

/// The next token of a line and the number of bytes before and in it; `None` when only
/// blanks and a comment are left. As flex does, the longest match wins.
pub(crate) fn next(line: &[u8]) -> Option<(Token, usize, usize)> {
    let start = count(line, |b| matches!(b, b' ' | b'\t' | b'\r'));
    let rest = &line[start..];
    let (token, len) = match *rest.first()? {
        b'#' => return None,
        b'=' => (Token::Equals, 1),
        b'\'' => match quoted_len(rest) {
            Some(len) => (Token::String, len),
            None => (Token::OpenQuote, 1),
        },
        b if is_letter(b) => word(rest),
        _ => match number_len(rest) {
            0 => (Token::Other, 1),
            len => (Token::Number, len),
        },
    };
    Some((token, start, len))
}

fn is_letter(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}

fn is_id(b: u8) -> bool {
    is_letter(b) || b.is_ascii_digit()
}

fn count(bytes: &[u8], accept: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|b| !accept(*b)).unwrap_or(bytes.len())
}

fn word(rest: &[u8]) -> (Token, usize) {
    let len = count(rest, |b| {
        is_id(b) || matches!(b, b'-' | b'.' | b'_' | b':' | b'/')
    });
    let id = count(rest, is_id);
    let qualified = || {
        let tail = &rest[id + 1..len];
        rest[id] == b'.' && tail.first().is_some_and(|b| is_letter(*b)) && count(tail, is_id) == tail.len()
    };
    match () {
        () if id == len => (Token::Id, len),
        () if qualified() => (Token::QualifiedId, len),
        () => (Token::Unquoted, len),
    }
}

fn quoted_len(rest: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match (rest.get(at)?, rest.get(at + 1)) {
            (b'\\', _) | (b'\'', Some(b'\'')) => at += 2,
            (b'\'', _) => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// An integer with unit letters or a real number, whichever is longer; 0 if neither.
fn number_len(rest: &[u8]) -> usize {
    let digits = |at: usize| count(&rest[at.min(rest.len())..], |b| b.is_ascii_digit());
    let sign = |at: usize| usize::from(matches!(rest.get(at), Some(b'-' | b'+')));
    let start = sign(0);
    let whole = start + digits(start);

    let real = match rest.get(whole) {
        Some(b'.') => {
            let fraction = whole + 1 + digits(whole + 1);
            let exponent = fraction + 1 + sign(fraction + 1);
            match (rest.get(fraction), digits(exponent)) {
                (Some(b'e' | b'E'), power @ 1..) => exponent + power,
                _ => fraction,
            }
        }
        _ => 0,
    };
    if whole == start {
        return real;
    }
    let hex = match rest[start..] {
        [b'0', b'x', ..] => count(&rest[start + 2..], |b| b.is_ascii_hexdigit()),
        _ => 0,
    };
    let number = if hex > 0 { start + 2 + hex } else { whole };
    real.max(number + count(&rest[number..], |b| b.is_ascii_alphabetic()))
}
