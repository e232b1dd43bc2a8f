//! Python literals, as Barman writes them into backup.info: None, integers, strings, lists and tuples.

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Int(i64),
    /// Usually UTF-8; names of files need not be.
    Text(Vec<u8>),
    /// A list or a tuple.
    List(Vec<Value>),
}

/// Where a text stops being a literal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expected} expected at character {at}")]
pub(crate) struct LiteralError {
    /// Counted from 1.
    pub(crate) at: usize,
    pub(crate) expected: &'static str,
}

/// Deeper than anything Barman writes; hostile text must not exhaust the stack.
const MAX_DEPTH: usize = 16;
/// Four for each tablespace; each takes more memory than its text.
const MAX_VALUES: usize = 100_000;

/// Reads one literal that is the whole text.
pub(crate) fn parse(text: &str) -> Result<Value, LiteralError> {
    let chars: Vec<char> = text.chars().collect();
    let mut parser = Parser {
        chars: &chars,
        at: 0,
        values: 0,
    };
    let value = parser.value(0)?;
    parser.blanks();
    if parser.at < chars.len() {
        return Err(parser.error("the end"));
    }
    Ok(value)
}

struct Parser<'t> {
    chars: &'t [char],
    at: usize,
    values: usize,
}

impl Parser<'_> {
    fn error(&self, expected: &'static str) -> LiteralError {
        LiteralError {
            at: self.at + 1,
            expected,
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, LiteralError> {
        self.blanks();
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(self.error("fewer values"));
        }
        match self.peek() {
            Some('[') => self.list(']', depth),
            Some('(') => self.list(')', depth),
            Some('\'' | '"') => self.string(false).map(Value::Text),
            Some('u' | 'U') if matches!(self.chars.get(self.at + 1), Some('\'' | '"')) => {
                self.at += 1;
                self.string(true).map(Value::Text)
            }
            Some('-' | '0'..='9') => self.int(),
            Some('N') if self.chars[self.at..].starts_with(&['N', 'o', 'n', 'e']) => {
                self.at += 4;
                Ok(Value::None)
            }
            _ => Err(self.error("a value")),
        }
    }

    fn list(&mut self, end: char, depth: usize) -> Result<Value, LiteralError> {
        if depth == MAX_DEPTH {
            return Err(self.error("less nesting"));
        }
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.blanks();
            if self.peek() == Some(end) {
                break;
            }
            items.push(self.value(depth + 1)?);
            self.blanks();
            match self.peek() {
                Some(',') => self.at += 1,
                Some(c) if c == end => {}
                _ => return Err(self.error("\",\" or a closing bracket")),
            }
        }
        self.at += 1;
        Ok(Value::List(items))
    }

    fn int(&mut self) -> Result<Value, LiteralError> {
        let start = self.at;
        self.at += 1;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let digits: String = self.chars[start..self.at].iter().collect();
        let value = digits.parse().map_err(|_| LiteralError {
            at: start + 1,
            expected: "an integer of 64 bits",
        })?;
        // Python 2 marks its long integers.
        if self.peek() == Some('L') {
            self.at += 1;
        }
        Ok(Value::Int(value))
    }

    /// Python 2 escapes each byte of a non-ASCII string that is not marked `u`, Python 3 only characters
    /// that do not print. The forms overlap: escapes alone that are valid UTF-8 are taken for bytes.
    fn string(&mut self, marked: bool) -> Result<Vec<u8>, LiteralError> {
        let quote = self.peek();
        self.at += 1;
        let (mut points, mut bytes) = (Vec::new(), Vec::new());
        let mut may_be_bytes = !marked;
        loop {
            let c = match self.take() {
                None => return Err(self.error("a closing quote")),
                c if c == quote => break,
                Some('\\') => {
                    let (point, byte) = self.escape()?;
                    match byte {
                        Some(byte) => bytes.push(byte),
                        None => may_be_bytes = false,
                    }
                    self.push_point(&mut points, point)?;
                    continue;
                }
                Some(c) => c,
            };
            points.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            match u8::try_from(c) {
                Ok(byte) if byte.is_ascii() => bytes.push(byte),
                _ => may_be_bytes = false,
            }
        }
        Ok(if may_be_bytes && std::str::from_utf8(&bytes).is_ok() {
            bytes
        } else {
            points
        })
    }

    /// The code point, and the byte if it can be meant as one.
    fn escape(&mut self) -> Result<(u32, Option<u8>), LiteralError> {
        let plain = |c: char| Ok((u32::from(c), u8::try_from(c).ok()));
        match self.take() {
            Some(c @ ('\\' | '\'' | '"')) => plain(c),
            Some('n') => plain('\n'),
            Some('r') => plain('\r'),
            Some('t') => plain('\t'),
            Some('x') => self.hex(2).map(|point| (point, u8::try_from(point).ok())),
            Some('u') => self.hex(4).map(|point| (point, None)),
            Some('U') => self.hex(8).map(|point| (point, None)),
            _ => Err(self.error("a known escape")),
        }
    }

    fn hex(&mut self, digits: usize) -> Result<u32, LiteralError> {
        (0..digits).try_fold(0_u32, |value, _| {
            let digit = self.peek().and_then(|c| c.to_digit(16));
            let digit = digit.ok_or_else(|| self.error("a hexadecimal digit"))?;
            self.at += 1;
            Ok(value << 4 | digit)
        })
    }

    fn push_point(&self, out: &mut Vec<u8>, point: u32) -> Result<(), LiteralError> {
        match (char::from_u32(point), point) {
            (Some(c), _) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            // How Python 3 carries a byte of a file name that is not UTF-8.
            (None, 0xDC80..=0xDCFF) => out.push((point - 0xDC00) as u8),
            _ => return Err(self.error("a character")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(t: &str) -> Value {
        Value::Text(t.as_bytes().to_vec())
    }

    fn one(literal: &str) -> Vec<u8> {
        match parse(literal) {
            Ok(Value::Text(bytes)) => bytes,
            other => panic!("{literal}: {other:?}"),
        }
    }

    #[test]
    fn tablespaces_as_barman_writes_them() {
        let value = parse(
            r#"[('plain', 16384, '/ts/a'), ('we ird \'q" %s', 16385L, u"/ts/sp'ace"), (None, -1, '',)]"#,
        );
        let row = |a, b, c| Value::List(vec![a, b, c]);
        assert_eq!(
            value.unwrap(),
            Value::List(vec![
                row(text("plain"), Value::Int(16384), text("/ts/a")),
                row(text("we ird 'q\" %s"), Value::Int(16385), text("/ts/sp'ace")),
                row(Value::None, Value::Int(-1), text("")),
            ])
        );
        assert_eq!(parse(" [ ] ").unwrap(), Value::List(vec![]));
    }

    #[test]
    fn bytes_of_python_2_and_characters_of_python_3_are_told_apart() {
        assert_eq!(one(r"'\xc3\xbcn'"), "ün".as_bytes());
        assert_eq!(one(r"'\xa0'"), "\u{a0}".as_bytes());
        assert_eq!(one(r"u'\xfcn \u20ac \U0001f418'"), "ün € 🐘".as_bytes());
        // Mojibake that was really meant: a raw letter says that these are characters.
        assert_eq!(one("'ü\\xa0'"), "ü\u{a0}".as_bytes());
        assert_eq!(one(r"'\udcff/x'"), b"\xff/x");
        assert_eq!(one(r"'\x00\n\r\t\\'"), b"\0\n\r\t\\");
    }

    #[test]
    fn a_long_text_does_not_become_more_values_than_fit_in_memory() {
        assert!(parse(&format!("[{}]", "1,".repeat(MAX_VALUES - 1))).is_ok());
        let error = parse(&format!("[{}]", "1,".repeat(MAX_VALUES))).unwrap_err();
        assert_eq!(error.expected, "fewer values");
    }

    #[test]
    fn what_is_no_literal_says_where() {
        for (bad, at, expected) in [
            ("", 1, "a value"),
            ("[1, 2", 6, "\",\" or a closing bracket"),
            ("[1 2]", 4, "\",\" or a closing bracket"),
            ("'abc", 5, "a closing quote"),
            (r"'a\q'", 5, "a known escape"),
            (r"'\x4", 5, "a hexadecimal digit"),
            (r"'\ud800'", 8, "a character"),
            ("99999999999999999999", 1, "an integer of 64 bits"),
            ("-", 1, "an integer of 64 bits"),
            ("[] x", 4, "the end"),
            ("__import__('os')", 1, "a value"),
        ] {
            assert_eq!(parse(bad), Err(LiteralError { at, expected }), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(parse(&deep).unwrap_err().expected, "less nesting");
    }

    /// As `repr` of Python 3 writes a string, with `printable` for what it leaves raw.
    fn python3(text: &str) -> String {
        let quote = if text.contains('\'') && !text.contains('"') {
            '"'
        } else {
            '\''
        };
        let mut out = String::from(quote);
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c == quote => {
                    out.push('\\');
                    out.push(c);
                }
                ' '..='~' => out.push(c),
                c if c as u32 > 0xff && c.is_alphanumeric() => out.push(c),
                c => match c as u32 {
                    p @ 0..=0xff => out.push_str(&format!("\\x{p:02x}")),
                    p @ 0x100..=0xffff => out.push_str(&format!("\\u{p:04x}")),
                    p => out.push_str(&format!("\\U{p:08x}")),
                },
            }
        }
        out.push(quote);
        out
    }

    fn python2(bytes: &[u8]) -> String {
        let mut out = String::from("'");
        for &b in bytes {
            match b {
                b'\\' | b'\'' => out.push_str(&format!("\\{}", b as char)),
                b' '..=b'~' => out.push(b as char),
                b => out.push_str(&format!("\\x{b:02x}")),
            }
        }
        out + "'"
    }

    proptest! {
        #[test]
        fn every_text_of_python_2_comes_back(name in any::<String>()) {
            prop_assert_eq!(one(&python2(name.as_bytes())), name.as_bytes());
            prop_assert_eq!(one(&format!("u{}", python3(&name))), name.as_bytes());
        }

        // Characters U+0080 to U+00FF alone can look like the bytes of Python 2.
        #[test]
        fn every_text_of_python_3_comes_back(name in "[^\u{80}-\u{ff}]*") {
            prop_assert_eq!(one(&python3(&name)), name.as_bytes());
        }

        #[test]
        fn no_text_makes_it_panic(junk in "[\\[\\](),'\"\\\\uxULN0-9a-f\u{fc} ]{0,40}") {
            let _ = parse(&junk);
        }

        #[test]
        fn lists_come_back(rows in prop::collection::vec((0_i64..4_294_967_296, "[a-z'\" ]{0,6}"), 0..5)) {
            let line: Vec<String> = rows.iter().map(|(n, t)| format!("({n}, {})", python3(t))).collect();
            let expected: Vec<Value> =
                rows.iter().map(|(n, t)| Value::List(vec![Value::Int(*n), text(t)])).collect();
            prop_assert_eq!(parse(&format!("[{}]", line.join(", "))).unwrap(), Value::List(expected));
        }
    }
}
