use crate::quote::unquote;
use crate::token::{self, Token};

/// One `name = value`.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as written; PostgreSQL compares names without regard to ASCII case.
    pub name: String,
    /// The value, unquoted. Any bytes but NUL.
    pub value: Vec<u8>,
    /// Line number, from 1.
    pub line: usize,
}

impl Entry {
    /// Whether this sets the PostgreSQL parameter `name` (without regard to ASCII case).
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The value, if it is UTF-8.
    pub fn value_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.value).ok()
    }
}

/// Without the value: it may be a connection string with a password.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// A line PostgreSQL would refuse. The text itself is not kept: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct SyntaxError {
    /// Line number, from 1.
    pub line: usize,
    /// Byte position in the line, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The line does not begin with a name.
    #[error("expected a parameter name")]
    Name,
    /// The name is followed by nothing.
    #[error("missing value")]
    MissingValue,
    /// The value holds, or begins with, something that must stand in quotes.
    #[error("value must be in single quotes")]
    UnquotedValue,
    /// A single quote that is not closed on its line.
    #[error("unterminated quoted string")]
    OpenQuote,
    /// More than one value.
    #[error("unexpected text after the value")]
    AfterValue,
    /// A NUL byte, written or escaped. PostgreSQL would cut the value there.
    #[error("NUL byte in the value")]
    Nul,
    /// A name that is not UTF-8.
    #[error("parameter name is not valid UTF-8")]
    NameNotUtf8,
}

impl SyntaxError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self.problem {
            Problem::UnquotedValue | Problem::AfterValue => {
                "put the whole value in single quotes and write a single quote inside it twice"
            }
            Problem::OpenQuote => "write a single quote inside a quoted value twice",
            Problem::MissingValue => "write '' for an empty value",
            Problem::Name | Problem::Nul | Problem::NameNotUtf8 => return None,
        };
        Some(hint.to_owned())
    }
}

/// One line of a file.
pub struct Line<'a> {
    /// From 1.
    pub number: usize,
    /// All its bytes, with the newline if it has one. The lines joined are the file.
    pub raw: &'a [u8],
    /// `None` for a line with nothing but blanks and a comment.
    pub content: Result<Option<Entry>, SyntaxError>,
}

/// Scans a file line by line. A broken line does not affect the others.
///
/// Include directives come as ordinary entries.
pub fn scan(file: &[u8]) -> impl Iterator<Item = Line<'_>> {
    file.split_inclusive(|b| *b == b'\n')
        .zip(1..)
        .map(|(raw, number)| Line {
            number,
            raw,
            content: scan_line(raw.strip_suffix(b"\n").unwrap_or(raw), number),
        })
}

fn scan_line(text: &[u8], line: usize) -> Result<Option<Entry>, SyntaxError> {
    let mut at = 0;
    let mut next = || {
        let (token, skipped, len) = token::next(&text[at..])?;
        let start = at + skipped;
        at = start + len;
        Some((token, start, &text[start..at]))
    };
    let fail = |at: usize, problem| SyntaxError {
        line,
        column: at + 1,
        problem,
    };

    let name = match next() {
        None => return Ok(None),
        Some((Token::Id | Token::QualifiedId, start, name)) => {
            String::from_utf8(name.to_vec()).map_err(|_| fail(start, Problem::NameNotUtf8))?
        }
        Some((_, start, _)) => return Err(fail(start, Problem::Name)),
    };
    let mut token = next();
    if let Some((Token::Equals, ..)) = token {
        token = next();
    }
    let (start, value) = match token {
        Some((Token::String, start, quoted)) => (start, unquote(quoted)),
        Some((Token::Id | Token::Number | Token::Unquoted, start, plain)) => (start, plain.to_vec()),
        Some((Token::OpenQuote, start, _)) => return Err(fail(start, Problem::OpenQuote)),
        // PostgreSQL has no rule for `a.b` as a value, though it has one for `a.b-c`.
        Some((_, start, _)) => return Err(fail(start, Problem::UnquotedValue)),
        None => return Err(fail(text.len(), Problem::MissingValue)),
    };
    match next() {
        Some((Token::OpenQuote, start, _)) => Err(fail(start, Problem::OpenQuote)),
        Some((_, start, _)) => Err(fail(start, Problem::AfterValue)),
        None if value.contains(&0) => Err(fail(start, Problem::Nul)),
        None => Ok(Some(Entry { name, value, line })),
    }
}

#[cfg(test)]
mod tests;
