use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_ini::de::Error as IniError;

use crate::grammar::{Item, Place, Reader};
use crate::settings::{Node, PARAMETERS, Settings};
use crate::values::{SEPARATOR, TablespaceMapping};
use crate::{ConfigError, Diagnostic};

/// Parameters whose occurrences add up; of any other the last one counts.
const REPEATABLE: &[&str] = &["tablespace_mapping", "event_notifications"];

/// Parameters repmgr 4 and 5 no longer have, and what to do without them.
const OBSOLETE: &[(&str, &str)] = &[
    ("cluster", "no longer used; clusters have no name since repmgr 4"),
    ("node", "renamed to \"node_id\""),
    (
        "upstream_node",
        "no longer used; give \"--upstream-node-id\" on the command line",
    ),
    ("loglevel", "renamed to \"log_level\""),
    ("logfacility", "renamed to \"log_facility\""),
    ("logfile", "renamed to \"log_file\""),
    ("master_reponse_timeout", "replaced by \"async_query_timeout\""),
    (
        "retry_promote_interval_secs",
        "replaced by \"primary_notification_timeout\"",
    ),
];

/// A configuration that was read and is right.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What the user should be told.
    pub warnings: Vec<Diagnostic>,
    /// The file.
    pub path: PathBuf,
}

impl Loaded {
    /// The parameters every node must have.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming each that is missing.
    pub fn node(&self) -> Result<Node<'_>, ConfigError> {
        self.settings.node().map_err(|missing| {
            let place = Place {
                file: self.path.clone(),
                line: None,
            };
            let errors = missing
                .into_iter()
                .map(|name| place.about(Some(name), "required but not set"));
            ConfigError::Invalid {
                path: self.path.clone(),
                errors: errors.collect(),
                warnings: self.warnings.clone(),
            }
        })
    }
}

/// Reads a configuration file and what it includes. See [`parse`].
///
/// # Errors
/// The file cannot be read, or anything in it is wrong.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let text = fs::read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, path)
}

/// Reads the text of the configuration file `path`; included files are read from disk.
///
/// Each line is read by the strict grammar of repmgr 5, which is that of `postgresql.conf`,
/// with its `include`, `include_if_exists` and `include_dir`. A line that this grammar refuses
/// is read as repmgr 4 did, with a warning, if it is `name = value` and the value holds no
/// single quote: `restore_command=/usr/bin/barman-wal-restore host server %f %p`. Any other
/// line is an error, so that no line means something else than where it came from.
///
/// Parameters that are not known and those that have become obsolete are warned of. A missing
/// file of `include_if_exists` is not an error, though repmgr 5.5 makes it one.
///
/// Whether the parameters that every node needs are there is for [`Loaded::node`] to say.
///
/// # Errors
/// [`ConfigError::Invalid`] with all that is wrong.
pub fn parse(text: &[u8], path: &Path) -> Result<Loaded, ConfigError> {
    let mut reader = Reader::default();
    reader.read(text, path);
    let Reader {
        items,
        mut errors,
        mut warnings,
        ..
    } = reader;

    warnings.extend(items.iter().filter_map(remark));
    let places: BTreeMap<_, _> = items
        .iter()
        .map(|item| (item.name.clone(), item.place.clone()))
        .collect();
    let items = effective(items, &mut errors, &mut warnings);
    let root = Place {
        file: path.to_owned(),
        line: None,
    };
    let settings = deserialize(items, &root, &mut errors, &mut warnings);
    if errors.is_empty() {
        errors.extend(
            settings
                .conflicts()
                .into_iter()
                .map(|(name, message)| places.get(name).unwrap_or(&root).about(Some(name), message)),
        );
    }
    if errors.is_empty() {
        return Ok(Loaded {
            settings,
            warnings,
            path: path.to_owned(),
        });
    }
    Err(ConfigError::Invalid {
        path: path.to_owned(),
        errors,
        warnings,
    })
}

/// What is odd about an item that is not wrong.
fn remark(item: &Item) -> Option<Diagnostic> {
    let about = |message: String| item.place.about(Some(&item.name), message);
    if let Some(parameter) = PARAMETERS.iter().find(|parameter| parameter.name == item.name) {
        return (parameter.remark)(&item.value).map(about);
    }
    if let Some((_, advice)) = OBSOLETE.iter().find(|(name, _)| *name == item.name) {
        return Some(about((*advice).to_owned()));
    }
    let mut warning = about("unknown, ignored".to_owned());
    warning.hint = similar(&item.name).map(|name| format!("did you mean \"{name}\"?"));
    Some(warning)
}

/// The known items that count, one per parameter.
fn effective(items: Vec<Item>, errors: &mut Vec<Diagnostic>, warnings: &mut Vec<Diagnostic>) -> Vec<Item> {
    let mut effective: Vec<Item> = Vec::new();
    for item in items {
        if !PARAMETERS.iter().any(|parameter| parameter.name == item.name) {
            continue;
        }
        if let Some(quote) = typographic_quote(&item.value) {
            let mut error = item.place.about(
                Some(&item.name),
                format!("value is in typographic quotes ({quote})"),
            );
            error.hint = Some("put it in plain single quotes (')".to_owned());
            errors.push(error);
            continue;
        }
        // Checked one by one, because joined they would share a line number.
        if item.name == "tablespace_mapping"
            && let Err(error) = item.value.parse::<TablespaceMapping>()
        {
            errors.push(item.place.about(Some(&item.name), error.to_string()));
            continue;
        }
        match effective.iter_mut().find(|earlier| earlier.name == item.name) {
            Some(earlier) if REPEATABLE.contains(&earlier.name.as_str()) => {
                earlier.value.push(SEPARATOR);
                earlier.value.push_str(&item.value);
            }
            Some(earlier) => {
                warnings.push(item.place.about(Some(&item.name), set_before(&earlier.place)));
                *earlier = item;
            }
            None => effective.push(item),
        }
    }
    effective
}

/// What a word processor makes of plain quotes: one at either end. A value that has one at
/// one end only is taken as it is.
fn typographic_quote(value: &str) -> Option<char> {
    const TYPOGRAPHIC: &str = "“”„‟‘’‚‛«»‹›″′";
    let mut rest = value.chars();
    let ends = [rest.next()?, rest.next_back()?];
    let quote = |c: &char| TYPOGRAPHIC.contains(*c) || matches!(c, '"' | '\'');
    if !ends.iter().all(quote) {
        return None;
    }
    ends.into_iter().find(|c| TYPOGRAPHIC.contains(*c))
}

fn set_before(earlier: &Place) -> String {
    let line = earlier.line.map_or(String::new(), |line| format!(" line {line}"));
    format!(
        "set again; this value replaces the one of file \"{}\"{line}",
        earlier.file.display()
    )
}

/// Deserializes the items; each that fails is reported at its place, left out, and the rest
/// tried again, so that all errors are found.
fn deserialize(
    mut items: Vec<Item>,
    root: &Place,
    errors: &mut Vec<Diagnostic>,
    warnings: &mut Vec<Diagnostic>,
) -> Settings {
    loop {
        let mut taken = 0_usize;
        let ini_items = items.iter().inspect(|_| taken += 1).map(|item| {
            let (key, value) = (item.name.clone(), item.value.clone());
            Ok::<_, IniError>(serde_ini::Item::Value { key, value })
        });
        let error = match Settings::deserialize(&mut serde_ini::Deserializer::new(ini_items)) {
            Ok(settings) => return settings,
            Err(IniError::Custom(message)) => message,
            Err(other) => other.to_string(),
        };
        // The deserializer takes an item only when it is done with the one before.
        let Some(index) = taken.checked_sub(1) else {
            errors.push(root.about(None, error));
            return Settings::default();
        };
        let item = items.remove(index);
        let mut diagnostic = item.place.about(Some(&item.name), error);
        if item.name == "log_level" {
            diagnostic.message.push_str("; the default is used");
            warnings.push(diagnostic);
        } else {
            errors.push(diagnostic);
        }
    }
}

/// The known parameter that `name` is most likely a misspelling of.
fn similar(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let distances = PARAMETERS
        .iter()
        .map(|known| (edit_distance(&name, known.name), known.name));
    distances
        .min()
        .filter(|(distance, _)| *distance <= 2 && distance * 3 < name.len())
        .map(|(_, known)| known)
}

/// Levenshtein's distance in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
