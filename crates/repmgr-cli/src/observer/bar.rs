//! A progress bar on the terminal.

use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use repmgr_clone::{Event, Observer, Progress};

use super::rate::{Rate, in_words, percent};
use crate::log::Log;

const REDRAWS_PER_SECOND: u8 = 10;
/// So short that the rest mostly fits into 80 columns.
const TEMPLATE: &str = "[{bar:10}] {wide_msg}";
/// ASCII, which every terminal has.
const CHARACTERS: &str = "=> ";

/// Shows how far the copy is, below the lines of the log.
pub(crate) struct Bar {
    log: Log,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rate: Rate,
    bar: Option<ProgressBar>,
}

impl Bar {
    pub(crate) fn new(log: Log) -> Self {
        Self {
            log,
            state: Mutex::default(),
        }
    }

    fn clear(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.bar.take().is_some() {
            self.log.set_bar(None);
        }
    }
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let style = style.progress_chars(CHARACTERS);
    let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND);
    ProgressBar::with_draw_target(Some(100), target).with_style(style)
}

impl Observer for Bar {
    fn event(&self, event: Event) {
        if matches!(event, Event::CopyFinished { .. } | Event::Complete { .. }) {
            self.clear();
        }
    }

    fn progress(&self, progress: &Progress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = state.rate.update(progress);
        let bar = state.bar.get_or_insert_with(|| {
            let bar = new_bar();
            self.log.set_bar(Some(bar.clone()));
            bar
        });
        let percent = percent(progress);
        let message = format!("{percent}%, {}", in_words(progress, rate));
        // Each of them draws: none for nothing.
        if bar.message() != message {
            bar.set_message(message);
        }
        if bar.position() != percent {
            bar.set_position(percent);
        }
    }
}

/// An error ends the copy too.
impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_one() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
