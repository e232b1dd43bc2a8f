//! `--output json`: for programs, an object per line on the standard output.
//!
//! Every object has `"v": 2` and `"event"`. That of an event holds its own fields, and `level`,
//! `text`, `detail` and `hint` where the event is told in words. `"event": "progress"` comes
//! about once a second while files are copied, `still_erasing` and `still_flushing` while that lasts. `remedies` names what a hint says would help; a warning or notice
//! has a `code`. The last object of a run that failed is
//! `"event": "error"` with `kind`, `code` and `exit_code`; of several errors each has its own. The last
//! objects of a clone that succeeded are `complete` and `next_steps`, of a dry run
//! `prerequisites_met`; `--replication-conf-only` gives `configuration_written`, in a dry run
//! `configuration_planned`. Fields may be added; a change of their meaning raises `v`.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use repmgr_clone::{Event, Hint, Observer, Progress};
use repmgr_config::Diagnostic;
use repmgr_types::text::is_unsafe;
use serde::Serialize;
use serde_json::{Map, Value};

use super::lines::log_level;
use crate::failure::Failure;
use crate::log::Entry;
use crate::remedies;

/// Version of the objects.
const VERSION: u32 = 2;

/// Time between two objects about progress.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes an object for everything that happens.
pub(crate) struct Json(Mutex<State>);

struct State {
    /// `None` once nobody reads any more: a clone is worth more than the report of it.
    out: Option<Box<dyn Write + Send>>,
    /// When progress was told last.
    told: Option<Duration>,
}

#[derive(Default, Serialize)]
struct Line<'a> {
    v: u32,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl Json {
    pub(crate) fn new(out: impl Write + Send + 'static) -> Self {
        Self(Mutex::new(State {
            out: Some(Box::new(out)),
            told: None,
        }))
    }

    /// What is odd about the configuration file.
    pub(crate) fn configuration_warnings(&self, warnings: &[Diagnostic]) {
        for warning in warnings {
            let mut fields = fields_of_place(warning);
            fields.insert("code".to_owned(), "configuration_file".into());
            self.put(Line {
                event: "warning",
                level: Some("warning".to_owned()),
                text: Some(&warning.to_string()),
                hint: warning.hint.as_deref(),
                fields,
                ..Line::default()
            });
        }
    }

    /// What this program tells before it clones.
    pub(crate) fn entry(&self, code: &str, entry: &Entry<'_>) {
        let level = entry.level.as_str().to_ascii_lowercase();
        let hint = entry.hints.join("\n");
        self.put(Line {
            event: &level.clone(),
            level: Some(level),
            text: Some(entry.text),
            detail: entry.detail,
            hint: (!hint.is_empty()).then_some(&hint),
            fields: Map::from_iter([("code".to_owned(), code.into())]),
            ..Line::default()
        });
    }

    /// The last objects of a run that failed.
    pub(crate) fn failure(&self, failure: &Failure, exit_code: u8) {
        self.configuration_warnings(failure.warnings());
        for told in failure.told() {
            let hints: Vec<String> = told.hints.iter().map(remedies::in_words).collect();
            let hint = hints.join("\n");
            let mut fields = told.place.as_ref().map_or_else(Map::new, fields_of_place);
            fields.insert("kind".to_owned(), failure.kind().into());
            fields.insert("code".to_owned(), failure.code().into());
            insert_remedies(&mut fields, &told.hints);
            fields.insert("exit_code".to_owned(), exit_code.into());
            self.put(Line {
                event: "error",
                level: Some("error".to_owned()),
                text: Some(&told.text),
                detail: told.detail.as_deref(),
                hint: (!hint.is_empty()).then_some(&hint),
                fields,
                ..Line::default()
            });
        }
    }

    fn put(&self, line: Line<'_>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(out) = &mut state.out else { return };
        let written = serde_json::to_string(&Line { v: VERSION, ..line })
            .map_err(io::Error::from)
            .and_then(|text| {
                out.write_all(shown(&text).as_bytes())?;
                out.write_all(b"\n")?;
                out.flush()
            });
        if let Err(error) = written {
            state.out = None;
            log::warn!("cannot write to the standard output, the clone goes on without: {error}");
        }
    }
}

/// The same JSON, which does not drive a terminal it is shown on either. Control characters JSON escapes itself;
/// what else is not to be shown can stand in strings only.
fn shown(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match is_unsafe(c) {
            true => {
                let units = &mut [0; 2];
                out.extend(c.encode_utf16(units).iter().map(|unit| format!("\\u{unit:04x}")));
            }
            false => out.push(c),
        }
    }
    out
}

/// Where in the configuration file something stands.
fn fields_of_place(place: &Diagnostic) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("file".to_owned(), place.file.display().to_string().into());
    fields.extend(place.line.map(|line| ("line".to_owned(), line.into())));
    fields.extend(
        place
            .parameter
            .as_ref()
            .map(|name| ("parameter".to_owned(), name.as_str().into())),
    );
    fields
}

/// What would help, by the names that stay.
fn insert_remedies<'h>(fields: &mut Map<String, Value>, hints: impl IntoIterator<Item = &'h Hint>) {
    let names: Vec<Value> = hints
        .into_iter()
        .flat_map(Hint::remedies)
        .map(|remedy| remedy.name().into())
        .collect();
    if !names.is_empty() {
        fields.insert("remedies".to_owned(), names.into());
    }
}

/// The fields of something that serializes to an object.
fn fields(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        // A path that is not UTF-8.
        _ => Map::new(),
    }
}

impl Observer for Json {
    fn event(&self, event: Event) {
        let mut fields = fields(&event);
        let name = fields.remove("event");
        // Some events hold their words themselves.
        for words in ["text", "detail", "hint"] {
            fields.remove(words);
        }
        let message = event.message();
        let message = message.as_ref();
        let hint = message.and_then(|message| message.hint.as_ref());
        insert_remedies(&mut fields, hint);
        let hint = hint.map(remedies::in_words);
        self.put(Line {
            event: name.as_ref().and_then(Value::as_str).unwrap_or("unknown"),
            level: message.map(|message| log_level(message.level).as_str().to_ascii_lowercase()),
            text: message.map(|message| message.text.as_str()),
            detail: message.and_then(|message| message.detail.as_deref()),
            hint: hint.as_deref(),
            fields,
            ..Line::default()
        });
    }

    fn progress(&self, progress: &Progress) {
        {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.told.is_some_and(|told| progress.elapsed < told + INTERVAL) {
                return;
            }
            state.told = Some(progress.elapsed);
        }
        self.put(Line {
            event: "progress",
            fields: fields(progress),
            ..Line::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repmgr_clone::{BackupEvent, CopyEvent, Method, Remark, RemarkCode, Remedy, StandbyEvent};

    use super::super::samples::progress;
    use super::*;

    #[test]
    fn what_turns_text_is_escaped_and_means_the_same() {
        let value = Value::from("x\u{202e}gpj\u{e0041}é");
        let text = shown(&value.to_string());
        assert_eq!(text, "\"x\\u202egpj\\udb40\\udc41é\"");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(kept: &Kept) -> Vec<Value> {
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn events_are_objects_with_their_fields_and_their_words() {
        let kept = Kept::default();
        let json = Json::new(kept.clone());
        json.event(Event::from(BackupEvent::VerifyingBackup {
            server: "main".to_owned(),
        }));
        let hint = Hint::new("try ").remedy(Remedy::Force);
        let odd = Remark::warning(RemarkCode::NotTidied, "odd").detail("very".to_owned());
        json.event(Event::from(odd.hint(hint)));
        json.event(Event::from(CopyEvent::ReceivingFileList));
        assert_eq!(
            written(&kept),
            [
                serde_json::json!({"v": 2, "event": "verifying_backup", "server": "main", "level": "info",
                    "text": "connecting to Barman server to verify backup for main"}),
                serde_json::json!({"v": 2, "event": "warning", "level": "warning", "code": "not_tidied",
                    "text": "odd", "detail": "very", "hint": "try -F/--force", "remedies": ["force"]}),
                serde_json::json!({"v": 2, "event": "receiving_file_list"}),
            ]
        );
        assert!(
            kept.0
                .lock()
                .unwrap()
                .starts_with(b"{\"v\":2,\"event\":\"verifying_backup\"")
        );
    }

    #[test]
    fn progress_is_told_once_a_second() {
        let kept = Kept::default();
        let json = Json::new(kept.clone());
        for tenth in 0..21_u32 {
            let elapsed = Duration::from_millis(100) * tenth;
            json.progress(&Progress {
                elapsed,
                ..progress(0, 250)
            });
        }
        let lines = written(&kept);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["event"], "progress");
        assert_eq!(lines[0]["bytes_done"], 250 << 20);
    }

    #[test]
    fn a_failure_is_the_last_object() {
        let kept = Kept::default();
        let failure = Failure::refused("no", "do not");
        Json::new(kept.clone()).failure(&failure, 1);
        assert_eq!(
            written(&kept),
            [
                serde_json::json!({"v": 2, "event": "error", "level": "error", "text": "no", "hint": "do not",
                "kind": "refused", "code": "refused", "exit_code": 1})
            ]
        );
    }

    #[test]
    fn a_reader_that_goes_away_does_not_end_the_clone() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let json = Json::new(Gone);
        json.event(Event::from(CopyEvent::ReceivingFileList));
        json.event(Event::from(StandbyEvent::Complete {
            method: Method::Barman,
        }));
        assert!(json.0.lock().unwrap().out.is_none());
    }
}
