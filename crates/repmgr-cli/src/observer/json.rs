//! `--output json`: for programs, an object per line on the standard output.
//!
//! Every object has `"v": 1` and `"event"`. That of an event holds its own fields, and `level`,
//! `text`, `detail` and `hint` where the event is told in words. `"event": "progress"` comes
//! about once a second while files are copied. The last object of a run that failed is
//! `"event": "error"` with `kind` and `exit_code`; of several errors each has its own. The last
//! objects of a clone that succeeded are `complete` and `next_steps`, of a dry run
//! `prerequisites_met`; `--replication-conf-only` gives `configuration_written`, in a dry run
//! `configuration_planned`. Fields may be added; a change of their meaning raises `v`.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use repmgr_clone::{Event, Observer, Progress};
use serde::Serialize;
use serde_json::{Map, Value};

use super::lines::log_level;
use crate::failure::Failure;

/// Version of the objects.
const VERSION: u32 = 1;

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

    /// The last objects of a run that failed.
    pub(crate) fn failure(&self, failure: &Failure, exit_code: u8) {
        for told in failure.told() {
            let hint = told.hints.join("\n");
            let mut fields = Map::new();
            fields.insert("kind".to_owned(), failure.kind().into());
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
        let written = serde_json::to_vec(&Line { v: VERSION, ..line })
            .map_err(io::Error::from)
            .and_then(|mut bytes| {
                bytes.push(b'\n');
                out.write_all(&bytes)?;
                out.flush()
            });
        if let Err(error) = written {
            state.out = None;
            log::warn!("cannot write to the standard output, the clone goes on without: {error}");
        }
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
        self.put(Line {
            event: name.as_ref().and_then(Value::as_str).unwrap_or("unknown"),
            level: message.map(|message| log_level(message.level).as_str().to_ascii_lowercase()),
            text: message.map(|message| message.text.as_str()),
            detail: message.and_then(|message| message.detail.as_deref()),
            hint: message.and_then(|message| message.hint.as_deref()),
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

    use repmgr_clone::Method;

    use super::super::samples::progress;
    use super::*;

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
        json.event(Event::VerifyingBackup {
            server: "main".to_owned(),
        });
        json.event(Event::Warning {
            text: "odd".to_owned(),
            detail: Some("very".to_owned()),
            hint: None,
        });
        json.event(Event::ReceivingFileList);
        assert_eq!(
            written(&kept),
            [
                serde_json::json!({"v": 1, "event": "verifying_backup", "server": "main", "level": "info",
                    "text": "connecting to Barman server to verify backup for main"}),
                serde_json::json!({"v": 1, "event": "warning", "level": "warning", "text": "odd", "detail": "very"}),
                serde_json::json!({"v": 1, "event": "receiving_file_list"}),
            ]
        );
        assert!(
            kept.0
                .lock()
                .unwrap()
                .starts_with(b"{\"v\":1,\"event\":\"verifying_backup\"")
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
                serde_json::json!({"v": 1, "event": "error", "level": "error", "text": "no", "hint": "do not",
                "kind": "refused", "exit_code": 1})
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
        json.event(Event::ReceivingFileList);
        json.event(Event::Complete {
            method: Method::Barman,
        });
        assert!(json.0.lock().unwrap().out.is_none());
    }
}
