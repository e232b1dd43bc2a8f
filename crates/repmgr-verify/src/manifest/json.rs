//! The JSON of a manifest, read entry by entry, so that no tree of it is ever in memory.

use std::borrow::Cow;
use std::fmt;

use repmgr_types::text::one_line;
use repmgr_types::{Lsn, SystemId, Timeline};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{File, Manifest, ManifestError, WalRange};
use crate::digest::{Checksum, ChecksumAlgorithm, decode_hex};

pub(super) fn read(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let mut reader = Reader {
        manifest: Manifest {
            system_identifier: None,
            wal_ranges: Vec::new(),
            files: Vec::new(),
            text: Vec::new(),
        },
        refused: None,
    };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let result = json.deserialize_map(&mut reader).and_then(|()| json.end());
    match (reader.refused, result) {
        (Some(refused), _) => Err(refused),
        // It may quote names of fields.
        (None, Err(error)) => Err(ManifestError::Json(Error::custom(one_line(&error.to_string())))),
        (None, Ok(())) => Ok(reader.manifest),
    }
}

struct Reader {
    manifest: Manifest,
    /// The error proper: through the deserializer only a text can pass.
    refused: Option<ManifestError>,
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct FileObject<'a> {
    #[serde(borrow)]
    path: Option<Text<'a>>,
    #[serde(borrow, rename = "Encoded-Path")]
    encoded_path: Option<Text<'a>>,
    size: u64,
    #[serde(rename = "Last-Modified")]
    _last_modified: Option<IgnoredAny>,
    #[serde(borrow, rename = "Checksum-Algorithm")]
    algorithm: Option<Text<'a>>,
    #[serde(borrow)]
    checksum: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WalRangeObject<'a> {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(borrow, rename = "Start-LSN")]
    start: Text<'a>,
    #[serde(borrow, rename = "End-LSN")]
    end: Text<'a>,
}

impl WalRangeObject<'_> {
    fn read<E: Error>(&self) -> Result<WalRange, E> {
        let lsn = |text: &Text<'_>| text.0.parse::<Lsn>().map_err(E::custom);
        Ok(WalRange {
            timeline: Timeline::new(self.timeline).ok_or_else(|| E::custom("there is no timeline 0"))?,
            start: lsn(&self.start)?,
            end: lsn(&self.end)?,
        })
    }
}

impl Reader {
    fn refuse<E: Error>(&mut self, error: ManifestError) -> E {
        let text = E::custom(&error);
        self.refused = Some(error);
        text
    }

    fn add(&mut self, object: &FileObject<'_>) -> Result<(), ManifestError> {
        let decoded;
        let path: &[u8] = match (&object.path, &object.encoded_path) {
            (Some(Text(path)), None) => path.as_bytes(),
            (None, Some(Text(digits))) => {
                let mut bytes = vec![0; digits.len() / 2];
                if !decode_hex(digits, &mut bytes) {
                    return Err(ManifestError::entry(
                        digits.as_bytes(),
                        "is not in hexadecimal digits",
                    ));
                }
                decoded = bytes;
                &decoded
            }
            _ => return Err(ManifestError::entry(b"", "has no path, or two")),
        };
        if let Some(problem) = problem_with_path(path) {
            return Err(ManifestError::entry(path, problem));
        }
        let checksum = match (&object.algorithm, &object.checksum) {
            (None, None) => None,
            (Some(Text(algorithm)), Some(Text(digits))) => {
                let algorithm = ChecksumAlgorithm::from_name(algorithm)
                    .ok_or_else(|| ManifestError::entry(path, "has a checksum of an unknown kind"))?;
                let checksum = Checksum::from_hex(algorithm, digits)
                    .ok_or_else(|| ManifestError::entry(path, "has an impossible checksum"))?;
                Some(checksum)
            }
            _ => return Err(ManifestError::entry(path, "has half a checksum")),
        };
        let Manifest { files, text, .. } = &mut self.manifest;
        // The casts are exact: path and checksum are shorter than their JSON, and all of that has less than
        // 2^32 bytes.
        files.push(File {
            size: object.size,
            start: text.len() as u32,
            path_len: path.len() as u32,
            algorithm: checksum.map(|checksum| checksum.algorithm()),
        });
        text.extend_from_slice(path);
        if let Some(checksum) = checksum {
            text.extend_from_slice(checksum.as_bytes());
        }
        Ok(())
    }
}

fn problem_with_path(path: &[u8]) -> Option<&'static str> {
    if path.starts_with(b"/") {
        return Some("is an absolute path");
    }
    if path.contains(&0) {
        return Some("has a NUL byte");
    }
    let bad = path
        .split(|byte| *byte == b'/')
        .any(|part| matches!(part, b"" | b"." | b".."));
    bad.then_some("is not a plain path")
}

impl<'de> Visitor<'de> for &mut Reader {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a backup manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // The version comes first, since it says how the rest is to be read.
        match map.next_entry::<Text<'_>, u64>()? {
            Some((Text(key), 1 | 2)) if key == "PostgreSQL-Backup-Manifest-Version" => {}
            Some((Text(key), version)) if key == "PostgreSQL-Backup-Manifest-Version" => {
                return Err(self.refuse(ManifestError::Version(version)));
            }
            _ => return Err(A::Error::custom("it does not begin with its version")),
        }
        let mut listed = false;
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                "System-Identifier" => self.manifest.system_identifier = Some(SystemId(map.next_value()?)),
                "Files" if !listed => {
                    map.next_value_seed(Files(self))?;
                    listed = true;
                }
                "WAL-Ranges" => {
                    let ranges: Vec<WalRangeObject<'_>> = map.next_value()?;
                    self.manifest.wal_ranges = ranges
                        .iter()
                        .map(WalRangeObject::read)
                        .collect::<Result<_, _>>()?;
                }
                // Verified before, on the bytes.
                "Manifest-Checksum" => drop(map.next_value::<IgnoredAny>()?),
                other => {
                    return Err(A::Error::custom(format!(
                        "it has an unexpected field \"{other}\""
                    )));
                }
            }
        }
        if listed {
            Ok(())
        } else {
            Err(A::Error::missing_field("Files"))
        }
    }
}

struct Files<'a>(&'a mut Reader);

impl<'de> DeserializeSeed<'de> for Files<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Files<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut files: A) -> Result<(), A::Error> {
        while let Some(file) = files.next_element::<FileObject<'_>>()? {
            self.0
                .add(&file)
                .map_err(|error| self.0.refuse::<A::Error>(error))?;
        }
        Ok(())
    }
}
