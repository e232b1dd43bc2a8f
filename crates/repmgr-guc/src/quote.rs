/// `value` as a quoted value of a configuration file, escaped as `ALTER SYSTEM` does;
/// newlines, which `ALTER SYSTEM` refuses, as `\n`.
///
/// `value` must not hold NUL, which no PostgreSQL setting can.
pub fn quote_value(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for c in value.chars() {
        match c {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

/// The value of a [`Token::String`](crate::token::Token::String).
pub(crate) fn unquote(quoted: &[u8]) -> Vec<u8> {
    let inner = &quoted[1..quoted.len() - 1];
    let mut value = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'\'' => bytes.next(),
            b'\\' => match bytes.next() {
                Some(digit @ b'0'..=b'7') => {
                    let mut code = digit - b'0';
                    for _ in 0..2 {
                        let Some(digit) = bytes.next_if(|b| matches!(b, b'0'..=b'7')) else {
                            break;
                        };
                        // Like PostgreSQL, `\777` keeps the low eight bits.
                        code = code.wrapping_mul(8).wrapping_add(digit - b'0');
                    }
                    Some(code)
                }
                Some(b'b') => Some(8),
                Some(b'f') => Some(12),
                Some(b'n') => Some(b'\n'),
                Some(b'r') => Some(b'\r'),
                Some(b't') => Some(b'\t'),
                other => other,
            },
            byte => Some(byte),
        };
        value.extend(byte);
    }
    value
}
