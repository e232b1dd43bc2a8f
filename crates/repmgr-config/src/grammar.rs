//! From files to a flat list of `name = value` with their places.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use repmgr_guc::{Entry, Problem, SyntaxError, scan};

use crate::Diagnostic;

/// As PostgreSQL; repmgr 5 gives up after 5.
const MAX_INCLUDE_DEPTH: usize = 10;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where a parameter was set.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) file: PathBuf,
    pub(crate) line: Option<usize>,
}

impl Place {
    pub(crate) fn about(&self, parameter: Option<&str>, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            file: self.file.clone(),
            line: self.line,
            parameter: parameter.map(str::to_owned),
            message: message.into(),
            hint: None,
        }
    }
}

pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) place: Place,
}

/// Reads one file and what it includes.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) items: Vec<Item>,
    pub(crate) errors: Vec<Diagnostic>,
    pub(crate) warnings: Vec<Diagnostic>,
    /// The files being read, each included by the one before it.
    stack: Vec<PathBuf>,
}

impl Reader {
    pub(crate) fn read(&mut self, text: &[u8], path: &Path) {
        self.stack.push(path.to_owned());
        let text = match text.strip_prefix(BYTE_ORDER_MARK) {
            Some(text) => {
                let place = Place {
                    file: path.to_owned(),
                    line: Some(1),
                };
                self.warnings.push(place.about(None, "byte order mark ignored"));
                text
            }
            None => text,
        };
        for line in scan(text) {
            let place = Place {
                file: path.to_owned(),
                line: Some(line.number),
            };
            match line.content {
                Ok(None) => {}
                Ok(Some(entry)) => self.entry(entry, place),
                Err(error) => match repmgr4_line(line.raw, error.problem) {
                    Some((name, value)) => self.unquoted(name, value, place),
                    None => self.errors.push(syntax_error(&place, error)),
                },
            }
        }
        self.stack.pop();
    }

    fn entry(&mut self, entry: Entry, place: Place) {
        let Entry { name, value, .. } = entry;
        let Ok(value) = String::from_utf8(value) else {
            self.errors
                .push(place.about(Some(&name), "value is not valid UTF-8"));
            return;
        };
        let included = match name.to_ascii_lowercase().as_str() {
            "include" => self.include(&value, &place, true),
            "include_if_exists" => self.include(&value, &place, false),
            "include_dir" => self.include_dir(&value, &place),
            _ => {
                self.items.push(Item { name, value, place });
                return;
            }
        };
        if let Err(message) = included {
            self.errors.push(place.about(Some(&name), message));
        }
    }

    fn unquoted(&mut self, name: String, value: String, place: Place) {
        let mut warning = place.about(
            Some(&name),
            "value is not in single quotes, which repmgr 5 refuses; read as repmgr 4 reads it",
        );
        warning.hint = Some("put the whole value in single quotes".to_owned());
        self.warnings.push(warning);
        self.items.push(Item { name, value, place });
    }

    fn include(&mut self, value: &str, place: &Place, required: bool) -> Result<(), String> {
        let path = relative_to(&place.file, value)?;
        match fs::read(&path) {
            Ok(text) => self.include_text(&text, &path),
            Err(error) if !required && error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(format!("cannot read file \"{}\": {error}", path.display())),
        }
    }

    fn include_text(&mut self, text: &[u8], path: &Path) -> Result<(), String> {
        let same = |open: &PathBuf| open == path || same_file(open, path);
        if self.stack.iter().any(same) {
            return Err(format!("file \"{}\" includes itself", path.display()));
        }
        if self.stack.len() > MAX_INCLUDE_DEPTH {
            return Err(format!("more than {MAX_INCLUDE_DEPTH} levels of included files"));
        }
        self.read(text, path);
        Ok(())
    }

    /// As PostgreSQL: files named `*.conf`, hidden ones not, in byte order of their names.
    fn include_dir(&mut self, value: &str, place: &Place) -> Result<(), String> {
        let directory = relative_to(&place.file, value)?;
        let failed = |error: io::Error| format!("cannot read directory \"{}\": {error}", directory.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let bytes = name.as_encoded_bytes();
            if bytes.len() >= 6 && !bytes.starts_with(b".") && bytes.ends_with(b".conf") {
                names.push(name);
            }
        }
        names.sort();
        for path in names.into_iter().map(|name| directory.join(name)) {
            if path.is_dir() {
                continue;
            }
            let text = fs::read(&path)
                .map_err(|error| format!("cannot read file \"{}\": {error}", path.display()))?;
            self.include_text(&text, &path)?;
        }
        Ok(())
    }
}

/// A line that repmgr 5 refuses, as repmgr 4 read it: all after the first `=`, up to a `#`.
///
/// Only where that can mean one thing. repmgr 4 dropped every single quote wherever it stood,
/// which would turn a mistyped quoted value into another value or a command into another
/// command; such a line stays an error. Include directives are not of that grammar.
fn repmgr4_line(raw: &[u8], problem: Problem) -> Option<(String, String)> {
    if !matches!(problem, Problem::UnquotedValue | Problem::AfterValue) {
        return None;
    }
    let line = raw
        .split(|b| *b == b'#')
        .next()
        .and_then(|line| str::from_utf8(line).ok())?;
    let (name, value) = line.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.to_ascii_lowercase().starts_with("include");
    let is_plain = !value.is_empty() && !value.contains(['\'', '\0']);
    (is_name && is_plain).then(|| (name.to_owned(), value.to_owned()))
}

fn syntax_error(place: &Place, error: SyntaxError) -> Diagnostic {
    let mut diagnostic = place.about(
        None,
        format!("syntax error at column {}: {}", error.column, error.problem),
    );
    diagnostic.hint = error.hint();
    diagnostic
}

fn relative_to(file: &Path, value: &str) -> Result<PathBuf, String> {
    if value.is_empty() {
        return Err("empty file name".to_owned());
    }
    Ok(file.parent().unwrap_or(Path::new("")).join(value))
}

/// Files that cannot be resolved are told apart by their names, which the caller compares.
fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
